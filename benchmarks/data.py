"""Data sets as tensors; a process holds the latest one on its device. Imports no torch until data is loaded."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from shutil import unpack_archive
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from benchmarks import cache, door, paths, plugins
from benchmarks.files import (
    ARCHIVES,
    FILES,
    DataError,
    Location,
    check_size,
    files_of,
    locate,
    missing,
    present,
    require,
    verify,
)
from benchmarks.folders import ImageFolder, TinyImageNet
from benchmarks.types import UserError, derived_seed

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from benchmarks.plugins import DataSource

__all__ = ["DataError", "DataSet", "check", "load"]

DIGITS_TEST_SHARE = 0.25
SECONDS_TO_WAIT_FOR_A_DOWNLOAD = 1800
TINY_IMAGENET_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
FOLDER_PREFIX = "folder/"


@dataclass(frozen=True)
class DataSet:
    """Images (N, channels, height, width), uint8 or float32 in [0, 1]; labels (N,) int64; all on one device.

    Instead of images there may be series (N, channels, length) or features (N, n), of about [0, 1] or standardised.

    tasks: for benchmarks of the kind `given`, the task of each sample, (N,) int64; labels then count within the task.
    class_names: of each label of other benchmarks, as sentences name it; may be empty.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    train_tasks: Tensor | None = None
    test_tasks: Tensor | None = None
    task_names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] | None = None
    """Notes for the user on the images; None: not checked yet."""
    content: str = ""
    """Digest of a folder's files or of a package's tensors; empty for data sets as published."""

    @cached_property
    def known(self) -> tuple[str, ...]:
        """Notes on data that passed `benchmarks.door`. Raises DataError where something is wrong."""
        if self.notes is None:
            return door.look_through(self)
        door.check_form(self)
        return self.notes

    @cached_property
    def least(self) -> tuple[float, ...]:
        """Minimum of each channel over all training and test images, on the scale of inputs (bytes over 255)."""
        import torch

        parts = [images for images in (self.train_images, self.test_images) if len(images)]
        least = torch.stack([images.transpose(0, 1).flatten(1).amin(1) for images in parts]).amin(0)
        return tuple((least / 255.0 if least.dtype == torch.uint8 else least).tolist())

    def to(self, device: torch.device) -> DataSet:
        """The same data on a device."""
        tensors = {key: value.to(device) for key, value in vars(self).items() if hasattr(value, "to")}
        return replace(self, **tensors)


def load(
    dataset: DataSource,
    data_dir: Path | None = None,
    device: str | torch.device = "cpu",
    download: bool = False,
    progress: cache.Progress | None = None,
) -> DataSet:
    """The data set on the device; the same tensors as the call before, if that asked for the same.

    data_dir: a folder laid out as torchvision does (DIR/MNIST/raw/...); None for CONTINUAL_DATA or the
    user's cache folder. download: permit fetching of missing files, into the cache folder only.
    On the CPU the images of CIFAR, Tiny ImageNet and image folders are mapped from one file for all processes.
    Raises DataError where files are missing or damaged, or cannot be fetched or decoded.
    """
    import torch

    place = locate(data_dir)
    source = source_of(dataset, place)
    if source is not None:
        if download and not place.named and isinstance(dataset, str) and _can_fetch(dataset, place):
            _download(dataset, place)
        source.require()
    key = source.key() if isinstance(source, Decodable) else None
    if key is not None and isinstance(source, Decodable) and isinstance(dataset, str):
        cache.obtain(dataset, key, source.decode, progress)
    content = source.content if isinstance(source, ImageFolder) else ""
    return _load(dataset, place, torch.device(device), key, content)


def check(dataset: DataSource, data_dir: Path | None = None) -> str | None:
    """Reason, in a sentence, why the data set is unusable; None if it is usable (or can be fetched when needed).

    Cheap: checks names and sizes, reads no content and does not access the network.
    """
    place = locate(data_dir)
    source = source_of(dataset, place)
    if source is None or not isinstance(dataset, str) or (not place.named and _can_fetch(dataset, place)):
        return None
    try:
        source.require()
    except DataError as error:
        return str(error)
    return None


class Source(Protocol):
    """Files on disk that a data set is made of."""

    def require(self) -> None:
        """Raise DataError where they are missing or of a wrong size; reads no content."""
        ...


