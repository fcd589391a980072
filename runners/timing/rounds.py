"""Rounds of timed steps: orders, timings, profiles."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from benchmarks.types import Scenario
from runners.timing import by_hand

if TYPE_CHECKING:
    import torch

WARM_UP = {"cpu": 2, "cuda": 5}
"""Steps before the timed ones; on CUDA they include the capture of a graph."""
PROFILED_STEPS = 3
"""At least; on CUDA as many as a capture needs to warm up."""
OPERATIONS = 12
"""Of a profile, the longest ones that are listed."""
ROUNDS = 5
"""Timed rounds of steps at most; the median round counts, since other processes disturb single ones."""


@dataclass(frozen=True)
class Order:
    """Order of measurements for one process."""

    method: str
    benchmark: str
    scenario: Scenario
    device: str
    threads: int
    steps: int
    n_tasks: int | None
    data: Path | None
    settings: dict[str, Any] = field(default_factory=dict)
    seen: tuple[int, ...] = ()
    """Numbers of tasks seen before the timed one; empty: 0, half and all but one of the benchmark's tasks."""
    official: Path | None = None
    """Checkout of the authors' code of the method; then its step is timed instead of ours."""
    epochs: bool = False
    """Whole tasks of one epoch are timed, with what a method does before and after its steps, instead of steps."""
    profile: bool = False
    """After the last task's steps a few more are profiled, operation by operation."""
    pictures: bool = False
    """A method of Avalanche gets its samples as PIL images, which it turns into tensors one by one."""
    random_images: bool = False
    """Images are random, in the shape of the benchmark's; no data is read."""


class Run(Protocol):
    """Train steps `first`, `first` + 1, ...; call `on_check` after every `every` of them."""

    def __call__(self, first: int, steps: int, every: int, on_check: Callable[[], None]) -> None: ...


class Operation(NamedTuple):
    """Time of a profile's steps in one operation, without the operations that it called itself."""

    name: str
    calls: float
    """Per step."""
    seconds: float
    """Per step; on CUDA of the device."""
    share: float


@dataclass(frozen=True)
class Timing:
    """Seconds per step of one phase (call of `fit`) of one task, or of all of a task."""

    task: int
    phase: int | Literal["epoch"]
    seconds: float
    cpu_seconds: float
    """Processor time of all threads; on a busy machine it says more than `seconds`."""
    steps: int = 1
    """Steps that `seconds` is the mean of, where they are a whole task's."""
    stepped: str = ""
    """Execution of the steps, from `Method.stepped`; empty for other programs."""
    one_by_one: float | None = None
    """Seconds per step without capture, for steps captured as a CUDA graph."""
    output_layer: str | None = None
    """Code that has computed the passes over a hypernetwork's output layer so far."""
    profile: tuple[Operation, ...] = ()


def tasks_to_time(order: Order, n_tasks: int) -> tuple[int, ...]:
    """Indices of the timed tasks."""
    return order.seen or tuple(sorted({0, n_tasks // 2, n_tasks - 1}))


def rounds(run: Run, order: Order, task: int, phase: int, device: torch.device) -> Timing:
    """Time the steps of a task: the median of rounds, after a warm-up, all in one call of `run`.

    Work done once per call (the order of the samples, on CUDA the capture of a graph) is therefore excluded.
    Rounds are equally long, and together no shorter than ordered.
    """
    number = max(1, min(ROUNDS, order.steps))
    each = max(1, -(-order.steps // number))
    warm_up = -(-WARM_UP[device.type] // each)
    steps = (warm_up + number) * each
    marks: list[tuple[float, float]] = []
    run(0, steps, each, lambda: marks.append((by_hand.now(device), time.process_time())))
    found = [
        ((wall - begun) / each, (cpu - cpu_begun) / each)
        for (begun, cpu_begun), (wall, cpu) in pairwise(marks[warm_up - 1 :])
    ]
    wall, processor = zip(*found, strict=True)
    profile = profiled(partial(run, steps), device) if order.profile else ()
    return Timing(task, phase, statistics.median(wall), statistics.median(processor), profile=profile)


def profiled(run: Callable[[int, int, Callable[[], None]], None], device: torch.device) -> tuple[Operation, ...]:
    """Operations of some steps, the longest first, after a warm-up of as many steps.

    run: (steps, every, on_check); trains.
    """
    from torch.profiler import ProfilerActivity, profile

    on_cuda = device.type == "cuda"
    # acc_events: some versions warn that a second cycle, which there is not, would lose the events of the first
    activity = ProfilerActivity.CUDA if on_cuda else ProfilerActivity.CPU
    profiler = profile(activities=[activity], acc_events=True)
    turns = iter((profiler.start, profiler.stop))
    each = max(PROFILED_STEPS, WARM_UP[device.type])
    run(2 * each, each, lambda: next(turns)())
    found = {event.key: event for event in profiler.key_averages()}
    own = {name: e.self_device_time_total if on_cuda else e.self_cpu_time_total for name, e in found.items()}
    total = sum(own.values()) or 1.0
    longest = sorted(own, key=lambda name: -own[name])[:OPERATIONS]
    return tuple(
        Operation(name, found[name].count / each, own[name] / 1e6 / each, own[name] / total) for name in longest
    )
