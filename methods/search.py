"""Search spaces of `runners/tune.py` for a method's hyperparameters. Affects no number of a cell."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from benchmarks.types import UserError


@dataclass(frozen=True)
class Log:
    """Log-uniform distribution between `low` and `high`, both positive."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (_finite(self.low, self.high) and 0 < self.low < self.high):
            raise UserError(f"Log({self.low!r}, {self.high!r}): write finite numbers 0 < low < high")


@dataclass(frozen=True)
class Even:
    """Uniform distribution between `low` and `high`."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (_finite(self.low, self.high) and self.low < self.high):
            raise UserError(f"Even({self.low!r}, {self.high!r}): write finite numbers low < high")


@dataclass(frozen=True)
class OneOf:
    """Choice among values: texts, numbers, None, or tuples of them."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.values, tuple | list) or len(distinct(self.values)) < 2:
            raise UserError(f"OneOf({self.values!r}): name at least two different values, in a tuple")


def _finite(*ends: object) -> bool:
    return all(isinstance(end, int | float) and abs(end) <= sys.float_info.max for end in ends)


def distinct(values: Sequence[Any]) -> list[Any]:
    """The values without repeats, in order; lists among them, which cannot be hashed, too."""
    return [value for place, value in enumerate(values) if value not in values[:place]]


Range = Log | Even | OneOf
LEARNING_RATE = Log(1e-4, 1e-1)
"""Range of Adam's learning rate, the same for all methods."""


def ranges(inherited: Mapping[str, Range] | None = None, /, **own: Range) -> Mapping[str, Range]:
    """Ranges for the `search` of a Config, one per field to be searched, e.g. ranges(beta=Log(1e-4, 1))."""
    return MappingProxyType({**(inherited or {}), **own})


def space(method: str, config_class: type) -> dict[str, Range]:
    """Search space of a Config: the ranges declared as `search`, by default that of its learning rate `lr`, if any.

    Raises UserError for a range of a field that does not exist, and if there is nothing to search.
    """
    names = {item.name for item in dataclasses.fields(config_class)}
    declared: Mapping[str, Range] | None = getattr(config_class, "search", None)
    if declared is None:
        declared = {"lr": LEARNING_RATE} if "lr" in names else {}
    for name in declared:
        if name not in names:
            raise UserError(f"{method}: search names {name!r}, which is no field of its Config")
    if not declared:
        raise UserError(f"{method}: nothing to search; declare `search` in its Config (see methods/search.py)")
    return dict(declared)
