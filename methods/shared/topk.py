"""0-1 masks of the largest entries of a tensor, and weights under them with a straight-through gradient to scores.

The threshold is found without waiting for the device: on a GPU by selection from the nearer end, on a CPU by NumPy's
selection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from methods.shared.masks import kth_values


def order_statistic(values: Tensor, rank: int) -> Tensor:
    """The entry of values (n,) that exceeds `rank` others in sorted order, 0-d; rank 0 is the smallest."""
    if values.is_cuda:
        return kth_values(values, float(rank))[0]
    parted = np.partition(values.detach().numpy(), rank)
    return torch.from_numpy(parted[rank : rank + 1])[0]


def from_rank(values: Tensor, sizes: Sequence[int], ranks: Sequence[int]) -> Tensor:
    """0-1 mask (n,) of values (n,), tensor by tensor: all entries from the order statistic `rank` upwards, with ties.

    sizes: entries of each tensor, in order. ranks: the number of zeros in each if there are no ties. Returns the type
    of the values, which on a CPU takes a fifth of the time of bool.
    """
    mask = torch.empty_like(values)
    for part, out, rank in zip(values.split(list(sizes)), mask.split(list(sizes)), ranks, strict=True):
        torch.ge(part, order_statistic(part, rank), out=out)
    return mask


def above_rank(values: Tensor, sizes: Sequence[int], ranks: Sequence[int]) -> Tensor:
    """0-1 mask (n,) as `from_rank`, with exactly `rank` zeros in each tensor: of equal values the first are 0."""
    mask = from_rank(values, sizes, ranks)
    if _without_ties(mask, sum(ranks)):
        return mask
    for part, out, rank in zip(values.split(list(sizes)), mask.split(list(sizes)), ranks, strict=True):
        surplus = out.sum(dtype=torch.float64) - (len(part) - rank)
        ties = part == torch.where(out > 0, part, torch.inf).amin()
        out.masked_fill_(ties & (ties.cumsum(0) <= surplus), 0)
    return mask


def _without_ties(mask: Tensor, zeros: int) -> bool:
    """Check on a CPU, where nothing waits, that the mask has just `zeros` zeros: equal values at the cut are rare."""
    # A sum in float64 counts all that memory holds; count_nonzero takes ten times as long.
    return not mask.is_cuda and bool(mask.sum(dtype=torch.float64) == len(mask) - zeros)


def smallest(values: Tensor, count: int) -> Tensor:
    """Mask (n,) of exactly `count` smallest entries of values (n,); of equal ones, those that come first."""
    if count == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    threshold = order_statistic(values, count - 1)
    below, ties = values < threshold, values == threshold
    return below | (ties & (ties.cumsum(0) <= count - below.sum()))


def straight_through(
    weights: Tensor, scores: Tensor, mask: Tensor, sizes: Sequence[int], magnitude: bool = True
) -> tuple[Tensor, ...]:
    """Masked weights, weights * mask, tensor by tensor, for a 0-1 mask (n,) that is a step function of scores (n,).

    Gradients: g * mask to the weights (n,), and to the mask g * weights, which is passed on to |score| as if the step
    were the identity, so times sign(score) to the scores, also where the mask is 0. sizes: entries of each tensor.
    magnitude: False for a mask made from the scores themselves, without the sign then.
    """
    return _StraightThrough.apply(weights, scores, mask, list(sizes), magnitude)


class _StraightThrough(torch.autograd.Function):
    """One function for all tensors, whose gradients are written into flat vectors without putting any together."""

    @staticmethod
    def forward(
        ctx: Any, weights: Tensor, scores: Tensor, mask: Tensor, sizes: list[int], magnitude: bool
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(weights, scores, mask)
        ctx.sizes, ctx.magnitude = sizes, magnitude
        return tuple(w * m for w, m in zip(weights.split(sizes), mask.split(sizes), strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weights, scores, mask = ctx.saved_tensors
        factor = scores.sign().mul_(weights) if ctx.magnitude else weights
        to_weights = _products(grads, mask, ctx.sizes) if ctx.needs_input_grad[0] else None
        return to_weights, _products(grads, factor, ctx.sizes), None, None, None


def _products(grads: Sequence[Tensor], factors: Tensor, sizes: list[int]) -> Tensor:
    """Flat products (n,) of the gradients of each tensor with flat factors (n,)."""
    products = torch.empty_like(factors)
    for grad, factor, out in zip(grads, factors.split(sizes), products.split(sizes), strict=True):
        torch.mul(grad, factor, out=out)
    return products
