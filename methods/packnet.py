"""PackNet: each task trains the free weights, keeps the largest, and leaves the others to later tasks.

Mallya & Lazebnik (2018), "PackNet: Adding Multiple Tasks to a Single Network by Iterative Pruning", CVPR,
arXiv 1711.05769. An owner map has one integer per weight: 0 for a free weight, k for one that task k (1-based) owns.
Task k

1. takes all free weights and trains them; the network has all weights, those of earlier tasks are frozen;
2. prunes: in each tensor with n_k own weights the r = round(p n_k) smallest |w| become 0 and free again;
3. trains the weights that it kept. The last task of a stream prunes nothing and trains in one phase.

Task j is answered by the weights with 1 <= owner <= j and its head, so that it uses all earlier tasks' weights too.
`keep = "equal"` leaves every task the same share of each tensor, p = 1 - 1 / (T - k + 1), as the baseline of WSN does
(Kang et al. 2022); a number is the share 1 - p of the weights that are free.

The promise is exact: owned weights, heads and the own parameters of a task never change. After each step all others are
set back to their frozen values, so no optimiser can move them, momentum and weight decay included (the official
code adds weight decay after it has zeroed gradients: 1e-4 moved all frozen weights). `audit` compares the networks with
copies. The table `capacity` of a record has the share of weights taken.

DIL and CIL by the shared task inference are an addition to the paper, which has TIL only.

Deviations from the official code, and the option that restores its behaviour:
- Biases and batch norm are copied for each task. There they are those of the first task (biases="first",
  batch_norm="frozen"); training them further would change old answers.
- Free weights start a task with the values that they were built with. There they start at 0, where a unit without any
  other weight and without a positive bias never wakes (restart="zero").
- Of equal weights at the cut only as many are pruned as the rank asks for. There all of them are (ties="official").
- Tensors of which nothing is to be pruned are left as they are; the official code fails for them.
- Owners are 16-bit integers, so that there may be more than 255 tasks.
- Training starts from scratch, not from ImageNet. Under a plain budget the last weights of each phase are kept;
  there the test error chooses (selection="val" chooses by validation loss).

Published settings: SGD 1e-3 with momentum 0.9, retraining at 1e-4, p = 0.5 for the first and 0.75 for later tasks; as a
baseline of WSN Adam 1e-3, equal shares, no biases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from methods.base import Task, UserError, register
from methods.search import LEARNING_RATE, Even, ranges
from methods.shared.grouped import Group, Point
from methods.shared.ownership import FREE, holding, owned_up_to
from methods.shared.topk import order_statistic, smallest
from methods.subnetworks import Subnetworks

Ties = Literal["index", "official"]


@register("packnet")
class PackNet(Subnetworks):
    """Iterative pruning: tasks share out the weights of one network (Mallya & Lazebnik 2018)."""

    @dataclass(frozen=True)
    class Config(Subnetworks.Config):
        keep: float | Literal["equal"] = "equal"
        """Share of the free weights that a task keeps of each tensor; "equal": the same number for every task."""
        retrain_share: float = 1 / 3
        """Share of the steps that train the kept weights after pruning."""
        retrain_lr: float | None = None
        """Learning rate of these steps; None: the same (official code: a tenth)."""
        biases: Literal["per-task", "first", "none"] = "per-task"
        """Biases below the head: a copy for each task, those of the first task (official code), or zero."""
        restart: Literal["fresh", "zero"] = "fresh"
        """Values of free weights when a task takes them: those that they were built with, or zero (official code)."""
        ties: Ties = "index"
        """Equal weights at the cut: those that come first are pruned, or all (official code)."""
        search = ranges(lr=LEARNING_RATE, retrain_share=Even(0.1, 0.6))

        def __post_init__(self) -> None:
            if self.keep != "equal" and not 0 < self.keep <= 1:
                raise UserError(f'packnet: keep = {self.keep} must be "equal", or a share above 0 and up to 1')
            if not 0 <= self.retrain_share < 1:
                raise UserError(f"packnet: retrain_share = {self.retrain_share} must be at least 0 and less than 1")
            Subnetworks.check("packnet", self)

    config: Config

    @classmethod
    def biases_in(cls, config: Any) -> Group:
        """Group of the biases."""
        return {"per-task": Group.OWN, "first": Group.FIXED, "none": Group.ABSENT}[config.biases]

    def build(self) -> None:
        super().build()
        self.owners = torch.zeros_like(self.weights, dtype=torch.int16, requires_grad=False)
        """Owner (n,) of each weight: 0 free, else the number of its task, counted from 1."""

    def mask(self, task: int) -> Tensor:
        """Mask (n,) bool of the weights of a task and of those before it."""
        return owned_up_to(self.owners, task)

    def live(self) -> Point:
        """Network with all weights."""
        return Point(self.weights, self.fixed, self.own, self.statistics_of(len(self.kept)))

    def learn(self, task: Task) -> None:
        free = self.free_weights(task.index)
        steps = task.budget.steps_for(len(task.train))
        last = task.index + 1 == self.spec.n_tasks
        retrained = 0 if last else round(steps * self.config.retrain_share)
        self.take(task)
        self._phase(task, 0, steps - retrained, self.config.lr)
        if not last:
            self.prune(task.index, free)
            self._phase(task, steps - retrained, retrained, self.config.retrain_lr)
        self.finish(task)

    def _phase(self, task: Task, first: int, steps: int, lr: float | None) -> None:
        """Train the weights that the task owns at present."""
        if steps:
            hold = holding(self.weights, self.owners == task.index + 1)
            weights = self.leaves(self.weights, Group.MASKED)
            self.train(task, lambda: weights, list(weights.values()), hold, lr=lr, first_step=first, steps=steps)

    def free_weights(self, task: int) -> list[int]:
        """Number of free weights in each tensor. Raises UserError if there is none for the task."""
        parts = (self.owners == FREE).split(self.target.sizes(Group.MASKED))
        counts = torch.stack([part.sum() for part in parts]).tolist()
        if not sum(counts):
            raise UserError(
                f"packnet: task {task} (from 0) finds no free weight, since earlier tasks own all {len(self.owners)}; "
                f"lower keep = {self.config.keep}, or take a larger network than {self.spec.network}"
            )
        return counts

    @torch.no_grad()
    def take(self, task: Task) -> None:
        """Give all free weights to a task, with the values from which it starts."""
        self.start(task)
        free, start = self.owners == FREE, self.target.first.masked
        if task.index and self.config.restart == "zero":
            start = torch.zeros_like(start)
        self.weights.copy_(torch.where(free, start, self.weights))
        self.owners = torch.where(free, task.index + 1, self.owners)

    @torch.no_grad()
    def prune(self, task: int, owned: list[int]) -> None:
        """Set the smallest of a task's weights to 0 and free, tensor by tensor. owned: their number in each."""
        keep = self.config.keep
        share = 1 - (1 / (self.spec.n_tasks - task) if keep == "equal" else keep)
        sizes, own = self.target.sizes(Group.MASKED), self.owners == task + 1
        parts = zip(self.weights.split(sizes), own.split(sizes), owned, strict=True)
        gone = torch.cat([pruned(w, mine, round(share * n), self.config.ties) for w, mine, n in parts])
        self.owners = torch.where(gone, FREE, self.owners)
        self.weights.masked_fill_(self.owners == FREE, 0)


def pruned(weights: Tensor, own: Tensor, count: int, ties: Ties) -> Tensor:
    """Mask (n,) of the `count` smallest |w| among a task's own weights (n,), of which there are at least as many."""
    if count == 0:
        return torch.zeros_like(own)
    sizes = torch.where(own, weights.abs(), torch.inf)
    return sizes <= order_statistic(sizes, count - 1) if ties == "official" else smallest(sizes, count)
