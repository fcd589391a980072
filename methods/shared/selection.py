"""Watching the validation accuracy of a task under way: which weights to keep, when to lower the learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

PATIENCE = 5
"""Looks without improvement that a learning rate survives."""
FACTOR = math.sqrt(0.1)
LOWEST_RATE = 5e-7


class HasRate(Protocol):
    """An optimiser with one learning rate."""

    @property
    def lr(self) -> float: ...
    @lr.setter
    def lr(self, value: float) -> None: ...


class Selection:
    """Keeps the tensors of the best look; every look judges the very tensors that may be kept.

    judge: gives the validation accuracy, a 0-d tensor. keep: the tensors to keep, none to keep the last ones.
    optimizer: whose learning rate is lowered on a plateau (as torch's ReduceLROnPlateau: maximise, relative
    threshold 1e-4), or None.
    """

    def __init__(self, judge: Callable[[], Tensor], keep: Sequence[Tensor], optimizer: HasRate | None = None) -> None:
        self.judge, self.tensors, self.optimizer = judge, list(keep), optimizer
        self.best = self.best_of_rate = -1.0
        self.kept: list[Tensor] = []
        self.looks_in_vain = 0

    def look(self, _: int = 0) -> None:
        """Judge the tensors as they are now; the host waits for the device."""
        if not self.tensors and self.optimizer is None:
            return
        accuracy = float(self.judge())
        if self.tensors and accuracy > self.best:
            self.best = accuracy
            self.kept = [tensor.detach().clone() for tensor in self.tensors]
        if self.optimizer is not None:
            self._lower_rate(self.optimizer, accuracy)

    @torch.no_grad()
    def restore(self) -> None:
        """Put the best tensors back."""
        for tensor, kept in zip(self.tensors, self.kept, strict=False):
            tensor.copy_(kept)
        self.kept = []  # a copy of a hypernetwork is large, and whoever judges may hold this object

    def _lower_rate(self, optimizer: HasRate, accuracy: float) -> None:
        if accuracy > self.best_of_rate * (1 + 1e-4):
            self.best_of_rate, self.looks_in_vain = accuracy, 0
            return
        self.looks_in_vain += 1
        if self.looks_in_vain > PATIENCE:
            optimizer.lr, self.looks_in_vain = max(optimizer.lr * FACTOR, LOWEST_RATE), 0
