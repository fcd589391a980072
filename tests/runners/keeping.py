"""Methods whose state is more than a network in an attribute; loaded as `keeping.py:Class`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from methods.base import TIL, Batch, Method, Task, register


class _Kept(Method):
    supports = frozenset({TIL})

    @dataclass(frozen=True)
    class Config:
        lr: float = 1e-2
        """Adam learning rate."""

    def train(self, task: Task, net: nn.Module, parameters: Iterable[Tensor]) -> None:
        def loss(batch: Batch) -> Tensor:
            return cross_entropy(self.answerable(net(batch.x), task.index), batch.y)

        self.fit(task, loss, parameters, lr=self.config.lr)


@register("kept-parameters")
class KeptParameters(_Kept):
    """What is to be trained is kept in an attribute."""

    def build(self) -> None:
        self.net = self.network()
        self.trained = list(self.net.parameters())

    def learn(self, task: Task) -> None:
        self.train(task, self.net, self.trained)

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        return self.answerable(self.net(x), task_id)


@register("networks-in-a-list")
class NetworksInAList(_Kept):
    """A network with batch norm for each task."""

    def build(self) -> None:
        def made() -> nn.Module:
            layers = nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, self.spec.n_outputs)
            return nn.Sequential(nn.Flatten(), *layers).eval()

        self.nets = [made() for _ in range(self.spec.n_tasks)]

    def learn(self, task: Task) -> None:
        net = self.nets[task.index]
        modes: set[bool] = set()
        net.register_forward_pre_hook(lambda module, _: modes.add(module.training))
        self.train(task, net, net.parameters())
        assert modes == {True}, "trained in evaluation mode"

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        assert task_id is not None
        return self.answerable(self.nets[task_id](x), task_id)


@register("growing-heads")
class GrowingHeads(_Kept):
    """A head is added for every task."""

    def build(self) -> None:
        self.body, self.heads = self.network(32), nn.ModuleList()

    def learn(self, task: Task) -> None:
        self.heads.append(nn.Linear(32, self.spec.classes_per_task))
        parameters = [*self.body.parameters(), *self.heads[-1].parameters()]
        self.fit(task, lambda b: cross_entropy(self.heads[-1](self.body(b.x)), b.y), parameters, lr=self.config.lr)

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        assert task_id is not None
        known = self.heads[task_id] if task_id < len(self.heads) else None
        return torch.zeros(len(x), self.spec.classes_per_task) if known is None else known(self.body(x))


@register("growing-heads-by-hand")
class GrowingHeadsByHand(GrowingHeads):
    """Reads its heads back itself."""

    def load_state_dict(self, saved: dict) -> None:
        for _ in range(saved["n"]):
            self.heads.append(nn.Linear(32, self.spec.classes_per_task))
        self.heads.load_state_dict(saved["heads"])
        self.body.load_state_dict(saved["body"])
        self.tasks_seen = saved["n"]

    def state_dict(self) -> dict:
        return {"n": len(self.heads), "heads": dict(self.heads.state_dict()), "body": dict(self.body.state_dict())}


@register("growing-heads-unnoticed")
class GrowingHeadsUnnoticed(GrowingHeads):
    """Writes what it cannot read."""

    def state_dict(self) -> dict:
        return super().state_dict()
