"""Content digests of files, cached between runs, so that only files that may have changed are read again.

A cached digest is valid as long as the file's size, times of change, inode and path are the same. The cache
lies in the user's cache folder; a damaged, foreign or missing cache only costs time. Imports no torch.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import paths
from benchmarks.files import DataError, cache_folder
from benchmarks.pictures import shown

MEMORY_BYTES = 1 << 30
FILE_BYTES = 1 << 30
"""Larger files are no images."""
SETTLED = 2_000_000_000
"""Nanoseconds after a change in which another one may leave the same time behind: file systems count in such steps."""
_FORMAT = "contents 1"


def digest(folder: Path, names: Iterable[str]) -> str:
    """SHA-256 over paths and contents of files below a folder; it does not depend on where the folder lies.

    Raises DataError for a file that cannot be read.
    """
    names = sorted(names)
    memory = _Memory(folder)
    unknown = [name for name in names if not memory.knows(name)]
    with ThreadPoolExecutor() as pool:
        for name, content in zip(unknown, pool.map(partial(_of_file, folder), unknown), strict=True):
            memory.learn(name, content)
    memory.keep()
    whole = hashlib.sha256()
    for name in names:
        whole.update(_bytes(name) + b"\0" + memory.contents[name].encode() + b"\n")
    return whole.hexdigest()


def read(folder: Path, name: str) -> bytes:
    """The content of a file below a folder. Raises DataError, also for a pipe or a device, which may never end."""
    try:
        return paths.read_bytes(folder / name, FILE_BYTES)
    except OSError as error:
        raise DataError(f"{shown(str(folder / name))} cannot be read: {error.strerror}") from error


def _of_file(folder: Path, name: str) -> str:
    return hashlib.sha256(read(folder, name)).hexdigest()


class _Memory:
    """Cached digests of the files of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = os.path.abspath(folder)
        self.old = _remembered(self.folder)
        self.contents: dict[str, str] = {}
        self.states: dict[str, str] = {}
        """Size, times of change and inode of each file, before it was read."""
        self.lasting: set[str] = set()

    def knows(self, name: str) -> bool:
        """Check whether the file's current content has a cached digest. Raises DataError where there is no file."""
        path = f"{self.folder}/{name}"
        try:
            status = os.stat(path)
        except OSError as error:
            raise DataError(f"{shown(path)} cannot be read: {error.strerror}") from error
        state = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino} "
        self.states[name] = state
        if max(status.st_mtime_ns, status.st_ctime_ns) < time.time_ns() - SETTLED:
            self.lasting.add(name)
        known = self.old.get(_line(name), "")
        if known.startswith(state):
            self.contents[name] = known[len(state) :]
            return True
        return False

    def learn(self, name: str, content: str) -> None:
        """Remember the digest of a file's content."""
        self.contents[name] = content

    def keep(self) -> None:
        """Save the digests that are valid for the next run, unless nothing has changed."""
        kept = {_line(name): self.states[name] + self.contents[name] for name in self.lasting}
        if kept == self.old:
            return
        body = "".join(f"{key} {value}\n" for key, value in sorted(kept.items()))
        try:
            place = _place(self.folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=place.parent) as scratch:
                made = Path(scratch) / place.name
                made.write_text(f"{_seal(body)}\n{body}", encoding="ascii")
                made.replace(place)
        except (OSError, DataError):  # no room, no home: the files are read again next time
            return


def _remembered(folder: str) -> dict[str, str]:
    try:
        seal, _, body = paths.read_text(_place(folder), MEMORY_BYTES).partition("\n")
        lines = dict(line.split(" ", 1) for line in body.splitlines()) if seal == _seal(body) else {}
    except (OSError, ValueError, DataError):
        return {}
    return lines


def _seal(body: str) -> str:
    return f"{_FORMAT} {hashlib.sha256(body.encode()).hexdigest()}"


def _place(folder: str) -> Path:
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]
    return cache_folder() / "contents" / name


def _line(name: str) -> str:
    """Fixed-width key of a path in the cache."""
    return hashlib.sha256(_bytes(name)).hexdigest()[:32]


def _bytes(name: str) -> bytes:
    """Bytes of a path as the file system stores it: names need not be text."""
    return name.encode("utf-8", "surrogateescape")
