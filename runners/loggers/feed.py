"""Events of a run as messages to its loggers."""

from __future__ import annotations

import json
import queue
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console

from runners.cell.events import Event, EventKind, points
from runners.engines.scheduler import Outcome
from runners.grid.cells import Cell, Job
from runners.loggers.logger import Axis, Logger, Run, Value
from runners.loggers.messages import Delivery, Kind, Message
from runners.loggers.process import FOLDER, Remote
from runners.records.folder import CellFolder
from runners.records.record import BrokenRecord, Status

POINTS_A_TASK = 200
"""Points of a task's loss curve that are logged at most."""
STEPS = "steps"
"""In the folder of the loggers: the steps of each unfinished cell after every task, by which its axis goes on."""


class Receiver(Protocol):
    """Where messages to a logger go."""

    def wait(self) -> None: ...
    def send(self, message: Message) -> None: ...
    def finish(self) -> None: ...
    def close(self) -> None: ...


class Local:
    """An object of the user's program, called in this process; the generators of random numbers stay as they are."""

    def __init__(self, logger: Logger, say: Callable[[str], None]) -> None:
        self.delivery = Delivery(type(logger).__name__, lambda: logger, say)
        self.delivery.start()

    def wait(self) -> None:
        """Nothing: it has started."""

    def send(self, message: Message) -> None:
        with _same_draws():  # with --engine inline the cells run here too
            self.delivery.deliver(message)

    def finish(self) -> None:
        """Nothing: it has done all that it was sent."""

    def close(self) -> None:
        self.delivery.close()


