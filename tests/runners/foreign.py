"""Methods that misbehave, each in its own way; loaded as `foreign.py:Class`."""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from methods.base import TIL, Batch, Claim, Exhibit, Method, Task, register
from methods.shared import stepping


class _Small(Method):
    """A linear network that learns by the shared loop; `spoil` decides what goes wrong in task 1."""

    @dataclass(frozen=True)
    class Config:
        lr: float = 1e-2
        """Adam learning rate."""

    def build(self) -> None:
        self.net = torch.nn.Linear(64, self.spec.n_outputs)

    def learn(self, task: Task) -> None:
        if task.index == 1:
            self.spoil()

        def loss(batch: Batch) -> Tensor:
            logits = self.answerable(self.net(batch.x.flatten(1)), batch.task)
            return torch.nn.functional.cross_entropy(logits, batch.y) * self.factor(task)

        self.fit(task, loss, self.net.parameters(), lr=self.config.lr)

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        return self.answerable(self.net(x.flatten(1)), task_id)

    def spoil(self) -> None: ...

    def factor(self, task: Task) -> float:
        return 1.0


@register("good")
class Good(_Small):
    """Nothing goes wrong."""


@register("nan-loss")
class NanLoss(_Small):
    """The loss of task 1 is not a number."""

    def factor(self, task: Task) -> float:
        return float("nan") if task.index == 1 else 1.0


@register("nan-prediction")
class NanPrediction(_Small):
    """Trains well, then answers NaN."""

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        return super().predict(x, task_id) * (float("nan") if self.tasks_seen > 1 else 1.0)


@register("raises")
class Raises(_Small):
    """Raises in task 1."""

    def spoil(self) -> None:
        raise RuntimeError("the third law does not hold")


@register("out-of-memory")
class OutOfMemory(_Small):
    """Runs out of memory in task 1."""

    def spoil(self) -> None:
        torch.empty(1 << 60, dtype=torch.uint8)


@register("killed")
class Killed(_Small):
    """Is killed in task 1, as by the system."""

    def spoil(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@register("noisy")
class Noisy(_Small):
    """Prints on standard output, which must not reach the driver's events."""

    def spoil(self) -> None:
        print('{"kind": "ended", "status": "failed"}')
        os.write(1, b"not an event\n")


@register("hangs")
class Hangs(_Small):
    """Never comes back from task 1."""

    def spoil(self) -> None:
        signal.pause()


@register("til-only")
class TilOnly(_Small):
    """Is defined in TIL only."""

    supports = frozenset({TIL})


@register("told")
class Told(_Small):
    """Refuses a task id outside TIL, and the lack of one in TIL."""

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        if (task_id is not None) != (self.spec.scenario is TIL):
            raise AssertionError(f"task id {task_id} in {self.spec.scenario}")
        return super().predict(x, task_id)


@register("certifies")
class Certifies(_Small):
    """Claims that its answers hold; the bounds are its logits, shifted by what the tests want."""

    def bounds(self, x: Tensor, task_id: int | None = None) -> tuple[Tensor, Tensor]:
        logits = super().predict(x, task_id)
        return logits - 0.01, logits + 0.01

    def audit(self) -> list[Claim]:
        return [Claim(j, j == 0, j, 0.5, 0.02, "" if j == 0 else "moved") for j in range(self.tasks_seen)]


@register("unsure")
class Unsure(Certifies):
    """Bounds that never hold."""

    def bounds(self, x: Tensor, task_id: int | None = None) -> tuple[Tensor, Tensor]:
        logits = super().predict(x, task_id)
        return logits - 1e9, logits + 1e9


@register("fragile")
class Fragile(Certifies):
    """Bounds that fail for a set of inputs."""

    def bounds(self, x: Tensor, task_id: int | None = None) -> tuple[Tensor, Tensor]:
        if not isinstance(x, Tensor):
            raise RuntimeError("one input at a time")
        return super().bounds(x, task_id)


@register("guesses")
class Guesses(_Small):
    """Infers task 0 for every sample."""

    def infer_task(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), dtype=torch.int64)


