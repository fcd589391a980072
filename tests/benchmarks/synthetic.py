"""A small data set in MNIST's shape, the same on every machine."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch

from benchmarks.catalogue import Benchmark, Kind, find
from benchmarks.data import DataSet
from benchmarks.samples import Samples
from benchmarks.stream import Stream
from benchmarks.types import Scenario


@cache
def data_set(
    n_train: int = 400, n_test: int = 100, shape: tuple[int, int, int] = (1, 28, 28), n_classes: int = 10
) -> DataSet:
    """Random images; every image starts with its own number, so that it can be recognised. Not to be changed."""
    generator = torch.Generator().manual_seed(0)

    def images(n: int) -> torch.Tensor:
        pixels = torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=generator)
        pixels[:, 0, 0, 0], pixels[:, 0, 0, 1] = torch.arange(n) // 256, torch.arange(n) % 256
        return pixels

    def labels(n: int) -> torch.Tensor:
        return torch.randperm(n, generator=generator) % n_classes

    return DataSet("synthetic", images(n_train), labels(n_train), images(n_test), labels(n_test))


def numbers(samples: Samples) -> list[int]:
    """Which images of the small data set these are."""
    first = samples.pixels.index_select(0, samples.rows)[:, 0, 0, :2].long()
    return (256 * first[:, 0] + first[:, 1]).tolist()


def stream(
    name: str, scenario: Scenario | str, seed: int = 0, data: DataSet | None = None, **changes: object
) -> Stream:
    """A stream of the benchmark on the small data set, with ten validation samples a task."""
    benchmark = find(name)
    settings: dict[str, object] = {"validation": 10, **changes}
    changed: Benchmark = replace(benchmark, **settings)  # type: ignore[arg-type]
    n_classes = changed.classes_per_task * changed.n_tasks if changed.kind is Kind.SPLIT else 10
    sizes = (max(400, 12 * n_classes), max(100, 4 * n_classes))
    return Stream(changed, changed.spec(scenario), seed, data or data_set(*sizes, changed.stored_shape, n_classes))
