"""Folder of a cell on disk: locked by one process at a time, written atomically, checked when read."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from benchmarks import paths, untrusted
from benchmarks.permissions import UMASK
from benchmarks.types import UserError
from reports.schema import RECORD
from runners.records.record import BrokenRecord, Measurements, Record, Status

CHECKPOINT, LOCK, TRACEBACK = "checkpoint.pt", ".lock", "traceback.txt"
_PROBE_BYTES = 1 << 16
_LEFTOVER = re.compile(r"\..+\.(pt|json|jsonl|csv|txt|png)\.[a-z0-9_]{8}")
"""Temporary names of `write_atomically`."""


class StorageError(UserError):
    """A folder of records cannot be written: read-only, full, or gone."""


class Store(Protocol):
    """Destination of a running cell's record and checkpoints: its folder, or a proxy of it."""

    path: Path

    def write(self, record: Record, measured: Measurements | None = None) -> None: ...
    def write_checkpoint(self, payload: bytes) -> None: ...
    def has_checkpoint(self) -> bool: ...
    def read_checkpoint(self) -> bytes | None: ...
    def has_shared(self, name: str) -> bool: ...
    def share(self, name: str, content: bytes) -> None: ...


class CellFolder:
    """Reader and writer of one cell's record and checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """Lock the cell; yield False at once if another process holds it. Leftovers of a killed one are removed."""
        with hold(self.path / LOCK) as held:
            if held:
                remove_leftovers(self.path)
            yield held

    def read(self) -> Record | None:
        """The record with its tables checked, or None where there is none. Raises BrokenRecord."""
        place = str(self.path)  # plain strings here: ten thousand records are read when a grid is resumed
        try:
            record = Record.from_json(paths.read_bytes(f"{place}/{RECORD}", paths.RECORD_BYTES).decode())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise BrokenRecord(f"not readable ({error})") from error
        if record.status.finished:
            for name, expected in record.files.items():
                try:
                    found = hashlib.sha256(paths.read_bytes(f"{place}/{name}", paths.TABLE_BYTES)).hexdigest()
                except FileNotFoundError as error:
                    raise BrokenRecord(f"{name} is missing") from error
                except OSError as error:
                    raise BrokenRecord(f"{name} is not readable ({error})") from error
                if found != expected:
                    raise BrokenRecord(f"{name} is truncated or altered")
        return record

    def write(self, record: Record, measured: Measurements | None = None) -> None:
        """Write the record and the tables of what was measured; see `write_files`."""
        self.write_files(record, measured.tables() if measured else {})

    def write_files(self, record: Record, tables: Mapping[str, str], durable: bool = True) -> None:
        """Write a record and its tables; see `write_texts`."""
        self.write_texts(record.to_json(), record.status, record.traceback, tables, durable)

    def write_texts(
        self, text: str, status: Status, trace: str | None, tables: Mapping[str, str], durable: bool = True
    ) -> None:
        """Write the tables, then cell.json with `text`, each under a temporary name and renamed.

        cell.json comes last: a reader who sees `done` sees the tables that belong to it. The
        checkpoint of a finished cell is removed. `trace` is the text of traceback.txt. durable: False for what can be
        written anew if the machine fails; readers notice what is then damaged.
        """
        with storage(self.path):
            for name, table in tables.items():
                write_atomically(self.path / name, table.encode(), durable)
            if trace:
                write_atomically(self.path / TRACEBACK, trace.encode(errors="backslashreplace"), durable=False)
            else:
                # A traceback of an earlier attempt does not belong to this record.
                _remove(self.path / TRACEBACK)
            write_atomically(self.path / RECORD, text.encode(), durable and status is not Status.RUNNING)
            if status.finished:
                _remove(self.path / CHECKPOINT)

    def set_aside(self) -> Path:
        """Move an unusable record out of the way, names ending in `.old`; the folder it now lies in.

        The checkpoint stays: it has a check of its own.
        """
        with storage(self.path):
            aside = next(p for n in range(10**6) if not (p := self.path / f"aside-{n}").exists())
            aside.mkdir()
            for entry in list(self.path.iterdir()):
                if entry.name not in (LOCK, CHECKPOINT) and not entry.name.startswith("aside-"):
                    entry.rename(aside / f"{entry.name}.old")
        return aside

    def usable(self, key: str, say: Callable[[str], None]) -> Record | None:
        """The record, if there is one with this key. An unusable one is set aside, and `say` gets words on it.

        They name the folder within its results folder: a failed cell's record keeps them, and no paths of a machine.
        """
        try:
            record = self.read()
            if record is None or record.key == key:
                return record
            broken = "it belongs to another cell"
        except BrokenRecord as error:
            broken = str(error)
        place = "/".join(self.path.parts[-4:])
        say(f"{place}: unusable record ({broken}); moved to {self.set_aside().name}")
        return None

    def has_shared(self, name: str) -> bool:
        return (self.path.parents[2] / name).exists()

    def share(self, name: str, content: bytes) -> None:
        """Write a file next to the records of the cell's benchmark, atomically. Raises StorageError."""
        share(self.path.parents[2] / name, content)

    def write_checkpoint(self, payload: bytes) -> None:
        """Write `payload` behind a line with its SHA-256."""
        with storage(self.path):
            line = hashlib.sha256(payload).hexdigest().encode() + b"\n"
            write_atomically(self.path / CHECKPOINT, line + payload)

    def has_checkpoint(self) -> bool:
        return (self.path / CHECKPOINT).exists()

    def read_checkpoint(self) -> bytes | None:
        """The payload of the checkpoint; None where there is none or it is damaged."""
        try:
            content = paths.read_bytes(self.path / CHECKPOINT, paths.CHECKPOINT_BYTES)
        except OSError:
            return None
        line, _, payload = content.partition(b"\n")
        return payload if line == hashlib.sha256(payload).hexdigest().encode() else None


