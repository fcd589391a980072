"""Heads of tasks with unequal numbers of classes: logits of several tasks in one tensor, whose gaps hold `VOID`.

Where all tasks have as many classes, every function returns what it is given, or what plain indexing gives.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from benchmarks.types import StreamSpec

VOID = -1e30
"""Logit of an output that a task has not: finite, and a probability of 0 next to any logit of a network."""


def stacked(logits: Sequence[Tensor], gap: float = VOID) -> Tensor:
    """Logits (b, C_k) of k heads as (k, b, C) with the largest C."""
    widest = max(part.shape[1] for part in logits)
    return torch.stack([pad(p, (0, widest - p.shape[1]), value=gap) if p.shape[1] < widest else p for p in logits])


def without_gaps(logits: Tensor, spec: StreamSpec) -> Tensor:
    """Logits (k, b, C) of the first k tasks, with `VOID` at each output beyond a task's classes; C: the largest number.

    logits: (k, b, C), or less wide where the largest task is none of them.
    """
    if not spec.sizes:
        return logits
    wide = pad(logits, (0, spec.classes_per_task - logits.shape[2]), value=VOID)
    return torch.where(_real(spec, len(logits), logits)[:, None], wide, VOID)


def per_capacity(weights: Tensor | None, spec: StreamSpec, tasks: int, like: Tensor) -> Tensor | None:
    """Factors of an entropy's terms: `weights` (k, b, C), or 1, over the largest entropy of each task, log C_k.

    Without it the tasks with the fewest classes would be the most certain.
    """
    if not spec.sizes:
        return weights
    sizes = like.new_tensor(spec.sizes[:tasks]).clamp(min=2)
    return (1 if weights is None else weights) / sizes.log()[:, None, None]


def side_by_side(answers: Tensor, spec: StreamSpec) -> Tensor:
    """Answers (b, k * C) of the first k tasks, one after the other, without the gaps: (b, classes of the k tasks)."""
    if not spec.sizes:
        return answers
    tasks = answers.shape[1] // spec.classes_per_task
    return answers[:, _real(spec, tasks, answers).flatten().nonzero().squeeze(1)]


def each_own(logits: Tensor, tasks: Tensor, spec: StreamSpec) -> Tensor:
    """Logits (b, C) of each sample's own task (b,), of the outputs (b, n_outputs) of the whole stream."""
    rows = torch.arange(len(logits), device=logits.device)
    if not spec.sizes:
        return logits.unflatten(1, (-1, spec.classes_per_task))[rows, tasks]
    return by_task(logits, spec.n_tasks, spec)[rows, tasks]


def by_task(logits: Tensor, tasks: int, spec: StreamSpec) -> Tensor:
    """Outputs (b, n_outputs) of the whole stream as (b, k, C) of its first k tasks."""
    if not spec.sizes:
        return logits[:, : spec.outputs_before(tasks)].unflatten(1, (tasks, spec.classes_per_task))
    return stacked([logits[:, spec.outputs_of(j)] for j in range(tasks)]).transpose(0, 1)


def starts(labels: Tensor, tasks: int | Tensor, spec: StreamSpec) -> int | Tensor:
    """First output of the tasks: a number, or (b,) for tasks (b,) of labels (b,)."""
    if isinstance(tasks, int):
        return spec.outputs_before(tasks)
    if not spec.sizes:
        return spec.classes_per_task * tasks
    return labels.new_tensor([spec.outputs_before(j) for j in range(spec.n_tasks)])[tasks]


def _real(spec: StreamSpec, tasks: int, like: Tensor) -> Tensor:
    """Mask (k, C) of the outputs that the first k tasks have."""
    sizes = torch.tensor(spec.sizes[:tasks], device=like.device)
    return torch.arange(spec.classes_per_task, device=like.device) < sizes[:, None]
