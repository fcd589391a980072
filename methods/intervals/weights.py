"""Boxes of weights that can only shrink: the parametrisation of InterContiNet, elementwise.

A weight has a centre c, a radius r >= 0, a raw shift u and a raw scale v. Shift and scale move it to

    s = tanh(u / r) (normalised) or tanh(u),   k = sigmoid(v) (1 - |s|),   box [c + s r - k r, c + s r + k r],

which lies in [c - r, c + r] for every u and v, because |s| + k <= 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from methods.intervals.interval import Interval

SMALLEST_RADIUS = 1e-8
"""Lower bound on the radius by which a shift is divided."""


@dataclass(frozen=True)
class Layout:
    """Layout of named tensors in one flat vector (N,)."""

    stateless: ClassVar[bool] = True
    shapes: dict[str, torch.Size]

    @classmethod
    def of(cls, named: Mapping[str, Tensor]) -> Layout:
        """Layout of tensors in their order."""
        return cls({name: value.shape for name, value in named.items()})

    def flatten(self, named: Mapping[str, Tensor]) -> Tensor:
        """Concatenate all tensors in the layout's order."""
        return torch.cat([named[name].reshape(-1) for name in self.shapes])

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Views into a flat vector (N,) by name."""
        parts = flat.split([shape.numel() for shape in self.shapes.values()])
        return {name: part.view(shape) for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)}

    def boxes(self, flat: Interval) -> dict[str, Interval]:
        """Views into flat bounds (N,) by name."""
        lower, upper = self.views(flat.lower), self.views(flat.upper)
        return {name: Interval(lower[name], upper[name]) for name in self.shapes}


def effective_radius(raw: Tensor, multiplier: float = 1.0, cap: float = float("inf")) -> Tensor:
    """Radius clip(multiplier * raw, 0, cap)."""
    return (raw * multiplier).clamp(0, cap)


def shift(raw: Tensor, radius: Tensor, normalised: bool = True) -> Tensor:
    """Shift s in (-1, 1). Normalised: d(s r)/du is 1 at u = 0, so that u moves in units of weights."""
    return torch.tanh(raw / radius.clamp(min=SMALLEST_RADIUS) if normalised else raw)


def sigmoid(raw: float) -> float:
    """Logistic function 1 / (1 + exp(-v)) of a single raw scale."""
    return 1 / (1 + math.exp(-raw))


def scale(raw: Tensor, shifted: Tensor) -> Tensor:
    """Scale k = sigmoid(v) (1 - |s|)."""
    return torch.sigmoid(raw) * (1 - shifted.abs())


def moved(centre: Tensor, radius: Tensor, raw_shift: Tensor, raw_scale: Tensor, normalised: bool = True) -> Interval:
    """Box inside [centre - radius, centre + radius] given by raw shift and scale."""
    s = shift(raw_shift, radius, normalised)
    return Interval.around(centre + s * radius, scale(raw_scale, s) * radius)


def nested(inner: Interval, outer: Interval) -> Interval:
    """Clip `inner` to `outer`, which undoes the rounding by which a nested box may stick out."""
    return Interval(
        torch.minimum(torch.maximum(inner.lower, outer.lower), outer.upper),
        torch.maximum(torch.minimum(inner.upper, outer.upper), outer.lower),
    )


def head_names(network: nn.Module) -> list[str]:
    """Names of the parameters of the last linear layer."""
    last = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)][-1]
    return [f"{last}.{name}" for name, _ in network.get_submodule(last).named_parameters()]


def linear_bias_names(network: nn.Module, names: Iterable[str]) -> list[str]:
    """Select those of `names` that are biases of linear layers."""
    return [
        name
        for name in names
        if name.endswith(".bias") and isinstance(network.get_submodule(name.rpartition(".")[0]), nn.Linear)
    ]
