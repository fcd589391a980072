"""The whole life of a cell on the pretended device: begun, paused after a task, taken up again, recorded."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from torch import Tensor

from benchmarks import catalogue
from benchmarks.data import DataSet
from benchmarks.types import Scenario
from methods import registry
from methods.hypernetworks import torch_passes
from methods.hypernetworks.passes import Images
from runners.cell.events import Event, EventKind
from runners.cell.execution import run_cell
from runners.grid import build
from runners.grid.cells import Cell, Conditions, Job
from runners.grid.suite import BenchmarkEntry, Suite
from runners.records.folder import CellFolder
from runners.records.record import Record, Status
from tests.benchmarks.synthetic import data_set
from tests.pretended.device import Device
from tests.pretended.phases import Phases, name_phases

STEPS = 12
"""So many that InterContiNet's shorter phase, a third of them, has one more than a capture is warmed up with."""
SMALL = {"chunk": 500, "select_every": 4, "fisher_samples": 16, "samples": 16, "fit_samples": 20, "width": 50}
"""Settings that suit a network of 1,500 weights, where a method has them."""

log = logging.getLogger(__name__)


def pictures() -> DataSet:
    """Random images of four classes, which are flipped, cropped and normalised."""
    return data_set(60, 20, (3, 16, 16), 4)


def small_benchmarks() -> dict[str, catalogue.Benchmark]:
    """Benchmarks of two or three tasks, by name; one of each kind."""
    digits, drawn = catalogue.find("split-digits"), catalogue.find("cifar-mini")
    few_digits = replace(digits, n_tasks=3, network="mlp-20")
    few = {
        "few-digits": few_digits,
        "few-permuted": replace(catalogue.find("permuted-digits"), n_tasks=2, network="mlp-20"),
        "few-rotated": replace(few_digits, kind=catalogue.Kind.ROTATED, n_tasks=2, classes_per_task=10),
        "few-pictures": replace(
            drawn, n_tasks=2, classes_per_task=2, validation=10, stored_shape=(3, 16, 16),
            dataset=f"{__name__}:pictures",
        ),
    }  # fmt: skip
    return {name: replace(benchmark, name=name) for name, benchmark in few.items()}


@dataclass(frozen=True)
class Life:
    """What became of a cell, and how its training went."""

    record: Record
    folder: Path
    notes: list[str]
    phases: Phases


def cell_of(
    method: str, scenario: Scenario, benchmark: str = "few-digits", network: str | None = None, **settings: object
) -> Cell:
    """A cell of a small benchmark."""
    batch = 8 if benchmark == "few-pictures" else 64  # small ones for convolutions, or else for few batches a sweep
    fields = {field.name for field in dataclasses.fields(registry.load(method).Config)}
    values = {name: value for name, value in {**SMALL, **settings}.items() if name in fields}
    suite = Suite.model_validate(
        {
            "name": "test", "description": "test", "methods": [method], "scenarios": [scenario], "seeds": 1,
            "benchmarks": [BenchmarkEntry(name=benchmark, steps=STEPS, batch_size=batch, network=network)],
            "settings": [{"method": method, "values": values}],
        }
    )  # fmt: skip
    [cell] = build.build([suite], build.Choices())
    return cell


def job_of(cell: Cell, results: Path, stop_after: int | None = None) -> Job:
    """The cell, to be run on the device."""
    return Job(cell, cell.folder(results), Conditions(device="cuda:0", stop_after=stop_after))


def lived(cell: Cell, device: Device, results: Path, patch: pytest.MonkeyPatch, pause: bool = True) -> Life:
    """Run a cell on the device, with a pause after the first task, and log for what the host waited."""
    phases = name_phases(device, registry.load(cell.reference), patch)
    notes: list[str] = []

    def hear(event: Event) -> None:
        if event.kind is EventKind.NOTE:
            notes.append(event.reason or "")

    for stop_after in (1, None) if pause else (None,):
        job = job_of(cell, results, stop_after)
        status = run_cell(job, hear)
        record = CellFolder(job.folder).read()
        assert record is not None
        assert status is (Status.RUNNING if stop_after else Status.DONE), record.traceback or record.reason
    for event, times in Counter(device.waits()).items():
        log.info("%s: waited %d times at %s", cell.title, times, event)
    return Life(record, job.folder, notes, phases)


def install_benchmarks(patch: pytest.MonkeyPatch) -> None:
    """Put the small benchmarks into the catalogue."""
    patch.setattr(catalogue, "BENCHMARKS", MappingProxyType({**catalogue.BENCHMARKS, **small_benchmarks()}))


def install_kernels(patch: pytest.MonkeyPatch) -> Counter[str]:
    """PyTorch's passes in the place of Triton's kernels, which do not see the device; counts forward passes by module.

    Whether Triton's would be taken is decided as on a GPU. Passes without a box are not counted.
    """
    ran: Counter[str] = Counter()

    def counted(name: str, forward: Callable[..., Images]) -> Callable[..., Images]:
        def function(centre: Tensor, *arguments: Any) -> Images:
            ran[name] += len(centre) > 0
            return forward(centre, *arguments)

        return function

    modules: list[Any] = [torch_passes]
    if importlib.util.find_spec("triton") is not None:
        from methods.hypernetworks import triton_passes

        modules.append(triton_passes)
        patch.setattr(triton_passes, "backward", torch_passes.backward)
        patch.setattr(triton_passes, "_works", lambda _: True)
    forward = torch_passes.forward
    for module in modules:
        patch.setattr(module, "forward", counted(module.__name__.rpartition(".")[2], forward))
    return ran
