"""Networks, tasks and methods of the recorded numbers in `forget_free_*.npz`, in float64."""

from __future__ import annotations

import copy
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.samples import Samples
from benchmarks.types import TIL, Budget, StreamSpec, Task
from methods import base, subnetworks
from methods.subnetworks import Subnetworks
from tests.methods.golden import load, tensors
from tests.methods.hyper_golden import float64

GOLDEN = load("forget_free")


class Chain(nn.Sequential):
    """Linear layers with ReLU between them."""

    def __init__(self, widths: list[int], bias: bool) -> None:
        layers = [nn.Linear(a, b, bias=bias) for a, b in pairwise(widths)]
        super().__init__(*(part for layer in layers for part in (layer, nn.ReLU())))
        del self[-1]


class Bare(nn.Module):
    """A body whose outputs are the answers, and an output layer that nothing uses."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def made(cls: Any, network: nn.Module, n_tasks: int, **config: Any) -> Any:
    """A method in TIL over `network`, whose values it takes as initial ones."""

    class Over(cls):
        def network(self, n_outputs: int | None = None) -> nn.Module:
            return copy.deepcopy(network).double()

    spec = StreamSpec("golden", TIL, n_tasks, 3, (1,), "mlp-1")
    with float64():
        return Over(spec, cls.Config(**config))


def flat(named: dict[str, np.ndarray], names: list[str]) -> Tensor:
    return torch.cat([torch.empty(0, dtype=torch.int8), *(tensors(named)[name].flatten() for name in names)])


def samples(data: dict[str, np.ndarray], part: str, task: int) -> Samples:
    x, y = (torch.from_numpy(data[f"{part}_{kind}.{task}"].copy()) for kind in "xy")
    return Samples(x, torch.arange(len(x)), y, task)


def task_of(data: dict[str, np.ndarray], index: int, batch: int, steps: int) -> Task:
    train = samples(data, "train", index)
    validation = samples(data, "valid", index) if f"valid_x.{index}" in data else train
    return Task(index, train, validation, Budget(batch, steps=steps), order_seed=0)


def recorded_order(monkeypatch: pytest.MonkeyPatch, batches: np.ndarray) -> None:
    """Make `fit` take the given batches (steps, batch)."""
    monkeypatch.setattr(base, "batch_order", lambda *_: iter(torch.from_numpy(batches.copy())))


def recorded_losses(monkeypatch: pytest.MonkeyPatch, module: ModuleType = subnetworks) -> list[float]:
    """Losses of the steps that follow, in order, which a module computes."""
    losses: list[float] = []

    def cross_entropy(*args: Any, **kwargs: Any) -> Tensor:
        value = nn.functional.cross_entropy(*args, **kwargs)
        if torch.is_grad_enabled():
            losses.append(value.item())
        return value

    monkeypatch.setattr(module, "cross_entropy", cross_entropy)
    return losses


def heads(monkeypatch: pytest.MonkeyPatch, method: Subnetworks, own: list[Tensor]) -> None:
    """Let each task start with the recorded head."""
    monkeypatch.setattr(type(method), "first_head", lambda _, task: own[task])
