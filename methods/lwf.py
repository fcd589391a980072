"""LwF: learning without forgetting; the network before the task is the teacher on the new data.

Li & Hoiem (2016), ECCV, arXiv 1606.09282. While task t is learnt, with z the logits and z* those of the network
as it was before the task, the loss on the new task's samples is

    CE + alpha * sum over old tasks of KL( softmax(z*/T) || softmax(z/T) )

which has the gradient of their distillation loss (eq. 2, 3). TIL: one term for each old head. DIL: one term, over
the shared head. CIL: one term, over all old classes together.

The paper first trains the new head alone (warm-up); here all parameters are trained from the first step.

Deviation of InterContiNet's code, `style="intercontinet"`: in CIL the softmax runs over all outputs, unseen classes
included, and the old ones are then selected without renormalising.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from methods.base import CIL, DIL, Batch, Method, Task, UserError, register
from methods.search import LEARNING_RATE, Log, OneOf, ranges
from methods.shared import heads, optimizers
from methods.shared.optimizers import OptimizerName


@register("lwf")
class LwF(Method):
    """Learning without forgetting: distils the old network's answers on new data (Li & Hoiem 2016)."""

    capturable = True

    @dataclass(frozen=True)
    class Config:
        lr: float = 1e-3
        """Learning rate."""
        alpha: float = 4.0
        """Weight of the distillation (lambda_o): the paper's 1, times T^2 so that its gradient keeps its size."""
        temperature: float = 2.0
        """T: above 1 small probabilities count more."""
        style: Literal["paper", "intercontinet"] = "paper"
        """Normalise over old classes only, or the official deviation above (they differ in CIL)."""
        optimizer: OptimizerName = "adam"
        """Adam, or plain SGD."""
        search = ranges(lr=LEARNING_RATE, alpha=Log(1e-2, 1e2), temperature=OneOf((1.0, 2.0, 4.0)))

        def __post_init__(self) -> None:
            if self.alpha < 0:
                raise UserError(f"alpha = {self.alpha} must not be negative")
            if self.temperature <= 0:
                raise UserError(f"temperature = {self.temperature} must be positive")

    def build(self) -> None:
        self.net = self.network()
        self.teacher = copy.deepcopy(self.net).requires_grad_(False)
        """Copy of the network from before the current task."""

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy of the task plus the distillation of all earlier ones."""
        logits = self.net(batch.x)
        error = cross_entropy(self.answerable(logits, batch.task), batch.y)
        if self.tasks_seen == 1:
            return error
        with torch.no_grad():
            taught = self.old_log_probabilities(self.teacher(batch.x))
        return error + self.config.alpha * divergence(taught, self.old_log_probabilities(logits))

    def old_log_probabilities(self, logits: Tensor) -> Tensor:
        """Logits (b, n_outputs) -> log-probabilities (b, groups, classes) of the old tasks, at temperature T."""
        n_old = self.tasks_seen - 1
        logits = logits / self.config.temperature
        if self.spec.scenario is DIL:
            return logits[:, None].log_softmax(2)
        if self.spec.scenario is not CIL:
            return heads.by_task(logits, n_old, self.spec).log_softmax(2)
        old = self.spec.outputs_before(n_old)
        if self.config.style == "intercontinet":
            return logits.log_softmax(1)[:, None, :old]
        return logits[:, None, :old].log_softmax(2)

    def learn(self, task: Task) -> None:
        self.teacher.load_state_dict(self.net.state_dict())
        self.teacher.eval()
        self.fit(task, self.loss, optimizers.make(self.config.optimizer, self.net.parameters(), self.config.lr))

    def rebuilt(self) -> list[Mapping[str, Tensor]]:
        """The teacher, which is the network before a task."""
        return [self.teacher.state_dict()]

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        return self.answerable(self.net(x), task_id)


def divergence(taught: Tensor, learnt: Tensor) -> Tensor:
    """sum_c q_c (log q_c - log p_c), summed over groups, mean over samples, 0-d.

    taught = log q, learnt = log p: (b, groups, classes). At q = 0 the term is 0.
    """
    return (taught.exp() * (taught - learnt)).sum((1, 2)).mean()
