"""Base of methods that hold parameters near their values after earlier tasks by a quadratic penalty."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor
from torch.nn.functional import cross_entropy

from methods.base import Batch, Method, Task
from methods.shared import optimizers
from methods.shared.anchor import Anchor


class QuadraticPenalty(Method):
    """Cross-entropy plus factor * sum_i Omega_i (theta_i - theta*_i)^2; a subclass defines Omega.

    A subclass's `Config` has the fields `lr`, `strength` and `optimizer`.
    """

    capturable = True
    config: Any

    def build(self) -> None:
        self.net = self.network()
        self.anchor = Anchor(self.net)

    @property
    def factor(self) -> float:
        """Factor of the penalty."""
        return self.config.strength

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy of the task plus the penalty of all earlier ones."""
        error = cross_entropy(self.answerable(self.net(batch.x), batch.task), batch.y)
        return error if self.tasks_seen == 1 else error + self.factor * self.anchor.penalty()

    def learn(self, task: Task) -> None:
        self.fit(task, self.loss, optimizers.make(self.config.optimizer, self.net.parameters(), self.config.lr))
        self.consolidate(self.importance(task))

    @abstractmethod
    def importance(self, task: Task) -> Tensor:
        """Omega of the task just learnt, (P,), non-negative; zero for free parameters."""

    @abstractmethod
    def consolidate(self, importance: Tensor) -> None:
        """Anchor the current parameters with a new importance (P,)."""

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        return self.answerable(self.net(x), task_id)
