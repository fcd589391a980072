"""Functions and classes that a method may have replaced from outside: of torch, NumPy, Python and this suite."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

_OUTSIDE: tuple[Any, ...] = (
    torch, torch.Tensor, torch.nn, torch.nn.functional, torch.nn.init, torch.nn.utils, torch.optim, torch.autograd,
    torch.random, np, np.random, random,
)  # fmt: skip
_TORCH = str(Path(torch.__file__).parent)
_OWN = ("benchmarks.", "methods.", "runners.")
_MOVING = frozenset({"__abstractmethods__", "_abc_impl"})

Functions = dict[int, tuple[Any, dict[str, Any]]]
"""By the id of a module or class: it, and its functions and classes by name."""


def snapshot() -> Functions:
    """Current objects of all watched names."""
    return {id(place): (place, _callables(place)) for place in _places()}


def put_back(before: Functions) -> list[str]:
    """Undo replacements and return their names. New names are kept."""
    found = []
    for place, functions in before.values():
        now = vars(place)
        for name, function in functions.items():
            if now.get(name) is not function and not _by_torch(now.get(name), function):
                setattr(place, name, function)
                where = f"{place.__module__}.{place.__qualname__}" if isinstance(place, type) else place.__name__
                found.append(f"{where}.{name}")
    return found


def _places() -> Iterator[Any]:
    yield from _OUTSIDE
    for module in (torch.nn, torch.optim):
        yield from _classes(module)
    for name, module in list(sys.modules.items()):
        if name.startswith(_OWN):
            yield module
            yield from (found for found in _classes(module) if found.__module__ == name)


def _classes(module: ModuleType) -> Iterator[type]:
    return (value for value in list(vars(module).values()) if isinstance(value, type))


def _callables(place: Any) -> dict[str, Any]:
    """Functions and classes, without internal names of Python's and torch's classes, such as caches."""
    kept = staticmethod | classmethod | property
    return {
        name: value
        for name, value in list(vars(place).items())
        if (callable(value) or isinstance(value, kept)) and name not in _MOVING
    }


def _by_torch(now: Any, before: Any) -> bool:
    """Check whether torch itself wrapped a function: the first optimiser and the import of its compiler do so."""
    while now is not before:
        code = getattr(now, "__code__", None)
        if code is None or not code.co_filename.startswith(_TORCH):
            return False
        now = getattr(now, "__wrapped__", None)
    return True
