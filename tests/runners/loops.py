"""Methods with training loops of their own, and one that solves in closed form; loaded as `loops.py:Class`."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.types import TIL
from methods.base import Diverged, Method, Progress, Task, batch_order, register
from tests.runners.broken import Sound


class Own(Sound):
    """Steps of Adam in a loop that appends to the curve."""

    name = "own"

    def learn(self, task: Task) -> None:
        for step, loss in self.steps(task):
            self.tell(task, step, loss)

    def steps(self, task: Task) -> Iterator[tuple[int, Tensor]]:
        optimizer = torch.optim.Adam(self.net.parameters(), lr=self.config.lr)
        order = batch_order(len(task.train), task.budget.batch_size, task.order_seed, self.device)
        for step in range(task.budget.steps_for(len(task.train))):
            loss = self.loss(task.train.training_batch(next(order), step))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield step + 1, loss.detach()

    def tell(self, task: Task, step: int, loss: Tensor) -> None:
        """Append to the curve every third step."""
        if step % 3 == 0:
            self.curve.append(Progress(task.index, step, task.budget.steps_for(len(task.train)), float(loss)))

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        return self.answerable(self.net(x), task_id).nan_to_num()


@register("reporting")
class Reporting(Own):
    """Reports progress, with a tensor for the loss, and keeps no curve."""

    def tell(self, task: Task, step: int, loss: Tensor) -> None:
        self.progress(Progress(task.index, step, 6, loss))  # type: ignore[arg-type]


@register("wrong-report")
class WrongReport(Own):
    """Reports something else."""

    def tell(self, task: Task, step: int, loss: Tensor) -> None:
        self.progress((step, float(loss)))  # type: ignore[arg-type]


@register("nan-in-the-curve")
class NanInTheCurve(Own):
    """Records a loss of task 1 that is not a number, and goes on."""

    def tell(self, task: Task, step: int, loss: Tensor) -> None:
        super().tell(task, step, loss * math.nan if task.index == 1 else loss)


@register("infinite-weights")
class InfiniteWeights(Own):
    """Loses a weight in task 1, which the answers hide."""

    def learn(self, task: Task) -> None:
        super().learn(task)
        if task.index == 1:
            next(self.net.parameters()).data.view(-1)[3] = math.inf


@register("raising")
class Raising(Own):
    """Raises Diverged itself."""

    def tell(self, task: Task, step: int, loss: Tensor) -> None:
        if task.index == 1:
            raise Diverged(task.index, step, math.inf)


@register("samples-by-text")
class SamplesByText(Own):
    """Declares its samples in words."""

    memory_samples = "few"  # type: ignore[assignment]


@register("keeping")
class Keeping(Own):
    """Declares eight samples a task, keeps six, and diverges in task 1."""

    def build(self) -> None:
        super().build()
        self.memory_samples = 8 * self.spec.n_tasks

    def learn(self, task: Task) -> None:
        super().learn(task)
        setattr(self, f"kept{task.index}", task.train.batch(slice(6)).x)


@register("keeping-and-diverging")
class KeepingAndDiverging(Keeping, Raising):
    """Diverges in task 1."""


@register("nearest-mean")
class NearestMean(Method):
    """Answers by the nearest mean of a class, from sums: nothing has gradients, and nothing is drawn."""

    def build(self) -> None:
        n, size = self.spec.n_outputs, math.prod(self.spec.input_shape)
        self.sums, self.counts = torch.zeros(n, size, device=self.device), torch.zeros(n, device=self.device)

    def learn(self, task: Task) -> None:
        labels = task.y + self.spec.classes_per_task * task.index if self.spec.scenario is TIL else task.y
        self.sums.index_add_(0, labels, task.x.flatten(1))
        self.counts += torch.bincount(labels, minlength=len(self.counts))

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        means = self.sums / self.counts.clamp(min=1)[:, None]
        return self.answerable(-torch.cdist(x.flatten(1), means), task_id)
