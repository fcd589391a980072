"""Guessing the task of a sample from how sure each task's model is."""

from __future__ import annotations

import torch
from torch import Tensor

NEVER = -1e4
"""Added to the log-probabilities of the tasks that were not chosen: finite, and below any chosen one."""


def entropy(logits: Tensor, weights: Tensor | None = None) -> Tensor:
    """-sum_k f_k p_k log p_k over the last dimension, (..., C) -> (...); f = 1 without `weights` (..., C).

    From the log-softmax, so that a probability that underflows contributes 0 and not NaN.
    """
    log_p = logits.log_softmax(-1)
    terms = log_p.exp() * log_p
    return -(terms if weights is None else terms * weights).sum(-1)


def least_entropy(logits: Tensor, weights: Tensor | None = None) -> Tensor:
    """The most certain task of every sample: logits (k, b, C) of k tasks' models -> (b,) int64."""
    return entropy(logits, weights).argmin(0)


def chosen(logits: Tensor, task: Tensor) -> Tensor:
    """Of logits (k, b, C) those of each sample's task (b,) -> (b, C)."""
    return logits[task, torch.arange(logits.shape[1], device=logits.device)]


def over_all_classes(logits: Tensor, task: Tensor) -> Tensor:
    """Class-incremental answers: logits (k, b, C) and the chosen task (b,) -> (b, k * C).

    The chosen task's classes carry its log-probabilities, all others lie `NEVER` below theirs.
    """
    k, b, _ = logits.shape
    rank = torch.arange(k, device=logits.device)[:, None] == task
    answers = logits.log_softmax(-1) + torch.where(rank, 0.0, NEVER)[:, :, None]
    return answers.transpose(0, 1).reshape(b, -1)
