"""Task inference from the outputs of each task's network, shared by HNET, HyperInterval and HyperMask.

inference   "entropy"   the task whose network answers with the least entropy (HNET+ENT; HINT; HyperMask)
            "interval"  the same, each class's term divided by 0.001 + the width of its interval (HINT): only for
                        methods whose answers are intervals
            "fecam"     the task of the nearest class, by Mahalanobis distance in the feature space of the task's
                        network (HyperMask); see methods/shared/fecam.py
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from benchmarks.types import StreamSpec, UserError
from methods.shared import features, fecam, heads

Inference = Literal["entropy", "interval", "fecam"]

NEVER = -1e4
"""Offset of the log-probabilities of tasks that were not chosen: finite, and below any chosen one."""


def no_certificate(how: str, latest: bool) -> list[str]:
    """Reasons why no certificate covers the answers of a task, where the task is inferred, though its network is kept.

    latest: no task has been learnt since.
    """
    if how == "fecam":
        return ["nothing is certified where FeCAM infers the task"]
    return [] if latest else ["tasks learnt later take part in the task inference"]


OTHERS_CHANGED = "the networks of other tasks, from which the task is inferred, changed"
"""Reason why the claim of the latest task is void although its own network is kept."""


def entropy(logits: Tensor, weights: Tensor | None = None) -> Tensor:
    """Entropy -sum_k f_k p_k log p_k over the last dimension, (..., C) -> (...); f = 1 without `weights` (..., C).

    Computed from the log-softmax, so that an underflowing probability contributes 0 and not NaN.
    """
    log_p = logits.log_softmax(-1)
    terms = log_p.exp() * log_p
    return -(terms if weights is None else terms * weights).sum(-1)


def least_entropy(logits: Tensor, weights: Tensor | None = None) -> Tensor:
    """Most certain task of every sample: logits (k, b, C) of k tasks' models -> (b,) int64."""
    return entropy(logits, weights).argmin(0)


def width_weights(lower: Tensor, upper: Tensor) -> Tensor:
    """Factors f_k of "interval" from bounds of the logits (..., C): classes with narrow intervals count more.

    Source: HINT's entropy.py.
    """
    return 1 / (0.001 + (upper - lower).abs())


def check(method: str, how: Inference, intervals: bool = False) -> None:
    """Raise UserError for an inference that a method does not support."""
    if how == "interval" and not intervals:
        raise UserError(
            f'{method}: inference = "interval" weighs classes by the widths of their intervals, and the answers of '
            f'{method} are points; write "entropy" or "fecam"'
        )


Classes = tuple[Tensor, Tensor]
"""Statistics of a task for "fecam": prototypes (C, d) and precision matrices (C, d, d) of its classes."""


