"""Separate: a network of its own for each task, trained on that task alone.

The bound of all methods that keep old tasks by construction: nothing is shared, so nothing is forgotten and nothing is
transferred, and the memory is that of all networks. Tables call it STL (single-task learning) or "separate networks".
Task t starts with a new network, drawn from the seed, and a new Adam; the first one is that of all other methods.

TIL: the network of the given task, as in those tables. In DIL and CIL the task is inferred from the networks' answers,
an addition; separate networks then bound the answers within a task, not the inference.

The promise is exact: networks of learnt tasks are copies that nothing trains, and `audit` compares them bit by bit.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.types import StreamSpec
from methods.base import Batch, Needs, Task, register
from methods.networks import targets
from methods.point_per_task import PointPerTask
from methods.point_promise import Numbers
from methods.search import LEARNING_RATE, ranges
from methods.shared import inference
from methods.shared.grouped import Group, GroupedNetwork, Point
from methods.shared.inference import Inference
from methods.shared.maskable import Statistics


@register("separate")
class Separate(PointPerTask):
    """One network for each task, each trained alone (bound of methods that keep old tasks by construction)."""

    capturable = True

    @dataclass(frozen=True)
    class Config:
        lr: float = 1e-3
        """Adam learning rate."""
        inference: Inference = "entropy"
        """DIL, CIL: task inference by least entropy, or nearest class (FeCAM); "interval" is refused."""
        fecam_answer: Literal["class", "task"] = "class"
        """With FeCAM, answer with the nearest class itself, or use only its task."""
        fecam_tukey: bool = False
        """With FeCAM, take the square root of the features."""
        search = ranges(lr=LEARNING_RATE)

        def __post_init__(self) -> None:
            inference.check("separate", self.inference)

    @classmethod
    def needs(cls, spec: StreamSpec, config: Any) -> Needs:
        """The network of each task, twice with the audit's copy."""
        network = targets.on_meta(spec.network, spec.input_shape, spec.classes_per_task)
        size = sum(part.numel() for part in (*network.parameters(), *network.buffers()))
        return Needs(floats_per_task=2 * size + cls.floats_per_task(spec, config))

    def build(self) -> None:
        super().build()
        self.net = self.network(self.spec.classes_per_task)
        self.target = GroupedNetwork(copy.deepcopy(self.net), lambda *_: Group.OWN)
        self.kept: list[Tensor] = []
        """Parameters (p,) of each learnt task's network."""
        self.statistics: list[Statistics] = []
        """Batch norm's buffers of each learnt task's network."""
        self.promise(self.target.first.masked)  # nothing is shared

    def learn(self, task: Task) -> None:
        if task.index:
            self.net.load_state_dict(self.network(self.spec.classes_per_task).state_dict())

        def loss(batch: Batch) -> Tensor:
            logits = self.of_task(self.net(batch.x), task.index)
            return cross_entropy(logits, self.within_task(batch.y, task.index))

        # `predict` would answer with the network of an inferred task in DIL and CIL.
        self.fit(task, loss, self.net.parameters(), lr=self.config.lr, judge=loss)
        learnt = self.target.values(self.net)
        self.kept.append(learnt.own)
        self.statistics.append(learnt.statistics)
        self.describe_classes(task)
        self.freeze(task.index)

    def point(self, task: int) -> Point:
        """Network of a task; that of the latest one for a task not yet learnt."""
        if task >= len(self.kept):
            return self.target.values(self.net)
        return self.target.first._replace(own=self.kept[task], statistics=self.statistics[task])

    def numbers(self, task: int) -> Numbers:
        """The task's parameters and statistics, all its own."""
        shared, _, own, statistics = self.point(task)
        floats = [b.flatten() for b in statistics.values() if b.is_floating_point()]
        return Numbers(shared, shared.bool(), torch.cat([own, *floats]))

    def rebuilt(self) -> list[Mapping[str, Tensor]]:
        """The network in training, once a task has its own; the next task starts with a new one."""
        return [self.net.state_dict()] if self.kept else []
