"""Data sets that are many image files: Tiny ImageNet (its zip, or unpacked) and folders with a folder for each class.

Classes are numbered in the order of their names. Images are stored in turn, the first of every class, then the
second, and so on: the first images of a task of Tiny ImageNet, which are set aside for validation, have all its classes
in equal shares. Validation images of other folders are drawn, each class in proportion (`benchmarks.held_out`).
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import zip_longest
from pathlib import Path
from unicodedata import normalize
from zipfile import BadZipFile, ZipFile

import numpy as np

from benchmarks import contents, image_tree
from benchmarks.cache import Chunk, Decoding
from benchmarks.door import Overlap
from benchmarks.files import ARCHIVES, DataError, Location, check_size, verify_file
from benchmarks.image_tree import LeftOut
from benchmarks.pictures import Changes, shown, some
from benchmarks.pictures import decode as _image

IMAGES_AT_ONCE = 256
_NOTES_VERSION = 2
"""Counts up when decoding says more than before: entries of the cache hold its notes."""

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
        """Check whether the zip is read, which is so without an unpacked folder."""
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
        """Key of the content: the archive's published checksum, or that of every file of the folder."""
        return self.archive.md5 if self.packed else contents.digest(self.folder, _tree(self.folder))

    def decode(self) -> Decoding:
        """Check the source and say how to read it. Raises DataError."""
        if self.packed:
            verify_file(self.name, self.place, self.archive)
            read, names = _zip_reader(self.place.folder / self.archive.path, self.root)
        else:
            read, names = partial(contents.read, self.folder), _tree(self.folder)
        wnids = sorted(read("wnids.txt").decode().split())
        train = self._train(wnids, names)
        test = self._test(wnids, read("val/val_annotations.txt").decode(), set(names))
        self._check(wnids, train, test)
        return decoding(train, test, read, self.side, tuple(wnids), exact=True, place=self.folder, left=LeftOut())

    def _train(self, wnids: list[str], names: list[str]) -> list[list[str]]:
        found: dict[str, list[str]] = {wnid: [] for wnid in wnids}
        for name in names:
            parts = name.split("/")
            if len(parts) == 4 and parts[0] == "train" and parts[1] in found and image_tree.is_image(name):
                found[parts[1]].append(name)
        return [sorted(found[wnid]) for wnid in wnids]

    def _test(self, wnids: list[str], annotations: str, names: set[str]) -> list[list[str]]:
        """Read val_annotations.txt: file, class and a box, separated by tabs."""
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
class _Files:
    """The images of a folder by part and class, in the order of the classes' names."""

    classes: tuple[str, ...]
    train: list[list[str]]
    test: list[list[str]]
    left: LeftOut


