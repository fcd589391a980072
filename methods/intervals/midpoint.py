"""Midpoint-radius bounds ("Rump's arithmetic") of linear layers and convolutions: one product fewer, a wider interval.

Rump (1999), "Fast and parallel interval arithmetic", BIT 39. With x in m -+ r and W in M -+ R,

    W x  lies in  M m -+ (|M| r + R |m| + R r),

exact where one side is a point, else at most 1.5 times as wide as the bounds of `propagate`. Sound without outward
rounding, so that it serves searches and comparisons with LID's official code, never certificates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.intervals.arithmetic import Arithmetic, Value
from methods.intervals.bounding import Traversal
from methods.intervals.interval import Interval

Product = Callable[[Tensor, Tensor], Tensor]


def propagate_midpoint(network: nn.Module, weights: Mapping[str, Interval], x: Tensor) -> Interval:
    """Bounds of network(x) over `weights`, like `propagate`, with midpoint-radius products in its layers.

    x: (b, *input shape). Raises UserError where `propagate` does.
    """
    return _Midpoint(network, weights, {}, Arithmetic(False, x.dtype)).run(Interval.point(x), False)


def bilinear(product: Product, x: Interval, weight: Interval, bias: Interval | None) -> Interval:
    """Midpoint-radius bounds of product(x, weight) + bias; the bias has the shape that it is added in."""
    (m, r), (middle, radius) = _halves(x), _halves(weight)
    centre, spread = product(m, middle), product(m.abs(), radius) + product(r, middle.abs() + radius)
    if bias is not None:
        b_middle, b_radius = _halves(bias)
        centre, spread = centre + b_middle, spread + b_radius
    return Interval.around(centre, spread)


def _halves(x: Interval) -> tuple[Tensor, Tensor]:
    return (x.lower + x.upper) / 2, (x.upper - x.lower) / 2


class _Midpoint(Traversal):
    """Pass in which linear layers and convolutions have these bounds, and everything else the usual ones."""

    def _layer(self, name: str, arguments: list[Any]) -> Value:
        module = self.network.get_submodule(name)
        product: Product
        if type(module) is nn.Linear:
            product, shape = F.linear, (-1,)
        elif type(module) is nn.Conv2d and module.padding_mode == "zeros":
            geometry = (module.stride, module.padding, module.dilation, module.groups)
            product = partial(_convolve, geometry=geometry)
            shape = (-1, 1, 1)
        else:
            return super()._layer(name, arguments)
        weight, bias = self._tensor(f"{name}.weight"), self._tensor(f"{name}.bias")
        assert weight is not None
        x = self.arithmetic.lifted(arguments[0]).bounds
        shaped = None if bias is None else Interval(bias.lower.reshape(shape), bias.upper.reshape(shape))
        return Value(bilinear(product, x, weight, shaped))


def _convolve(x: Tensor, weight: Tensor, geometry: tuple[Any, ...]) -> Tensor:
    return torch.conv2d(x, weight, None, *geometry)
