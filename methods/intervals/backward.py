"""Linear lower bounds, moved backwards through one operation at a time, for weights in boxes.

A form A . y + c bounds a number from below over all networks of the box, with y a value on the way to the logits. A
step replaces y by the inputs x of its operation: it gives B, d and e >= 0 with A . y >= B . x + d - e for all x in
their bounds and all weights in their boxes; e covers rounding. After Zhang et al. (2018), CROWN, whose weights are
points. The three relaxations, each for a fixed A:

y = W x + b, |W - M| <= R elementwise (M: middle, R: radius), bilinear in W and x. Each weight occurs once, so that

    min over W of A . W x = (A M) . x - (|A| R) . |x|

is exact; |x| is then bounded from above by the chord s x + t over the bounds [l, u] of x: s = 1, t = 0 where l >= 0,
s = -1, t = 0 where u <= 0, else s = (u + l) / (u - l), t = max(-l - s l, u - s u), since |x| is convex. Hence
B = A M - (|A| R) s. After a ReLU x >= 0, and the step loses nothing.

y = max(x, 0) with l < 0 < u: from above the chord u / (u - l) x + t, where A < 0; from below x if u > -l and else 0,
where A > 0. Exact where x has one sign.

Batch norm with fixed statistics: the first, elementwise, of x minus the mean, with weight gamma / sqrt(var + eps).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from methods.intervals import ops
from methods.intervals.arithmetic import Value
from methods.intervals.interval import Interval, exactly, slack, widened


class Pushed(NamedTuple):
    """Coefficients (b, r, *input shape) of the inputs in their order; constants and errors, (b, r)."""

    coefficients: tuple[Tensor, ...]
    constant: Tensor | None = None
    error: Tensor | None = None


class Step(NamedTuple):
    """Operation on the way to the logits, with its values."""

    output: Value
    inputs: tuple[Value, ...]
    push: Callable[[Tensor, Tensor], Pushed]
    """Function (coefficients (b, r, *output shape), samples (b,) int64) -> coefficients of the inputs."""
    products: int = 0
    """Multiplications for a row of coefficients; 0 for operations that cost no more than a copy."""


def part(value: Value, rows: Tensor) -> Interval:
    """Bounds of the samples `rows` (b,) int64, float64."""
    lower, upper = exactly(value.bounds)
    return Interval.point(lower[rows]) if value.bounds.is_point else Interval(lower[rows], upper[rows])


def total(terms: Tensor) -> Tensor:
    """Sum over all dimensions but the first two."""
    return terms.flatten(2).sum(2)


def _above_convex(x: Interval, left: Tensor, right: Tensor, slope: Tensor) -> Tensor:
    """Least t with slope x + t above a convex function of values `left`, `right` at the bounds; |slope| <= 1."""
    t = torch.maximum(left - slope * x.lower, right - slope * x.upper)
    finfo = torch.finfo(t.dtype)
    return t + (x.lower.abs() + x.upper.abs()) * (4 * finfo.eps) + finfo.tiny


def _share(x: Interval, numerator: Tensor) -> Tensor:
    return numerator / x.width.clamp(min=torch.finfo(x.lower.dtype).tiny)


def chord_of_absolute(x: Interval) -> tuple[Tensor, Tensor]:
    """Slope s and offset t >= 0 with |x| <= s x + t within the bounds; equal where x has one sign."""
    slope = _share(x, x.upper + x.lower).clamp(-1, 1)
    slope = torch.where(x.lower >= 0, 1.0, torch.where(x.upper <= 0, -1.0, slope))
    offset = _above_convex(x, -x.lower, x.upper, slope)
    return slope, torch.where((x.lower < 0) & (x.upper > 0), offset, 0.0)


@dataclass(frozen=True)
class Product:
    """Rule of y = W (x - shift) + bias for a product that is linear in W and in x."""

    forward: Callable[[Tensor, Tensor], Tensor]
    """Function (x, W) -> W x."""
    adjoint: Callable[[Tensor, Tensor, tuple[int, ...]], Tensor]
    """Function (a (n, *output shape), W, input shape) -> W' a (n, *input shape)."""
    x: Value
    weight: Interval
    bias: Interval | None = None
    """Bounds that broadcast to the output (b, *output shape)."""
    shift: Tensor | None = None
    """Constants that broadcast to the input."""

    def __call__(self, a: Tensor, rows: Tensor) -> Pushed:
        x = part(self.x, rows)
        if self.shift is not None:
            x = ops.add(x, Interval.point(-self.shift), rounded=True)
        middle, radius = _middle_and_radius(self.weight)
        constant = a.new_zeros(a.shape[:2])
        moved = self._moved(a, middle, x)
        if radius is not None:
            spread, (slope, offset) = self._moved(a.abs(), radius, x), chord_of_absolute(x)
            moved = moved - spread * slope[:, None]
            constant -= total(spread * offset[:, None])
        if self.shift is not None:
            constant -= total(moved * self.shift)
        if self.bias is not None:
            lower, upper = exactly(self.bias)
            constant += total(a.clamp(min=0) * lower + a.clamp(max=0) * upper)
        return Pushed((moved,), constant, self._error(a, x, middle, radius))

    def _moved(self, a: Tensor, weight: Tensor, x: Interval) -> Tensor:
        shape = x.lower.shape[1:]
        return self.adjoint(a.flatten(0, 1), weight, shape).unflatten(0, a.shape[:2])

    def _error(self, a: Tensor, x: Interval, middle: Tensor, radius: Tensor | None) -> Tensor:
        """Rounding error bound in units of |a| (|W| |x| + |b|), which bounds the terms of every sum of the step.

        Six sums at most: two products, the three constants, and the difference of the coefficients. An error of a
        coefficient counts times |x|.
        """
        size = x.magnitude if self.shift is None else x.magnitude + self.shift.abs()
        reached = self.forward(size, middle.abs() if radius is None else middle.abs() + radius)
        if self.bias is not None:
            reached = reached + exactly(self.bias).magnitude
        terms = a[0, 0].numel() + x.lower[0].numel() + 10
        underflow = torch.finfo(a.dtype).tiny * terms * size.flatten(1).sum(1)
        return slack(total(a.abs() * reached[:, None]), terms, passes=6) + underflow[:, None]


def _middle_and_radius(weight: Interval) -> tuple[Tensor, Tensor | None]:
    """Middle and radius in float64, the latter rounded upwards; None for a point."""
    lower, upper = exactly(weight)
    if weight.is_point:
        return lower, None
    middle = lower + (upper - lower) / 2
    finfo = torch.finfo(middle.dtype)
    radius = torch.maximum(upper - middle, middle - lower)
    return middle, radius * (1 + 4 * finfo.eps) + finfo.tiny


@dataclass(frozen=True)
class Relu:
    """Rule of y = max(x, 0)."""

    x: Value

    def __call__(self, a: Tensor, rows: Tensor) -> Pushed:
        x = part(self.x, rows)
        straddles = (x.lower < 0) & (x.upper > 0)
        above = torch.where(straddles, _share(x, x.upper).clamp(0, 1), (x.lower >= 0).double())
        below = torch.where(straddles, x.upper > -x.lower, x.lower >= 0).double()
        offset = torch.where(straddles, _above_convex(x, torch.zeros_like(x.lower), x.upper, above), 0.0)
        plus, minus = a.clamp(min=0), a.clamp(max=0)
        error = slack(total(a.abs() * (x.magnitude + offset)[:, None]), a[0, 0].numel() + 10, passes=3)
        return Pushed((plus * below[:, None] + minus * above[:, None],), total(minus * offset[:, None]), error)


@dataclass(frozen=True)
class Averages:
    """Rule of sums and means with weights >= 0 that do not depend on anything, sample by sample."""

    function: Callable[[Tensor], Tensor]
    x: Value

    def __call__(self, a: Tensor, rows: Tensor) -> Pushed:
        x = part(self.x, rows)
        reached, back, *_ = torch.func.vjp(self.function, x.magnitude)
        moved = torch.stack([back(row)[0] for row in a.unbind(1)], 1)
        terms = a[0, 0].numel() + x.lower[0].numel()
        return Pushed((moved.detach(),), error=slack(total(a.abs() * reached.detach()[:, None]), terms, passes=3))


def reshaped(x: Value) -> Callable[[Tensor, Tensor], Pushed]:
    """Rule of a change of shape that keeps the order of numbers and the samples apart."""
    shape = x.bounds.lower.shape[1:]
    return lambda a, rows: Pushed((a.reshape(*a.shape[:2], *shape),))


def summed(sign: int) -> Callable[[Tensor, Tensor], Pushed]:
    """Rule of x + z, or of x - z."""
    return lambda a, rows: Pushed((a, a if sign > 0 else -a))


def least(a: Tensor, x: Interval) -> tuple[Tensor, Tensor]:
    """Minimum (b, r) of a . x over the bounds of x (b, ...), for a (b, r, ...), and its rounding error bound."""
    a, lower, upper = a.flatten(2), x.lower.flatten(1)[..., None], x.upper.flatten(1)[..., None]
    found = a @ lower if x.is_point else a.clamp(min=0) @ lower + a.clamp(max=0) @ upper
    size = a.abs() @ x.magnitude.flatten(1)[..., None]
    return found.squeeze(2), slack(size.squeeze(2), a.shape[2] + 10, passes=2)


def rounded_down(value: Tensor, error: Tensor) -> Tensor:
    """Lower bound value - error; minus infinity where it is undefined."""
    return widened(Interval.point(value), error).lower


def cost(weight: Interval, places: int = 1) -> int:
    """Multiplications of a product that uses every weight at so many places, for a row."""
    return math.prod(weight.lower.shape) * places * (1 if weight.is_point else 2)
