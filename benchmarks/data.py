"""The data sets as tensors, held on the device once per process. Importing it imports no torch."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from benchmarks import plugins
from benchmarks.files import DataError, Location, check, files_of, locate, missing, require, verify
from benchmarks.types import derived_seed

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torchvision.datasets import MNIST

__all__ = ["DataError", "DataSet", "check", "load"]

DIGITS_TEST_SHARE = 0.25
SECONDS_TO_WAIT_FOR_A_DOWNLOAD = 1800


@dataclass(frozen=True)
class DataSet:
    """Images (N, channels, height, width), uint8 or float32 in [0, 1]; labels (N,) int64; all on one device.

    tasks: for benchmarks of the kind `given`, the task of each sample, (N,) int64; labels then count within the task.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    train_tasks: Tensor | None = None
    test_tasks: Tensor | None = None
    task_names: tuple[str, ...] = ()

    def to(self, device: torch.device) -> DataSet:
        """The same data on a device."""
        tensors = {key: value.to(device) for key, value in vars(self).items() if hasattr(value, "to")}
        return replace(self, **tensors)


def load(
    dataset: str, data_dir: Path | None = None, device: str | torch.device = "cpu", download: bool = False
) -> DataSet:
    """The data set on the device; a second call with the same arguments gives the same tensors.

    data_dir: a folder laid out as torchvision does (DIR/MNIST/raw/...); None for CONTINUAL_DATA or the
    user's cache folder. download: whether missing files may be fetched, into the cache folder only.
    Raises DataError where files are missing or damaged, or cannot be fetched.
    """
    import torch

    place = locate(data_dir)
    if files_of(dataset):
        if download and not place.named and missing(dataset, place.folder):
            _download(dataset, place)
        require(dataset, place)
    return _load(dataset, place, torch.device(device))


@lru_cache(maxsize=8)
def _load(dataset: str, place: Location, device: torch.device) -> DataSet:
    if plugins.is_reference(dataset):
        return plugins.make(dataset).to(device)
    parts = _digits() if dataset == "digits" else _torchvision(dataset, place)
    return DataSet(dataset, *parts).to(device)


def _torchvision(dataset: str, place: Location) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    verify(dataset, place)
    reader = _reader(dataset)
    train, test = reader(str(place.folder), train=True), reader(str(place.folder), train=False)
    return train.data.unsqueeze(1), train.targets, test.data.unsqueeze(1), test.targets


def _reader(dataset: str) -> type[MNIST]:
    from torchvision import datasets  # here only: the rest of the suite runs without it

    return {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST}[dataset]


def _download(dataset: str, place: Location) -> None:
    """Fetch the data set; where several processes ask at once, one fetches and the others wait."""
    from filelock import FileLock, Timeout

    try:
        place.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(place.folder / f".{dataset}.lock", timeout=SECONDS_TO_WAIT_FOR_A_DOWNLOAD):
            if missing(dataset, place.folder):
                _fetch(dataset, place.folder)
    except (OSError, RuntimeError, EOFError, Timeout) as error:
        expected = ", ".join(file.path for file in files_of(dataset))
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{dataset} could not be fetched into {place.folder} ({reason}); expected there: {expected}; {place.advice}"
        ) from error


def _fetch(dataset: str, folder: Path) -> None:
    """Fetch beside the place where the files belong, and move them there whole: no reader sees half a file."""
    with TemporaryDirectory(prefix=f".{dataset}-", dir=folder) as scratch:
        with redirect_stdout(io.StringIO()):  # torchvision prints there; its progress bar is on stderr
            _reader(dataset)(scratch, train=True, download=True)
        for file in files_of(dataset):
            target = folder / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            (Path(scratch) / file.path).replace(target)


def _digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """scikit-learn's digits, 1797 images of 8 x 8 with 17 grey levels, a quarter of each class for testing.

    The split is the same for every seed.
    """
    import numpy as np
    import torch
    from sklearn.datasets import load_digits

    pixels, targets = (np.asarray(part) for part in load_digits(return_X_y=True))
    images = torch.from_numpy((pixels / 16).astype(np.float32)).view(-1, 1, 8, 8)
    labels = torch.from_numpy(targets.astype(np.int64))
    keys = np.random.PCG64(derived_seed("digits", "test")).random_raw(len(targets))
    test = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(10):
        members = np.flatnonzero(targets == label)
        drawn = members[np.argsort(keys[members], kind="stable")]
        test[drawn[: round(len(members) * DIGITS_TEST_SHARE)]] = True
    return images[~test], labels[~test], images[test], labels[test]
