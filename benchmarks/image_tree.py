"""Classes and images of a folder, and the files left out. Reads names only; imports no torch.

Read are all kinds of image that torchvision's ImageFolder reads, and more; linked folders are followed, each once in
a class.
Names that begin with a dot, and `__MACOSX`, belong to programs and are left out.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.files import DataError
from benchmarks.pictures import shown, some

EXTENSIONS = frozenset(
    f".{ending}"
    for ending in (
        "avif", "bmp", "dib", "gif", "jfif", "jp2", "jpe", "jpeg", "jpg", "pbm", "pgm", "png", "pnm", "ppm", "tga",
        "tif", "tiff", "webp",
    )
)  # fmt: skip
_PROGRAMS = frozenset({"__MACOSX"})


@dataclass
class LeftOut:
    """Files and folders that are no part of a data set."""

    hidden: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    """Images that lie in no class's folder."""
    again: list[str] = field(default_factory=list)
    """Links to folders that were read already."""
    parts: list[str] = field(default_factory=list)

    def sentences(self) -> list[str]:
        """One sentence for each kind that occurs."""
        found = []
        if self.hidden:
            found.append(f"{len(self.hidden)} hidden names were left out: {some(self.hidden)}")
        if self.others:
            kinds = Counter(_ending(name) or "no ending" for name in self.others)
            counts = ", ".join(f"{count} of {shown(kind)}" for kind, count in sorted(kinds.items()))
            found.append(f"{len(self.others)} files that are no images were left out ({counts}): {some(self.others)}")
        if self.outside:
            found.append(f"{len(self.outside)} images in no folder of a class were left out: {some(self.outside)}")
        if self.again:
            found.append(f"{len(self.again)} links to folders that were read already: {some(self.again)}")
        if self.parts:
            found.append(f"the folders {', '.join(map(shown, self.parts))} were left out, only two parts are used")
        return found


def is_image(name: str) -> bool:
    """Check by its name whether a file is read as an image."""
    return _ending(name) in EXTENSIONS


def is_hidden(name: str) -> bool:
    """Check whether a file or folder of this name belongs to a program and not to the data."""
    return name.startswith(".") or name in _PROGRAMS


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """Entries of a folder, sorted by name. Raises DataError."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{shown(str(folder))} cannot be read: {error.strerror}") from error


def classes(part: Path, prefix: str, left: LeftOut) -> list[str]:
    """Names of the folders of classes in a part of a data set, `prefix` before each in notes. Raises DataError."""
    found = []
    for entry in entries(part):
        name = f"{prefix}/{entry.name}"
        if is_hidden(entry.name):
            left.hidden.append(name)
        elif _is_folder(entry):
            found.append(entry.name)
        else:
            (left.outside if is_image(entry.name) else left.others).append(name)
    return found


def images(folder: Path, prefix: str, left: LeftOut) -> list[str]:
    """Paths of all images below a folder, with `prefix` before each, in order. Raises DataError."""
    found = []
    for name in _files(folder, prefix, left, set()):
        if is_image(name):
            found.append(name)
        else:
            left.others.append(name)
    return sorted(found)


def _files(folder: Path, prefix: str, left: LeftOut, seen: set[tuple[int, int]]) -> Iterator[str]:
    """Files below a folder; `seen` are the folders that were entered, which ends links to a folder above."""
    try:
        status = folder.stat()
    except OSError as error:
        raise DataError(f"{shown(str(folder))} cannot be read: {error.strerror}") from error
    if (status.st_dev, status.st_ino) in seen:
        left.again.append(prefix)
        return
    seen.add((status.st_dev, status.st_ino))
    for entry in entries(folder):
        name = f"{prefix}/{entry.name}"
        if is_hidden(entry.name):
            left.hidden.append(name)
        elif _is_folder(entry):
            yield from _files(folder / entry.name, name, left, seen)
        else:
            yield name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:  # a link that leads in a circle
        raise DataError(f"{shown(entry.path)} cannot be read: {error.strerror}") from error


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()
