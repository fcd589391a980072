"""Semi-binary masks: the weights of a shared network that a task uses, and the share of each (HyperMask)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Percent = float | Tensor
"""A percentage: a number on the host, or a 0-d float64 tensor on the device where it changes from step to step."""


def semi_binary_mask(h: Tensor, sizes: Sequence[int], n_thresholded: int, sparsity: Percent | None) -> Tensor:
    """Mask (N,) in [0, 1) from a hypernetwork's output h (N,), tensor by tensor.

    sizes: entries of each tensor, in order. In each of the first `n_thresholded` tensors the entries of
    |tanh h| below their `sparsity`-th percentile are set to 0; the others keep their value, as do all
    entries of the remaining tensors. sparsity: percent; None keeps everything.
    The threshold is a constant in the gradient. Source: Ksiazek & Spurek (2023), HyperMask, section 3.
    """
    return _SemiBinaryMask.apply(h, sizes, n_thresholded, sparsity)


class _SemiBinaryMask(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, sizes: Sequence[int], n_thresholded: int, sparsity: Percent | None) -> Tensor:
        signed = h.tanh()
        if sparsity is not None:
            for part in signed.split(list(sizes))[:n_thresholded]:
                _cut(part, sparsity)
        ctx.save_for_backward(signed)
        return signed.abs()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (signed,) = ctx.saved_tensors
        slope = torch.addcmul(signed.new_ones(()), signed, signed, value=-1)
        slope.mul_(signed.sign())  # 0 where the mask is: no gradient for what was dropped
        return slope.mul_(grads[0]), None, None, None


def _cut(signed: Tensor, sparsity: Percent) -> None:
    """Set the entries of `signed` (n,) with an absolute value below its percentile to 0, in place."""
    sizes = signed.abs()
    threshold = percentile(sizes, sparsity)
    if signed.is_cuda:
        signed.mul_(sizes >= threshold)
        return
    # hardshrink zeroes |s| <= limit; on a CPU it is many times faster than a comparison
    limit = torch.nextafter(threshold, threshold.new_tensor(-1.0)).item()
    signed.copy_(torch.hardshrink(signed, limit))


def percentile(values: Tensor, percent: Percent) -> Tensor:
    """The `percent`-th percentile of values (n,), 0-d, in their dtype.

    Linear interpolation between order statistics at position percent (n - 1) / 100, in float64, then
    rounded to the dtype of `values`, as the official code does.
    """
    position = percent * (values.shape[0] - 1) / 100
    lower, upper = neighbours(values, position).double().unbind()
    share = position - (position.floor() if isinstance(position, Tensor) else math.floor(position))
    return (lower + share * (upper - lower)).minimum(upper).to(values.dtype)


def neighbours(values: Tensor, position: Percent) -> Tensor:
    """The order statistics of values (n,) below and above a position in [0, n - 1], (2,)."""
    return (neighbours_on_device if values.is_cuda else neighbours_selected)(values, position)


def neighbours_on_device(values: Tensor, position: Percent) -> Tensor:
    """Compute `neighbours` without waiting for the device.

    A position known only to the device needs a sort: about ten kernels and 110 bytes per value. One known to the host
    needs the k-th value: as many kernels and 25 bytes per value, because `topk` counts digits in four sweeps over the
    keys alone. `kthvalue` is unsuitable: a single multiprocessor sweeps 16 times.
    """
    if isinstance(position, Tensor):
        return neighbours_sorted(values, position)
    return kth_values(values, position)


def neighbours_sorted(values: Tensor, position: Tensor) -> Tensor:
    """Compute `neighbours` of a 0-d float64 position by sorting, without waiting for the device."""
    rank = position.floor().long()
    ranks = torch.stack([rank, (rank + 1).clamp_max(values.shape[0] - 1)])
    return values.sort().values.index_select(0, ranks)


def kth_values(values: Tensor, position: float) -> Tensor:
    """Compute `neighbours` of a position known to the host by selection from the nearer end, without waiting."""
    n, rank = values.shape[0], math.floor(position)
    if rank + 1 == n:
        return values.max().expand(2)
    from_below = rank + 2 <= n - rank
    nearest = values.topk(rank + 2 if from_below else n - rank, largest=not from_below, sorted=False).values
    pair = nearest.topk(2, largest=from_below).values  # the last two on the way in, the outer one first
    return pair.flip(0) if from_below else pair


def neighbours_selected(values: Tensor, position: Percent) -> Tensor:
    """Compute `neighbours` on a CPU, where NumPy's selection is many times faster than PyTorch's sort."""
    rank = int(position)
    parted = np.partition(values.detach().numpy(), rank)
    upper = parted[rank + 1 :].min() if rank + 1 < len(parted) else parted[rank]
    return torch.tensor([parted[rank], upper], dtype=values.dtype)


def masked(weights: Tensor, mask: Tensor, n_open: int) -> Tensor:
    """Masked weights, weights * mask (N,), with the last `n_open` weights unchanged."""
    return _Masked.apply(weights, mask, n_open)


class _Masked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, mask: Tensor, n_open: int) -> Tensor:
        ctx.save_for_backward(weights, mask)
        ctx.first_open = weights.shape[0] - n_open
        out = weights * mask
        out[ctx.first_open :] = weights[ctx.first_open :]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (weights, mask), first_open, grad = ctx.saved_tensors, ctx.first_open, grads[0]
        grad_weights, grad_mask = grad * mask, grad * weights
        grad_weights[first_open:] = grad[first_open:]
        grad_mask[first_open:] = 0
        return grad_weights, grad_mask, None


def ramp(percent: float, steps_begun: Tensor | int, steps: int) -> Tensor | float:
    """Sparsity of a first task: `percent` times the share of steps begun, at most `percent`."""
    if isinstance(steps_begun, Tensor):
        return (percent * steps_begun.double() / steps).clamp_max(percent)
    return min(percent * steps_begun / steps, percent)
