"""Schedule of a task's training by its validation loss: the rule of a `ValidatedBudget`, one for each call of `fit`.

The rule is that of HAT's, GPM's and WSN's codes. It differs from `selection.Selection`, which is HyperMask's and
HyperInterval's own: loss instead of accuracy, any improvement counts, and training ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.samples import Batch
from benchmarks.types import TIL, Task, UserError, ValidatedBudget
from methods.shared import parts

VALIDATION_BATCH = 2000
"""Validation samples that are judged at once."""


class Schedule:
    """Validation after each epoch of a call of `fit`; the tensors with the lowest loss are kept.

    steps: the most that the call takes. judge: returns the mean loss of the validation samples, 0-d. optimizer: its
    learning rate is lowered. keep: tensors that training changes, in addition to the optimiser's parameters.
    """

    def __init__(
        self,
        task: Task,
        budget: ValidatedBudget,
        steps: int,
        judge: Callable[[], Tensor],
        optimizer: Any,
        keep: Iterable[Tensor] = (),
    ) -> None:
        if len(task.validation) == 0:
            raise UserError("the budget is a schedule by validation loss, but this stream has no validation samples")
        self.budget, self.steps, self.judge, self.optimizer = budget, steps, judge, optimizer
        self.epoch = -(-len(task.train) // budget.batch_size)
        """Steps between two validations."""
        trained = [p for group in getattr(optimizer, "param_groups", ()) for p in group["params"]]
        self.tensors = list({id(tensor): tensor for tensor in [*trained, *keep]}.values())
        self.kept: list[Tensor] = []
        self.best, self.in_vain = math.inf, 0

    def next_look(self, done: int) -> int:
        """Number of steps after which the next validation is due, given those done in this call of `fit`."""
        return min((done // self.epoch + 1) * self.epoch, self.steps)

    def ends(self, done: int) -> bool:
        """Validate the current tensors if it is due, and apply the rule; True if training ends.

        The host waits for the device.
        """
        if done % self.epoch and done < self.steps:
            return False
        loss = float(self.judge())
        if loss < self.best:
            self.best, self.in_vain = loss, 0
            self.kept = [tensor.detach().clone() for tensor in self.tensors]
            return False
        self.in_vain += 1
        if self.in_vain < self.budget.patience:
            return False
        self.in_vain = 0
        return not self._lower_rate()

    @torch.no_grad()
    def restore(self) -> None:
        """Restore the tensors with the lowest loss; nothing if no loss was finite."""
        # Not strict: `kept` is empty if no loss was finite.
        for tensor, kept in zip(self.tensors, self.kept, strict=False):
            tensor.copy_(kept)
        self.kept = []

    def _lower_rate(self) -> bool:
        """Divide the learning rate, unless the highest of all groups would fall below the lowest rate permitted."""
        groups = getattr(self.optimizer, "param_groups", None)
        rate = max(group["lr"] for group in groups) if groups else self.optimizer.lr
        if rate / self.budget.divisor < self.budget.lowest_rate:
            return False
        if groups is None:
            self.optimizer.lr = rate / self.budget.divisor
        for group in groups or ():
            group["lr"] /= self.budget.divisor
        return True


def of_fit(
    method: Any,
    task: Task,
    steps: int,
    optimizer: Any,
    judge: Callable[[Batch], Tensor] | None,
    keep: Iterable[Tensor],
) -> Schedule | None:
    """Schedule of a call of `Method.fit` under a `ValidatedBudget`, else None. See `fit` for judge and keep."""
    if not isinstance(task.budget, ValidatedBudget):
        return None
    tasks = (*task.previous, task) if judge is None else (task,)
    buffers = [buffer for network in parts.networks(method).values() for buffer in network.buffers()]

    def of_answers(batch: Batch) -> Tensor:
        return cross_entropy(method.predict(batch.x, batch.task if method.spec.scenario is TIL else None), batch.y)

    @torch.no_grad()
    def loss() -> Tensor:
        total = torch.zeros((), device=method.device)
        with _evaluating(method):
            for one in tasks:
                for batch in one.validation.batches(VALIDATION_BATCH):
                    total += (judge or of_answers)(batch) * len(batch.y)
        return total / sum(len(one.validation) for one in tasks)

    return Schedule(task, task.budget, steps, loss, optimizer, [*keep, *buffers])


@contextmanager
def _evaluating(method: Any) -> Iterator[None]:
    """Context in which all networks of the method are in evaluation mode."""
    flags = parts.flags(method)
    for network in parts.networks(method).values():
        network.train(False)
    try:
        yield
    finally:
        parts.set_flags(method, flags)