@dataclass(frozen=True)
class ImageFolder:
    """DIR/<folder>/train/<class>/<image> and DIR/<folder>/val/... or test/..., any number of classes.

    The shorter side is resized to `side` pixels and the middle is kept; see `benchmarks.pictures` for what else is
    done, and `benchmarks.image_tree` for what is read. Looks at every name once.
    """

    place: Location
    folder: str
    side: int

    @property
    def name(self) -> str:
        return self.folder

    @property
    def root(self) -> Path:
        return self.place.folder / self.folder

    def require(self) -> None:
        """Raise DataError unless both parts have the same classes, with an image each; reads every name."""
        _ = self._files

    @cached_property
    def content(self) -> str:
        """Digest of the images' paths and contents; of all existing ones if the folder is faulty.

        Raises DataError where one cannot be read.
        """
        try:
            parts = self._files.train, self._files.test
        except DataError:
            parts = ([[name.removeprefix("/") for name in image_tree.images(self.root, "", LeftOut())]],)
        return contents.digest(self.root, (name for part in parts for members in part for name in members))

    def key(self) -> str:
        """Key of the images' content and of the notes on all other files."""
        left = hashlib.sha256("\n".join(self._files.left.sentences()).encode()).hexdigest()
        return f"{self.side} {self.content} {left} {_NOTES_VERSION}"

    def decode(self) -> Decoding:
        """Say how to read the images. Raises DataError."""
        files, read = self._files, partial(contents.read, self.root)
        names = tuple(map(shown, files.classes))
        return decoding(files.train, files.test, read, self.side, names, exact=False, place=self.root, left=files.left)

    @cached_property
    def _files(self) -> _Files:
        test = "val" if (self.root / "val").is_dir() or not (self.root / "test").is_dir() else "test"
        left = LeftOut()
        parts = self._part("train", left), self._part(test, left)
        if (self.root / "train").samefile(self.root / test):
            raise DataError(f"{self.folder}: {self.root / test} is the folder train; give other images to test on")
        differ = set(parts[0]) ^ set(parts[1])
        if differ:
            raise DataError(f"{self.folder}: {self.root}: train and {test} have not the same classes: {some(differ)}")
        for entry in image_tree.entries(self.root):
            if image_tree.is_hidden(entry.name):
                left.hidden.append(entry.name)
            elif not entry.is_dir():
                (left.outside if image_tree.is_image(entry.name) else left.others).append(entry.name)
            elif entry.name not in ("train", test):
                left.parts.append(entry.name)
        classes = tuple(sorted(parts[0]))
        train, found = ([part[name] for name in classes] for part in parts)
        return _Files(classes, train, found, left)

    def _part(self, part: str, left: LeftOut) -> dict[str, list[str]]:
        """Images by class; names are normalised, as macOS may write accents as separate characters."""
        folder = self.root / part
        if not folder.is_dir():
            layout = f"{self.folder}/train/CLASS/IMAGE and {self.folder}/val/CLASS/IMAGE"
            raise DataError(f"{self.folder}: there is no folder {folder}; expected {layout} in {self.place.folder}")
        found: dict[str, list[str]] = {}
        for name in image_tree.classes(folder, part, left):
            before = len(left.others)
            members = image_tree.images(folder / name, f"{part}/{name}", left)
            known = normalize("NFC", name)
            if not members:
                others = f" ({some(left.others[before:])} cannot be read)" if left.others[before:] else ""
                empty = f"{folder / shown(name)} is empty of them{others}"
                raise DataError(f"{self.folder}: class {shown(name)!r} has no images: {empty}")
            if known in found:
                raise DataError(f"{self.folder}: {folder} has two folders that both read {shown(name)!r}; rename one")
            found[known] = members
        if not found:
            raise DataError(f"{self.folder}: {folder} has no folder for a class")
        return found


def decoding(
    train: list[list[str]],
    test: list[list[str]],
    read: Reader,
    side: int,
    classes: tuple[str, ...],
    *,
    exact: bool,
    place: Path,
    left: LeftOut,
) -> Decoding:
    """Decoding of images given class by class; `exact`: another size than side x side is an error.

    place: the folder, or what it is packed into, for messages. left: files that are no part of the data set.
    """
    order = {"train": _in_turn(train), "test": _in_turn(test)}
    changes, overlap = Changes(), Overlap()
    notes: list[str] = []

    load = partial(_image, read, place=place, side=side, exact=exact, changes=changes)

    def chunks(part: str) -> Iterator[Chunk]:
        for images, labels in _decoded(order[part], load):
            overlap.add(part, images, labels)
            yield images, labels
        if part == "test":  # the last one
            notes[:] = [*changes.sentences(), *overlap.sentences(), *left.sentences()]

    counts = {part: len(files) for part, files in order.items()}
    return Decoding((3, side, side), counts, chunks, classes, notes)


def _in_turn(files: list[list[str]]) -> Labelled:
    """One file of each class, then the next of each, ..."""
    rows = zip_longest(*([(name, label) for name in members] for label, members in enumerate(files)))
    return [entry for row in rows for entry in row if entry is not None]


def _decoded(files: Labelled, load: Callable[[str], np.ndarray]) -> Iterator[Chunk]:
    with ThreadPoolExecutor() as pool:  # Pillow decodes without the interpreter's lock
        for start in range(0, len(files), IMAGES_AT_ONCE):
            names, labels = zip(*files[start : start + IMAGES_AT_ONCE], strict=True)
            with warnings.catch_warnings():  # of Pillow, of metadata and of sizes that are looked at here too
                warnings.simplefilter("ignore")
                images = np.stack(list(pool.map(load, names)))
            yield images, np.array(labels)


def _tree(folder: Path) -> list[str]:
    """Paths of all files below a folder, relative to it, with slashes, in order."""
    found = []
    for parent, _, files in os.walk(folder, onerror=_refuse):
        below = os.path.relpath(parent, folder)
        prefix = "" if below == "." else below.replace(os.sep, "/") + "/"
        found += [prefix + file for file in files if not image_tree.is_hidden(file)]
    return sorted(found)


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error


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
