"""One method for each check of the conformance suite, broken so that the check must find it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.catalogue import find
from benchmarks.stream import open_stream
from benchmarks.types import CIL, DIL, TIL, Scenario
from methods.base import Batch, Claim, Method, Task, register


class Sound(Method):
    """Finetune once more, with places to break it; nothing is wrong with it."""

    name = "sound"

    @dataclass(frozen=True)
    class Config:
        lr: float = 1e-2
        """Adam learning rate."""

    def build(self) -> None:
        self.net = self.network()

    def learn(self, task: Task) -> None:
        self.fit(task, self.loss, self.net.parameters(), lr=self.config.lr)

    def loss(self, batch: Batch) -> Tensor:
        return cross_entropy(self.answerable(self.net(batch.x), batch.task), batch.y)

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        return self.answerable(self.net(x), task_id)


class Hidden:
    """Something that changes and is not in the state."""

    stateless = True
    value = 0.0


@register("broken-runs")
class Crashes(Sound):
    def learn(self, task: Task) -> None:
        raise RuntimeError("not written yet")


@register("broken-configuration")
class Thawed(Sound):
    @dataclass
    class Config:
        lr: float = 1e-2


@register("broken-learns")
class Lazy(Sound):
    def loss(self, batch: Batch) -> Tensor:
        return 0 * super().loss(batch)


@register("broken-logits")
class ExtraColumn(Sound):
    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        return torch.nn.functional.pad(super().predict(x, task_id), (0, 1), value=-9.0)


@register("broken-independence")
class BatchStatistics(Sound):
    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        logits = super().predict(x, task_id)
        return logits - logits.mean(0)


@register("broken-purity")
class Counts(Sound):
    asked = 0

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        self.asked += 1
        return super().predict(x, task_id)


@register("broken-identity")
class OneHead(Sound):
    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        return self.answerable(self.net(x), 0)


@register("broken-seeds")
class Unseeded(Sound):
    def build(self) -> None:
        torch.manual_seed(int.from_bytes(os.urandom(4)))
        super().build()


@register("broken-global-state")
class Reseeds(Sound):
    def learn(self, task: Task) -> None:
        np.random.seed(0)
        super().learn(task)


@register("broken-test-data")
class Peeks(Sound):
    def learn(self, task: Task) -> None:
        self.aside = open_stream(find("split-digits"), self.spec.scenario, 0).test(task.index).x[:5]
        super().learn(task)


@register("broken-memory")
class Hoards(Sound):
    def learn(self, task: Task) -> None:
        super().learn(task)
        self.images = task.x[:30]


@register("broken-memory-tensor")
class KeepsPixels(Sound):
    """The tensor of a task stays the method's after the task."""

    def learn(self, task: Task) -> None:
        super().learn(task)
        self.pixels = task.train.pixels


@register("broken-memory-view")
class KeepsAView(Sound):
    """Declares three samples, whose view holds all others."""

    memory_samples = 6

    def learn(self, task: Task) -> None:
        super().learn(task)
        setattr(self, f"few{task.index}", replace(task.train, rows=task.train.rows[:3], labels=task.train.labels[:3]))


class KeepsACopy(Sound):
    """Declares three samples a task, and has no others."""

    name = "keeps-a-copy"
    memory_samples = 6

    def learn(self, task: Task) -> None:
        super().learn(task)
        setattr(self, f"few{task.index}", task.train.copied(slice(3)))


@register("broken-resuming")
class Forgets(Sound):
    def build(self) -> None:
        super().build()
        self.hidden = Hidden()

    def learn(self, task: Task) -> None:
        self.fit(task, self.loss, self.net.parameters(), lr=self.config.lr / (1 + self.hidden.value))
        self.hidden.value += 1


@register("broken-order")
class Remembers(Sound):
    def build(self) -> None:
        super().build()
        self.hidden = Hidden()

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        logits = super().predict(x, task_id) + self.hidden.value
        self.hidden.value = float(logits.detach().mean())
        return logits


@register("broken-device")
class LeftBehind(Sound):
    def build(self) -> None:
        super().build()
        self.elsewhere = torch.empty(3, device="meta")


@register("broken-bounds")
class Boasts(Sound):
    def bounds(self, x: Tensor, task_id: int | None = None) -> tuple[Tensor, Tensor]:
        logits = self.predict(x, task_id if self.spec.scenario is TIL else None)
        return logits - 0.1, logits + 0.1

    def sampled(self, x: Tensor, task_id: int | None = None) -> Tensor:
        return self.bounds(x, task_id)[1] + 0.2 * torch.rand(())

    def audit(self) -> list[Claim]:
        return [Claim(j, True, 0, 0.0, 0.1) for j in range(self.tasks_seen)]


@register("broken-budget")
class Overtime(Sound):
    def learn(self, task: Task) -> None:
        super().learn(task)
        super().learn(task)


@register("broken-counters")
class Modest(Sound):
    def parameters_stored(self) -> int:
        return 7


@register("broken-waiting")
class Waits(Sound):
    def loss(self, batch: Batch) -> Tensor:
        loss = super().loss(batch)
        return loss if loss.item() > 0 else 0 * loss


@register("broken-fields")
class Decorated(Sound):
    @dataclass(frozen=True)
    class Config(Sound.Config):
        momentum: float = 0.9
        """Read by nobody."""


BROKEN: list[tuple[str, Any, Scenario]] = [
    ("runs", Crashes, TIL),
    ("configuration", Thawed, TIL),
    ("learns", Lazy, DIL),
    ("logits", ExtraColumn, CIL),
    ("independence", BatchStatistics, DIL),
    ("purity", Counts, TIL),
    ("task identity", OneHead, TIL),
    ("seeds", Unseeded, TIL),
    ("global state", Reseeds, TIL),
    ("test data", Peeks, CIL),
    ("memory", Hoards, TIL),
    ("memory", KeepsPixels, TIL),
    ("memory", KeepsAView, CIL),
    ("resuming", Forgets, DIL),
    ("order of questions", Remembers, TIL),
    ("device", LeftBehind, TIL),
    ("bounds", Boasts, DIL),
    ("budget", Overtime, TIL),
    ("counters", Modest, TIL),
    ("waiting", Waits, TIL),
    ("fields", Decorated, TIL),
]
