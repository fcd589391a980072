"""Semi-binary masks: which weights of a shared network a task may use, and how much of each (HyperMask)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

SAMPLE = 8192
"""Entries looked at first when a percentile of a large tensor is sought on a CPU."""


def semi_binary_mask(h: Tensor, sizes: Sequence[int], n_thresholded: int, sparsity: Tensor | None) -> Tensor:
    """Mask (N,) in [0, 1) from hypernetwork outputs h (N,), tensor by tensor.

    sizes: entries of each tensor, in order. In each of the first `n_thresholded` tensors the entries of
    |tanh h| below their `sparsity`-th percentile are set to 0; the others keep their value, as do all
    entries of the remaining tensors. sparsity: 0-d float64 tensor, percent; None keeps everything.
    The threshold is a constant in the gradient. Source: Ksiazek & Spurek (2023), HyperMask, section 3.
    """
    return _SemiBinaryMask.apply(h, sizes, n_thresholded if sparsity is not None else 0, sparsity)


class _SemiBinaryMask(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, sizes: Sequence[int], n_thresholded: int, sparsity: Tensor) -> Tensor:
        signed = h.tanh()
        for part in signed.split(list(sizes))[:n_thresholded]:
            size = part.abs()
            part.mul_(size >= percentile(size, sparsity))
        ctx.save_for_backward(signed)
        return signed.abs()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (signed,) = ctx.saved_tensors  # zero where dropped: sign(0) = 0 stops the gradient there
        slope = torch.addcmul(signed.new_ones(()), signed, signed, value=-1).mul_(signed.sign())
        return slope.mul_(grads[0]), None, None, None


def percentile(values: Tensor, percent: Tensor) -> Tensor:
    """The `percent`-th percentile of values (n,), 0-d, in their dtype.

    Linear interpolation between order statistics at position percent (n - 1) / 100, in float64, then
    rounded to the dtype of `values`, as the official code does. percent: 0-d float64 tensor.
    On CUDA the host waits for nothing.
    """
    position = percent * (values.shape[0] - 1) / 100
    if values.is_cuda:
        lower, upper = _order_statistics_sorted(values, position)
    else:
        lower, upper = _order_statistics_selected(values, int(position))
    lower, upper = lower.double(), upper.double()
    return (lower + (position - position.floor()) * (upper - lower)).minimum(upper).to(values.dtype)


def _order_statistics_sorted(values: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
    ordered = values.sort().values
    rank = position.floor().long()
    return ordered[rank], ordered[(rank + 1).clamp_max(values.shape[0] - 1)]


def _order_statistics_selected(values: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The entries of ranks `rank` and `rank` + 1 (or the largest), without sorting all of them.

    A sample brackets both; only what lies in the bracket is sorted. Where the bracket misses, the
    tensor is: exact always, fast nearly always.
    """
    n = values.shape[0]
    next_rank = min(rank + 1, n - 1)
    if n > 4 * SAMPLE:
        sample = values[:: n // SAMPLE].sort().values
        m = sample.shape[0]
        at = rank * m // n
        margin = 8 + int(4 * math.sqrt(at * (m - at) / m))
        low = sample[at - margin] if at >= margin else values.new_tensor(-math.inf)
        high = sample[at + margin] if at + margin < m else values.new_tensor(math.inf)
        below = int((values < low).sum())
        inside = values[(values >= low) & (values <= high)]
        if below <= rank and next_rank < below + inside.shape[0]:
            values, rank, next_rank = inside, rank - below, next_rank - below
    ordered = values.sort().values
    return ordered[rank], ordered[next_rank]


def ramp(percent: float, steps_begun: Tensor | int, steps: int) -> Tensor | float:
    """`percent` times the share of steps begun, at most `percent`: the sparsity of a first task."""
    done = steps_begun.double() if isinstance(steps_begun, Tensor) else float(steps_begun)
    value = percent * done / steps
    return value.clamp_max(percent) if isinstance(value, Tensor) else min(value, percent)