@dataclass(frozen=True)
class TaskInference:
    """Task inference of a method. Under "fecam" the method keeps a list of `Classes`, one per learnt task.

    They are computed once, at the end of the task, from the features of its training samples; no sample is kept.
    """

    stateless: ClassVar[bool] = True
    how: Inference = "entropy"
    answer: Literal["class", "task"] = "class"
    """Under "fecam": answer with the nearest class itself, or with the inferred task's network."""
    tukey: bool = False
    """Under "fecam": take the square root of the features."""

    @staticmethod
    def of(config: Any) -> TaskInference:
        """Make it from the fields `inference`, `fecam_answer` and `fecam_tukey` of a Config."""
        return TaskInference(config.inference, config.fecam_answer, config.fecam_tukey)

    @staticmethod
    def floats(spec: StreamSpec, config: Any) -> int:
        """Number of floats in the `Classes` of a task."""
        d = features.width(spec) if config.inference == "fecam" else 0
        return spec.classes_per_task * d * (d + 1)

    @torch.no_grad()
    def describe(self, found: Tensor, labels: Tensor, n_classes: int) -> Classes:
        """Compute the statistics of a task's classes from features (n, d) and labels (n,) within the task."""
        prototypes, precisions = fecam.statistics(self._scaled(found), labels, n_classes)
        return prototypes, precisions  # a plain tuple, which a checkpoint can keep

    def decide(
        self,
        known: Sequence[Classes],
        tasks: int,
        logits: Callable[[], tuple[Tensor, Tensor | None]],
        features: Callable[[int], Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Answers of each of the first `tasks` tasks (k, b, C), and the inferred task (b,) int64.

        logits: returns (k, b, C), and the entropy's weights, if any. features: returns the samples' features in a
        task's network, (b, d). The entropy decides while the current task has no statistics yet.
        """
        if len(known) < tasks:
            values, weights = logits()
            return values, least_entropy(values, weights)
        every = [fecam.distances(self._scaled(features(j)), *known[j]) for j in range(tasks)]
        distances = heads.stacked(every, gap=-heads.VOID)
        nearest = fecam.nearest_task(distances)
        return (-distances if self.answer == "class" else logits()[0]), nearest

    def _scaled(self, found: Tensor) -> Tensor:
        return fecam.tukey(found) if self.tukey else found


def chosen(logits: Tensor, task: Tensor) -> Tensor:
    """Select the logits of each sample's task (b,): (k, b, C) -> (b, C)."""
    return logits[task, torch.arange(logits.shape[1], device=logits.device)]


def over_all_classes(logits: Tensor, task: Tensor) -> Tensor:
    """Class-incremental answers: logits (k, b, C) and the chosen task (b,) -> (b, k * C).

    The chosen task's classes have its log-probabilities; those of all others are offset by `NEVER`.
    """
    k, b, _ = logits.shape
    rank = torch.arange(k, device=logits.device)[:, None] == task
    answers = logits.log_softmax(-1) + torch.where(rank, 0.0, NEVER)[:, :, None]
    return answers.transpose(0, 1).reshape(b, -1)


def log_softmax_bounds(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of log_softmax over all logits in [lower, upper], exact for each class but for rounding: (..., C) each.

    A class's probability is least where its own logit is lowest and all others are highest. Both bounds are widened by
    their largest possible rounding error.
    """
    eps, classes = torch.finfo(lower.dtype).eps, lower.shape[-1]

    def extreme(own: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        mixed = others.unsqueeze(-2).expand(*others.shape, others.shape[-1]).clone()
        mixed.diagonal(dim1=-2, dim2=-1).copy_(own)  # row k: class k at `own`, the rest at `others`
        total = mixed.logsumexp(-1)
        # An exponential errs by u |d| e^d < u through its argument and by 2 u itself; the sum of all is at least 1.
        return own - total, eps * (classes + 64 + 4 * (own.abs() + total.abs()))

    (low, low_slack), (up, up_slack) = extreme(lower, upper), extreme(upper, lower)
    return (low - low_slack).nan_to_num(-math.inf, neginf=-math.inf), (up + up_slack).nan_to_num(0.0).clamp(max=0)


def entropy_bounds(log_lower: Tensor, log_upper: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Sound bounds of `entropy` from those of the log-probabilities (..., C): class by class, then summed.

    -p log p rises up to p = 1/e and falls after it, so its least value lies at an end. All terms are positive, so
    rounding costs a few units in the last place and one for each class.
    """
    low, up = -log_lower.exp() * log_lower, -log_upper.exp() * log_upper
    peak = (log_lower <= -1) & (log_upper >= -1)
    least, most = torch.minimum(low, up), torch.where(peak, math.exp(-1), torch.maximum(low, up))
    if weights is not None:
        least, most = least * weights, most * weights
    finfo, terms = torch.finfo(least.dtype), least.shape[-1] + 8
    slack = terms * finfo.eps
    return least.sum(-1) * (1 - slack) - terms * finfo.tiny, most.sum(-1) * (1 + slack) + terms * finfo.tiny


def over_all_classes_bounds(lower: Tensor, upper: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Sound bounds of `over_all_classes` with the task of least entropy: logits (k, b, C) -> (b, k * C) each.

    A task is certainly chosen if its entropy's upper bound is below every other's lower bound, and
    certainly not chosen if its lower bound is above another's upper bound.
    """
    log_lower, log_upper = log_softmax_bounds(lower, upper)
    least, most = entropy_bounds(log_lower, log_upper, weights)
    k, b, _ = lower.shape
    others = ~torch.eye(k, dtype=torch.bool, device=lower.device)[:, :, None]
    surely = (most[:, None] < least[None]).masked_fill(~others, True).all(1)
    never = ((least[:, None] > most[None]) & others).any(1)
    log_lower = log_lower + torch.where(surely, 0.0, NEVER)[:, :, None]
    log_upper = log_upper + torch.where(never, NEVER, 0.0)[:, :, None]
    return log_lower.transpose(0, 1).reshape(b, -1), log_upper.transpose(0, 1).reshape(b, -1)
