"""Intermediate values of a network and the arithmetic of their bounds: for training, or for certificates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from methods.intervals import ops
from methods.intervals.interval import Interval, exactly


class Value(NamedTuple):
    """Interval of an intermediate value, with a flag for values known to be non-negative."""

    bounds: Interval
    nonnegative: bool = False


class Unbounded(Exception):
    """Missing rule for a bound; the message names the argument."""


@dataclass(frozen=True)
class Arithmetic:
    """Arithmetic of bounds: plain for training, or in float64 and rounded outwards for certificates."""

    rounded: bool
    dtype: torch.dtype
    """Type of the inputs; without outward rounding, literals of the network are converted to it."""

    def lifted(self, x: Any) -> Value:
        """Return a value unchanged, a number or a constant tensor as a point."""
        if isinstance(x, Value):
            return x
        if isinstance(x, Tensor):
            return Value(Interval.point(x))
        number = torch.as_tensor(x, dtype=torch.float64 if self.rounded else self.dtype)
        return Value(Interval.point(number), x >= 0)

    def known(self, bounds: Interval, nonnegative: bool) -> Value:
        """Value of known sign, even if rounding has widened its bounds."""
        if nonnegative and self.rounded and not bounds.is_point:
            bounds = Interval(bounds.lower.clamp(min=0), bounds.upper)
        return Value(bounds, nonnegative)

    def sum(self, a: Any, b: Any) -> Value:
        """Sum a + b."""
        a, b = self.lifted(a), self.lifted(b)
        return self.known(ops.add(a.bounds, b.bounds, rounded=self.rounded), a.nonnegative and b.nonnegative)

    def product(self, a: Any, b: Any) -> Value:
        """Product a * b."""
        a, b = self.lifted(a), self.lifted(b)
        return self.known(ops.multiply(a.bounds, b.bounds, rounded=self.rounded), a.nonnegative and b.nonnegative)

    def exact(self, function: Callable[[Tensor], Tensor], x: Value, nonnegative: bool | None = None) -> Value:
        """Image under an increasing function that only selects and moves numbers; nonnegative None: same sign."""
        # float32 inputs would round the function's own numbers, as the ends of a hardtanh
        bounds = exactly(x.bounds) if self.rounded else x.bounds
        return Value(ops.monotone(function, bounds), x.nonnegative if nonnegative is None else nonnegative)

    def smooth(self, function: Callable[[Tensor], Tensor], x: Value, nonnegative: bool = False) -> Value:
        """Image under an increasing elementwise function."""
        return self.known(ops.smooth(function, x.bounds, rounded=self.rounded), nonnegative)

    def averaged(self, function: Callable[[Tensor], Tensor], x: Value, pooled: int = 0) -> Value:
        """Image under a sum or mean, or under average pooling over the last `pooled` dimensions."""
        return self.known(ops.averaged(function, x.bounds, pooled=pooled, rounded=self.rounded), x.nonnegative)


def require(condition: Any, what: str) -> None:
    """Raise Unbounded unless the condition holds."""
    if not condition:
        raise Unbounded(what)
