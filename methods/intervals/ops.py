"""Sound interval arithmetic, one layer at a time, for interval weights and inputs of any sign.

Sound: for every input in [x.lower, x.upper] and every weight in [weight.lower, weight.upper] the layer's output,
computed without rounding, lies inside the bounds, up to the rounding of the bounds themselves. `rounded=True` covers
that too: the bounds are computed in float64 and widened by their largest possible rounding error. Exact where the
docstrings say so. Gradients flow through all functions, with torch's clamp convention at zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.intervals.interval import Interval, exactly, outward, slack, widened
from methods.intervals.products import nonnegative_linear, suits

Bilinear = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]
"""Function (x, weight, bias) -> x * weight + bias for some product that is linear in both."""


def linear(
    x: Interval, weight: Interval, bias: Interval | None = None, *, nonnegative: bool = False, rounded: bool = False
) -> Interval:
    """x (b, i), weight (o, i), bias (o,) -> bounds (b, o) of x @ weight' + bias.

    nonnegative: x.lower >= 0 is known (not checked); two products per bound instead of four. Exact if
    no input straddles zero, for point inputs and for point weights; sound everywhere.
    rounded: in float64, and widened by the largest possible rounding error.
    """
    return _layer(F.linear, x, weight, bias, nonnegative, weight.lower.shape[1] if rounded else None)


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

    terms = math.prod(weight.lower.shape[1:])

    def convolve(a: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        if not rounded or a.is_cuda:
            return F.conv2d(a, w, b, stride, padding, dilation, groups)
        # On a CPU a float64 convolution copies every input once per product that it enters (im2col). With few samples
        # at a time the copies stay in the cache, which is several times faster.
        at_once = max(1, _COPIED // (math.prod(a.shape[2:]) * terms * groups))
        return torch.cat([F.conv2d(part, w, b, stride, padding, dilation, groups) for part in a.split(at_once)])

    return _layer(convolve, x, weight, bias, nonnegative, terms if rounded else None)


_COPIED = 1 << 19
"""Largest count of numbers that a convolution copies at once: 4 MiB."""


def _layer(
    product: Bilinear, x: Interval, weight: Interval, bias: Interval | None, nonnegative: bool, terms: int | None
) -> Interval:
    """Bounds of a product that sums `terms` products; None: no outward rounding."""
    if terms is None:
        return _bilinear(product, x, weight, bias, nonnegative)
    x, weight, bias = exactly(x), exactly(weight), None if bias is None else exactly(bias)
    bounds = _bilinear(product, x, weight, bias, nonnegative)
    size = product(x.magnitude, weight.magnitude, None if bias is None else bias.magnitude)
    return widened(bounds, slack(size, terms, _passes(x, weight, nonnegative)))


def _passes(x: Interval, weight: Interval, nonnegative: bool) -> int:
    """Upper bound, in units of |x| |w|, on the summed absolute products of one bound; see `_bilinear`.

    Where x >= 0, x_l |w| + (x_u - x_l) |w-| <= x_u |w|. With signs the width is at most 2 |x|. Of the four products
    of the general case two are non-zero if both x and w straddle zero, else one.
    """
    if x.is_point or nonnegative:
        return 1
    return 3 if weight.is_point else 2


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
    if nonnegative and product is F.linear and suits(x, weight):
        return nonnegative_linear(x, weight, bias)
    if nonnegative or weight.is_point:
        # x_l W+ + x_u W- = x_l W + (x_u - x_l) W-, likewise above: this needs half as many clamped copies of W.
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


def multiply(a: Interval, b: Interval, *, rounded: bool = False) -> Interval:
    """Elementwise product with broadcasting; exact for every sign (extremes of the four corners)."""
    if rounded:
        return outward(multiply(exactly(a), exactly(b)), 2)
    if a.is_point and b.is_point:
        return Interval.point(a.lower * b.lower)
    corners = [a.lower * b.lower, a.lower * b.upper, a.upper * b.lower, a.upper * b.upper]
    if a.is_point or b.is_point:
        corners = [corners[0], corners[3]]
    lower, upper = corners[0], corners[0]
    for corner in corners[1:]:
        lower, upper = torch.minimum(lower, corner), torch.maximum(upper, corner)
    return Interval(lower, upper)


def add(a: Interval, b: Interval, *, rounded: bool = False) -> Interval:
    """Elementwise sum with broadcasting."""
    if rounded:
        return outward(add(exactly(a), exactly(b)), 2)
    if a.is_point and b.is_point:
        return Interval.point(a.lower + b.lower)
    return Interval(a.lower + b.lower, a.upper + b.upper)


def negate(x: Interval) -> Interval:
    """Negation -x: the bounds swap."""
    return Interval.point(-x.lower) if x.is_point else Interval(-x.upper, -x.lower)


def batch_norm(
    x: Interval,
    mean: Tensor,
    variance: Tensor,
    weight: Interval | None,
    bias: Interval | None,
    eps: float = 1e-5,
    *,
    rounded: bool = False,
) -> Interval:
    """x (b, c, ...) whitened with fixed statistics (c,), then scaled and shifted by interval parameters (c,).

    Exact for one layer: whitening is increasing, and the product takes its extremes at the corners.
    """
    if rounded:
        x, mean, variance = exactly(x), mean.double(), variance.double()
    shape = (1, -1, *(1,) * (x.lower.dim() - 2))
    scale = torch.rsqrt(variance + eps).reshape(shape)
    shift = mean.reshape(shape)
    white = monotone(lambda value: (value - shift) * scale, x)
    white = outward(white, 8) if rounded else white  # widened per step, because product and bias may cancel
    if weight is not None:
        white = multiply(white, reshape(weight, shape), rounded=rounded)
    return white if bias is None else add(white, reshape(bias, shape), rounded=rounded)


def monotone(function: Callable[[Tensor], Tensor], x: Interval) -> Interval:
    """Image under an increasing function: ReLU and similar, pooling, means, every reshaping. Exact except for the
    function's own rounding."""
    lower = function(x.lower)
    return Interval.point(lower) if x.is_point else Interval(lower, function(x.upper))


