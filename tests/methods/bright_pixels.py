"""Small tasks for methods that keep boxes of weights: two classes, told apart by the brighter of two pixels."""

from __future__ import annotations

import torch

from benchmarks.samples import Samples
from benchmarks.types import CIL, Budget, Scenario, StreamSpec, Task

TASKS, SIZE = 3, 6


def spec(scenario: Scenario) -> StreamSpec:
    return StreamSpec("test", scenario, TASKS, 2, (1, 2, SIZE // 2), "mlp-12-8")


def samples(t: int, scenario: Scenario, n: int = 120) -> Samples:
    """Two classes a task, told apart by pixel 2 t being brighter than the next one or not."""
    g = torch.Generator().manual_seed(t)
    y = torch.randint(2, (n,), generator=g)
    x = 0.3 * torch.rand(n, SIZE, generator=g)
    x[torch.arange(n), 2 * t + y] += 0.7
    labels = y + 2 * t if scenario is CIL else y
    return Samples(x.view(n, 1, 2, SIZE // 2), torch.arange(n), labels, t)


def task(t: int, scenario: Scenario, steps: int = 60) -> Task:
    data = samples(t, scenario)
    return Task(t, data, data, Budget(20, steps=steps), order_seed=t)
