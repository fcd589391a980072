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
    """Mask (n,) of values (n,), tensor by tensor: all entries from the order statistic `rank` upwards, ties included.

    sizes: entries of each tensor, in order. ranks: the number of smaller entries, n - rank are kept without ties.
    """
    parts = zip(values.split(list(sizes)), ranks, strict=True)
    return torch.cat([values.new_empty(0, dtype=torch.bool), *(p >= order_statistic(p, rank) for p, rank in parts)])


def smallest(values: Tensor, count: int) -> Tensor:
    """Mask (n,) of exactly `count` smallest entries of values (n,); of equal ones, those that come first."""
    if count == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    threshold = order_statistic(values, count - 1)
    below, ties = values < threshold, values == threshold
    return below | (ties & (ties.cumsum(0) <= count - below.sum()))


def straight_through(weights: Tensor, scores: Tensor, mask: Tensor, magnitude: bool = True) -> Tensor:
    """Masked weights, weights * mask (n,), for a mask (n,) made from scores (n,), of which it is a step function.

    Gradients: g * mask to the weights, and to the mask g * weights, which is passed on to |score| as if the step were
    the identity, so times sign(score) to the scores, also where the mask is 0. magnitude: False for a mask made from
    the scores themselves, without the sign then. mask: 0 and 1, in any type.
    """
    return _StraightThrough.apply(weights, scores, mask, magnitude)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, scores: Tensor, mask: Tensor, magnitude: bool) -> Tensor:
        mask = mask.to(weights.dtype)
        ctx.save_for_backward(weights, scores, mask)
        ctx.magnitude = magnitude
        return weights * mask

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weights, scores, mask = ctx.saved_tensors
        to_weights = grads[0] * mask if ctx.needs_input_grad[0] else None
        to_scores = grads[0] * weights
        return to_weights, to_scores.mul_(scores.sign()) if ctx.magnitude else to_scores, None, None
