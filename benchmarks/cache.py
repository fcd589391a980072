"""Cache of decoded images on disk: written once, atomically, and mapped into memory by every process.

An entry is a folder `<data set>-<first digits of the key>` below `decoded/` in the user's cache folder. The key
stands for the content of the source. An entry is written under another name and renamed when it is complete.
Imports no torch until images are opened.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from filelock import FileLock, Timeout

from benchmarks import paths, untrusted
from benchmarks.files import DataError, cache_folder

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
"""Counts up when entries of old must not be read any more."""
PARTS = ("train", "test")
MANIFEST = "manifest.json"
SECONDS_TO_WAIT = 3600
Progress = Callable[[int, int], None]
"""(images decoded, images in all)"""
Chunk = tuple[np.ndarray, np.ndarray]
"""Images uint8 (k, channels, height, width) and labels int64 (k,)."""


@dataclass(frozen=True)
class Decoding:
    """A data set about to be decoded; `chunks(part)` gives its images in order."""

    shape: tuple[int, int, int]
    counts: dict[str, int]
    """Images in each part, train and test."""
    chunks: Callable[[str], Iterator[Chunk]]
    class_names: tuple[str, ...]
    notes: list[str] = field(default_factory=list)
    """Notes for the user on how the images were made to fit; may be filled while decoding."""

    @property
    def n_bytes(self) -> int:
        """Size of the entry on disk."""
        return sum(self.counts.values()) * (int(np.prod(self.shape)) + 8)


@dataclass(frozen=True)
class Entry:
    """Complete cache entry."""

    folder: Path
    manifest: dict[str, Any]

    def part(self, name: str) -> tuple[Tensor, Tensor]:
        """Images uint8 (n, channels, height, width) and labels int64 (n,), mapped: processes share one copy."""
        import torch

        n, shape = self.manifest["counts"][name], self.manifest["shape"]
        images, labels = (str(self.folder / f"{name}-{kind}") for kind in ("images", "labels"))
        pixels = torch.from_file(images, shared=False, size=n * int(np.prod(shape)), dtype=torch.uint8)
        return pixels.view(n, *shape), torch.from_file(labels, shared=False, size=n, dtype=torch.int64)

    def damage(self) -> str | None:
        """Compare every file's content with what was written; return a description of the difference, or None."""
        for name, expected in self.manifest["sha256"].items():
            with (self.folder / name).open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
            if found != expected:
                return f"{self.folder / name} is damaged: expected SHA-256 {expected}, found {found}"
        return None


def folder_of(dataset: str, key: str) -> Path:
    """Folder for the entry of a data set with this key."""
    digest = hashlib.sha256(f"{FORMAT} {key}".encode()).hexdigest()
    return cache_folder() / "decoded" / f"{dataset.replace('/', '-')}-{digest[:16]}"


def find(dataset: str, key: str) -> Entry | None:
    """The entry, if it is complete: every file is there in its full size."""
    folder = folder_of(dataset, key)
    try:
        manifest = untrusted.parse(paths.read_text(folder / MANIFEST, paths.RECORD_BYTES))
        sizes = manifest["sizes"].items()
        whole = all(paths.below(folder, name).stat().st_size == size for name, size in sizes)
        whole = whole and all(paths.below(folder, name) for name in manifest["sha256"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Entry(folder, manifest) if whole and manifest.get("key") == key else None


def obtain(dataset: str, key: str, decode: Callable[[], Decoding], progress: Progress | None = None) -> Entry:
    """The entry, made by `decode` if it is not there; one process makes it, others wait for it.

    Raises DataError if it cannot be written, for example on a full disk.
    """
    entry = find(dataset, key)
    if entry is not None:
        return entry
    folder = folder_of(dataset, key)
    with _writing(dataset, folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock"), timeout=SECONDS_TO_WAIT):
            # Another process may have made the entry while this one waited for the lock.
            entry = find(dataset, key)
            if entry is None:
                _make(dataset, key, decode(), folder, progress or (lambda done, total: None))
    entry = find(dataset, key)
    if entry is None:
        raise DataError(f"{dataset}: {folder} was written and cannot be read back")
    return entry


def remove(dataset: str, key: str) -> None:
    """Delete the entry, if there is one."""
    shutil.rmtree(folder_of(dataset, key), ignore_errors=True)


def _make(dataset: str, key: str, decoding: Decoding, folder: Path, progress: Progress) -> None:
    free = shutil.disk_usage(folder.parent).free
    if free < decoding.n_bytes:
        raise DataError(
            f"{dataset}: its decoded images take {decoding.n_bytes / 1e6:.0f} MB, but {folder.parent} has only "
            f"{free / 1e6:.0f} MB free; make room, or set XDG_CACHE_HOME to a folder on another disk"
        )
    total, done = sum(decoding.counts.values()), 0
    with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as made:
        scratch = Path(made) / folder.name
        scratch.mkdir()
        files = [f"{part}-{kind}" for part in PARTS for kind in ("images", "labels")]
        for part in PARTS:
            with (scratch / f"{part}-images").open("xb") as images, (scratch / f"{part}-labels").open("xb") as labels:
                for pixels, classes in decoding.chunks(part):
                    images.write(np.ascontiguousarray(pixels, dtype=np.uint8).tobytes())
                    labels.write(np.ascontiguousarray(classes, dtype=np.int64).tobytes())
                    done += len(classes)
                    progress(done, total)
                _settle(images)
                _settle(labels)
        manifest = {
            "key": key,
            "dataset": dataset,
            "shape": list(decoding.shape),
            "counts": decoding.counts,
            "classes": list(decoding.class_names),
            "notes": decoding.notes,
            "sizes": {name: (scratch / name).stat().st_size for name in files},
            "sha256": {name: hashlib.sha256((scratch / name).read_bytes()).hexdigest() for name in files},
        }
        (scratch / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # an incomplete one, or find() would have had it
        # The rename is atomic: readers see the whole entry or none.
        scratch.rename(folder)


def _settle(stream: BinaryIO) -> None:
    stream.flush()
    # The data must reach the disk before the rename makes the entry visible.
    os.fsync(stream.fileno())


@contextmanager
def _writing(dataset: str, folder: Path) -> Iterator[None]:
    """Turn errors of the cache folder into a sentence (DataError)."""
    try:
        yield
    except Timeout as error:
        raise DataError(f"{dataset}: another process has been decoding for {SECONDS_TO_WAIT} s: {folder}") from error
    except OSError as error:
        raise DataError(
            f"{dataset}: its decoded images cannot be written to {folder}: {error.strerror or error}; make room there, "
            "or set XDG_CACHE_HOME to a folder that can be written"
        ) from error
