"""Timing the training steps of one method in one process; see runners/speed.py."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks import catalogue
from benchmarks.types import DIL, Budget, Task, UserError
from runners.grid.hyperparameters import configure
from runners.process import cpu, devices
from runners.records import environment
from runners.timing import by_hand, floor, official
from runners.timing.rounds import Order, Timing, rounds, tasks_to_time

if TYPE_CHECKING:
    import torch

    from benchmarks.stream import Stream
    from methods.base import Method


@dataclass(frozen=True)
class Result:
    """Result of one process. Bytes and seconds; a `floor` is None without a hypernetwork's output layer."""

    order: Order
    timings: tuple[Timing, ...]
    plain: float
    """Seconds per step of a hand-written loop on the same network, batches and optimiser."""
    by_hand: dict[int, float | None]
    """Task -> seconds per step of the same method written by hand, where there is such a loop."""
    floor: dict[int, float | None]
    """Task -> seconds."""
    bandwidth: float
    """Bytes per second, read plus written, of a large copy."""
    output_weights: int
    peak_bytes: int
    """Peak memory beyond Python, torch and the data."""
    conditions: dict[str, Any]
    """Versions, device, commit."""


def measure(order: Order) -> Result:
    """Run one order in this process."""
    import torch

    if order.official:
        torch.set_num_threads(order.threads)  # and nothing else: what `cpu.prepare` gains is part of ours
    else:
        cpu.prepare(order.threads)
    device = torch.device(order.device)
    devices.use(device)
    stream = opened(order)
    plain = by_hand.finetune(stream, order.device, order.steps)  # loads what torch loads late: not the method's memory
    from methods import registry

    cls = registry.load(order.method)
    config = configure(order.method, cls.Config, order.settings)
    if order.official:
        memory = _Beyond(device)
        timings, layer = official.train(order, stream, config)
    else:
        memory = _Beyond(device)
        cls = from_pictures(cls) if order.pictures else cls
        if order.epochs:
            _whole_tasks(cls(stream.spec, config, order.device, 0), stream, (0,))  # what happens once in a process
        method = cls(stream.spec, config, order.device, 0)
        tasks = tasks_to_time(order, len(stream))
        timings = _whole_tasks(method, stream, tasks) if order.epochs else _train(method, stream, order)
        layer = floor.of_method(method)
    peak = memory.bytes()
    bandwidth = copy_bandwidth(device)
    loops = {timing.task: _same_by_hand(stream, order, timing.task) for timing in timings}
    conditions = {**environment.of_driver(), **environment.of_worker(device)}
    floors = {timing.task: layer.bytes(timing.task) / bandwidth or None for timing in timings}
    return Result(order, timings, plain, loops, floors, bandwidth, layer.weights, peak, conditions)


def _same_by_hand(stream: Any, order: Order, task: int) -> float | None:
    return by_hand.ewc(stream, order.device, order.steps, task) if order.method == "ewc" else None


class _Lengthened:
    """Stream with more tasks than the benchmark has, for timing only: its tasks repeat from the first."""

    def __init__(self, stream: Stream, n_tasks: int) -> None:
        self.stream, self.spec = stream, replace(stream.spec, n_tasks=n_tasks)

    def __len__(self) -> int:
        return self.spec.n_tasks

    def task(self, j: int, previous: bool = False) -> Task:
        task = self.stream.task(j % len(self.stream))
        samples = {name: replace(getattr(task, name), task=j) for name in ("train", "validation")}
        earlier = tuple(self.task(i) for i in range(j)) if previous else ()
        return replace(task, index=j, previous=earlier, **samples)


def opened(order: Order) -> Any:
    """The order's stream, as long as `seen` asks for."""
    from benchmarks.stream import Stream, open_stream
    from runners.timing import made_up

    benchmark = catalogue.find(order.benchmark)
    if order.n_tasks:
        benchmark = replace(benchmark, n_tasks=order.n_tasks)
    size = benchmark.budget.batch_size
    budget = Budget(size, epochs=1) if order.epochs else Budget(size, steps=100 + order.steps)
    if order.random_images:
        stream = Stream(benchmark, benchmark.spec(order.scenario), 0, made_up.data_set(benchmark, order.device), budget)
    else:
        stream = open_stream(benchmark, order.scenario, 0, data_dir=order.data, device=order.device, budget=budget)
    needed = max(order.seen, default=0) + 1
    if needed <= len(stream):
        return stream
    if benchmark.kind is not catalogue.Kind.SPLIT or order.scenario not in ("til", DIL):
        raise UserError(
            f"{benchmark.name} has {len(stream)} tasks in {order.scenario}; only split benchmarks in til and dil can "
            f"be lengthened to {needed} for timing"
        )
    return _Lengthened(stream, needed)


