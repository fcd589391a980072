"""Ways round a fair comparison, each as a small method, with the check of the conformance suite that finds it."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from benchmarks.stream import Stream
from methods.base import Batch, Claim, Task
from tests.runners.broken import Sound


class Hoarder(Sound):
    """Keeps the inputs of every task, disguised."""

    def disguise(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def learn(self, task: Task) -> None:
        super().learn(task)
        setattr(self, f"old{task.index}", self.disguise(task.train.x[:40].flatten(1)))


def hoarder(name: str, disguise: Callable[[Tensor], Tensor]) -> type:
    return type(name, (Hoarder,), {"name": name, "disguise": lambda self, x: disguise(x)})


class TenfoldBatch(Sound):
    """Steps of its own on ten times the batch size."""

    def learn(self, task: Task) -> None:
        optimizer = torch.optim.Adam(self.net.parameters(), lr=self.config.lr)
        steps = task.budget.steps_for(len(task.train))
        for _ in range(steps):
            rows = torch.randint(len(task.train), (10 * task.budget.batch_size,))
            optimizer.zero_grad()
            self.loss(task.train.batch(rows)).backward()
            optimizer.step()


class ByGradients(Sound):
    """Steps that no optimiser takes."""

    def learn(self, task: Task) -> None:
        parameters = list(self.net.parameters())
        for _ in range(10 * task.budget.steps_for(len(task.train))):
            rows = torch.randint(len(task.train), (task.budget.batch_size,))
            slopes = torch.autograd.grad(self.loss(task.train.batch(rows)), parameters)
            with torch.no_grad():
                for parameter, slope in zip(parameters, slopes, strict=True):
                    parameter -= 0.1 * slope


class MoreSteps(Sound):
    """The budget twice."""

    def learn(self, task: Task) -> None:
        super().learn(task)
        super().learn(task)


class OnValidation(Sound):
    """Trains on what is held out, too."""

    def learn(self, task: Task) -> None:
        half = task.budget.steps_for(len(task.train)) // 2
        self.fit(task, self.loss, self.net.parameters(), lr=self.config.lr, steps=half)
        self.fit(task, self.loss, self.net.parameters(), lr=self.config.lr, steps=half, samples=task.validation)


class Majority(Sound):
    """In a large batch, answers all samples as if they were of the task that the batch as a whole looks like."""

    large = 500

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        logits = super().predict(x, task_id)
        if len(x) < self.large or self.tasks_seen < 2:
            return logits
        heads = logits.unflatten(1, (-1, self.spec.classes_per_task))
        chosen = int(heads.logsumexp(2).sum(0).argmax())
        keep = torch.arange(heads.shape[1]) == chosen
        return (heads - 1e3 * (~keep)[:, None]).flatten(1)


class SmallMajority(Majority):
    """The same in batches as small as the digits have them, with heads that are trained each by itself."""

    large = 20

    def loss(self, batch: Batch) -> Tensor:
        assert isinstance(batch.task, int)
        heads = self.net(batch.x).unflatten(1, (-1, self.spec.classes_per_task))
        return cross_entropy(heads[:, batch.task], self.within_task(batch.y, batch.task))


class BatchStatistics(Sound):
    """Standardises test batches by themselves."""

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        return super().predict(x - x.mean(0), task_id)


class FrozenTeacher(Sound):
    """Adds to its logits those of a frozen network many times the size, which lies in a list."""

    def build(self) -> None:
        super().build()
        wide = 50 * 20
        inputs, outputs = math.prod(self.spec.input_shape), self.spec.n_outputs
        layers = [torch.nn.Linear(inputs, wide), torch.nn.ReLU(), torch.nn.Linear(wide, outputs)]
        self.teachers = [{"net": torch.nn.Sequential(*layers).requires_grad_(False)}]

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        return super().predict(x, task_id) + 0 * self.answerable(self.teachers[0]["net"](x.flatten(1)), task_id)


class Answering:
    """Something that is no module and holds one's weights as tensors."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.first, self.second = torch.randn(inputs, 1000), torch.randn(1000, outputs)

    def __call__(self, x: Tensor) -> Tensor:
        return (x @ self.first).relu() @ self.second