@contextmanager
def hold(file: Path, seconds: float = 0.0) -> Iterator[bool]:
    """Hold a lock file, whose folder is made; yield False if another process holds it for so long. StorageError."""
    with storage(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file, timeout=seconds)
        try:
            lock.acquire()
        except Timeout:
            lock = None
    if lock is None:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _make_way(path: Path) -> None:
    """Rename anything but a file, such as a folder, in the place of a file, because it could not be replaced."""
    if path.is_dir() and not path.is_symlink():
        path.rename(next(p for n in range(10**6) if not (p := path.with_name(f"aside-{path.name}-{n}")).exists()))


def _remove(path: Path) -> None:
    _make_way(path)
    path.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes, durable: bool = True) -> None:
    """Write under a temporary name in the same folder, and rename; flush to the disk first if it must be durable."""
    _make_way(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~UMASK)  # mkstemp makes files that only their owner can read
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of writes that a kill cut off; the caller holds the folder. Raises StorageError."""
    with storage(folder), os.scandir(folder) as entries:
        for entry in entries:
            if _LEFTOVER.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                Path(entry.path).unlink(missing_ok=True)


def share(path: Path, content: bytes) -> None:
    """Write a file that several cells share, atomically; its folder is made. Raises StorageError."""
    with storage(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)


def probe(results: Path) -> None:
    """Make the results folder and try to write in it. Raises StorageError with the reason."""
    with storage(results):
        results.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".probe.", dir=results)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(bytes(_PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
        finally:
            Path(name).unlink(missing_ok=True)


def read_status(path: Path) -> tuple[str | None, str | None]:
    """Status and reason in a cell's folder without checking anything else, (None, None) if none."""
    try:
        body = untrusted.parse(paths.read_text(path / RECORD, paths.RECORD_BYTES))
        status, reason = body.get("status"), body.get("reason")
    except (OSError, ValueError, AttributeError):
        return None, None
    return status if isinstance(status, str) else None, reason if isinstance(reason, str) else None


@contextmanager
def storage(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, NotImplementedError) as error:  # the second of a file system that knows no locks
        what = getattr(error, "strerror", None) or str(error)
        raise StorageError(
            f"the folder {path} cannot be written: {what}. "
            "Free space or rights there, or give another folder; nothing recorded so far is lost"
        ) from error