def smooth(function: Callable[[Tensor], Tensor], x: Interval, *, rounded: bool = False) -> Interval:
    """Image under an elementwise increasing function that errs by a few units in the last place (of 1 near zero)."""
    if not rounded:
        return monotone(function, x)
    image = monotone(function, exactly(x))
    return widened(image, (image.magnitude + 1) * (16 * torch.finfo(image.lower.dtype).eps))


def averaged(function: Callable[[Tensor], Tensor], x: Interval, *, rounded: bool = False) -> Interval:
    """Image under sums and means along dimensions, and average pooling over all dimensions but the first two."""
    if not rounded:
        return monotone(function, x)
    x = exactly(x)
    size = function(x.magnitude)
    terms = max(x.lower.numel() // max(1, size.numel()), math.prod(x.lower.shape[2:]))
    return widened(monotone(function, x), slack(size, terms))


def reshape(x: Interval, shape: Sequence[int]) -> Interval:
    """Reshape both bounds."""
    return monotone(lambda value: value.reshape(tuple(shape)), x)


def relu(x: Interval) -> Interval:
    """Image under max(x, 0)."""
    return monotone(torch.relu, x)


def worst_case(bounds: Interval, y: Tensor) -> Tensor:
    """Worst-case logits (b, classes): the lower bound at the label y (b,), the upper bound elsewhere."""
    return torch.where(_own(y, bounds), bounds.lower, bounds.upper)


def certified(bounds: Interval, y: Tensor) -> Tensor:
    """Check whether the label's lower bound exceeds every other class's upper bound, (b,) bool."""
    mine = _own(y, bounds)
    lower = bounds.lower.gather(1, y[:, None]).squeeze(1)
    return lower > bounds.upper.masked_fill(mine, -math.inf).amax(1)


def _own(y: Tensor, bounds: Interval) -> Tensor:
    """One-hot mask of the sample's class, bool (b, C); unlike torch's one_hot it does not wait for the device."""
    return y[:, None] == torch.arange(bounds.lower.shape[1], device=y.device)