class PlainTensors(Sound):
    """The same with tensors in an object of its own that says it holds no state."""

    def build(self) -> None:
        super().build()
        self.more = Answering(math.prod(self.spec.input_shape), self.spec.n_outputs)
        self.more.stateless = True  # type: ignore[attr-defined]

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        return super().predict(x, task_id) + 0 * self.answerable(self.more(x.flatten(1)), task_id)


class OwnDraws(Sound):
    """Draws the same batches for every seed."""

    def learn(self, task: Task) -> None:
        torch.manual_seed(0)
        super().learn(task)


class OwnWeights(Sound):
    """Begins with the same weights for every seed."""

    def build(self) -> None:
        torch.manual_seed(0)
        super().build()


class Clamps(Sound):
    """Changes its inputs where they lie outside of the range of pixels."""

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        return super().predict(x.clamp_(0, 1), task_id)


class NoisyAnswers(Sound):
    """Draws from NumPy's generator in predict, to no effect."""

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        return super().predict(x, task_id) + 0 * float(np.random.rand())


class Knows(Sound):
    """Answers with labels that it has read from the data set's own package."""

    def known(self, x: Tensor) -> dict[bytes, int]:
        images, labels = load_digits(return_X_y=True)
        images = torch.as_tensor(images, dtype=torch.float32).to(x)
        return {row.tobytes(): int(y) for row, y in zip((images / 16).numpy(), labels, strict=True)}

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        table = self.known(x)
        labels = [table.get(row.tobytes(), 0) for row in x.flatten(1).numpy()]
        return super().predict(x, task_id) + 99 * one_hot(torch.tensor(labels) % 2, 2)


KNOWN: dict[bytes, int] = {}


class KnewBefore(Knows):
    """The same with a table that was there before the method was watched."""

    def known(self, x: Tensor) -> dict[bytes, int]:
        return KNOWN or super().known(x)


class AsksAStream(Sound):
    """Finds the stream among all objects of the process, when it is asked before the first task."""

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        for stream in [] if self.tasks_seen else [found for found in gc.get_objects() if type(found) is Stream]:
            stream.test(0)
        return super().predict(x, task_id)


class StaleBounds(Sound):
    """Bounds of the first task are far from its answers."""

    def bounds(self, x: Tensor, task_id: int | None = None) -> tuple[Tensor, Tensor]:
        logits = self.predict(x, task_id) + 99.0 * (task_id == 0)
        return logits, logits

    def audit(self) -> list[Claim]:
        return [Claim(j, True, 0, 0.0, 0.1) for j in range(self.tasks_seen)]


class Prototypes(Sound):
    """Honest: answers as `Sound` does, and keeps the mean image of each class."""

    def learn(self, task: Task) -> None:
        super().learn(task)
        x, y = task.train.x.flatten(1), task.train.labels
        setattr(self, f"means{task.index}", torch.stack([x[y == label].mean(0) for label in y.unique()]))


DETECTED = [
    ("memory", hoarder("noisy", lambda x: x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)))),
    ("memory", hoarder("centred", lambda x: x - x.mean(0))),
    ("memory", hoarder("transposed", lambda x: x.unflatten(1, (8, 8)).transpose(1, 2).contiguous())),
    ("memory", hoarder("columns", lambda x: x.T.contiguous())),
    ("memory", hoarder("bytes", lambda x: (x * 200).to(torch.uint8))),
    ("memory", hoarder("rounded", lambda x: (x * 8).round() / 8)),
    ("memory", hoarder("double", lambda x: x.double() * 3 - 1)),
    ("budget", TenfoldBatch),
    ("budget", ByGradients),
    ("budget", MoreSteps),
    ("budget", OnValidation),
    ("seeds", OwnDraws),
    ("seeds", OwnWeights),
    ("purity", Clamps),
    ("global state", NoisyAnswers),
    ("test data", Knows),
    ("test data", AsksAStream),
    ("bounds", StaleBounds),
    ("independence", Majority),
    ("independence", BatchStatistics),
]
"""(check that finds it, method)"""