@runtime_checkable
class Decodable(Source, Protocol):
    """A source that is decoded once, into the cache."""

    def key(self) -> str:
        """Key of the content."""
        ...

    def decode(self) -> cache.Decoding:
        """Check the content and say how to decode it. Raises DataError."""
        ...


def source_of(dataset: DataSource, place: Location) -> Source | None:
    """Source of the data set on disk; None for one that a library carries or a package makes.

    `folder/NAME/SIDE` is DIR/NAME/train/CLASS/... Raises UserError for an unknown name.
    """
    if not isinstance(dataset, str) or plugins.is_reference(dataset):
        return None
    if dataset.startswith(FOLDER_PREFIX):
        return _image_folder(dataset, place)
    if dataset == TinyImageNet.name:
        return TinyImageNet(place)
    if not files_of(dataset):
        return None
    return CifarFiles(dataset, place) if dataset in ARCHIVES else RawFiles(dataset, place)


@dataclass(frozen=True)
class RawFiles:
    """Files that torchvision reads, with published checksums."""

    dataset: str
    place: Location

    def require(self) -> None:
        require(self.dataset, self.place)
        for file in present(self.dataset, self.place):
            check_size(self.dataset, self.place, file)


class CifarFiles(RawFiles):
    """CIFAR-10 or -100, unpacked or as its archive."""

    def key(self) -> str:
        """Key from the published checksums, which were verified before the images entered the cache."""
        return " ".join(file.checksum[1] for file in files_of(self.dataset))

    def decode(self) -> cache.Decoding:
        verify(self.dataset, self.place)
        with TemporaryDirectory(prefix="continual-intervals-") as scratch:
            root = self.place.folder
            if present(self.dataset, self.place) == [ARCHIVES[self.dataset]]:
                unpack_archive(root / ARCHIVES[self.dataset].path, scratch, filter="data")
                root = Path(scratch)
                verify(self.dataset, Location(root, named=True))
            parts = {part: _reader(self.dataset)(str(root), train=part == "train") for part in cache.PARTS}

        def chunks(part: str) -> Iterator[cache.Chunk]:
            read = parts[part]
            yield read.data.transpose(0, 3, 1, 2), np.array(read.targets)

        counts = {part: len(read.targets) for part, read in parts.items()}
        return cache.Decoding((3, 32, 32), counts, chunks, tuple(parts["train"].classes))


def _image_folder(dataset: str, place: Location) -> ImageFolder:
    _, *parts = dataset.split("/")
    if len(parts) != 2 or not (parts[1].isascii() and parts[1].isdigit() and int(parts[1])):
        raise UserError(f"data set {dataset!a}: write folder/NAME/SIDE, for example folder/birds/64")
    try:
        return ImageFolder(place, paths.part(parts[0], "folder"), int(parts[1]))
    except paths.UnsafePath as error:
        raise UserError(f"data set {dataset!a}: {error}") from error


def content_of(data: DataSet) -> str:
    """SHA-256 over all images, labels and tasks, with their types and shapes."""
    whole = hashlib.sha256()
    for name in ("train_images", "train_labels", "test_images", "test_labels", "train_tasks", "test_tasks"):
        tensor = getattr(data, name)
        if tensor is not None:
            values = np.ascontiguousarray(tensor.cpu().numpy())
            whole.update(f"{name} {values.dtype} {values.shape}\n".encode())
            whole.update(values.reshape(-1).view(np.uint8).data)
    return whole.hexdigest()


class _Latest:
    """Data set that was loaded last. It makes way before another is loaded, so that no cell is charged with both."""

    def __init__(self, read: Callable[..., DataSet]) -> None:
        self.read = read
        self.kept: tuple[tuple[Any, ...], DataSet] | None = None

    def __call__(self, *wanted: Any) -> DataSet:
        if self.kept is None or self.kept[0] != wanted:
            self.kept = None
            self.kept = wanted, self.read(*wanted)
        return self.kept[1]

    def cache_clear(self) -> None:
        self.kept = None


@_Latest
def _load(dataset: DataSource, place: Location, device: torch.device, key: str | None, content: str) -> DataSet:
    if plugins.is_reference(dataset):
        made = plugins.make(dataset)
        door.refuse_same(made)
        return replace(made, notes=made.known, content=content_of(made)).to(device)
    assert isinstance(dataset, str)
    entry = None if key is None else cache.find(dataset, key)
    if entry is not None:
        parts = (*entry.part("train"), *entry.part("test"))
    else:
        parts = _digits() if dataset == "digits" else _torchvision(dataset, place)
    notes = () if entry is None else tuple(entry.manifest["notes"])
    named = () if entry is None else tuple(entry.manifest["classes"])
    found = DataSet(dataset, *parts, class_names=named, notes=notes, content=content)
    if entry is not None:
        door.refuse_same(found)
    return found.to(device)


