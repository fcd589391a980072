"""Edits of a user's modules while the process runs, as in a notebook.

The key of a cell follows the files, and Python keeps what it has loaded: without a fresh import, a cell run in this
process would have the key of the new text and the numbers of the old one.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from runners.grid.fingerprint import foreign_files

Stamp = tuple[int, int, int]

_BEGUN = time.time_ns()
_loaded: dict[str, Stamp] = {}
"""Files that were looked at, as they were then."""


def forget_edited(file: Path) -> bool:
    """Forget a foreign file and the foreign modules that it needs, if one was edited since it was loaded.

    The next import runs all of them anew. Returns whether there was anything to forget.
    """
    now = {str(path): _stamp(path) for path in foreign_files(file) if path.suffix == ".py"}
    names = _modules(now)
    edited = any(_is_edited(path, now[path]) for path in names.values())
    _loaded.update(now)
    if edited:
        for name, path in names.items():
            _forget(name, path)
        importlib.invalidate_caches()
    return edited


def _is_edited(path: str, stamp: Stamp) -> bool:
    if path in _loaded:
        return _loaded[path] != stamp
    return stamp[0] > _BEGUN  # loaded by the user, when is unknown


def _modules(files: Iterable[str]) -> dict[str, str]:
    """Loaded modules of these files: name -> file."""
    wanted = {os.path.basename(file): set[str]() for file in files}
    for file in files:
        wanted[os.path.basename(file)].add(file)
    found = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and name != "__main__" and os.path.basename(file) in wanted:
            place = os.path.realpath(file)
            if place in wanted[os.path.basename(file)]:
                found[name] = place
    return found


def _forget(name: str, path: str) -> None:
    module = sys.modules.pop(name)
    package, _, last = name.rpartition(".")
    if getattr(sys.modules.get(package), last, None) is module:  # `from package import module` would find it there
        delattr(sys.modules[package], last)
    # Python takes a compiled file for current if size and second of the source agree.
    with suppress(OSError, NotImplementedError):
        os.unlink(importlib.util.cache_from_source(path))


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino
