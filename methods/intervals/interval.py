"""Elementwise intervals, and their widening against rounding."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from methods.intervals import compiled_rounding


class Interval(NamedTuple):
    """Elementwise bounds, two tensors of one shape; `lower is upper` marks a single point."""

    lower: Tensor
    upper: Tensor

    @classmethod
    def point(cls, x: Tensor) -> Interval:
        """Interval that contains only `x`."""
        return cls(x, x)

    @classmethod
    def around(cls, middle: Tensor, radius: Tensor) -> Interval:
        """Interval [middle - radius, middle + radius]."""
        return cls(middle - radius, middle + radius)

    @property
    def is_point(self) -> bool:
        """True if both bounds are the same tensor object (values are not compared)."""
        return self.lower is self.upper

    @property
    def width(self) -> Tensor:
        """Width: upper - lower."""
        return self.upper - self.lower

    @property
    def magnitude(self) -> Tensor:
        """Largest absolute value, elementwise."""
        return self.lower.abs() if self.is_point else torch.maximum(self.lower.abs(), self.upper.abs())


def contains(outer: Interval, inner: Interval | Tensor) -> Tensor:
    """Check elementwise whether `outer` contains `inner` (a tensor of points, or an interval), bool."""
    lower, upper = inner if isinstance(inner, Interval) else (inner, inner)
    return (outer.lower <= lower) & (upper <= outer.upper)


def intersect(a: Interval, b: Interval) -> Interval:
    """Intersection, elementwise; where it is empty, lower exceeds upper."""
    return Interval(torch.maximum(a.lower, b.lower), torch.minimum(a.upper, b.upper))


def exactly(x: Interval) -> Interval:
    """Convert exactly to float64, in which rounded operations are computed."""
    return Interval.point(x.lower.double()) if x.is_point else Interval(x.lower.double(), x.upper.double())


def widened(x: Interval, slack: Tensor) -> Interval:
    """Widen to [lower - slack, upper + slack]; infinite on a side that overflowed or is undefined."""
    lower, upper = x.lower - slack, x.upper + slack
    return Interval(lower.nan_to_num_(-math.inf, -math.inf, -math.inf), upper.nan_to_num_(math.inf, math.inf, math.inf))


def outward(x: Interval, ulps: int = 4) -> Interval:
    """Widen `x` by `ulps` units in the last place of the larger bound, and never by zero.

    Covers the rounding of a short computation without sums whose terms cancel.
    """
    if compiled_rounding.suits(*x):
        return Interval(*compiled_rounding.outward(*x, ulps))
    finfo = torch.finfo(x.lower.dtype)
    return widened(x, x.magnitude * (ulps * finfo.eps) + finfo.tiny)


def slack(size: Tensor, terms: int, passes: int = 1) -> Tensor:
    """Rounding error bound of a sum of at most `terms` products whose absolute values sum to `passes` times `size`.

    Higham (2002), section 3.1: n products summed in any order err by at most n u sum |x| |w|. Five more roundings: a
    bias, a sum of up to four such products, and the widening itself. The hundredth covers the rounding of `size` and
    terms of higher order; the smallest normal number covers underflow. A convolution in float64 is such a sum, not
    Winograd's or Fourier's: PyTorch's own on a CPU, and cuDNN's implicit matrix products.
    """
    factor, constant = slack_rule(size.dtype, terms, passes)
    return size * factor + constant


def slack_rule(dtype: torch.dtype, terms: int, passes: int = 1) -> tuple[float, float]:
    """Numbers f and c of `slack`, f size + c."""
    finfo = torch.finfo(dtype)
    return 1.01 * passes * (terms + 5) * finfo.eps / 2, 4 * (terms + 5) * finfo.tiny


class Sums(NamedTuple):
    """Bounds lower + below and upper - above, not yet summed up; without `below` and `above`, lower and upper."""

    lower: Tensor
    upper: Tensor
    below: Tensor | None = None
    above: Tensor | None = None

    def interval(self) -> Interval:
        """Bounds, rounded to nearest."""
        if self.below is None or self.above is None:
            return Interval(self.lower, self.upper)
        return Interval(self.lower + self.below, self.upper - self.above)

    def widened(self, size: Tensor, terms: int, passes: int = 1, out: Interval | None = None) -> Interval:
        """Bounds of sums of products, widened by `slack`. out: where to write them, without gradients."""
        given = [part for part in (*self, size) if part is not None]
        if compiled_rounding.suits_samples(*given):
            rule = slack_rule(size.dtype, terms, passes)
            return Interval(*compiled_rounding.widen_sums(*self, size, *rule, out))
        found = widened(self.interval(), slack(size, terms, passes))
        if out is None:
            return found
        out.lower.copy_(found.lower)
        out.upper.copy_(found.upper)
        return out
