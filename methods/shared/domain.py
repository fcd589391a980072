"""Checks that the values of a Config lie where the method is defined."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.types import UserError


def at_least(method: str, config: Any, least: float, *names: str) -> None:
    """Raise UserError for a field, or an entry of a field that is a tuple, below `least` or NaN; None is permitted."""
    for name, value in _values(config, names):
        if not value >= least:
            raise UserError(f"{method}: {name} = {getattr(config, name)} must be at least {least:g}")


def between(method: str, config: Any, low: float, high: float, *names: str) -> None:
    """Raise UserError for a field, or an entry of a field that is a tuple, outside [low, high]; None is permitted."""
    for name, value in _values(config, names):
        if not low <= value <= high:
            raise UserError(f"{method}: {name} = {getattr(config, name)} must lie in [{low:g}, {high:g}]")


def hypernetwork(method: str, config: Any) -> None:
    """Check the sizes of a hypernetwork: `embedding`, `hidden`, `chunk` and, of a chunked one, `chunk_embedding`.

    Without an embedding no input tells the tasks apart, and without that of a chunk all chunks are alike.
    """
    at_least(method, config, 1, "embedding", "hidden")
    at_least(method, config, 0, "chunk")
    if config.chunk:
        at_least(method, config, 1, "chunk_embedding")


def _values(config: Any, names: Iterable[str]) -> Iterable[tuple[str, float]]:
    for name in names:
        value = getattr(config, name)
        for one in value if isinstance(value, tuple) else (value,):
            if one is not None:
                yield name, one
