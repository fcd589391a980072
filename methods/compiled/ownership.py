"""Ownership of files: code that others can write is not run."""

from __future__ import annotations

import os
import stat
from pathlib import Path

WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def distrusted(file: Path) -> str | None:
    """Reason to distrust a file, or None for a plain file that only the user or the administrator can write.

    The folder is not checked. Raises OSError for a missing file. Always None on a system without owners.
    """
    if not hasattr(os, "getuid"):
        return None
    status = file.lstat()
    return _doubt(file, status) if stat.S_ISREG(status.st_mode) else f"{file} is no plain file"


def distrusted_folder(folder: Path, root: Path) -> str | None:
    """Same as `distrusted` for a folder and its parents up to `root`, with links resolved."""
    if not hasattr(os, "getuid"):
        return None
    folder, root = folder.resolve(), root.resolve()
    above = [folder, *folder.parents]
    chain = above[: above.index(root) + 1] if root in above else [folder, root]  # the link led out of `root`
    return next(filter(None, (_doubt(place, place.stat()) for place in chain)), None)


def _doubt(place: Path, status: os.stat_result) -> str | None:
    if status.st_uid not in (os.getuid(), 0):
        return f"{place} belongs to another user ({status.st_uid})"
    if status.st_mode & WRITABLE_BY_OTHERS:
        return f"{place} can be written by others (mode {stat.S_IMODE(status.st_mode):o})"
    return None
