"""What the tests of EWC, SI, MAS, LwF and L2 share: golden runs of the official codes, and tiny tasks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.samples import Samples
from benchmarks.types import Budget, Scenario, StreamSpec, Task
from methods import base
from methods.base import Method
from methods.shared.anchor import flatten, trainable
from tests.methods.golden import assert_close, group, load, tensors

N_TASKS = 3


def vector(arrays: dict[str, np.ndarray]) -> Tensor:
    """Named parameter arrays, in the order of the file, as one vector (P,)."""
    return flatten(tensors(arrays).values())


def make_task(index: int, x: Tensor, y: Tensor, batch_size: int, steps: int) -> Task:
    """A task over all of x (n, ...) and y (n,)."""
    samples = Samples(x, torch.arange(len(x)), y, index)
    return Task(index, samples, samples, Budget(batch_size, steps=steps), order_seed=index)


@dataclass
class GoldenRun:
    """The three recorded tasks, learnt by a method's own `learn` in float64 on the recorded batches."""

    method: Method
    tasks: list[Task]
    orders: list[list[Tensor]]
    """Per task the sample indices of each batch."""
    losses: list[float] = field(default_factory=list)
    """The total loss before every step."""

    def learn(self, index: int, monkeypatch: pytest.MonkeyPatch) -> None:
        def recorded_order(*_: object) -> Iterator[Tensor]:
            return iter(self.orders[index])

        def recorded_loss(batch: base.Batch) -> Tensor:
            value = type(self.method).loss(self.method, batch)  # type: ignore[attr-defined]
            self.losses.append(value.item())
            return value

        with monkeypatch.context() as patch:
            patch.setattr(base, "batch_order", recorded_order)
            patch.setattr(self.method, "loss", recorded_loss, raising=False)
            self.method.begin(self.tasks[index])
            self.method.learn(self.tasks[index])

    @property
    def theta(self) -> Tensor:
        return flatten(trainable(self.method.net)).detach()  # type: ignore[attr-defined]


def _method(cls: type[Method], config: object, network: str, x: np.ndarray, n_classes: int, init: Tensor) -> Method:
    """Float64, one head for all tasks: the recorded codes mask no classes."""
    spec = StreamSpec("golden", Scenario.DIL, N_TASKS, n_classes, x.shape[1:], network)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        method = cls(spec, config)
    finally:
        torch.set_default_dtype(default)
    parameters = trainable(method.net)  # type: ignore[attr-defined]
    torch.nn.utils.vector_to_parameters(init, parameters)
    return method


def intercontinet_baseline(cls: type[Method], config: object) -> GoldenRun:
    """`icn/base`: shuffled batches, partial ones dropped; labels 0..1 in each task."""
    arrays = group(load("interval"), "icn/base")
    method = _method(cls, config, "mlp-6-6", arrays["task0/x"], 2, vector(group(arrays, "init")))
    tasks, orders = [], []
    for j in range(N_TASKS):
        data = tensors(group(arrays, f"task{j}"))
        order = list(data["perm"].flatten(0, 1))
        orders.append(order)
        tasks.append(make_task(j, data["x"], data["y"], int(arrays["batch_size"]), len(order)))
    return GoldenRun(method, tasks, orders)


def avalanche_ewc(cls: type[Method], config: object) -> GoldenRun:
    """`ewc`: batches in data order, the last one partial; all six outputs in every loss."""
    arrays = group(load("interval"), "ewc")
    method = _method(cls, config, "mlp-6", arrays["task0/x"], 6, vector(group(arrays, "init")))
    tasks, orders = [], []
    for j in range(N_TASKS):
        data = tensors(group(arrays, f"task{j}"))
        order = list(torch.arange(len(data["x"])).split(int(arrays["batch_size"]))) * int(arrays["epochs"])
        orders.append(order)
        tasks.append(make_task(j, data["x"], data["y"], int(arrays["batch_size"]), len(order)))
    return GoldenRun(method, tasks, orders)


def check_run(
    run: GoldenRun, recorded: dict[str, np.ndarray], columns: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> Iterator[int]:
    """Learn task after task; check parameters and losses; yields each task learnt for further checks."""
    for j in range(N_TASKS):
        run.learn(j, monkeypatch)
        assert_close(run.theta, vector(group(recorded, f"end{j}")), 1e-6, f"parameters after task {j}")
        yield j
    total = recorded["log"][:, columns.tolist().index("total_loss")]
    assert_close(torch.tensor(run.losses, dtype=torch.float64), total, 1e-6, "total loss")


def tiny_tasks(
    scenario: Scenario, n: int = 48, n_tasks: int = N_TASKS, steps: int = 30
) -> tuple[StreamSpec, list[Task]]:
    """Two Gaussian classes in 5 dimensions for each task, batches of 16."""
    spec = StreamSpec("tiny", scenario, n_tasks, 2, (5,), "mlp-8", nonnegative_inputs=False)
    generator = torch.Generator().manual_seed(0)
    tasks = []
    for j in range(n_tasks):
        y = torch.arange(n) % 2
        centres = 2 * torch.randn(2, 5, generator=generator)
        x = centres[y] + torch.randn(n, 5, generator=generator)
        tasks.append(make_task(j, x, y + 2 * j if scenario is Scenario.CIL else y, 16, steps))
    return spec, tasks


def learn_all(method: Method, tasks: list[Task]) -> None:
    for task in tasks:
        method.begin(task)
        method.learn(task)


def parameters_of(method: Method) -> Tensor:
    """(P,) of the method's network."""
    return flatten(trainable(method.net)).detach()  # type: ignore[attr-defined]
