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

from methods.intervals import compiled_rounding
from methods.intervals.blocks import elementwise, filled, in_blocks
from methods.intervals.interval import Interval, Sums, exactly, outward, widened
from methods.intervals.products import nonnegative_linear, suits

Product = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]
"""Function (x, weight, bias) -> x * weight + bias for some product that is linear in both."""
Factors = tuple[Tensor, "Tensor | None"]
"""Weight and bias of a product."""
Joint = Callable[..., Callable[[Tensor], Sequence[Tensor]]]
"""Function (*factors) -> function x -> products of x with each of them."""


def linear(
    x: Interval, weight: Interval, bias: Interval | None = None, *, nonnegative: bool = False, rounded: bool = False
) -> Interval:
    """x (b, i), weight (o, i), bias (o,) -> bounds (b, o) of x @ weight' + bias.

    nonnegative: x.lower >= 0 is known (not checked); two products per bound instead of four. Exact if
    no input straddles zero, for point inputs and for point weights; sound everywhere.
    rounded: in float64, and widened by the largest possible rounding error.
    """
    joint = _one_by_one(F.linear)
    if rounded:
        return _rounded(joint, x.is_point, weight, bias, nonnegative, weight.lower.shape[1])(x)
    if nonnegative and suits(x, weight):
        return nonnegative_linear(x, weight, bias)
    return _bilinear(joint, x.is_point, weight, bias, nonnegative)(x)[0].interval()


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

    def convolve(a: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        return F.conv2d(a, w, b, stride, padding, dilation, groups)

    if not rounded:
        return _bilinear(_one_by_one(convolve), x.is_point, weight, bias, nonnegative)(x)[0].interval()
    terms = math.prod(weight.lower.shape[1:])
    small = groups == 1 and len(weight.lower) <= _STACKED and terms <= 9 * _STACKED
    joint = _stacked(convolve) if small else _one_by_one(convolve)
    bounds = _rounded(joint, x.is_point, weight, bias, nonnegative, terms)
    # On a CPU a float64 convolution copies an input once for each weight of a filter (im2col). With few samples at a
    # time the copies, and the products, stay in the cache, which is several times faster.
    at_once = max(1, _COPIED // (math.prod(x.lower.shape[2:]) * terms * groups))
    learns = torch.is_grad_enabled() and any(
        part.requires_grad for side in (x, weight, bias) if side is not None for part in side
    )
    return in_blocks(bounds, at_once, x) if learns else filled(bounds, at_once, x)


_COPIED = 1 << 19
"""Largest count of numbers that a convolution copies at once: 4 MiB."""
_STACKED = 64
"""Largest number of maps of a convolution whose products are computed together. With more, the copies cost little
next to the products, and libraries of matrix products may sum in another order for more outputs."""


def _one_by_one(product: Product) -> Joint:
    return lambda *factors: lambda x: [product(x, weight, bias) for weight, bias in factors]


def _stacked(product: Product) -> Joint:
    """Products as one whose outputs, the second dimension, are those of all: an input is copied once."""

    def joint(*factors: Factors) -> Callable[[Tensor], Sequence[Tensor]]:
        if len(factors) < 2:
            return _one_by_one(product)(*factors)
        weight, bias = torch.cat([w for w, _ in factors]), None
        if any(b is not None for _, b in factors):
            bias = torch.cat([w.new_zeros(len(w)) if b is None else b for w, b in factors])
        return lambda x: product(x, weight, bias).split(len(weight) // len(factors), 1)

    return joint


def _rounded(
    joint: Joint, point: bool, weight: Interval, bias: Interval | None, nonnegative: bool, terms: int
) -> Callable[..., Interval]:
    """Function of x that bounds a product which sums `terms` products, in float64, widened by its rounding.

    Its second argument, if given, is where to write them.
    """
    weight, bias = exactly(weight), None if bias is None else exactly(bias)
    size = weight.magnitude, None if bias is None else bias.magnitude
    bounds = _bilinear(joint, point, weight, bias, nonnegative, size)

    def widest(x: Interval, out: Interval | None = None) -> Interval:
        x = exactly(x)
        found, (sum_of_sizes,) = bounds(x)
        return found.widened(sum_of_sizes, terms, _passes(x, weight, nonnegative), out)

    return widest


def _passes(x: Interval, weight: Interval, nonnegative: bool) -> int:
    """Upper bound, in units of |x| |w|, on the summed absolute products of one bound; see `_bilinear`.

    Where x >= 0, x_l |w| + (x_u - x_l) |w-| <= x_u |w|. With signs the width is at most 2 |x|. Of the four products
    of the general case two are non-zero if both x and w straddle zero, else one.
    """
    if x.is_point or nonnegative:
        return 1
    return 3 if weight.is_point else 2


def _bilinear(
    joint: Joint, point: bool, weight: Interval, bias: Interval | None, nonnegative: bool, size: Factors | None = None
) -> Callable[[Interval], tuple[Sums, Sequence[Tensor]]]:
    """Function of x -> bounds of its product with the weights, and the product of |x| with `size`, if given.

    What depends on the weights alone is computed here, once. point: x will be a point.
    """
    b_lower, b_upper = (None, None) if bias is None else bias
    low, up = (weight.lower, b_lower), (weight.upper, b_upper)
    sizes = [] if size is None else [size]
    of_size = joint(*sizes)
    if point and weight.is_point and (bias is None or bias.is_point):
        of_point = joint(low)

        def of_points(x: Interval) -> tuple[Sums, Sequence[Tensor]]:
            found = of_point(x.lower)[0]
            return Sums(found, found), of_size(x.magnitude)

        return of_points
    if point and nonnegative:
        of_both = joint(low, up, *sizes)

        def of_nonnegative_point(x: Interval) -> tuple[Sums, Sequence[Tensor]]:
            lower, upper, *found = of_both(x.lower)
            return Sums(lower, upper), found

        return of_nonnegative_point
    if point:
        of_positive, of_negative = joint(low, up), joint((weight.upper, None), (weight.lower, None))

        def of_signed_point(x: Interval) -> tuple[Sums, Sequence[Tensor]]:
            positive, negative = _parts(x.lower)
            lower, upper = (a + b for a, b in zip(of_positive(positive), of_negative(negative), strict=True))
            return Sums(lower, upper), of_size(x.magnitude)

        return of_signed_point
    if nonnegative or weight.is_point:
        # x_l W+ + x_u W- = x_l W + (x_u - x_l) W-, likewise above: this needs half as many clamped copies of W.
        sides = [weight.lower] if weight.is_point else [weight.lower, weight.upper]
        of_width = joint(*((side.clamp(max=0), None) for side in sides))
        of_lower, of_upper = joint(low), joint(up, *(sizes if nonnegative else []))

        def of_interval(x: Interval) -> tuple[Sums, Sequence[Tensor]]:
            widths = of_width(x.upper - x.lower)
            lower, (upper, *found) = of_lower(x.lower)[0], of_upper(x.upper)
            return Sums(lower, upper, widths[0], widths[-1]), found or of_size(x.magnitude)

        return of_interval
    (low_pos, low_neg), (up_pos, up_neg) = _parts(weight.lower), _parts(weight.upper)
    of_a_pos, of_z_pos = joint((low_pos, b_lower), (up_neg, None)), joint((low_neg, None), (up_pos, b_upper))
    of_a_neg, of_z_neg = joint((up_pos, None), (low_neg, None)), joint((up_neg, None), (low_pos, None))

    def of_signed_interval(x: Interval) -> tuple[Sums, Sequence[Tensor]]:
        (a_pos, a_neg), (z_pos, z_neg) = _parts(x.lower), _parts(x.upper)
        (a, b), (c, d), (e, f), (g, h) = of_a_pos(a_pos), of_z_pos(z_pos), of_a_neg(a_neg), of_z_neg(z_neg)
        return Sums(a + c + e + g, d + b + h + f), of_size(x.magnitude)

    return of_signed_interval


def _parts(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.clamp(min=0), x.clamp(max=0)


def multiply(a: Interval, b: Interval, *, rounded: bool = False) -> Interval:
    """Elementwise product with broadcasting; exact for every sign (extremes of the four corners)."""
    if rounded:
        return _widened_pair(multiply, a, b)
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
        p, q = exactly(a), exactly(b)
        if p.lower.shape == q.lower.shape and compiled_rounding.suits(*p, *q):
            return Interval(*compiled_rounding.add_outward(p, q, _ULPS))
        return _widened_pair(add, a, b)
    if a.is_point and b.is_point:
        return Interval.point(a.lower + b.lower)
    return Interval(a.lower + b.lower, a.upper + b.upper)


def _widened_pair(function: Callable[[Interval, Interval], Interval], a: Interval, b: Interval) -> Interval:
    """Image under a commutative elementwise function of two, in float64, rounded outwards."""
    a, b = sorted((a, b), key=lambda part: (part.lower.dim(), *part.lower.shape[:1]), reverse=True)
    return elementwise(lambda p, q: outward(function(exactly(p), exactly(q)), _ULPS), a, b)


_ULPS = 2
"""Units in the last place that cover a sum, or a product."""


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
        mean, variance, x = mean.double(), variance.double(), exactly(x)
    scale = torch.rsqrt(variance + eps)
    if rounded:
        gamma, beta = (None if part is None else exactly(part) for part in (weight, bias))
        if compiled_rounding.suits(*x, mean, scale, *(gamma or ()), *(beta or ())) and x.lower.numel():
            return Interval(*compiled_rounding.normalise(*x, mean, scale, gamma, beta))
    shape = (1, -1, *(1,) * (x.lower.dim() - 2))
    scale, shift = scale.reshape(shape), mean.reshape(shape)
    gamma, beta = (None if part is None else reshape(part, shape) for part in (weight, bias))

    def normalised(x: Interval) -> Interval:
        white = monotone(lambda value: (value - shift) * scale, x)
        white = outward(white, 8) if rounded else white  # widened per step, because product and bias may cancel
        if gamma is not None:
            white = multiply(white, gamma, rounded=rounded)
        return white if beta is None else add(white, beta, rounded=rounded)

    return elementwise(normalised, x) if rounded else normalised(x)


def monotone(function: Callable[[Tensor], Tensor], x: Interval) -> Interval:
    """Image under an increasing function: ReLU and similar, pooling, means, every reshaping. Exact except for the
    function's own rounding."""
    lower = function(x.lower)
    return Interval.point(lower) if x.is_point else Interval(lower, function(x.upper))


def smooth(function: Callable[[Tensor], Tensor], x: Interval, *, rounded: bool = False) -> Interval:
    """Image under an elementwise increasing function that errs by a few units in the last place (of 1 near zero)."""
    if not rounded:
        return monotone(function, x)

    def image(part: Interval) -> Interval:
        found = monotone(function, exactly(part))
        return widened(found, (found.magnitude + 1) * (16 * torch.finfo(found.lower.dtype).eps))

    return elementwise(image, x)


def averaged(function: Callable[[Tensor], Tensor], x: Interval, *, pooled: int = 0, rounded: bool = False) -> Interval:
    """Image under sums and means along dimensions, or under average pooling over the last `pooled` dimensions."""
    if not rounded:
        return monotone(function, x)
    x = exactly(x)
    size = function(x.magnitude)
    terms = math.prod(x.lower.shape[-pooled:]) if pooled else x.lower.numel() // max(1, size.numel())
    return Sums(*monotone(function, x)).widened(size, terms)


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
