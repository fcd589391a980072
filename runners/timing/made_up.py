"""Images drawn at random in the shape of a benchmark's, to time steps where its data is absent."""

from __future__ import annotations

from benchmarks import plugins
from benchmarks.catalogue import Benchmark, Kind
from benchmarks.data import DataSet
from benchmarks.types import UserError

SAMPLES = 512
"""Training images of a task that are not set aside for validation, at least."""


def data_set(benchmark: Benchmark, device: str) -> DataSet:
    """Random bytes under labels in turn: all classes have as many images, and each task its validation images.

    Raises UserError for a benchmark whose data set itself assigns the tasks.
    """
    import torch

    if benchmark.kind is Kind.GIVEN:
        raise UserError(f"--random-images: the tasks of {benchmark.name} are those of its data")
    # Permuted and rotated tasks share all images.
    apart = benchmark.n_tasks if benchmark.kind is Kind.SPLIT else 1
    classes = sum(benchmark.sizes[:apart])
    each = -(-(benchmark.validation + SAMPLES) // min(benchmark.sizes))
    generator = torch.Generator().manual_seed(0)

    def drawn(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.randint(256, (n, *benchmark.stored_shape), dtype=torch.uint8, generator=generator)
        return images, torch.arange(n) % classes

    train, test = drawn(each * classes), drawn(classes)
    data = DataSet(plugins.named(benchmark.dataset), *train, *test, notes=())
    return data.to(torch.device(device))
