"""Keys of data by content: every change is seen, and what did not change is not read again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import contents
from benchmarks.files import DataError

NAMES = ["a/0", "a/1", "b/0"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three files of three bytes. What changed just now counts as settled: a test waits for nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(contents, "SETTLED", -(10**12))
    for number, name in enumerate(NAMES):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(b"ab%d" % number)
    return tmp_path / "data"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were read."""
    found: list[str] = []
    real = contents.read
    monkeypatch.setattr(contents, "read", lambda folder, name: found.append(name) or real(folder, name))
    return found


def memory(folder: Path) -> Path:
    (found,) = (folder.parent / "cache/continual-intervals/contents").iterdir()
    return found


def test_a_second_look_reads_nothing(folder: Path, reads: list[str]) -> None:
    first = contents.digest(folder, NAMES)
    assert sorted(reads) == NAMES
    assert contents.digest(folder, reversed(NAMES)) == first and len(reads) == 3


def in_place(path: Path) -> None:
    """The same name, size, inode and time of change, as `rsync` and editors of metadata leave them."""
    before = path.stat()
    with path.open("r+b") as stream:
        stream.write(b"zz")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)


def replaced(path: Path) -> None:
    before = path.stat()
    path.with_name("new").write_bytes(b"xyz")
    path.with_name("new").replace(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def exchanged(path: Path) -> None:
    other = path.parent / "1"
    path.rename(path.with_name("aside"))
    other.rename(path)
    path.with_name("aside").rename(other)


@pytest.mark.parametrize("change", [in_place, replaced, exchanged])
def test_a_change_under_the_same_name_and_size_is_seen(change: Callable, folder: Path, reads: list[str]) -> None:
    first = contents.digest(folder, NAMES)
    change(folder / "a/0")
    reads.clear()
    assert contents.digest(folder, NAMES) != first
    assert "b/0" not in reads


def test_a_copy_has_the_same_digest_and_another_name_has_not(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "copy")
    assert contents.digest(folder.parent / "copy", NAMES) == contents.digest(folder, NAMES)
    (folder / "b/0").rename(folder / "b/9")
    assert contents.digest(folder, ["a/0", "a/1", "b/9"]) != contents.digest(folder.parent / "copy", NAMES)


@pytest.mark.parametrize(
    "damage",
    [lambda body: b"", lambda body: body[:-9], lambda body: b"\xff" * 99, lambda body: body.replace(b"a", b"b", 1)],
    ids=["empty", "cut", "no text", "another digest"],
)
def test_a_damaged_memory_is_ignored(damage: Callable[[bytes], bytes], folder: Path, reads: list[str]) -> None:
    first = contents.digest(folder, NAMES)
    path = memory(folder)
    path.write_bytes(damage(path.read_bytes()))
    assert contents.digest(folder, NAMES) == first and len(reads) == 6
    assert contents.digest(folder, NAMES) == first and len(reads) == 6, "it was made anew"


def test_a_memory_that_cannot_be_written_costs_time_only(folder: Path, reads: list[str]) -> None:
    (folder.parent / "cache").write_text("no folder")
    assert contents.digest(folder, NAMES) == contents.digest(folder, NAMES) and len(reads) == 6


def test_what_changed_just_now_is_not_remembered(folder: Path, reads: list[str], monkeypatch) -> None:
    """A second change within one step of the file system's clock would leave no other time behind."""
    monkeypatch.setattr(contents, "SETTLED", 3600 * 10**9)
    contents.digest(folder, NAMES)
    contents.digest(folder, NAMES)
    assert len(reads) == 6


def test_a_file_that_cannot_be_read_is_named(folder: Path, monkeypatch) -> None:
    with pytest.raises(DataError, match=r"data/nowhere cannot be read: No such file"):
        contents.digest(folder, ["nowhere"])
    os.mkfifo(folder / "pipe")
    with pytest.raises(DataError, match=r"data/pipe cannot be read: is a pipe or a device"):
        contents.digest(folder, ["pipe"])
    monkeypatch.setattr(contents, "FILE_BYTES", 2)
    with pytest.raises(DataError, match=r"data/a/0 cannot be read: has 3 bytes, at most 2"):
        contents.digest(folder, NAMES)
