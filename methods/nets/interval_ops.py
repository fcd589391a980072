"""Sound interval arithmetic, one layer at a time, for interval weights and inputs of any sign.

Sound: for every input in [x.lower, x.upper] and every weight in [weight.lower, weight.upper] the layer's
output lies inside the bounds, up to the float rounding that `rounded=True` adds to them. Exact where the
docstrings say so; gradients flow through all functions, with torch's clamp convention at zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Bilinear = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]
"""(x, weight, bias) -> x * weight + bias for some product that is linear in both."""


class Interval(NamedTuple):
    """Elementwise bounds, two tensors of one shape; `lower is upper` marks a single point."""

    lower: Tensor
    upper: Tensor

    @classmethod
    def point(cls, x: Tensor) -> Interval:
        """The interval that holds `x` alone."""
        return cls(x, x)

    @classmethod
    def around(cls, middle: Tensor, radius: Tensor) -> Interval:
        """[middle - radius, middle + radius]."""
        return cls(middle - radius, middle + radius)

    @property
    def is_point(self) -> bool:
        """Whether both bounds are one and the same tensor (known without looking at the values)."""
        return self.lower is self.upper

    @property
    def width(self) -> Tensor:
        """upper - lower."""
        return self.upper - self.lower

    @property
    def magnitude(self) -> Tensor:
        """The largest absolute value, elementwise."""
        return self.lower.abs() if self.is_point else torch.maximum(self.lower.abs(), self.upper.abs())


def contains(outer: Interval, inner: Interval | Tensor) -> Tensor:
    """Whether `outer` holds `inner` (a tensor of points, or an interval), elementwise, bool."""
    lower, upper = inner if isinstance(inner, Interval) else (inner, inner)
    return (outer.lower <= lower) & (upper <= outer.upper)


def intersect(a: Interval, b: Interval) -> Interval:
    """The common part, elementwise; where it is empty, lower exceeds upper."""
    return Interval(torch.maximum(a.lower, b.lower), torch.minimum(a.upper, b.upper))


def outward(x: Interval, ulps: int = 4) -> Interval:
    """`x` widened by `ulps` units in the last place of the larger bound, and never by nothing.

    Covers the rounding of a short computation; for the rounding of a whole network, which grows with
    its widths, use `rounded=True` of the layers or of `propagate`.
    """
    finfo = torch.finfo(x.lower.dtype)
    slack = x.magnitude * (ulps * finfo.eps) + finfo.tiny
    return Interval(x.lower - slack, x.upper + slack)


def linear(
    x: Interval, weight: Interval, bias: Interval | None = None, *, nonnegative: bool = False, rounded: bool = False
) -> Interval:
    """x (b, i), weight (o, i), bias (o,) -> bounds (b, o) of x @ weight' + bias.

    nonnegative: x.lower >= 0 is known (not looked at); two products a bound instead of four. Exact where
    no input straddles zero, for point inputs and for point weights; sound everywhere.
    rounded: widen by what rounding may have cost, here and in any point evaluation of the layer.
    """
    roundoff = _roundoff(weight.lower.shape[1], weight.lower, "matmul") if rounded else 0.0
    return _layer(F.linear, x, weight, bias, nonnegative, roundoff)


def conv2d(
    x: Interval,
    weight: Interval,
    bias: Interval | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    nonnegative: bool = False,
    rounded: bool = False,
) -> Interval:
    """x (b, c, h, w), weight (o, c / groups, k, k), bias (o,) -> bounds of the convolution; see `linear`."""

    def convolve(a: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        return F.conv2d(a, w, b, stride, padding, dilation, groups)

    terms = math.prod(weight.lower.shape[1:])
    roundoff = _roundoff(terms, weight.lower, "conv") if rounded else 0.0
    return _layer(convolve, x, weight, bias, nonnegative, roundoff)


def _layer(
    product: Bilinear, x: Interval, weight: Interval, bias: Interval | None, nonnegative: bool, roundoff: float
) -> Interval:
    bounds = _bilinear(product, x, weight, bias, nonnegative)
    if not roundoff:
        return bounds
    # Higham (2002), section 3.1: n products summed in any order err by at most n u sum |x| |w|. Once for the
    # evaluation at a point, at most three times for a bound (it is two sums, one with widths of up to 2 |x|), and
    # a little more for computing this very number.
    size = product(x.magnitude, weight.magnitude, None if bias is None else bias.magnitude)
    slack = size * (4.5 * roundoff) + size * (16 * torch.finfo(size.dtype).eps) + torch.finfo(size.dtype).tiny
    return Interval(bounds.lower - slack, bounds.upper + slack)


def _bilinear(product: Bilinear, x: Interval, weight: Interval, bias: Interval | None, nonnegative: bool) -> Interval:
    b_lower, b_upper = (None, None) if bias is None else bias
    if x.is_point and weight.is_point and (bias is None or bias.is_point):
        return Interval.point(product(x.lower, weight.lower, b_lower))
    if x.is_point and nonnegative:
        return Interval(product(x.lower, weight.lower, b_lower), product(x.lower, weight.upper, b_upper))
    if x.is_point:
        positive, negative = _parts(x.lower)
        return Interval(
            product(positive, weight.lower, b_lower) + product(negative, weight.upper, None),
            product(positive, weight.upper, b_upper) + product(negative, weight.lower, None),
        )
    if nonnegative or weight.is_point:
        # x_l W+ + x_u W- = x_l W + (x_u - x_l) W-, and likewise above: half of the clamped copies of W.
        width = x.upper - x.lower
        below = product(width, weight.lower.clamp(max=0), None)
        above = below if weight.is_point else product(width, weight.upper.clamp(max=0), None)
        lower, upper = product(x.lower, weight.lower, b_lower), product(x.upper, weight.upper, b_upper)
        return Interval(lower + below, upper - above)
    (low_pos, low_neg), (up_pos, up_neg) = _parts(weight.lower), _parts(weight.upper)
    (a_pos, a_neg), (z_pos, z_neg) = _parts(x.lower), _parts(x.upper)
    return Interval(
        product(a_pos, low_pos, b_lower)
        + product(z_pos, low_neg, None)
        + product(a_neg, up_pos, None)
        + product(z_neg, up_neg, None),
        product(z_pos, up_pos, b_upper)
        + product(a_pos, up_neg, None)
        + product(z_neg, low_pos, None)
        + product(a_neg, low_neg, None),
    )


def _parts(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.clamp(min=0), x.clamp(max=0)


def _roundoff(terms: int, like: Tensor, operation: str) -> float:
    """Relative rounding error of a sum of `terms` products on the tensor's device, with its reduced precision."""
    error = terms * torch.finfo(like.dtype).eps / 2
    if like.dtype == torch.float32:
        error += _INPUT_ROUNDOFF.get(_precision(like.is_cuda, operation), 0.0)
    return error


