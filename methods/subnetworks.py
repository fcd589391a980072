"""The base of methods that train weights once and let later tasks use them unchanged: WSN and PackNet."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.types import StreamSpec, UserError
from methods.base import Batch, Exhibit, Needs, Task
from methods.networks import targets
from methods.point_per_task import PointPerTask
from methods.point_promise import Numbers
from methods.shared import inference, optimizers, tables
from methods.shared.capacity import capacity
from methods.shared.grouped import Group, GroupedNetwork, Named, Point, layer_of
from methods.shared.inference import Inference
from methods.shared.maskable import Statistics
from methods.shared.optimizers import OptimizerName
from methods.shared.ownership import WORD


class Subnetworks(PointPerTask):
    """Shared weights under 0-1 masks, one per task; the head, and by default biases and batch norm, are a task's own.

    A task starts with the head of the network as it was built, and with the biases and batch norm of the task before.
    """

    capturable = True

    @dataclass(frozen=True)
    class Config:
        lr: float = 1e-3
        """Learning rate."""
        optimizer: OptimizerName = "adam"
        """Adam, or SGD; a fresh one for each phase of training."""
        momentum: float = 0.0
        """Momentum of SGD."""
        batch_norm: Literal["per-task", "frozen"] = "per-task"
        """Parameters and statistics of norm layers: a copy for each task, or constant after the first task."""
        selection: Literal["last", "val"] = "last"
        """Keep the last weights, or of every epoch's those with the least validation loss."""
        inference: Inference = "entropy"
        """DIL, CIL: task inference by least entropy, or nearest class (FeCAM); "interval" is refused."""
        fecam_answer: Literal["class", "task"] = "class"
        """With FeCAM, answer with the nearest class itself, or use only its task."""
        fecam_tukey: bool = False
        """With FeCAM, take the square root of the features."""

    @staticmethod
    def check(method: str, config: Any) -> None:
        """Raise UserError for settings that no stream suits."""
        if not 0 <= config.momentum < 1:
            raise UserError(f"{method}: momentum = {config.momentum} must be at least 0 and less than 1")
        inference.check(method, config.inference)

    @classmethod
    @abstractmethod
    def biases_in(cls, config: Any) -> Group:
        """Group of the biases below the head."""

    @abstractmethod
    def mask(self, task: int) -> Tensor:
        """Mask (n,) bool of the shared weights in a learnt task's network."""

    @abstractmethod
    def live(self) -> Point:
        """Network in training, without copies."""

    @classmethod
    def grouped(cls, network: nn.Module, config: Any) -> GroupedNetwork:
        """The network with its parameters in groups."""
        weighted = {layer_of(name) for name, p in network.named_parameters() if p.dim() > 1}
        of_norms = Group.OWN if config.batch_norm == "per-task" else Group.FIXED

        def group_of(name: str, p: Tensor) -> Group:
            if p.dim() > 1:
                return Group.MASKED
            # A vector in a layer without a matrix is the scale or shift of a norm layer. A scale of 0 would make
            # every answer the same.
            return cls.biases_in(config) if layer_of(name) in weighted else of_norms

        return GroupedNetwork(network, group_of)

    @classmethod
    def on_meta(cls, spec: StreamSpec, config: Any) -> GroupedNetwork:
        """Shapes of the grouped network on a stream."""
        return cls.grouped(targets.on_meta(spec.network, spec.input_shape, spec.classes_per_task), config)

    @classmethod
    def skip(cls, spec: StreamSpec, config: Any) -> str | None:
        """Skip also networks without a weight below the output layer."""
        if not super().skip(spec, config) and not cls.on_meta(spec, config).shapes[Group.MASKED]:
            return f"{cls.name}: {spec.network} has no weight below the output layer, of which tasks could use a part"
        return super().skip(spec, config)

    @classmethod
    def needs(cls, spec: StreamSpec, config: Any) -> Needs:
        """Own numbers and mask of each task, and the audit's copies; the copy that holds frozen weights."""
        target = cls.on_meta(spec, config)
        own = target.first.own.numel() + sum(b.numel() for b in target.first.statistics.values())
        kept = 2 * (own + -(-target.first.masked.numel() // WORD)) + cls.floats_per_task(spec, config)
        return Needs(4 + (config.selection == "val"), floats_per_task=kept, generated=4)

    def build(self) -> None:
        super().build()
        self.target = self.grouped(self.network(self.spec.classes_per_task), self.config)
        masked, fixed, own, _ = self.target.first
        self.weights, self.fixed, self.own = (nn.Parameter(flat.clone()) for flat in (masked, fixed, own))
        self.statistics: list[Statistics] = []
        """Batch norm's buffers of each task, or of the first one alone if they are constant after it."""
        self.kept: list[Tensor] = []
        """Own parameters (r,) of each learnt task."""
        self.promise(torch.cat([masked, fixed]))

    # -- training ----------------------------------------------------------------------------------

    @property
    def norms_train(self) -> bool:
        """True while batch norm's parameters and statistics may change."""
        return self.config.batch_norm == "per-task" or len(self.kept) == 0

    def first_head(self, task: int) -> Tensor:
        """Values (h,) with which the head of a task starts: those of the network as it was built."""
        return self.target.first.own[-self.target.n_head :]

    @torch.no_grad()
    def start(self, task: Task) -> None:
        """Give a task its head and statistics."""
        self.own[-self.target.n_head :] = self.first_head(task.index)
        if self.norms_train:
            before = self.statistics[-1] if self.statistics else self.target.first.statistics
            self.statistics.append({name: b.clone() for name, b in before.items()})

    def train(
        self,
        task: Task,
        masked: Callable[[], Named],
        weights: Sequence[Tensor],
        hold: Callable[[], None],
        *,
        judged: Callable[[], Point] | None = None,
        lr: float | None = None,
        first_step: int = 0,
        steps: int | None = None,
    ) -> None:
        """One phase of training: fit the network to a task, with a fresh optimiser for weights and own parameters.

        masked: gives the masked group of each step's network, computed from `weights`, which are trained. hold: called
        after each step. judged: gives the point that validation judges, by default `live`. lr, steps: replace the
        configured learning rate and the budget.
        """
        rate = self.config.lr if lr is None else lr
        fixed, own = self.leaves(self.fixed, Group.FIXED), self.leaves(self.own, Group.OWN)
        trained = self.trained(weights, fixed, own)
        optimizer = (
            optimizers.adam(trained, rate)
            if self.config.optimizer == "adam"
            else optimizers.SGD(trained, rate, momentum=self.config.momentum, fused=True)
        )
        norms_train, statistics = self.norms_train, self.statistics_of(task.index)

        def loss(batch: Batch) -> Tensor:
            logits = self.target.trained({**masked(), **fixed, **own}, statistics, batch.x, norms_train)
            return cross_entropy(self.of_task(logits, task.index), self.within_task(batch.y, task.index))

        kept = [*trained, *self.statistics[-1].values()]
        self.fit_best(
            task, loss, optimizer, kept, judged or self.live, first_step=first_step, steps=steps, after_step=hold
        )

    def trained(self, weights: Sequence[Tensor], fixed: Named, own: Named) -> list[Tensor]:
        """Parameters of the present task's optimiser: fixed ones in the first task only."""
        return [*weights, *([] if self.kept else fixed.values()), *own.values()]

    def leaves(self, flat: Tensor, group: Group) -> Named:
        """Trainable tensors of a group by name, in the memory of the flat vector.

        Apart, because the gradient of a flat vector would be put together from theirs in every step.
        """
        return {name: view.detach().requires_grad_() for name, view in self.target.views(flat, group).items()}

    def finish(self, task: Task) -> None:
        """Keep a task's own parameters, and freeze its network."""
        self.kept.append(self.own.detach().clone())
        self.describe_classes(task)
        self.freeze(task.index)

    # -- answers -----------------------------------------------------------------------------------

    @torch.no_grad()
    def point(self, task: int) -> Point:
        """Network of a task; that of the latest one for a task not yet learnt."""
        if task >= len(self.kept):
            return self.live()
        return Point(self.weights * self.mask(task), self.fixed, self.kept[task], self.statistics_of(task))

    def statistics_of(self, task: int) -> Statistics:
        """Batch norm's buffers of a task."""
        return self.statistics[min(task, len(self.statistics) - 1)] if self.statistics else self.target.first.statistics

    def numbers(self, task: int) -> Numbers:
        """Shared weights, those that the task uses, and its own parameters and statistics."""
        used = torch.cat([self.mask(task), torch.ones_like(self.fixed, dtype=torch.bool)])
        statistics = [b.flatten() for b in self.statistics_of(task).values() if b.is_floating_point()]
        return Numbers(torch.cat([self.weights, self.fixed]), used, torch.cat([self.kept[task], *statistics]))

    def rebuilt(self) -> list[Tensor]:
        """The latest task's own parameters, of which a copy is kept."""
        return [self.own] if self.kept else []

    # -- tables ------------------------------------------------------------------------------------

    @torch.no_grad()
    def exhibits(self) -> dict[str, Exhibit]:
        """Capacity taken after each task, and the overlap of the masks."""
        masks = [self.mask(task) for task in range(len(self.kept))]
        return {"capacity": capacity(masks), "mask-overlap": tables.mask_overlap(mask.float() for mask in masks)}
