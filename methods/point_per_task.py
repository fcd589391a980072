"""The base of methods with one fixed network for each task, made of shared numbers and the task's own."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.types import StreamSpec, UserError
from methods.base import Batch, Optimizer, Task
from methods.intervals.bounding import Interval, propagate
from methods.network_per_task import NetworkPerTask
from methods.point_promise import PointPromise
from methods.search import Range
from methods.shared.grouped import GroupedNetwork, Point
from methods.shared.selection import Selection


class PointPerTask(PointPromise, NetworkPerTask):
    """WSN, PackNet and their relatives: answers of one network for each task, over one head of within-task classes.

    TIL: the network of the given task. DIL and CIL: that of the task inferred, an addition to the papers. A subclass's
    `build` sets `target`; its `Config` has the fields `inference`, `fecam_answer` and `fecam_tukey`.
    """

    target: GroupedNetwork

    @abstractmethod
    def point(self, task: int) -> Point:
        """Network of a task; that of the latest one for a task not yet learnt."""

    @classmethod
    def held_weights(cls, spec: StreamSpec, config: Any) -> dict[str, float]:
        """No regulariser, so no strength."""
        return {}

    @classmethod
    def searched(cls, spec: StreamSpec, config: Any, ranges: Mapping[str, Range]) -> Mapping[str, Range]:
        """The ranges as declared."""
        return ranges

    @classmethod
    def remarks(cls, spec: StreamSpec, config: Any, tuned: Collection[str]) -> list[str]:
        """No remark."""
        return []

    def logits(self, x: Tensor, task: int) -> Tensor:
        """Within-task logits (b, C) of a task's network."""
        return self.target(self.point(task), x)

    def features(self, x: Tensor, task: int) -> Tensor:
        """Inputs of the output layer (b, d) in a task's network."""
        return self.target.features(self.point(task), x)

    def every_task(self, x: Tensor) -> tuple[Tensor, None]:
        """Within-task logits (k, b, C) of all tasks seen."""
        return torch.stack([self.logits(x, task) for task in range(max(1, self.tasks_seen))]), None

    def logit_bounds(self, x: Tensor, task: int) -> Interval:
        """Bounds (b, C) of the within-task logits of a task's network, without rounding, float64."""
        point = self.point(task)
        weights = {name: Interval.point(value.detach()) for name, value in self.target.named(point).items()}
        known = self.spec.nonnegative_inputs
        self.target.enter(training=False)
        return propagate(
            self.target.network, weights, x, nonnegative_inputs=known, buffers=point.statistics, rounded=True
        )

    # -- training ----------------------------------------------------------------------------------

    def trained_outputs(self, logits: Tensor, task: int) -> Tensor:
        """Logits (b, C) that the loss of a task compares."""
        return self.of_task(logits, task)

    def fit_best(
        self,
        task: Task,
        loss: Callable[[Batch], Tensor],
        optimizer: Optimizer,
        kept: Sequence[Tensor],
        judged: Callable[[], Point],
        after_epoch: Callable[[int], None] | None = None,
        **options: Any,
    ) -> None:
        """`fit`; with selection = "val", end with the tensors `kept` of the epoch with the least validation loss.

        kept: all that training changes and the task's network consists of. judged: gives the network that validation
        judges, within the task's classes. after_epoch: called with the steps done; it replaces the rule of a
        `ValidatedBudget`, as selection = "val" does.
        """
        best = self._selection(task, kept, judged) if self.config.selection == "val" else None
        looks = [*([best.look] if best else []), *([after_epoch] if after_epoch else [])]
        if looks:
            options |= {"check_every": steps_per_epoch(task), "on_check": lambda done: [look(done) for look in looks]}

        def judge(batch: Batch) -> Tensor:
            return self._loss_of(judged(), batch, task.index)

        self.fit(task, loss, optimizer, scheduled=not looks, judge=judge, keep=kept, **options)
        if best:
            best.restore()

    def _selection(self, task: Task, kept: Sequence[Tensor], judged: Callable[[], Point]) -> Selection:
        if len(task.validation) == 0:
            raise UserError(f'{self.name}: selection = "val" needs validation samples; this stream has none')
        best = Selection(lambda: -self.validation_loss(task, judged()), kept)
        best.best = -math.inf  # it keeps the largest, which is at least 0 for the accuracies that it is made for
        return best

    @torch.no_grad()
    def validation_loss(self, task: Task, point: Point) -> Tensor:
        """Mean cross-entropy of a network over a task's validation samples, 0-d."""
        total = torch.zeros((), device=self.device)
        for batch in task.validation.batches(2000):
            total += self._loss_of(point, batch, task.index, "sum")
        return total / len(task.validation)

    def _loss_of(self, point: Point, batch: Batch, task: int, reduction: str = "mean") -> Tensor:
        logits = self.trained_outputs(self.target(point, batch.x), task)
        return cross_entropy(logits, self.within_task(batch.y, task), reduction=reduction)


def steps_per_epoch(task: Task) -> int:
    """Steps in which a task's training samples are seen once."""
    return -(-len(task.train) // task.budget.batch_size)
