"""Data sets that are many image files: Tiny ImageNet (its zip, or unpacked) and folders with a folder for each class.

Classes are numbered in the order of their names. Images are stored in turn, the first of every class, then the
second, and so on: the first images of a task, which are set aside for validation, have all its classes in equal shares.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np

from benchmarks.cache import Chunk, Decoding
from benchmarks.files import ARCHIVES, DataError, Location, check_size, verify_file

IMAGES_AT_ONCE = 256
EXTENSIONS = frozenset({".jpeg", ".jpg", ".png", ".bmp", ".webp", ".ppm"})
NAMED_AT_MOST = 3
"""So many files are named in a note."""

Reader = Callable[[str], bytes]
Labelled = list[tuple[str, int]]
"""Paths of images with their labels."""


class TinyImageNet:
    """tiny-imagenet-200: 200 classes of 500 training images; its validation folder is the test set.

    The labels of its official test set were never published.
    """

    name, side = "tiny-imagenet", 64
    classes, train_each, test_each = 200, 500, 50
    root = "tiny-imagenet-200"

    def __init__(self, place: Location) -> None:
        self.place, self.archive = place, ARCHIVES[self.name]
        self.folder = place.folder / self.root

    @property
    def packed(self) -> bool:
        """Whether the zip is read: where there is no unpacked folder."""
        return not self.folder.is_dir()

    def require(self) -> None:
        """Raise DataError unless there is something to read; cheap."""
        if not self.packed:
            return
        if not (self.place.folder / self.archive.path).is_file():
            names = f"{self.archive.path} or {self.root}/ (with train/, val/ and wnids.txt)"
            raise DataError(f"{self.name}: {self.place.folder} lacks {names}; {self.place.advice}")
        check_size(self.name, self.place, self.archive)

    def key(self) -> str:
        """Stands for the content: the archive's published checksum, or a stamp of every file of the folder."""
        return self.archive.md5 if self.packed else stamp(self.folder)

    def decode(self) -> Decoding:
        """Check the source and say how to read it. Raises DataError."""
        if self.packed:
            verify_file(self.name, self.place, self.archive)
            read, names = _zip_reader(self.place.folder / self.archive.path, self.root)
        else:
            read, names = partial(_read, self.folder), _tree(self.folder)
        wnids = sorted(read("wnids.txt").decode().split())
        train = self._train(wnids, names)
        test = self._test(wnids, read("val/val_annotations.txt").decode(), set(names))
        self._check(wnids, train, test)
        return decoding(train, test, read, self.side, tuple(wnids), exact=True)

    def _train(self, wnids: list[str], names: list[str]) -> list[list[str]]:
        found: dict[str, list[str]] = {wnid: [] for wnid in wnids}
        for name in names:
            parts = name.split("/")
            if len(parts) == 4 and parts[0] == "train" and parts[1] in found and _is_image(name):
                found[parts[1]].append(name)
        return [sorted(found[wnid]) for wnid in wnids]

    def _test(self, wnids: list[str], annotations: str, names: set[str]) -> list[list[str]]:
        """From val_annotations.txt: file, class and a box, with tabs between them."""
        found: dict[str, list[str]] = {wnid: [] for wnid in wnids}
        for number, line in enumerate(annotations.splitlines(), 1):
            file, wnid = (*line.split("\t"), "", "")[:2]
            path = f"val/images/{file}"
            if wnid not in found or path not in names:
                raise DataError(f"{self.name}: val_annotations.txt, line {number}: no class {wnid!r} or no file {path}")
            found[wnid].append(path)
        return [found[wnid] for wnid in wnids]

    def _check(self, wnids: list[str], train: list[list[str]], test: list[list[str]]) -> None:
        if len(wnids) != self.classes:
            raise DataError(f"{self.name}: wnids.txt names {len(wnids)} classes, expected {self.classes}")
        for part, files, expected in (("train", train, self.train_each), ("val", test, self.test_each)):
            for wnid, members in zip(wnids, files, strict=True):
                if len(members) != expected:
                    raise DataError(
                        f"{self.name}: class {wnid} has {len(members)} images in {part}, expected {expected}; "
                        "unpack the archive anew"
                    )


@dataclass(frozen=True)
class ImageFolder:
    """DIR/<folder>/train/<class>/<image> and DIR/<folder>/val/... or test/..., any number of classes.

    The shorter side is resized to `side` pixels and the middle is kept; grey images get three equal channels.
    """

    place: Location
    folder: str
    side: int

    @property
    def name(self) -> str:
        return self.folder

    def require(self) -> None:
        """Raise DataError unless both parts have the same classes, with an image each; looks at every name."""
        self._files()

    def key(self) -> str:
        """Stands for the content: a stamp of every file."""
        return f"{self.side} {stamp(self.place.folder / self.folder)}"

    def decode(self) -> Decoding:
        """Say how to read the images. Raises DataError."""
        (classes, train), (_, test) = self._files()
        return decoding(train, test, partial(_read, self.place.folder / self.folder), self.side, classes, exact=False)

    def _files(self) -> tuple[tuple[tuple[str, ...], list[list[str]]], tuple[tuple[str, ...], list[list[str]]]]:
        root = self.place.folder / self.folder
        test = "val" if (root / "val").is_dir() or not (root / "test").is_dir() else "test"
        parts = self._part("train"), self._part(test)
        differ = set(parts[0][0]) ^ set(parts[1][0])
        if differ:
            raise DataError(f"{self.folder}: {root}: train and {test} have not the same classes: {_some(differ)}")
        return parts

    def _part(self, part: str) -> tuple[tuple[str, ...], list[list[str]]]:
        folder = self.place.folder / self.folder / part
        if not folder.is_dir():
            layout = f"{self.folder}/train/CLASS/IMAGE and {self.folder}/val/CLASS/IMAGE"
            raise DataError(f"{self.folder}: there is no folder {folder}; expected {layout} in {self.place.folder}")
        classes = tuple(sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()))
        if not classes:
            raise DataError(f"{self.folder}: {folder} has no folder for a class")
        files = []
        for name in classes:
            members = sorted(f"{part}/{name}/{inner}" for inner in _tree(folder / name) if _is_image(inner))
            if not members:
                raise DataError(f"{self.folder}: class {name!r} has no images: {folder / name} is empty of them")
            files.append(members)
        return classes, files


