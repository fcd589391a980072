"""Parts of supermasks over random weights: signed constants, scores, shares of masks, and objectives of inference."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from methods.shared.maskable import Statistics

LARGEST_SHARE = 0.5
"""Largest share of a weight in a mask with a budget (Wortsman et al. 2020)."""


def fan_in(shape: torch.Size) -> int:
    """Inputs of each output of a weight (o, i, ...)."""
    return math.prod(shape[1:])


@torch.no_grad()
def make_constant(name: str, p: Tensor, share: float = 1.0) -> None:
    """Overwrite a parameter: weights by signed constants, scales of norm layers by 1, shifts and biases by 0.

    share: share of the inputs for which the constants are scaled.
    """
    if p.dim() > 1:
        p.copy_(p.sign() * math.sqrt(2 / (fan_in(p.shape) * share)))
    elif name.endswith("weight"):
        p.fill_(1)
    else:
        p.zero_()


def first_scores(shape: torch.Size) -> Tensor:
    """Initial scores of a weight (o, i, ...), flat: U(+-1/sqrt(fan_in))."""
    bound = 1 / math.sqrt(fan_in(shape))
    return torch.empty(shape.numel()).uniform_(-bound, bound)


def budgeted_share(shape: torch.Size, budget: float) -> float:
    """Share of a weight (o, i, ...) in a mask: its budget for each output and input (Erdos-Renyi), at most a half."""
    return min(LARGEST_SHARE, budget * (shape[0] + shape[1]) / shape.numel())


def superfluous_logsumexp(logits: Tensor, classes: int) -> Tensor:
    """Logsumexp of logits (b, outputs), the first `classes` of which are constants in the gradient, (b,)."""
    return torch.cat([logits[:, :classes].detach(), logits[:, classes:]], 1).logsumexp(1)


def mean_statistics(of_tasks: Sequence[Statistics]) -> Statistics:
    """Mean of the tasks' buffers; of counters the last one."""
    return {
        name: torch.stack([statistics[name] for statistics in of_tasks]).mean(0) if last.is_floating_point() else last
        for name, last in of_tasks[-1].items()
    }
