"""Raw files of the data sets: their names, the folders searched, and checks of completeness. Imports no torch."""

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
NO_HOME = (
    "this user has no home folder, and data must be looked for and kept somewhere: set XDG_CACHE_HOME to a folder that "
    f"can be written, or name one with the data sets (--data or {FOLDER_VARIABLE})"
)


class DataError(UserError):
    """Data that is missing or damaged: which file, what was expected, what was found, what to do."""


@dataclass(frozen=True)
class RawFile:
    """One file: its path below the data folder, its size in bytes (where known) and a checksum of its content."""

    path: str
    size: int | None
    sha256: str = ""
    md5: str = ""
    """MD5 sum, where only this one is published."""

    @property
    def checksum(self) -> tuple[str, str]:
        """Name of the algorithm and the hexadecimal digest."""
        return ("SHA-256", self.sha256) if self.sha256 else ("MD5", self.md5)


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
        "cifar-10": tuple(
            RawFile(f"cifar-10-batches-py/{name}", None, md5=digest)
            for name, digest in (
                ("data_batch_1", "c99cafc152244af753f735de768cd75f"),
                ("data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
                ("data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
                ("data_batch_4", "634d18415352ddfa80567beed471001a"),
                ("data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
                ("test_batch", "40351d587109b95175f43aff81a1287e"),
                ("batches.meta", "5ff9c542aee3614f3951f8cda6e48888"),
            )
        ),
        "cifar-100": (
            RawFile(
                "cifar-100-python/train",
                155_249_918,
                "735e79b04f092ca3d2e6d07f368c0a7d70d48c48d28865950cc24454cf45129b",
            ),
            RawFile(
                "cifar-100-python/test",
                31_049_707,
                "4b67687d9933c4db8f0831104447f15b93774f4f464bd0516f0f0f2ac83b7864",
            ),
            RawFile("cifar-100-python/meta", 1_473, "a5d4786345c961390f865e93b434dbd5c6904ce880667e0cb888c97d449f28b9"),
        ),
    }
)
"""Every data set that torchvision reads with its files, laid out as torchvision does."""

ARCHIVES: Mapping[str, RawFile] = MappingProxyType(
    {
        "cifar-10": RawFile("cifar-10-python.tar.gz", 170_498_071, md5="c58f30108f718f92721af3b95e74349a"),
        "cifar-100": RawFile("cifar-100-python.tar.gz", 169_001_437, md5="eb9058c3a382ffc7106e4002c42a8d85"),
        "tiny-imagenet": RawFile("tiny-imagenet-200.zip", 248_100_043, md5="90528d7ca1a48142e341f4ef8d21d0de"),
    }
)
"""Archives as their authors publish them; they are read where the unpacked files are not there."""


@dataclass(frozen=True)
class Location:
    """Folder searched for a data set, and permission to fetch missing files into it."""

    place: Path | None
    """None if no folder is named and the user has no home."""
    named: bool
    """True where the user named the folder: such a folder is read and never written."""

    @property
    def folder(self) -> Path:
        """The folder. Raises DataError where there is none, but only on use: the digits need no folder."""
        if self.place is None:
            raise DataError(NO_HOME)
        return self.place

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
        try:
            return Location(Path(named).expanduser(), named=True)
        except RuntimeError as error:
            raise DataError(f"the data folder {named} names the home of a user who has none") from error
    try:
        return Location(cache_folder(), named=False)
    except DataError:
        return Location(None, named=False)


def cache_folder() -> Path:
    """The user's cache folder of this project, which may not exist yet. Raises DataError for a user without a home."""
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "continual-intervals"
    try:
        return Path.home() / ".cache" / "continual-intervals"
    except RuntimeError as error:  # as in a container whose user has no line in /etc/passwd
        raise DataError(NO_HOME) from error


def files_of(dataset: str) -> tuple[RawFile, ...]:
    """The files of a data set, none for one that a library carries or a package makes.

    Raises UserError for an unknown name.
    """
    if plugins.is_reference(dataset):
        return ()
    if dataset not in FILES:
        known = ", ".join([*FILES, *(name for name in ARCHIVES if name not in FILES)])
        raise UserError(f"unknown data set {dataset!r}; available: {known}, folder/NAME/SIDE")
    return FILES[dataset]


def missing(dataset: str, folder: Path) -> list[RawFile]:
    """The files of the data set that are not in the folder."""
    return [file for file in files_of(dataset) if not (folder / file.path).is_file()]


def present(dataset: str, place: Location) -> list[RawFile]:
    """Files to read: the existing ones, or the archive where unpacked ones are missing."""
    absent = missing(dataset, place.folder)
    archive = ARCHIVES.get(dataset)
    if absent and archive is not None and (place.folder / archive.path).is_file():
        return [archive]
    return [file for file in files_of(dataset) if file not in absent]


def require(dataset: str, place: Location) -> None:
    """Raise DataError, naming every file that is expected, unless all are there, or the archive that holds them."""
    absent, archive = missing(dataset, place.folder), ARCHIVES.get(dataset)
    if not absent or (archive is not None and (place.folder / archive.path).is_file()):
        return
    packed = [file.path + ".gz" for file in absent if (place.folder / (file.path + ".gz")).is_file()]
    found = f" ({', '.join(packed)} must be unpacked with gunzip)" if packed else ""
    also = "" if archive is None else f", or {archive.path} that holds them"
    names = ", ".join(file.path for file in absent)
    raise DataError(f"{dataset}: {place.folder} lacks {names}{also}{found}; {place.advice}")


def verify(dataset: str, place: Location) -> None:
    """Read every file and compare its content with the published one. Raises DataError for the first that differs."""
    for file in present(dataset, place):
        verify_file(dataset, place, file)


def verify_file(dataset: str, place: Location, file: RawFile) -> None:
    """Compare the size and the content of one file with the published ones. Raises DataError."""
    check_size(dataset, place, file)
    path, (algorithm, expected) = place.folder / file.path, file.checksum
    try:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, algorithm.replace("-", "").lower()).hexdigest()
    except OSError as error:
        raise DataError(f"{dataset}: {path} cannot be read: {error.strerror}") from error
    if found != expected:
        raise DataError(f"{dataset}: {path} is corrupt: expected {algorithm} {expected}, found {found}; {_mend(place)}")


def check_size(dataset: str, place: Location, file: RawFile) -> None:
    """Compare the size of one file with the published one. Raises DataError."""
    path = place.folder / file.path
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        raise DataError(f"{dataset}: {path} is corrupt: expected {file.size} bytes, found {size}; {_mend(place)}")


def _mend(place: Location) -> str:
    return "replace it by the original, unpacked" if place.named else "delete it to have it fetched again"
