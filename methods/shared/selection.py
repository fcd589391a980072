"""Model selection and learning-rate reduction by the validation accuracy of the current task."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

PATIENCE = 5
"""Number of validations without improvement before the learning rate is lowered."""
FACTOR = math.sqrt(0.1)
LOWEST_RATE = 5e-7


class HasRate(Protocol):
    """Optimiser with one learning rate."""

    @property
    def lr(self) -> float: ...
    @lr.setter
    def lr(self, value: float) -> None: ...


class Selection:
    """Selection of the tensors with the best validation accuracy, measured on the very tensors that are kept.

    judge: returns the validation accuracy, a 0-d tensor. keep: the tensors to keep, none to keep the last ones.
    optimizer: its learning rate is lowered on a plateau (as in torch's ReduceLROnPlateau: maximise, relative
    threshold 1e-4); None for no reduction.
    """

    def __init__(self, judge: Callable[[], Tensor], keep: Sequence[Tensor], optimizer: HasRate | None = None) -> None:
        self.judge, self.tensors, self.optimizer = judge, list(keep), optimizer
        self.best = self.best_of_rate = -1.0
        self.kept: list[Tensor] = []
        self.looks_in_vain = 0

    def look(self, _: int = 0) -> None:
        """Validate the current tensors; the host waits for the device."""
        if not self.tensors and self.optimizer is None:
            return
        accuracy = float(self.judge())
        if self.tensors and self._better(accuracy):
            self.kept = [tensor.detach().clone() for tensor in self.tensors]
        if self.optimizer is not None:
            self._lower_rate(self.optimizer, accuracy)

    def _better(self, accuracy: float) -> bool:
        """Decide between the current tensors and those kept, and note what the decision needs."""
        better = accuracy > self.best
        self.best = max(self.best, accuracy)
        return better

    @torch.no_grad()
    def restore(self) -> None:
        """Restore the best tensors."""
        # Not strict: `kept` is empty if no validation has taken place.
        for tensor, kept in zip(self.tensors, self.kept, strict=False):
            tensor.copy_(kept)
        self.kept = []  # frees a large copy: `judge` may keep this object alive

    def _lower_rate(self, optimizer: HasRate, accuracy: float) -> None:
        if accuracy > self.best_of_rate * (1 + 1e-4):
            self.best_of_rate, self.looks_in_vain = accuracy, 0
            return
        self.looks_in_vain += 1
        if self.looks_in_vain > PATIENCE:
            optimizer.lr, self.looks_in_vain = max(optimizer.lr * FACTOR, LOWEST_RATE), 0


class WithinOneError(Selection):
    """Selection of the tensors with the least cost among those within one standard error of the best accuracy.

    The one-standard-error rule (Breiman et al. 1984, "Classification and Regression Trees", section 3.4.3), one
    candidate after the other: kept tensors give way once a better best leaves them more than an error behind.
    samples: number of validation samples. cost: of the current tensors, a 0-d tensor; none: the accuracy decides.
    """

    def __init__(
        self, judge: Callable[[], Tensor], keep: Sequence[Tensor], samples: int, cost: Callable[[], Tensor] | None
    ) -> None:
        super().__init__(judge, keep)
        self.samples, self.cost = samples, cost
        self.of_kept = (-1.0, 0.0)
        """Accuracy and cost of the kept tensors."""

    def _better(self, accuracy: float) -> bool:
        if self.cost is None:
            return super()._better(accuracy)
        self.best = max(self.best, accuracy)
        least = self.best - math.sqrt(self.best * (1 - self.best) / self.samples)
        if accuracy < least:
            return False
        cost = float(self.cost())
        kept, cost_of_kept = self.of_kept
        better = kept < least or (cost, -accuracy) < (cost_of_kept, -kept)
        if better:
            self.of_kept = accuracy, cost
        return better
