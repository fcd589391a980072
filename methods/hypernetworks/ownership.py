"""Who may have written a file: what others can write is not run."""

from __future__ import annotations

import os
import stat
from pathlib import Path

WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def distrusted(file: Path) -> str | None:
    """Why a file may be somebody else's, or None: a plain file of the user or the administrator, which no other writes.

    It says nothing of the folder. Raises OSError where there is no file. A system without owners distrusts nothing.
    """
    if not hasattr(os, "getuid"):
        return None
    status = file.lstat()
    return _doubt(file, status) if stat.S_ISREG(status.st_mode) else f"{file} is no plain file"


def distrusted_folder(folder: Path, root: Path) -> str | None:
    """As `distrusted`, of a folder and those above it up to `root`, where links lead to."""
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
