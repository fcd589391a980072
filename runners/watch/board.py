"""State of a run: finished, running, failed and waiting cells, from their events."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from runners.cell.events import Event, EventKind
from runners.engines.scheduler import Outcome
from runners.grid.cells import Cell, Job
from runners.plan.estimate import Rates
from runners.records.record import Status

FAILURES_KEPT = 200


@dataclass(frozen=True)
class Running:
    """Running cell. Seconds are wall clock."""

    title: str
    folder: str
    task: int
    """The task being learnt, from 1."""
    n_tasks: int
    share: float
    """Of the whole cell, in [0, 1]."""
    seconds: float
    seconds_left: float | None = None
    loss: float | None = None
    accuracy: float | None = None
    """Mean over the tasks learnt so far."""
    elsewhere: bool = False
    """True if another process holds it; then nothing else is known."""


@dataclass(frozen=True)
class Failure:
    """Cell without a result; the same command retries it."""

    title: str
    status: str
    reason: str
    folder: str


@dataclass(frozen=True)
class Waiting:
    """Number of waiting cells of a group."""

    benchmark: str
    scenario: str
    method: str
    cells: int


@dataclass(frozen=True)
class Snapshot:
    """Snapshot of a run's state; plain values, so that it can be sent as JSON."""

    total: int
    finished_before: int
    counts: dict[str, int]
    seconds: float
    seconds_left: float | None
    running: list[Running] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    """The latest, at most 200."""
    waiting: list[Waiting] = field(default_factory=list)

    @property
    def ended(self) -> int:
        return sum(self.counts.values())

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


_CellGroup = tuple[Any, ...]


@dataclass
class _Row:
    """Running cell, as known from its events."""

    job: Job
    begun: float
    first_task: int = 0
    task: int = 0
    share: float = 0.0
    """Of the task under way."""
    loss: float | None = None
    accuracy: float | None = None
    elsewhere: bool = False

    def done(self) -> float:
        return (self.task + self.share) / max(1, self.job.cell.n_tasks)

    def seconds_left(self, now: float) -> float | None:
        here = self.done() - self.first_task / max(1, self.job.cell.n_tasks)
        return (now - self.begun) * (1 - self.done()) / here if here > 0.02 else None


