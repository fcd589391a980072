"""Safe use of untrusted names, paths and files: one check of path parts, one way to read. Imports no torch.

Records, suites, archives and lists in data folders may come from anybody. What they name must stay inside the folder
at hand, and only plain files of limited size are read.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path, PureWindowsPath

NAME_BYTES, PATH_BYTES = 200, 1000
"""Limits of file systems (255 and 4096), less room for prefixes and suffixes."""
RECORD_BYTES, TABLE_BYTES, SUITE_BYTES = 16 << 20, 256 << 20, 16 << 20
CHECKPOINT_BYTES = 16 << 30
UNPRINTABLE = r"\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
"""As a set of a regular expression: control characters, ends of lines, turns of the reading direction, surrogates."""
_UNPRINTABLE = re.compile(f"[{UNPRINTABLE}]")


class UnsafePath(ValueError):
    """A rejected name or path; the text says which and why."""


def name(text: object, what: str = "name") -> str:
    """Return `text` if it is fit to be shown as a name. Raises UnsafePath: not text, empty, too long, unprintable."""
    if not isinstance(text, str):
        raise UnsafePath(f"the {what} {str(text)[:80]!r} is no text")
    if not text.strip():
        raise UnsafePath(f"the {what} is empty")
    if unprintable := _UNPRINTABLE.search(text):
        raise UnsafePath(f"the {what} {text[:80]!a} holds the character U+{ord(unprintable[0]):04X}")
    if len(text.encode()) > NAME_BYTES:
        raise UnsafePath(f"the {what} {text[:40]!r}... is longer than {NAME_BYTES} bytes")
    return text


def part(text: object, what: str = "name") -> str:
    """Return `text` if it is fit to be one part of a path on every system. Raises UnsafePath."""
    found = name(text, what)
    if found in (".", "..") or "/" in found or "\\" in found or PureWindowsPath(found).drive:
        raise UnsafePath(f"the {what} {found!r} would leave its folder")
    return found


def below(folder: Path, text: object, what: str = "path") -> Path:
    """`folder` / `text` where the parts of `text`, with slashes between them, stay in the folder. Raises UnsafePath."""
    if not isinstance(text, str) or len(text) > PATH_BYTES:
        raise UnsafePath(f"the {what} {str(text)[:40]!r}... is no path of at most {PATH_BYTES} signs")
    for piece in text.split("/"):
        try:
            part(piece, what)
        except UnsafePath as error:
            raise UnsafePath(f"{error}, in {text[:200]!a}; write a path below {folder}, without ..") from None
    return folder / text


def read_bytes(path: str | Path, at_most: int) -> bytes:
    """The content of a plain file. Raises OSError, also for a pipe, a device, a folder, or beyond `at_most` bytes."""
    # Without O_NONBLOCK opening a pipe blocks until another process writes to it.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(handle, "rb", buffering=0) as file:
        status = os.fstat(handle)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is a pipe or a device, no file", str(path))
        if status.st_size > at_most:
            raise OSError(errno.EFBIG, f"has {status.st_size} bytes, at most {at_most} are read", str(path))
        return file.readall() if status.st_size else b""  # what has no size, as in /proc, may have no end


def read_text(path: str | Path, at_most: int) -> str:
    """The content of a plain file in UTF-8, with or without a byte order mark; `\\r\\n` ends lines too.

    Raises OSError as `read_bytes` does, and UnicodeDecodeError.
    """
    return read_bytes(path, at_most).decode("utf-8-sig").replace("\r\n", "\n")