@register("exhibits")
class Exhibits(_Small):
    """Gives a table for the report that cannot be kept."""

    @dataclass(frozen=True)
    class Config:
        lr: float = 1e-2
        """Adam learning rate."""
        kind: str = "Name"
        """What is wrong."""

    def exhibits(self) -> dict[str, Exhibit]:
        if self.config.kind == "Raises":
            raise RuntimeError("no table today")
        return {
            "Name": {"../up": {"a": [1.0]}},
            "Ragged": {"ragged": {"a": [1.0], "b": [1.0, 2.0]}},
            "Huge": {"huge": {"a": [0.0] * 20_001}},
        }[self.config.kind]


@register("draws")
class Draws(_Small):
    """Draws from all three global generators when it is built and in every task; its exhibit says what."""

    def build(self) -> None:
        super().build()
        self.drawn = [self.three()]

    def three(self) -> list[float]:
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]

    def learn(self, task: Task) -> None:
        self.drawn.append(self.three())
        super().learn(task)

    def exhibits(self) -> dict[str, Exhibit]:
        return {"drawn": {name: [row[i] for row in self.drawn] for i, name in enumerate(("python", "numpy", "torch"))}}


@register("forgetful")
class Forgetful(_Small):
    """Cannot go on from a checkpoint, and says so."""

    resumable = False

    def load_state_dict(self, saved: dict) -> None:
        raise AssertionError("asked to go on all the same")


@register("killed-once")
class KilledOnce(_Small):
    """Is killed in task 1, once its checkpoint has arrived, unless the file `flag` says that this has happened."""

    @dataclass(frozen=True)
    class Config(_Small.Config):
        flag: str = ""
        """Path of the file; the checkpoint arrives in a folder beside it."""

    def spoil(self) -> None:
        flag = Path(self.config.flag)
        if flag.exists():
            return
        flag.touch()
        given_up = time.monotonic() + 300.0
        while not any(flag.parent.rglob("checkpoint.pt")) and time.monotonic() < given_up:
            time.sleep(0.01)  # a checkpoint under way is lost with the process that sends it
        os.kill(os.getpid(), signal.SIGKILL)


@register("meets")
class Meets(_Small):
    """Does not begin to learn before two cells have begun, in processes of their own."""

    @dataclass(frozen=True)
    class Config(_Small.Config):
        place: str = ""
        """Folder in which cells announce their process."""

    def spoil(self) -> None:
        place = Path(self.config.place)
        (place / str(os.getpid())).touch()
        last = time.monotonic() + 100
        while len(list(place.iterdir())) < 2:
            if time.monotonic() > last:
                raise RuntimeError("no other cell is in flight")
            time.sleep(0.01)


@register("greedy")
class Greedy(_Small):
    """Asks for more memory than there is when it answers more than 70 samples at once, after task 0."""

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        if self.tasks_seen > 1 and len(x) > 70:
            torch.empty(1 << 60, dtype=torch.uint8)
        return super().predict(x, task_id)


@register("hungry")
class Hungry(_Small):
    """Asks for 4 GiB of address space in task 1, and does nothing with it."""

    def spoil(self) -> None:
        torch.empty(4 << 30, dtype=torch.uint8)


@register("looks")
class Looks(_Small):
    """Looks at the values of its weights when it is built."""

    def build(self) -> None:
        super().build()
        self.scale = float(next(self.net.parameters()).abs().max())


@register("cannot-be-captured")
class CannotBeCaptured(_Small):
    """Says that its steps may be captured; in task 1 the capture fails, as on a GPU. Each process leaves its number."""

    capturable = True

    @dataclass(frozen=True)
    class Config(_Small.Config):
        folder: str = ""
        """Path of the folder for files named after the processes."""

    def learn(self, task: Task) -> None:
        def record(_: object) -> None:
            raise RuntimeError("operation not permitted when stream is capturing")

        if task.index == 1:
            (Path(self.config.folder) / str(os.getpid())).touch()
            with mock.patch.object(stepping, "recorder_for", lambda device: record):
                super().learn(task)
        else:
            super().learn(task)