class Board:
    """Board that follows a run's events and reports its state; readable from other threads."""

    def __init__(self, rates: Rates | None = None) -> None:
        self.rates = rates or Rates()
        self.lock = threading.RLock()
        self.rows: dict[str, _Row] = {}
        self.waiting: dict[str, _CellGroup] = {}
        self.kinds: dict[_CellGroup, tuple[Cell, int]] = {}
        """A cell of each kind that waits, and how many do: a grid may hold ten thousand cells of a few kinds."""
        self.counts: Counter[str] = Counter()
        self.failures: list[Failure] = []
        self.total = self.cached = self.at_once = 0
        self.begun = time.monotonic()

    # -- hearing ---------------------------------------------------------------------------------

    def planned(self, jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> None:
        with self.lock:
            self.begun = time.monotonic()
            for job in jobs:
                self._wait(job.cell)
            self.total, self.cached = len(jobs) + len(outcomes), sum(outcome.cached for outcome in outcomes)
            for outcome in outcomes:
                self._count(outcome.cell, str(outcome.folder), outcome.status, outcome.reason)
                if outcome.seconds is not None:
                    self.rates.add(outcome.cell, outcome.seconds)

    def heard(self, job: Job, event: Event) -> None:
        with self.lock:
            key, now = job.cell.key, time.monotonic()
            if event.kind is EventKind.ELSEWHERE:
                self.rows[key] = _Row(job, now, elsewhere=True)
            elif event.kind is EventKind.ENDED:
                self._end(job, event, now)
            elif event.kind is not EventKind.NOTE:
                row = self.rows.get(key)
                if row is None or row.elsewhere:
                    row = self.rows[key] = _Row(job, now)
                _update(row, event)
            if event.kind is not EventKind.NOTE:
                self._wait_no_more(key)
            self.at_once = max(self.at_once, sum(not row.elsewhere for row in self.rows.values()))

    def _wait(self, cell: Cell) -> None:
        kind = (cell.benchmark, str(cell.scenario), cell.label, cell.n_tasks, cell.budget)
        self.waiting[cell.key] = kind
        self.kinds[kind] = cell, self.kinds.get(kind, (cell, 0))[1] + 1

    def _wait_no_more(self, key: str) -> None:
        kind = self.waiting.pop(key, None)
        if kind is not None:
            cell, count = self.kinds[kind]
            if count > 1:
                self.kinds[kind] = cell, count - 1
            else:
                del self.kinds[kind]

    def _end(self, job: Job, event: Event, now: float) -> None:
        row = self.rows.pop(job.cell.key, None)
        status = event.status or Status.FAILED
        if status is Status.DONE and row is not None and not row.elsewhere:
            share = 1 - row.first_task / max(1, job.cell.n_tasks)
            if share > 0:
                self.rates.add(job.cell, (now - row.begun) / share)
        self._count(job.cell, str(job.folder), status, event.reason)

    def _count(self, cell: Cell, folder: str, status: Status, reason: str | None) -> None:
        self.counts[str(status)] += 1
        if not status.finished:
            self.failures = [*self.failures, Failure(cell.title, str(status), reason or "", folder)][-FAILURES_KEPT:]

    # -- saying ----------------------------------------------------------------------------------

    def row(self, job: Job) -> Running | None:
        """Row of the cell `job`, if it is running."""
        with self.lock:
            row = self.rows.get(job.cell.key)
            return _running(row, time.monotonic()) if row is not None else None

    def snapshot(self) -> Snapshot:
        with self.lock:
            now = time.monotonic()
            groups: Counter[tuple[str, str, str]] = Counter()
            for (benchmark, scenario, label, *_), (_, count) in self.kinds.items():
                groups[benchmark, scenario, label] += count
            return Snapshot(
                total=self.total,
                finished_before=self.cached,
                counts=dict(self.counts),
                seconds=now - self.begun,
                seconds_left=self._seconds_left(now),
                running=[_running(row, now) for row in self.rows.values()],
                failures=list(self.failures),
                waiting=[Waiting(*group, cells) for group, cells in groups.items()],
            )

    def _seconds_left(self, now: float) -> float | None:
        """Time left of all cells, divided by the number of concurrent cells; None if unknown."""
        here = [row for row in self.rows.values() if not row.elsewhere]
        left = [row.seconds_left(now) or self._expected(row, now) for row in here]
        known = [seconds for seconds in left if seconds is not None]
        expected = self.rates.total(self.kinds.values())
        if len(known) < len(left) or expected is None or not (known or self.waiting):
            return None
        return max([(sum(known) + expected) / max(1, self.at_once), *known])

    def _expected(self, row: _Row, now: float) -> float | None:
        """Time left of a cell whose own progress is too short for an estimate."""
        whole = self.rates.of(row.job.cell)
        return (
            None if whole is None else max(0.0, whole * (1 - row.first_task / row.job.cell.n_tasks) - now + row.begun)
        )


def _update(row: _Row, event: Event) -> None:
    if event.kind is EventKind.STARTED:
        row.task = row.first_task = event.task or 0
    elif event.kind is EventKind.PROGRESS:
        row.task, row.loss = event.task or 0, event.loss
        row.share = (event.step or 0) / max(1, event.steps or 1)
    elif event.kind is EventKind.TASK_DONE:
        row.task, row.share, row.accuracy = (event.task or 0) + 1, 0.0, event.accuracy


def _running(row: _Row, now: float) -> Running:
    cell = row.job.cell
    return Running(
        title=cell.title,
        folder=str(row.job.folder),
        task=min(row.task + 1, cell.n_tasks),
        n_tasks=cell.n_tasks,
        share=row.done(),
        seconds=now - row.begun,
        seconds_left=None if row.elsewhere else row.seconds_left(now),
        loss=row.loss,
        accuracy=row.accuracy,
        elsewhere=row.elsewhere,
    )
