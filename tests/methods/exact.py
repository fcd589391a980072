"""Small networks in exact arithmetic: arrays of fractions, against which rounded bounds are held."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction
from math import isqrt

import numpy as np
from torch import Tensor

from methods.intervals.bounding import Interval

Array = np.ndarray
"""Of fractions."""


def fractions(x: Tensor) -> Array:
    """The same numbers."""
    return np.array([Fraction(v) for v in x.detach().double().flatten().tolist()], dtype=object).reshape(x.shape)


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    y = x @ weight.T
    return y if bias is None else y + bias


def conv2d(x: Array, weight: Array, bias: Array | None = None, stride: int = 1, padding: int = 0) -> Array:
    x = np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)], constant_values=Fraction(0))
    k = weight.shape[-1]
    rows, columns = (range(0, size - k + 1, stride) for size in x.shape[2:])
    patches = [[x[:, :, i : i + k, j : j + k].reshape(len(x), -1) for j in columns] for i in rows]
    flat = weight.reshape(len(weight), -1)
    y = np.array([[linear(patch, flat, bias) for patch in row] for row in patches], dtype=object)
    return y.transpose(2, 3, 0, 1)


def batch_norm(x: Array, mean: Array, variance: Array, weight: Array, bias: Array) -> Array:
    """Of variances whose square roots are fractions."""
    shape = (1, -1, *(1,) * (x.ndim - 2))
    scale = np.array([1 / _root(v) for v in variance], dtype=object)
    return (x - mean.reshape(shape)) * (scale * weight).reshape(shape) + bias.reshape(shape)


def _root(v: Fraction) -> Fraction:
    root = Fraction(isqrt(v.numerator), isqrt(v.denominator))
    assert root * root == v
    return root


def relu(x: Array) -> Array:
    return np.maximum(x, Fraction(0))


def mean(x: Array, axes: tuple[int, ...]) -> Array:
    size = int(np.prod([x.shape[axis] for axis in axes]))
    return x.sum(axis=axes) / size


def holds(bounds: Interval, y: Array) -> bool:
    """Whether every fraction lies in the bounds, without any tolerance."""
    lower, upper = bounds.lower.flatten().tolist(), bounds.upper.flatten().tolist()
    return all(_at_most(a, v) and _at_most(-b, -v) for a, v, b in zip(lower, y.flatten(), upper, strict=True))


def _at_most(a: float, v: Fraction) -> bool:
    return a == float("-inf") or (abs(a) != float("inf") and Fraction(a) <= v)


STEEP = 3.3
"""Beta of the steep softplus."""


def elementary(name: str, x: Fraction) -> Fraction:
    """A function of a fraction, right to 40 digits also where it is as small as 1e-90."""
    with localcontext() as context:
        context.prec = 200
        d = Decimal(x.numerator) / Decimal(x.denominator)
        e, steep = d.exp(), Decimal.from_float(STEEP)
        value = {
            "sigmoid": lambda: e / (1 + e),
            "tanh": lambda: (e - 1 / e) / (e + 1 / e),
            "softplus": lambda: (1 + e).ln() if d <= 20 else d,
            "steep softplus": lambda: (1 + (d * steep).exp()).ln() / steep,
            "elu": lambda: d if d > 0 else e - 1,
        }[name]()
        return Fraction(value)
