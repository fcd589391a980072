"""L2: hold all parameters near the earlier solutions with equal strength; the control experiment of EWC.

While task t is learnt (Kirkpatrick et al. 2017 call it "L2"; also InterContiNet's baseline):

    CE + lambda * sum_{k<t} |theta - theta_k|^2

Separate anchors add up, as in EWC; `mode="online"` keeps the latest only. Rows of the output layer that belong
to classes not yet seen are free: holding them at their random start would only hinder later tasks.
Running statistics of batch norm are no parameters: no penalty holds them, and they move with every task.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from methods.base import Task, UserError, register
from methods.quadratic_penalty import QuadraticPenalty
from methods.search import LEARNING_RATE, Log, ranges
from methods.shared.anchor import flatten, trainable
from methods.shared.fisher import Answer, evaluating
from methods.shared.optimizers import OptimizerName


@register("l2")
class L2(QuadraticPenalty):
    """Holds every parameter near its values after earlier tasks, with equal strength (control for EWC)."""

    @dataclass(frozen=True)
    class Config:
        lr: float = 1e-3
        """Learning rate."""
        strength: float = 1e-3
        """lambda, the weight of the penalty."""
        mode: Literal["separate", "online"] = "separate"
        """One anchor for each task, or only the latest."""
        optimizer: OptimizerName = "adam"
        """Adam, or plain SGD."""
        search = ranges(lr=LEARNING_RATE, strength=Log(1e-6, 1e2))

        def __post_init__(self) -> None:
            if self.strength < 0:
                raise UserError(f"strength = {self.strength} must not be negative")

    def consolidate(self, importance: Tensor) -> None:
        if self.config.mode == "separate":
            self.anchor.add(importance)
        else:
            self.anchor.move(torch.maximum(importance, self.anchor.importance))

    def rebuilt(self) -> list[Tensor]:
        """The latest anchor, which is the network itself."""
        return [self.anchor.centre] if self.config.mode == "online" else []

    def importance(self, task: Task) -> Tensor:
        """Importance (P,): 1 for parameters that took part in the task, 0 for heads of other tasks."""
        x = task.train.batch(slice(task.budget.batch_size)).x
        return in_use(self.net, x, lambda logits: self.answerable(logits, task.index))


def in_use(network: nn.Module, x: Tensor, answer: Answer) -> Tensor:
    """Mask (P,): 0 for the output rows on which only logits outside `answer` depend, else 1.

    Units that happen to be silent on x count as used.
    """
    parameters = trainable(network)
    with evaluating(network):
        logits = network(x)
        answered = answer(logits)
        by_all = torch.autograd.grad(logits.sum(), parameters, retain_graph=True, materialize_grads=True)
        by_answered = torch.autograd.grad(answered.sum(), parameters, materialize_grads=True)
    rows = zip(map(_rows_reached, by_all), map(_rows_reached, by_answered), parameters, strict=True)
    return flatten((~everyone | own).to(p.dtype).expand_as(p) for everyone, own, p in rows)


def _rows_reached(gradient: Tensor) -> Tensor:
    """Check each row (slice of the first axis) for a non-zero entry; keeps the number of axes."""
    reached = gradient != 0
    return reached.any(tuple(range(1, gradient.dim())), keepdim=True) if gradient.dim() > 1 else reached
