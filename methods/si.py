"""SI: synaptic intelligence; importance is the contribution of a parameter's path to the decrease of the loss.

Zenke, Poole & Ganguli (2017), ICML, arXiv 1703.04200. Along the steps of a task, with g the gradient of its loss,

    omega_i = - sum over steps of g_i * (theta_i after - theta_i before)                                 (eq. 3)
    Omega_i <- Omega_i + max(omega_i, 0) / ((theta_i at the end - at the start)^2 + xi)                  (eq. 5)

and while the next task is learnt the loss is CE + c * sum_i Omega_i (theta_i - theta*_i)^2 (eq. 4), with theta* the
parameters after the latest task. Under a budget by validation loss the path ends where the weights kept lie.
Running statistics of batch norm are no parameters: no penalty holds them, and they move with every task.

Deviations of InterContiNet's code, `style="intercontinet"`: g includes the penalty's gradient;
xi = 1e-7; no max(., 0), so that a negative importance rewards change; the sum is capped at 0.001; c/2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from methods.base import Batch, Method, Task, UserError, register
from methods.search import LEARNING_RATE, Log, ranges
from methods.shared import optimizers
from methods.shared.anchor import Anchor, flat_gradient
from methods.shared.optimizers import OptimizerName

OFFICIAL_DAMPING = 1e-7
OFFICIAL_CAP = 1e-3


@register("si")
class SI(Method):
    """Synaptic intelligence: importance from the path that training took (Zenke et al. 2017)."""

    capturable = True

    @dataclass(frozen=True)
    class Config:
        lr: float = 1e-3
        """Learning rate."""
        strength: float = 10.0
        """Weight c of the penalty."""
        damping: float = 0.1
        """Damping xi, which bounds the importance of parameters that hardly moved (InterContiNet's style: 1e-7)."""
        style: Literal["paper", "intercontinet"] = "paper"
        """Variant: the paper's equations, or InterContiNet's deviations listed above."""
        optimizer: OptimizerName = "adam"
        """Adam, or plain SGD."""
        search = ranges(lr=LEARNING_RATE, strength=Log(1e-3, 1e5))

        def __post_init__(self) -> None:
            if self.strength < 0:
                raise UserError(f"strength = {self.strength} must not be negative")
            if self.damping <= 0:
                raise UserError(f"damping = {self.damping} must be positive")

    def build(self) -> None:
        self.net = self.network()
        self.anchor = Anchor(self.net)
        self.credit = torch.zeros_like(self.anchor.importance)
        """Omega (P,): the sum over tasks, before any cap."""

    @property
    def factor(self) -> float:
        """Factor of the penalty: c, in InterContiNet's style c/2."""
        return self.config.strength * (0.5 if self.config.style == "intercontinet" else 1.0)

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy of the task plus the penalty (eq. 4)."""
        error = cross_entropy(self.answerable(self.net(batch.x), batch.task), batch.y)
        return error if self.tasks_seen == 1 else error + self.factor * self.anchor.penalty()

    def learn(self, task: Task) -> None:
        start = self.anchor.theta()
        before, path = start.clone(), torch.zeros_like(start)
        parameters = self.anchor.protected

        @torch.no_grad()
        def integrate() -> None:
            """Update omega += -g * step; g is still the gradient from before the step."""
            gradient, now = flat_gradient(parameters), self.anchor.theta()
            if self.config.style == "paper" and self.tasks_seen > 1:
                # The path integral is over the task's loss only, without the penalty's gradient.
                gradient.addcmul_(self.anchor.importance, before - self.anchor.centre, value=-2 * self.factor)
            path.addcmul_(gradient, before.sub_(now))
            before.copy_(now)

        optimizer = optimizers.make(self.config.optimizer, self.net.parameters(), self.config.lr)
        # A schedule by validation loss restores earlier weights: the path ends there too.
        self.fit(task, self.loss, optimizer, after_step=integrate, keep=[path])
        self.consolidate(path, self.anchor.theta() - start)

    def consolidate(self, path: Tensor, moved: Tensor) -> None:
        """Turn the path integral omega (P,) and the displacement (P,) into importance (eq. 5); anchor here."""
        if self.config.style == "paper":
            self.credit += path.clamp(min=0) / (moved.square() + self.config.damping)
            self.anchor.move(self.credit)
        else:
            self.credit += path / (moved.square() + OFFICIAL_DAMPING)
            self.anchor.move(self.credit.clamp(max=OFFICIAL_CAP))

    def rebuilt(self) -> list[Tensor]:
        """The anchor, which is the network itself, and Omega, unless a cap makes another importance of it."""
        return [self.anchor.centre, *([self.credit] if self.config.style == "paper" else [])]

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        return self.answerable(self.net(x), task_id)
