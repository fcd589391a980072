"""Boxes whose radii are scaled by k = sigmoid(v), with few passes over the memory of weights and scales.

A step of InterContiNet's contraction is half matrix products, half elementwise operations on hundreds of thousands of
weights, radii and scales, which do not fit the caches. Both ways each number is read and written once, by machine code
(`compiled_scales`), or in PyTorch block by block, so that what lies between two operations stays in the cache. The
roundings are those of autograd's formulas.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from methods.intervals import compiled_scales
from methods.intervals.interval import Interval
from methods.intervals.weights import Layout

BLOCK = 1 << 16
"""Numbers at once on a CPU: five arrays of them fit the second caches, and two threads still share an operation."""


def scaled_box(raw: Tensor, middle: Tensor, room: Tensor, layout: Layout) -> tuple[dict[str, Interval], Tensor]:
    """Bounds middle -+ sigmoid(raw) * room by name, of flat vectors (N,), and the room given up, 0-d.

    The latter is a zero with the gradient of -sum(log k), which is k - 1. Only `raw` gets gradients.
    """
    sizes = [shape.numel() for shape in layout.shapes.values()]
    given_up, *sides = _ScaledBox.apply(raw, middle, room, sizes)
    parts = zip(layout.shapes.items(), sides[: len(sizes)], sides[len(sizes) :], strict=True)
    return {name: Interval(lower.view(shape), upper.view(shape)) for (name, shape), lower, upper in parts}, given_up


class _ScaledBox(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, raw: Tensor, middle: Tensor, room: Tensor, sizes: list[int]) -> tuple[Tensor, ...]:
        # Not block by block: PyTorch rounds the exponential of the last few numbers of an operation differently.
        k = torch.sigmoid(raw)
        sides = compiled_scales.scaled_sides if compiled_scales.suits(k, middle, room) else _sides
        lower, upper = sides(k, middle, room)
        ctx.save_for_backward(k, room)
        ctx.sizes = sizes
        ctx.set_materialize_grads(False)  # None: the loss does not depend on it
        return raw.new_zeros(()), *lower.split(sizes), *upper.split(sizes)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        k, room = ctx.saved_tensors
        given_up, n = grads[0], len(ctx.sizes)
        grad = torch.empty_like(k)
        sides = (_flat(lower, upper) for lower, upper in zip(grads[1 : n + 1], grads[n + 1 :], strict=True))
        for out, scale, radius, bounds in zip(*(flat.split(ctx.sizes) for flat in (grad, k, room)), sides, strict=True):
            if bounds is None:
                out.zero_() if given_up is None else torch.sub(scale, 1, out=out).mul_(given_up)
                continue
            low, high = bounds
            machine_code = compiled_scales.suits(low, high, scale, radius)
            write = compiled_scales.scale_gradient if machine_code else _scale_gradient
            write(low, high, scale, radius, given_up, out)
        return grad, None, None, None


def _sides(k: Tensor, middle: Tensor, room: Tensor) -> tuple[Tensor, Tensor]:
    """The same as `compiled_scales.scaled_sides`, in PyTorch."""
    lower, upper = torch.empty_like(k), torch.empty_like(k)
    for scale, c, r, low, high in _blocks(k, middle, room, lower, upper):
        radius = torch.mul(scale, r, out=high)
        torch.sub(c, radius, out=low)
        torch.add(c, radius, out=high)
    return lower, upper


def _scale_gradient(
    lower: Tensor, upper: Tensor, k: Tensor, room: Tensor, given_up: Tensor | None, grad: Tensor
) -> None:
    """The same as `compiled_scales.scale_gradient`, in PyTorch."""
    for g, s, r, low, high in _blocks(grad, k, room, lower, upper):
        torch.sub(high, low, out=g).mul_(r)
        torch.ops.aten.sigmoid_backward.grad_input(g, s, grad_input=g)
        if given_up is not None:
            g.add_((s - 1).mul_(given_up))


def _flat(lower: Tensor | None, upper: Tensor | None) -> tuple[Tensor, Tensor] | None:
    """Gradients of a part's sides, flat; None if the loss does not depend on them."""
    given = lower if lower is not None else upper
    if given is None:
        return None
    low, high = (torch.zeros_like(given) if side is None else side for side in (lower, upper))
    return low.reshape(-1), high.reshape(-1)


def _blocks(*flat: Tensor) -> Iterator[Sequence[Tensor]]:
    """Corresponding blocks of flat tensors of one length."""
    size = len(flat[0]) if flat[0].is_cuda else BLOCK
    return zip(*(tensor.split(max(1, size)) for tensor in flat), strict=True)
