"""Timing the training steps of one method in one process; see runners/speed.py."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import catalogue
from benchmarks.types import Budget, Scenario
from runners import cpu
from runners.settings import configure

if TYPE_CHECKING:
    from methods.base import Method

WARM_UP = 3


@dataclass(frozen=True)
class Order:
    """What one process measures."""

    method: str
    benchmark: str
    scenario: Scenario
    device: str
    threads: int
    steps: int
    n_tasks: int | None
    data: Path | None
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Timing:
    """Seconds per step of one phase (call of `fit`) of one task."""

    task: int
    phase: int
    seconds: float


@dataclass(frozen=True)
class Result:
    """What one process found. Bytes and seconds; `floor` is None without a hypernetwork's output layer."""

    order: Order
    timings: tuple[Timing, ...]
    plain: float
    """Seconds per step of a hand-written loop on the same network, batches and optimiser."""
    floor: float | None
    bandwidth: float
    """Bytes per second, read plus written, of a large copy."""
    output_weights: int
    peak_bytes: int
    """Peak memory beyond Python, torch and the data."""
    versions: dict[str, str]


def measure(order: Order) -> Result:
    """Run one order in this process."""
    import torch

    from benchmarks.stream import open_stream
    from methods import registry

    cpu.prepare(order.threads)
    benchmark = catalogue.find(order.benchmark)
    if order.n_tasks:
        benchmark = replace(benchmark, n_tasks=order.n_tasks)
    stream = open_stream(
        benchmark, order.scenario, 0, data_dir=order.data, device=order.device,
        budget=Budget(benchmark.budget.batch_size, steps=WARM_UP + order.steps),
    )  # fmt: skip
    plain = plain_loop(stream, order)  # also loads what torch loads late, which is not the method's memory
    before = _memory(torch.device(order.device))
    cls = registry.load(order.method)
    config = configure(order.method, cls.Config, order.settings)
    method = cls(stream.spec, config, order.device, 0)
    timings = _train(method, stream, order)
    peak = _memory(torch.device(order.device)) - before
    bandwidth = copy_bandwidth(torch.device(order.device))
    weight = _output_weight(method)
    weights = weight.numel() if weight is not None else 0
    floor = 7 * weights * weight.element_size() / bandwidth if weight is not None else None
    versions = {"torch": torch.__version__, "python": sys.version.split()[0]}
    return Result(order, timings, plain, floor, bandwidth, weights, peak, versions)


def _train(method: Method, stream: Any, order: Order) -> tuple[Timing, ...]:
    """Learn all tasks, timing `fit` at the first, the middle and the last; one step for the others."""
    from methods.base import adam

    last = len(stream) - 1
    measured = {0, len(stream) // 2, last}
    found: list[Timing] = []
    fit = method.fit

    def timed_fit(task: Any, loss: Any, optimizer: Any, **options: Any) -> None:
        first, wanted = options.pop("first_step", 0), options.pop("steps", None)
        for name in ("check_every", "on_check"):
            options.pop(name, None)
        if wanted == 0:
            return
        lr = options.pop("lr", 1e-3)
        if not hasattr(optimizer, "step"):
            optimizer = adam(optimizer, lr)
        if task.index not in measured:
            fit(task, loss, optimizer, first_step=first, steps=1, **options)
            return
        fit(task, loss, optimizer, first_step=first, steps=WARM_UP, check_every=WARM_UP, **options)
        begun = _now(method.device)
        fit(task, loss, optimizer, first_step=first + WARM_UP, steps=order.steps, check_every=order.steps, **options)
        seconds = (_now(method.device) - begun) / order.steps
        phase = sum(1 for timing in found if timing.task == task.index)
        found.append(Timing(task.index, phase, seconds))

    method.fit = timed_fit  # type: ignore[method-assign]
    for j in range(len(stream)):
        task = stream.task(j, previous=method.rehearses)
        method.begin(task)
        method.learn(task)
    return tuple(found)


def plain_loop(stream: Any, order: Order) -> float:
    """Seconds per step of finetuning on the first task, as one would write it without this suite (median of 3)."""
    import torch
    from torch.nn.functional import cross_entropy

    from methods.nets import targets

    task = stream.task(0)
    x, y, size = task.x, task.y, task.budget.batch_size
    net = targets.build(stream.spec.network, stream.spec.input_shape, stream.spec.classes_per_task).to(order.device)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    n = max(order.steps, 50)
    rows = torch.stack([torch.randperm(len(y), device=order.device)[:size] for _ in range(n)])

    def loop() -> float:
        begun = _now(torch.device(order.device))
        for i in range(n):
            optimizer.zero_grad()
            cross_entropy(net(x[rows[i]]), y[rows[i]]).backward()
            optimizer.step()
        return (_now(torch.device(order.device)) - begun) / n

    loop()
    return statistics.median(loop() for _ in range(3))


def copy_bandwidth(device: Any) -> float:
    """Bytes per second, read plus written, of copying a tensor far larger than the caches (median of 5)."""
    import torch

    source = torch.ones(64 << 20, device=device)
    target = torch.zeros_like(source)
    seconds = []
    for _ in range(6):
        begun = _now(device)
        target.copy_(source)
        seconds.append(_now(device) - begun)
    return 2 * source.numel() * source.element_size() / statistics.median(seconds[1:])


def _output_weight(method: Method) -> Any:
    from methods.nets.fused import OutputLayer

    modules = getattr(method, "hypernetwork", None)
    found = [m.weight for m in modules.modules() if isinstance(m, OutputLayer)] if modules is not None else []
    return found[0] if found else None


def _now(device: Any) -> float:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _memory(device: Any) -> int:
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def rows(result: Result) -> list[dict[str, Any]]:
    """The result as rows of the table and the CSV, one a timing."""
    order = result.order
    first = {timing.phase: timing.seconds for timing in result.timings if timing.task == 0}
    return [
        {
            "benchmark": order.benchmark, "scenario": str(order.scenario), "method": order.method,
            "task": timing.task, "phase": timing.phase, "ms_per_step": round(1000 * timing.seconds, 3),
            "steps_per_s": round(1 / timing.seconds, 1),
            "growth": round(timing.seconds / first[timing.phase], 2) if timing.phase in first else None,
            "over_floor": round(timing.seconds / result.floor, 2) if result.floor else None,
            "over_plain_loop": round(timing.seconds / result.plain, 2),
            "floor_ms": round(1000 * result.floor, 3) if result.floor else None,
            "plain_ms": round(1000 * result.plain, 3),
            "copy_GB_per_s": round(result.bandwidth / 1e9, 2),
            "output_weights": result.output_weights, "peak_MiB": round(result.peak_bytes / 2**20, 1),
            "peak_over_weights": round(result.peak_bytes / (4 * result.output_weights), 2)
            if result.output_weights else None,
            "device": order.device, "threads": order.threads, **result.versions,
        }
        for timing in result.timings
    ]  # fmt: skip