class Feed:
    """Watcher that tells loggers of the cells that run; use it in a `with` block."""

    def __init__(self, loggers: Sequence[str | Logger], results: Path, console: Console) -> None:
        """loggers: names or files, each run in a process of its own, and objects, called in this one."""
        self.results, self.console = results.resolve(), console
        self.said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.loggers, self.receivers = loggers, list[Receiver]()
        self.curves: dict[str, _Curve] = {}
        self.runs: dict[str, Run] = {}

    def __enter__(self) -> Feed:
        for each in self.loggers:
            try:
                self.receivers.append(self._receiver(each))
            except OSError as error:  # no process can be started, say
                self.said.put(f"logger {each} does not start: {error}; the cells run without it")
        for receiver in self.receivers:
            receiver.wait()
        self._tell()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for run in self.runs.values():  # stopped by Ctrl-C, say
            self._send(Message(Kind.END, run, status="stopped"))
        for receiver in self.receivers:  # first all, so that the slow ones take their time together
            receiver.finish()
        for receiver in self.receivers:
            receiver.close()
        self._tell()

    def _receiver(self, logger: str | Logger) -> Receiver:
        if isinstance(logger, str):
            return Remote(logger, self.results, self.said.put)
        return Local(logger, self.said.put)

    def planned(self, jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> None:
        """Nothing: only cells that run are logged."""

    def heard(self, job: Job, event: Event) -> None:
        if not self.receivers:
            return
        key = job.cell.key
        if event.kind is EventKind.STARTED:
            self._begin(job, event.task or 0)
            if event.task and event.metrics and not self.curves[key].has(event.task):
                self._task_done(key, event.task, event.metrics)  # saved by a process that ended before it said so
        if key in self.runs:
            for at, loss in self.curves[key].extended(points(event)):
                self._send(Message(Kind.LOG, self.runs[key], {"loss": loss}, Axis.STEP, at))
        if event.kind is EventKind.TASK_DONE and key in self.runs and event.task is not None:
            self._task_done(key, event.task + 1, event.metrics or {})
        elif event.kind is EventKind.ENDED:
            if key not in self.runs and event.status is not None and not event.status.finished:
                self._begin(job, max(map(int, _ends(self._kept(key))), default=0))  # it failed before its training
            self._end(job, event)
        self._tell()

    def _begin(self, job: Job, tasks_before: int) -> None:
        if job.cell.key in self.runs:  # another process takes the cell over
            self._send(Message(Kind.END, self.runs[job.cell.key], status="stopped", reason="run again"))
        run = replace(run_of(job, self.results), tasks_before=tasks_before)
        self.runs[run.key], self.curves[run.key] = run, _Curve(self._kept(run.key), tasks_before)
        self._send(Message(Kind.BEGIN, run))

    def _task_done(self, key: str, tasks: int, metrics: dict[str, float]) -> None:
        self._send(Message(Kind.LOG, self.runs[key], metrics, Axis.TASK, tasks))
        self.curves[key].task_done(tasks)

    def _kept(self, key: str) -> Path:
        return self.results / FOLDER / STEPS / key

    def _end(self, job: Job, event: Event) -> None:
        run = self.runs.pop(job.cell.key, None)
        curve = self.curves.pop(job.cell.key, None)
        if curve is not None and event.status is not None and event.status.finished:
            curve.forget()
        if run is not None:
            status = str(event.status or Status.FAILED)
            self._send(Message(Kind.END, run, _costs(job), status=status, reason=event.reason))

    def _send(self, message: Message) -> None:
        for receiver in self.receivers:
            receiver.send(message)

    def _tell(self) -> None:
        while not self.said.empty():
            self.console.print(f"note: {self.said.get()}", highlight=False, soft_wrap=True, markup=False)


class _Curve:
    """Loss curve of a cell over the steps of all its tasks, thinned."""

    def __init__(self, file: Path | None = None, tasks_before: int = 0) -> None:
        """file: where the steps after every task are kept for a cell that is interrupted."""
        self.file = file
        self.ends = _ends(file) if file and tasks_before else {}
        self.task, self.begun, self.latest, self.share = -1, 0, self.ends.get(str(tasks_before), 0), -1
        if not tasks_before:
            self.forget()

    def extended(self, added: Sequence[tuple[int, int, int, float]]) -> Iterator[tuple[int, float]]:
        """Yield the points to log of those added: steps of all tasks so far, and loss."""
        for task, step, steps, loss in added:
            if task != self.task:
                # A cell that had no logger before its interruption: mostly all tasks are as long as this one.
                self.task, self.begun, self.share = task, self.latest or task * steps, -1
            share = step * POINTS_A_TASK // max(1, steps)
            if share > self.share or step >= steps:
                self.share, self.latest = share, self.begun + step
                yield self.latest, loss

    def has(self, tasks: int) -> bool:
        """Whether the end of so many tasks is kept, and so logged."""
        return str(tasks) in self.ends

    def task_done(self, tasks: int) -> None:
        """Keep the number of steps after so many tasks."""
        self.ends[str(tasks)] = self.latest
        if self.file is not None:
            with suppress(OSError):  # a full disk, say, ends no cell from here
                self.file.parent.mkdir(parents=True, exist_ok=True)
                self.file.write_text(json.dumps(self.ends))

    def forget(self) -> None:
        """Remove what was kept: the cell is finished, or begins anew."""
        if self.file is not None:
            with suppress(OSError):
                self.file.unlink(missing_ok=True)


def _ends(file: Path) -> dict[str, int]:
    """The steps after every task of an interrupted cell; none where they were not kept."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return {str(tasks): int(steps) for tasks, steps in found.items()} if isinstance(found, dict) else {}


def run_of(job: Job, results: Path) -> Run:
    """A job as loggers see it."""
    cell = job.cell
    group = f"{cell.benchmark} {cell.scenario} {cell.label}"
    folder = job.folder.relative_to(results) if job.folder.is_relative_to(results) else job.folder
    return Run(cell.key, cell.title, group, folder.as_posix(), _config(cell))


def _config(cell: Cell) -> dict[str, Value]:
    found: dict[str, Any] = {name: getattr(cell, name) for name in ("benchmark", "method", "label", "seed", "network")}
    found |= {"scenario": str(cell.scenario), "n_tasks": cell.n_tasks, "key": cell.key}
    found |= {f"budget.{name}": value for name, value in vars(cell.budget).items() if value is not None}
    found |= {f"config.{name}": value for name, value in cell.config.items()}
    return {name: value if isinstance(value, Value) else str(value) for name, value in found.items()}


def _costs(job: Job) -> dict[str, float]:
    """Total costs from the record of a cell that ended; nothing where it has none."""
    try:
        record = CellFolder(job.folder).read()
    except BrokenRecord:
        record = None
    if record is None:
        return {}
    sizes = {
        **{f"bytes/{name}": size for name, size in record.memory_bytes.items()},
        "parameters/trained": record.parameters.get("trained"),
    }
    total = {f"total_seconds/{name}": sum(values) for name, values in record.seconds.items()}
    return {**total, **{name: float(size) for name, size in sizes.items() if size is not None}}


@contextmanager
def _same_draws() -> Iterator[None]:
    import numpy as np
    import torch

    kept = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
        torch.set_rng_state(kept[2])
