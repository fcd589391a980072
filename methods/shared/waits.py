"""Detection of the host's waits for a GPU by torch's sync debug mode, which warns or raises."""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

_WAIT = "called a synchronizing CUDA operation"
_PROTOTYPE = "Synchronization debug mode is a prototype"
"""Beginnings of torch's warnings; the second is about the mode itself and appears once per process."""


@contextmanager
def sync_debug(mode: Literal["warn", "error"]) -> Iterator[None]:
    """Warn or raise RuntimeError inside the context when the host waits for the GPU, as far as torch detects it."""
    before = torch.cuda.get_sync_debug_mode()
    _set(mode)
    try:
        yield
    finally:
        _set(before)


def _set(mode: str | int) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", _PROTOTYPE)
        torch.cuda.set_sync_debug_mode(mode)


def first_wait(body: Callable[[], None]) -> str | None:
    """Run `body`; returns the line at which the host first waited for the GPU, as `folder/file.py:line`, or None.

    A wait in the backward pass of torch's own functions is attributed to the line that started the pass.
    """
    found: list[str] = []
    with warnings.catch_warnings():
        show_others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *more: Any) -> None:
            if str(message).startswith(_WAIT):
                found.append(_line(filename, lineno))
            else:
                show_others(message, category, filename, lineno, *more)

        warnings.filterwarnings("always", _WAIT)
        warnings.showwarning = show
        with sync_debug("warn"):
            body()
    return found[0] if found else None


def _line(filename: str, lineno: int) -> str:
    """Innermost executing line outside torch and the standard library; the given one if there is none."""
    for frame, number in traceback.walk_stack(None):
        module = str(frame.f_globals.get("__name__"))
        package = module.partition(".")[0]
        if module != __name__ and package != "torch" and package not in sys.stdlib_module_names:
            filename, lineno = frame.f_code.co_filename, number
            break
    return f"{'/'.join(Path(filename).parts[-2:])}:{lineno}"