def decoding(
    train: list[list[str]], test: list[list[str]], read: Reader, side: int, classes: tuple[str, ...], exact: bool
) -> Decoding:
    """How to decode images given class by class; `exact`: another size than side x side is an error."""
    order = {"train": _in_turn(train), "test": _in_turn(test)}
    changed: dict[str, list[str]] = {}
    notes: list[str] = []

    def chunks(part: str) -> Iterator[Chunk]:
        yield from _decoded(order[part], partial(_image, read, side=side, exact=exact, changed=changed))
        notes[:] = [f"{len(names)} images {what}: {_some(names)}" for what, names in sorted(changed.items())]

    counts = {part: len(files) for part, files in order.items()}
    return Decoding((3, side, side), counts, chunks, classes, notes)


def stamp(folder: Path) -> str:
    """SHA-256 over path, size and time of change of every file below a folder; reads no file."""
    return _digest(folder, lambda status: f"{status.st_size}\0{status.st_mtime_ns}")


def listing(folder: Path) -> str:
    """SHA-256 over path and size of every file below a folder, the same for a copy of it; reads no file."""
    return _digest(folder, lambda status: str(status.st_size))


def _digest(folder: Path, of: Callable[[os.stat_result], str]) -> str:
    digest = hashlib.sha256()
    for name in _tree(folder):
        digest.update(f"{name}\0{of((folder / name).stat())}\n".encode())
    return digest.hexdigest()


def _in_turn(files: list[list[str]]) -> Labelled:
    """One file of each class, then the next of each, ..."""
    rows = zip_longest(*([(name, label) for name in members] for label, members in enumerate(files)))
    return [entry for row in rows for entry in row if entry is not None]


def _decoded(files: Labelled, load: Callable[[str], np.ndarray]) -> Iterator[Chunk]:
    with ThreadPoolExecutor() as pool:  # Pillow decodes without the interpreter's lock
        for start in range(0, len(files), IMAGES_AT_ONCE):
            names, labels = zip(*files[start : start + IMAGES_AT_ONCE], strict=True)
            yield np.stack(list(pool.map(load, names))), np.array(labels)


def _image(read: Reader, name: str, *, side: int, exact: bool, changed: dict[str, list[str]]) -> np.ndarray:
    """An image as uint8 (3, side, side); what was done to make it fit is added to `changed`."""
    from PIL import Image, ImageOps

    content = read(name)
    try:
        with Image.open(io.BytesIO(content)) as image:
            grey, size = image.mode in ("L", "LA", "1", "I", "I;16"), image.size
            rgb = image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{name} is no image that can be read: {' '.join(str(error).split())}") from error
    if size != (side, side):
        if exact:
            raise DataError(f"{name} has {size[0]} x {size[1]} pixels, expected {side} x {side}")
        rgb = ImageOps.fit(rgb, (side, side), Image.Resampling.BILINEAR)
        changed.setdefault(f"are not {side} x {side} and were resized and cut", []).append(name)
    if grey:
        changed.setdefault("are grey and got three equal channels", []).append(name)
    return np.asarray(rgb).transpose(2, 0, 1)


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def _tree(folder: Path) -> list[str]:
    """Paths of all files below a folder, relative to it, with slashes, in order."""
    found = []
    for parent, _, files in os.walk(folder):
        below = os.path.relpath(parent, folder)
        prefix = "" if below == "." else below.replace(os.sep, "/") + "/"
        found += [prefix + file for file in files]
    return sorted(found)


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise DataError(f"{folder / name} cannot be read: {error.strerror}") from error


def _zip_reader(path: Path, root: str) -> tuple[Reader, list[str]]:
    """A function that reads members of an archive by their path below its root, and these paths."""
    try:
        archive = ZipFile(path)
    except (OSError, BadZipFile) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    names: Mapping[str, str] = {n.removeprefix(f"{root}/"): n for n in archive.namelist() if not n.endswith("/")}

    def read(name: str) -> bytes:
        try:
            return archive.read(names[name])
        except (KeyError, BadZipFile, OSError) as error:
            raise DataError(f"{path}: {name} cannot be read: {error}") from error

    return read, sorted(names)


def _some(names: set[str] | list[str]) -> str:
    shown = sorted(names)[:NAMED_AT_MOST]
    return ", ".join(shown) + (", ..." if len(names) > NAMED_AT_MOST else "")
