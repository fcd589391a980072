"""Both ends of a box of generated weights, parameter by parameter, with gradients gathered in the memory of the ends.

Autograd's formulas would need five more numbers for each weight: copies that join the parameters' gradients, and sums.
Values and gradients have the roundings of autograd's formulas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class BoxByParameter:
    """Box of weights from centres and radii (N,), each contiguous; overwrites the memory of the radii.

    Backward works once: it overwrites the ends.
    """

    def __init__(self, theta: Tensor, rho: Tensor, shapes: Mapping[str, torch.Size]) -> None:
        self._shapes = shapes
        self._memory = _Memory(theta, rho, [shape.numel() for shape in shapes.values()])
        parts, n = _Parts.apply(theta, rho, self._memory), len(shapes)
        self.middle = self._named(parts[:n])
        """theta by parameter."""
        self._centres, self._radii = parts[n : 2 * n], parts[2 * n :]

    def ends(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """theta - rho and theta + rho by parameter; call it once, after the use of `middle`.

        Backward runs in the opposite order, so that the gradients of the ends are gathered before those of the middle
        are there.
        """
        pairs = zip(self._centres, self._radii, strict=True)
        lower, upper = zip(*(_Ends.apply(*pair, self._memory, i) for i, pair in enumerate(pairs)), strict=True)
        return self._named(lower), self._named(upper)

    def _named(self, parts: Sequence[Tensor]) -> dict[str, Tensor]:
        return {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}


class _Memory:
    """Ends of a box, and later the gradients by theta and rho, in the same places."""

    def __init__(self, theta: Tensor, rho: Tensor, sizes: list[int]) -> None:
        theta, rho = theta.data, rho.data  # not `detach`, of which autograd would see that it changes
        self.sizes, self.lower = sizes, theta - rho
        self.upper = torch.add(theta, rho, out=rho)

    def slices(self, flat: Tensor) -> list[Tensor]:
        """Slices of a tensor (N,) by parameter; each counts its changes alone, for others may change before it."""
        return [part.data for part in flat.split(self.sizes)]


class _Parts(torch.autograd.Function):
    """theta and rho (N,) -> slices of theta, again those of theta, and those of rho."""

    @staticmethod
    def forward(ctx: Any, theta: Tensor, rho: Tensor, ends: _Memory) -> tuple[Tensor, ...]:
        ctx.ends = ends
        theta = theta.detach()
        return *ends.slices(theta), *ends.slices(theta), *ends.slices(rho.detach())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        ends, n = ctx.ends, len(ctx.ends.sizes)
        ctx.ends = None
        middle, theta, rho = grads[:n], grads[n : 2 * n], grads[2 * n :]
        for own, of_end, of_middle in zip(ends.slices(ends.lower), theta, middle, strict=True):
            torch.add(of_end, of_middle, out=own)
        for own, grad in zip(ends.slices(ends.upper), rho, strict=True):
            if grad.data_ptr() != own.data_ptr():
                own.copy_(grad)
        return ends.lower, ends.upper, None


class _Ends(torch.autograd.Function):
    """Slices of theta and rho -> the same of the lower and upper ends."""

    @staticmethod
    def forward(ctx: Any, theta: Tensor, rho: Tensor, ends: _Memory, i: int) -> tuple[Tensor, Tensor]:
        ctx.ends, ctx.i = ends, i
        return ends.slices(ends.lower)[i], ends.slices(ends.upper)[i]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g_lower: Tensor, g_upper: Tensor) -> tuple[Tensor | None, ...]:
        # Whatever has read these ends has had its backward pass: their gradients are complete.
        theta, rho = (ctx.ends.slices(flat)[ctx.i] for flat in (ctx.ends.lower, ctx.ends.upper))
        ctx.ends = None
        torch.add(g_upper, g_lower, out=theta)
        torch.sub(g_upper, g_lower, out=rho)
        return theta, rho, None, None