def _torchvision(dataset: str, place: Location) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    verify(dataset, place)
    reader = _reader(dataset)
    train, test = reader(str(place.folder), train=True), reader(str(place.folder), train=False)
    return train.data.unsqueeze(1), train.targets, test.data.unsqueeze(1), test.targets


def _reader(dataset: str) -> Any:
    """torchvision's class for the data set."""
    from torchvision import datasets  # here only: the rest of the suite runs without it

    return {
        "mnist": datasets.MNIST,
        "fashion-mnist": datasets.FashionMNIST,
        "cifar-10": datasets.CIFAR10,
        "cifar-100": datasets.CIFAR100,
    }[dataset]


def _can_fetch(dataset: str, place: Location) -> bool:
    """Check whether the data set is missing and can be fetched from where it is published."""
    archive = ARCHIVES.get(dataset)
    if archive is not None and (place.folder / archive.path).is_file():
        return False
    if dataset == TinyImageNet.name:
        return TinyImageNet(place).packed
    return dataset in FILES and bool(missing(dataset, place.folder))


def _download(dataset: str, place: Location) -> None:
    """Fetch the data set; of several concurrent processes one fetches and the others wait."""
    from filelock import FileLock, Timeout

    try:
        place.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(place.folder / f".{dataset}.lock", timeout=SECONDS_TO_WAIT_FOR_A_DOWNLOAD):
            if _can_fetch(dataset, place):
                _fetch(dataset, place.folder)
    except (OSError, RuntimeError, EOFError, Timeout) as error:
        files = FILES.get(dataset) or (ARCHIVES[dataset],)
        expected = ", ".join(file.path for file in files)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{dataset} could not be fetched into {place.folder} ({reason}); expected there: {expected}; {place.advice}"
        ) from error


def _fetch(dataset: str, folder: Path) -> None:
    """Fetch into a neighbouring folder, then move the complete files into place: no reader sees half a file."""
    with TemporaryDirectory(prefix=f".{dataset}-", dir=folder) as scratch:
        with redirect_stdout(io.StringIO()):  # torchvision prints there; its progress bar is on stderr
            if dataset == TinyImageNet.name:
                from torchvision.datasets.utils import download_url

                archive = ARCHIVES[dataset]
                download_url(TINY_IMAGENET_URL, scratch, archive.path, archive.md5)
            else:
                _reader(dataset)(scratch, train=True, download=True)
        for file in FILES.get(dataset) or (ARCHIVES[dataset],):
            target = folder / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            (Path(scratch) / file.path).replace(target)


def _digits_table() -> tuple[np.ndarray, np.ndarray]:
    """Grey levels (1797, 64) and labels (1797,), from the file that scikit-learn ships.

    Importing scikit-learn takes longer than many a cell, because it needs SciPy, and pandas where installed.
    """
    spec = find_spec("sklearn")
    for folder in (spec and spec.submodule_search_locations) or ():
        file = Path(folder, "datasets", "data", "digits.csv.gz")
        if file.is_file():
            table = np.loadtxt(file, delimiter=",")
            return table[:, :-1], table[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits  # where a version keeps the file elsewhere

    pixels, targets = load_digits(return_X_y=True)
    return np.asarray(pixels), np.asarray(targets)


def _digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """scikit-learn's digits, 1797 images of 8 x 8 with 17 grey levels, a quarter of each class for testing.

    The split is the same for every seed.
    """
    import torch

    pixels, targets = _digits_table()
    images = torch.from_numpy((pixels / 16).astype(np.float32)).view(-1, 1, 8, 8)
    labels = torch.from_numpy(targets.astype(np.int64))
    keys = np.random.PCG64(derived_seed("digits", "test")).random_raw(len(targets))
    test = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(10):
        members = np.flatnonzero(targets == label)
        drawn = members[np.argsort(keys[members], kind="stable")]
        test[drawn[: round(len(members) * DIGITS_TEST_SHARE)]] = True
    return images[~test], labels[~test], images[test], labels[test]
