"""Which files a data set consists of, where they are looked for, and whether they are whole. Imports no torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from benchmarks import plugins
from benchmarks.types import UserError

FOLDER_VARIABLE = "CONTINUAL_DATA"
"""Environment variable with the folder to use where none is named."""


class DataError(UserError):
    """Data that is missing or damaged: which file, what was expected, what was found, what to do."""


@dataclass(frozen=True)
class RawFile:
    """One file: its path below the data folder, its size in bytes and the SHA-256 of its content."""

    path: str
    size: int
    sha256: str


def _idx_files(folder: str, *digests: str) -> tuple[RawFile, ...]:
    sizes = {
        "train-images-idx3-ubyte": 47_040_016,
        "train-labels-idx1-ubyte": 60_008,
        "t10k-images-idx3-ubyte": 7_840_016,
        "t10k-labels-idx1-ubyte": 10_008,
    }
    return tuple(
        RawFile(f"{folder}/raw/{name}", size, digest)
        for (name, size), digest in zip(sizes.items(), digests, strict=True)
    )


FILES: Mapping[str, tuple[RawFile, ...]] = MappingProxyType(
    {
        "digits": (),
        "mnist": _idx_files(
            "MNIST",
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        "fashion-mnist": _idx_files(
            "FashionMNIST",
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    }
)
"""Every data set with its files, laid out as torchvision does."""


@dataclass(frozen=True)
class Location:
    """Where a data set is looked for, and whether what is missing may be fetched into that place."""

    folder: Path
    named: bool
    """True where the user named the folder: such a folder is read and never written."""

    @property
    def advice(self) -> str:
        if self.named:
            return (
                "put the files there (unpacked, laid out as torchvision does), or name no folder to have them fetched"
            )
        return (
            f"run once on a machine with the net, or name a folder that holds the files (--data or {FOLDER_VARIABLE})"
        )


def locate(data_dir: Path | None) -> Location:
    """The named folder, else that of the environment variable CONTINUAL_DATA, else the user's cache folder."""
    named = data_dir or os.environ.get(FOLDER_VARIABLE)
    if named:
        return Location(Path(named).expanduser(), named=True)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Location(Path(cache) / "continual-intervals", named=False)


def files_of(dataset: str) -> tuple[RawFile, ...]:
    """The files of a data set, none for one that a library carries or a package makes.

    Raises UserError for an unknown name.
    """
    if plugins.is_reference(dataset):
        return ()
    if dataset not in FILES:
        raise UserError(f"unknown data set {dataset!r}; available: {', '.join(FILES)}")
    return FILES[dataset]


def missing(dataset: str, folder: Path) -> list[RawFile]:
    """The files of the data set that are not in the folder."""
    return [file for file in files_of(dataset) if not (folder / file.path).is_file()]


def check(dataset: str, data_dir: Path | None = None) -> str | None:
    """Why the data set cannot be used, in a sentence, or None if it can (or can be fetched when needed).

    Cheap: looks at names and sizes, reads nothing and does not ask the net.
    """
    place = locate(data_dir)
    absent = missing(dataset, place.folder)
    try:
        if absent and place.named:
            require(dataset, place)
        for file in files_of(dataset):
            if file not in absent:
                _check_size(dataset, place, file)
    except DataError as error:
        return str(error)
    return None


def require(dataset: str, place: Location) -> None:
    """Raise DataError, naming every file that is expected, unless all are there."""
    absent = missing(dataset, place.folder)
    if not absent:
        return
    packed = [file.path + ".gz" for file in absent if (place.folder / (file.path + ".gz")).is_file()]
    found = f" ({', '.join(packed)} must be unpacked with gunzip)" if packed else ""
    raise DataError(f"{dataset}: {place.folder} lacks {', '.join(file.path for file in absent)}{found}; {place.advice}")


def verify(dataset: str, place: Location) -> None:
    """Read every file and compare its content with the published one. Raises DataError for the first that differs."""
    for file in files_of(dataset):
        _check_size(dataset, place, file)
        path = place.folder / file.path
        try:
            with path.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"{dataset}: {path} cannot be read: {error.strerror}") from error
        if found != file.sha256:
            raise DataError(
                f"{dataset}: {path} is corrupt: expected SHA-256 {file.sha256}, found {found}; {_mend(place)}"
            )


def _check_size(dataset: str, place: Location, file: RawFile) -> None:
    path = place.folder / file.path
    size = path.stat().st_size
    if size != file.size:
        raise DataError(f"{dataset}: {path} is corrupt: expected {file.size} bytes, found {size}; {_mend(place)}")


def _mend(place: Location) -> str:
    return "replace it by the original, unpacked" if place.named else "delete it to have it fetched again"