_INPUT_ROUNDOFF = {"tf32": 2.0**-9, "bf16": 2.0**-6}
"""Both factors of a product rounded to 10 or 7 bits first (and twice that, for rounding towards zero)."""


def _precision(is_cuda: bool, operation: str) -> str:
    if not is_cuda:
        return getattr(torch.backends.mkldnn, operation).fp32_precision
    backend = torch.backends.cuda if operation == "matmul" else torch.backends.cudnn
    return getattr(backend, operation).fp32_precision


def multiply(a: Interval, b: Interval) -> Interval:
    """Elementwise product with broadcasting; exact for every sign (extremes of the four corners)."""
    if a.is_point and b.is_point:
        return Interval.point(a.lower * b.lower)
    corners = [a.lower * b.lower, a.lower * b.upper, a.upper * b.lower, a.upper * b.upper]
    if a.is_point or b.is_point:
        corners = [corners[0], corners[3]]
    lower, upper = corners[0], corners[0]
    for corner in corners[1:]:
        lower, upper = torch.minimum(lower, corner), torch.maximum(upper, corner)
    return Interval(lower, upper)


def add(a: Interval, b: Interval) -> Interval:
    """Elementwise sum with broadcasting."""
    if a.is_point and b.is_point:
        return Interval.point(a.lower + b.lower)
    return Interval(a.lower + b.lower, a.upper + b.upper)


def negate(x: Interval) -> Interval:
    """-x: the bounds change places."""
    return Interval.point(-x.lower) if x.is_point else Interval(-x.upper, -x.lower)


def batch_norm(
    x: Interval, mean: Tensor, variance: Tensor, weight: Interval | None, bias: Interval | None, eps: float = 1e-5
) -> Interval:
    """x (b, c, ...) whitened with fixed statistics (c,), then scaled and shifted by interval parameters (c,).

    Exact for one layer: whitening is increasing, and the product takes its extremes at the corners.
    """
    shape = (1, -1, *(1,) * (x.lower.dim() - 2))
    scale = torch.rsqrt(variance + eps).reshape(shape)
    shift = mean.reshape(shape)
    white = monotone(lambda value: (value - shift) * scale, x)
    if weight is not None:
        white = multiply(white, reshape(weight, shape))
    return white if bias is None else add(white, reshape(bias, shape))


def monotone(function: Callable[[Tensor], Tensor], x: Interval) -> Interval:
    """The image under an increasing function: ReLU and its kin, pooling, means, every reshaping. Exact."""
    lower = function(x.lower)
    return Interval.point(lower) if x.is_point else Interval(lower, function(x.upper))


def reshape(x: Interval, shape: Sequence[int]) -> Interval:
    """Both bounds in another shape."""
    return monotone(lambda value: value.reshape(tuple(shape)), x)


def relu(x: Interval) -> Interval:
    """max(x, 0)."""
    return monotone(torch.relu, x)


def worst_case(bounds: Interval, y: Tensor) -> Tensor:
    """Logits (b, classes) of the worst network inside: the lower bound at the label y (b,), else the upper."""
    return torch.where(_own(y, bounds), bounds.lower, bounds.upper)


def certified(bounds: Interval, y: Tensor) -> Tensor:
    """Whether the label's lower bound exceeds every other class's upper bound, (b,) bool."""
    mine = _own(y, bounds)
    lower = bounds.lower.gather(1, y[:, None]).squeeze(1)
    return lower > bounds.upper.masked_fill(mine, -math.inf).amax(1)


def _own(y: Tensor, bounds: Interval) -> Tensor:
    """Where a column is the sample's class, bool (b, C); unlike torch's one_hot it waits for nothing."""
    return y[:, None] == torch.arange(bounds.lower.shape[1], device=y.device)
