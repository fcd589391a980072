"""Bounds of Gaussian kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from methods.intervals.interval import Interval, exactly
from methods.intervals.ops import averaged, linear, multiply, negate, smooth


def gaussian_bounds(x: Interval, centres: Tensor, sigma: float) -> Interval:
    """Bounds (b, K) of exp(-|x - m_k|^2 / (2 sigma^2)), rounded outward: inputs (b, d), centres m (K, d), float64.

    The squared distance is one sum of 2 d + 2 products, -2 x m + |x|^2 1 + 1 |m|^2, so that no (b, K, d) is formed.
    For intervals of inputs it is wider than the exact range.
    """
    x, m = exactly(x), Interval.point(centres.to(torch.float64))
    lengths, own = _squared_length(x), _squared_length(m)
    left = _joined(Interval(-2 * x.upper, -2 * x.lower), lengths, _ones(lengths))
    right = _joined(m, _ones(own), own)
    squares = linear(left, right, rounded=True)
    factor = Interval.point(torch.tensor(1 / (2 * sigma**2), dtype=torch.float64, device=centres.device))
    return smooth(torch.exp, negate(multiply(squares, factor, rounded=True)), rounded=True)


def _squared_length(x: Interval) -> Interval:
    return averaged(lambda terms: terms.sum(1, keepdim=True), multiply(x, x, rounded=True), rounded=True)


def _ones(like: Interval) -> Interval:
    return Interval.point(torch.ones_like(like.lower))


def _joined(*parts: Interval) -> Interval:
    return Interval(torch.cat([part.lower for part in parts], 1), torch.cat([part.upper for part in parts], 1))
