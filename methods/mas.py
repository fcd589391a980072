"""MAS: memory aware synapses; importance is the sensitivity of the answers to a parameter.

Aljundi et al. (2018), ECCV, arXiv 1711.09601. After each task (their eq. 3), from inputs alone,

    Omega_i <- decay * Omega_i + mean over x of | d |f(x)|^2 / d theta_i |

and while the next is learnt (eq. 4) the loss is CE + lambda * sum_i Omega_i (theta_i - theta*_i)^2, with theta* the
parameters after the latest task. f(x) are the admissible logits of the task.
Running statistics of batch norm are no parameters: no penalty holds them, and they move with every task.

Deviation of InterContiNet's code, `style="intercontinet"`: the gradient of the mean of squared logits over a whole
batch, summed over batches (so signs cancel within a batch, and the size depends on the number of batches).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from methods.base import Task, UserError, register
from methods.quadratic_penalty import QuadraticPenalty
from methods.search import LEARNING_RATE, Log, ranges
from methods.shared.fisher import draw, sum_over_batches, sum_over_samples
from methods.shared.optimizers import OptimizerName


@register("mas")
class MAS(QuadraticPenalty):
    """Memory aware synapses: holds parameters to which the answers are sensitive (Aljundi et al. 2018)."""

    @dataclass(frozen=True)
    class Config:
        lr: float = 1e-3
        """Learning rate."""
        strength: float = 0.1
        """lambda, the weight of the penalty."""
        decay: float = 1.0
        """Factor of the old importance when a task is added."""
        style: Literal["paper", "intercontinet"] = "paper"
        """Per-sample gradients and their mean, or batch gradients and their sum."""
        samples: int | None = 2048
        """Training samples, drawn at random, for the importance (none: all; as in InterContiNet's style)."""
        optimizer: OptimizerName = "adam"
        """Adam, or plain SGD."""
        search = ranges(lr=LEARNING_RATE, strength=Log(1e-5, 1e3))

        def __post_init__(self) -> None:
            if self.strength < 0:
                raise UserError(f"strength = {self.strength} must not be negative")
            if not 0 <= self.decay <= 1:
                raise UserError(f"decay = {self.decay} must lie in [0, 1]")
            if self.samples is not None and self.samples < 1:
                raise UserError(f"samples = {self.samples} must be at least 1")

    def consolidate(self, importance: Tensor) -> None:
        self.anchor.move(importance, self.config.decay)

    def rebuilt(self) -> list[Tensor]:
        """The anchor, which is the network itself."""
        return [self.anchor.centre]

    def importance(self, task: Task) -> Tensor:
        """Sensitivity of the task's answers to each parameter, (P,) (eq. 3)."""

        def squared_norm(logits: Tensor, labels: Tensor) -> Tensor:
            return self.answerable(logits, task.index).square().sum(1)[None]

        def mean_square(logits: Tensor, labels: Tensor) -> Tensor:
            return self.answerable(logits, task.index).square().mean()

        if self.config.style == "intercontinet":
            return sum_over_batches(self.net, task.train, task.budget.batch_size, mean_square, torch.abs)
        samples = draw(task.train, self.config.samples)
        return sum_over_samples(self.net, samples, squared_norm, torch.abs) / len(samples)
