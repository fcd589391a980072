"""Model selection of HyperInterval: keep a task's last parameters, the best, or the official code's choice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from benchmarks.samples import Batch
from benchmarks.types import Task
from methods.hypernetworks.output_layer import FusedAdam
from methods.shared.selection import Selection, WithinOneError


class Judged(Protocol):
    """Interface that model selection needs of the method that it watches."""

    config: Any
    hypernetwork: Any
    device: torch.device
    statistics: list[Any]

    @property
    def nested(self) -> bool: ...
    def boxes(self, embeddings: Tensor, shapes: Tensor, eps: Any) -> tuple[Tensor, Tensor]: ...
    def schedule(self, steps: int) -> Tensor: ...
    def present(self, schedule: Tensor) -> Tensor: ...
    def universal_weights(self, newest: Tensor | None = None, radii: bool = True) -> tuple[Tensor, Tensor]: ...
    def outside(self, newest: Tensor | None = None) -> Tensor: ...
    def of_task(self, logits: Tensor, task: int) -> Tensor: ...
    def interval_logits(self, theta: Tensor, rho: Tensor, x: Tensor, task: int) -> tuple[Tensor, Any]: ...
    def middle(self, theta: Tensor, x: Tensor, task: int) -> Tensor: ...
    def within_task(self, labels: Tensor, task: int | Tensor) -> Tensor: ...


class Candidates:
    """Base of model selection, and `last`: nothing is kept or restored, the last parameters stay."""

    capturable = True
    """True if every step is the same, so that it can be captured; see `Method.capturable`."""

    def __init__(self, method: Judged, task: Task, embedding: Tensor, shape: Tensor, optimizer: FusedAdam) -> None:
        self.method, self.task, self.steps = method, task, task.budget.steps_for(len(task.train))
        self.epoch = -(-len(task.train) // task.budget.batch_size)
        self.plateau = Selection(self.judge, [], optimizer) if method.config.plateau else None
        self.embedding, self.shape = embedding, shape
        statistics = method.statistics[-1].values()
        self.tensors = [*method.hypernetwork.parameters(), embedding, shape, *statistics]

    def watch(self, loss: Callable[[Batch], Tensor]) -> Callable[[Batch], Tensor]:
        """Return the loss, or a wrapper that observes it."""
        return loss

    def after_step(self) -> None:
        """Hook after each update."""

    def consider(self, done: int) -> None:
        """Hook every `select_every` updates; checks for a plateau at the first call after an epoch's end."""
        if self.plateau is not None and done % self.epoch < self.method.config.select_every:
            self.plateau.look()

    def restore(self) -> None:
        """Restore the kept parameters, if any; call it last."""
        self.plateau = None  # it judges by this object: such a cycle would keep the task's samples, and the moments

    @torch.no_grad()
    def judge(self) -> Tensor:
        """Validation accuracy, 0-d, of the network that answers: at full eps; in DIL the universal one."""
        method = self.method
        if method.nested:
            theta = method.universal_weights(self.embedding, radii=False)[0]
        else:
            centres, radii = method.boxes(self.embedding, self.shape, method.config.eps)
            theta = method.hypernetwork.intervals(centres, radii, 0)[0][0]
        return self.accuracy(lambda x: method.middle(theta, x, self.task.index))

    def accuracy(self, answer: Callable[[Tensor], Tensor]) -> Tensor:
        """Validation accuracy, 0-d, of answers: inputs (b, ...) -> within-task logits (b, C)."""
        right = torch.zeros((), device=self.method.device)
        for batch in self.task.validation.batches(2000):
            logits = self.method.of_task(answer(batch.x), self.task.index)
            right += (logits.argmax(1) == self.method.within_task(batch.y, batch.task)).sum()
        return right / len(self.task.validation)


class BestOnValidation(Candidates):
    """Best validation accuracy at full eps, measured on the very parameters that are kept."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.selection = self.rule()

    def rule(self) -> Selection:
        """Rule between two candidates."""
        return Selection(self.judge, self.tensors)

    def consider(self, done: int) -> None:
        super().consider(done)
        if done > self.steps // 2 or done == self.steps:
            self.selection.look()

    def restore(self) -> None:
        super().restore()
        self.selection.restore()
        del self.selection  # a cycle too


class FewestOutside(BestOnValidation):
    """Fewest weights outside the boxes of old tasks, among the candidates that validation cannot tell from the best.

    A validation accuracy alone speaks of the current task and rewards forgetting the others. In the first task no box
    is there yet, and the best accuracy decides.
    """

    def rule(self) -> Selection:
        old = self.task.index > 0
        embedding = self.embedding if self.method.nested else None
        return WithinOneError(
            self.judge, self.tensors, len(self.task.validation),
            cost=(lambda: self.method.outside(embedding).sum()) if old else None,
        )  # fmt: skip


class OfficialRule(Candidates):
    """Official rule: judge the parameters before an update, keep those after it.

    Judged every `select_every` steps, in the last one, and at the end of each epoch of a budget in epochs.
    TIL: validation accuracy at the annealed eps, from step 0 on (start 0, strictly greater). Nested:
    minus the training loss of the batch, only where round(eps_i) = eps; so for eps = 0.5 no
    candidate ever qualifies. The official code then returns the untrained network; we keep the last.
    """

    capturable = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.schedule = self.method.schedule(self.steps)
        self.best = float("-inf") if self.method.nested else 0.0
        self.kept: list[Tensor] = []
        self.i = 0
        self.score: float | None = None

    def watch(self, loss: Callable[[Batch], Tensor]) -> Callable[[Batch], Tensor]:
        def watched(batch: Batch) -> Tensor:
            value = loss(batch)
            self.score = self._judge(float(value.detach())) if self._due() else None
            return value

        return watched

    def _due(self) -> bool:
        ends = self.task.budget.epochs is not None and (self.i + 1) % self.epoch == 0
        return ends or self.i % self.method.config.select_every == 0 or self.i == self.steps - 1

    def _judge(self, loss: float) -> float | None:
        eps = self.method.present(self.schedule)[1]
        if self.method.nested:
            return -loss if round(float(eps)) == self.method.config.eps else None
        return float(self._own_accuracy(eps))

    @torch.no_grad()
    def _own_accuracy(self, eps: Any) -> Tensor:
        """Validation accuracy, 0-d, of the official answers at `eps`: with "endpoints" the exchanged middle logits."""
        method, t = self.method, self.task.index
        endpoints = method.config.bounds == "endpoints"
        centres, radii = method.boxes(self.embedding, self.shape, eps)
        theta, rho, _ = method.hypernetwork.intervals(centres, radii, int(endpoints))
        if endpoints:
            return self.accuracy(lambda x: method.interval_logits(theta[0], rho[0], x, t)[0])
        return self.accuracy(lambda x: method.middle(theta[0], x, t))

    def after_step(self) -> None:
        if self.score is not None and self.score > self.best:
            self.best = self.score
            self.kept = [tensor.detach().clone() for tensor in self.tensors]
        self.i += 1

    def restore(self) -> None:
        super().restore()
        for tensor, kept in zip(self.tensors, self.kept, strict=False):
            tensor.data.copy_(kept)


RULES = {"val": BestOnValidation, "claims": FewestOutside, "last": Candidates, "official": OfficialRule}