def _train(method: Method, stream: Any, order: Order) -> tuple[Timing, ...]:
    """Learn all tasks up to the last timed one; those between are learnt without a step."""
    from methods.base import adam

    measured = tasks_to_time(order, len(stream))
    found: list[Timing] = []
    fit = method.fit

    def timed_fit(task: Any, loss: Any, optimizer: Any, **options: Any) -> None:
        earlier, wanted = options.pop("first_step", 0), options.pop("steps", None)
        for name in ("check_every", "on_check"):
            options.pop(name, None)
        if wanted == 0 or task.index not in measured:
            return
        lr = options.pop("lr", 1e-3)
        if not hasattr(optimizer, "step"):
            optimizer = adam(optimizer, lr)

        def run(first: int, steps: int, every: int, on_check: Callable[[], None], capture: bool = True) -> None:
            checks = {"check_every": every, "on_check": lambda done: on_check(), "capture": capture and captures}
            fit(task, loss, optimizer, first_step=earlier + first, steps=steps, **checks, **options)

        captures = options.pop("capture", True)
        phase = sum(1 for timing in found if timing.task == task.index)
        timing = replace(rounds(run, order, task.index, phase, method.device), **_how(method))
        if timing.stepped == "captured":
            without = rounds(partial(run, capture=False), replace(order, profile=False), 0, 0, method.device)
            timing = replace(timing, one_by_one=without.seconds)
        found.append(timing)

    method.fit = timed_fit  # type: ignore[method-assign]
    for j in range(measured[-1] + 1):
        task = stream.task(j, previous=method.rehearses)
        cpu.give_back_freed_memory()  # as in a run
        method.begin(task)
        method.learn(task)
    return tuple(found)


def _how(method: Method) -> dict[str, Any]:
    """Execution of the latest steps, as fields of a `Timing`."""
    return {"stepped": method.stepped, "output_layer": environment.of_training(method).get("output_layer")}


def _whole_tasks(method: Method, stream: Any, timed: tuple[int, ...]) -> tuple[Timing, ...]:
    """Learn every task up to the last timed one, by the stream's budget."""
    found: list[Timing] = []
    for j in range(timed[-1] + 1):
        task = stream.task(j, previous=method.rehearses)
        steps = task.budget.steps_for(len(task.train))
        begun, cpu_begun = by_hand.now(method.device), time.process_time()
        method.begin(task)
        method.learn(task)
        seconds, processor = by_hand.now(method.device) - begun, time.process_time() - cpu_begun
        if j in timed:
            found.append(Timing(j, "epoch", seconds / steps, processor / steps, steps, **_how(method)))
    return tuple(found)


def from_pictures(cls: type) -> type:
    """A method of Avalanche that takes its samples as PIL images, as torchvision's data sets give them.

    Raises UserError for another method, and for samples that are not stored as 8-bit images.
    """
    if not hasattr(cls, "data_set"):
        raise UserError(f"only methods of Avalanche take PIL images, {cls.name} does not")  # type: ignore[attr-defined]
    from runners.timing.pictures import data_set

    return type(cls.__name__, (cls,), {"data_set": staticmethod(data_set), "__module__": cls.__module__})


class _Beyond:
    """Peak memory of the device, or else of the process, in excess of the memory in use at construction."""

    def __init__(self, device: torch.device) -> None:
        from runners.process.memory import MemoryPeak

        self.peak = MemoryPeak(device)
        self.before = self._peak()

    def bytes(self) -> int:
        return self._peak() - self.before

    def _peak(self) -> int:
        from runners.records.record import Measurements

        host, on_device = self.peak.peaks(Measurements.empty(0))
        return on_device or host


def copy_bandwidth(device: Any) -> float:
    """Bytes per second, read plus written, of copying a tensor far larger than the caches (median of 5)."""
    import torch

    source = torch.ones(64 << 20, device=device)
    target = torch.zeros_like(source)
    seconds = []
    for _ in range(6):
        begun = by_hand.now(device)
        target.copy_(source)
        seconds.append(by_hand.now(device) - begun)
    return 2 * source.numel() * source.element_size() / statistics.median(seconds[1:])
