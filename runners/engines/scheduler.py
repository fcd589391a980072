"""Run of a grid: finished cells are kept, cells without data fail first, the rest goes to an engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from benchmarks import catalogue, data
from benchmarks.files import locate
from benchmarks.types import UserError
from runners.cell.events import Event, EventKind, Phase
from runners.engines.engine import Engine
from runners.grid.cells import Cell, Conditions, Job
from runners.records.folder import CellFolder, StorageError
from runners.records.record import BrokenRecord, Record, Status

if TYPE_CHECKING:
    from benchmarks.plugins import DataSource

SMALLEST_EVALUATION_BATCH = 60
SECONDS_BETWEEN_LOOKS = 2.0
"""Seconds between looks at cells that another process holds."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of a cell; `cached` where an earlier run had finished it."""

    cell: Cell
    folder: Path
    status: Status
    reason: str | None
    cached: bool
    seconds: float | None = None
    """Seconds of a cached cell, if it was trained."""


class Watcher(Protocol):
    """Observer of the run, such as the live display or a test."""

    def planned(self, jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> None:
        """Receive the jobs to run, and the outcomes of the others."""
        ...

    def heard(self, job: Job, event: Event) -> None: ...


@dataclass(frozen=True)
class Watchers:
    """Several watchers as one."""

    each: tuple[Watcher, ...]

    def planned(self, jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> None:
        for watcher in self.each:
            watcher.planned(jobs, outcomes)

    def heard(self, job: Job, event: Event) -> None:
        for watcher in self.each:
            watcher.heard(job, event)


def plan(cells: Sequence[Cell], results: Path, conditions: Conditions) -> tuple[list[Job], list[Outcome]]:
    """Jobs to run, and the outcomes of those that are finished."""
    jobs, outcomes = [], []
    for cell in cells:
        folder = cell.folder(results)
        record = finished_record(folder, cell.key)
        if record is None:
            jobs.append(Job(cell, folder, conditions))
        else:
            seconds = sum(map(sum, record.seconds.values())) if record.status is Status.DONE else None
            outcomes.append(Outcome(cell, folder, record.status, record.reason, cached=True, seconds=seconds))
    return jobs, outcomes


def finished_record(folder: Path, key: str) -> Record | None:
    """The record of a finished cell, if it is whole and has this key."""
    try:
        record = CellFolder(folder).read()
    except BrokenRecord:
        return None
    return record if record is not None and record.status.finished and record.key == key else None


def run_grid(
    cells: Sequence[Cell],
    results: Path,
    conditions: Conditions,
    engine: Engine,
    watcher: Watcher,
    retry_smaller: bool = False,
) -> list[Outcome]:
    """Run unfinished cells; return the outcomes of all cells, in order.

    retry_smaller: evaluate a cell that ran out of memory in evaluation again, in batches half as large.

    A failing cell never stops the others. Raises StorageError when the results folder cannot be
    written any more; KeyboardInterrupt passes through. Both leave every checkpoint in place.
    """
    jobs, outcomes = plan(cells, results, conditions)
    lacking = _lacking_data(jobs, conditions)
    outcomes += [_fail(job, lacking[name]) for job in jobs if (name := _dataset(job)) is not None and name in lacking]
    jobs = [job for job in jobs if _dataset(job) not in lacking]
    too_large = _too_large(jobs, conditions)
    outcomes += [_fail(job, too_large[job.cell.key]) for job in jobs if job.cell.key in too_large]
    jobs = [job for job in jobs if job.cell.key not in too_large]
    watcher.planned(jobs, outcomes)
    while jobs:
        ended, again = _run_round(jobs, engine, watcher, retry_smaller)
        outcomes += ended.values()
        jobs = [again.get(index, job) for index, job in enumerate(jobs) if index not in ended]
        if jobs and not ended and not again:
            time.sleep(SECONDS_BETWEEN_LOOKS)
    order = {cell.key: index for index, cell in enumerate(cells)}
    return sorted(outcomes, key=lambda outcome: order[outcome.cell.key])


def _run_round(
    jobs: Sequence[Job], engine: Engine, watcher: Watcher, retry_smaller: bool
) -> tuple[dict[int, Outcome], dict[int, Job]]:
    """Run all jobs once; return outcomes and jobs to retry, by index. Cells held by another process are in neither."""
    outcomes: dict[int, Outcome] = {}
    again: dict[int, Job] = {}

    def heard(event: Event) -> None:
        job = jobs[event.job]
        if event.kind is EventKind.STORAGE:
            raise StorageError(event.reason)
        if event.kind is EventKind.LOST:
            outcomes[event.job] = outcome = _fail(job, event.reason or "the worker is gone", event.status)
            event = Event(EventKind.ENDED, event.job, status=outcome.status, reason=event.reason)
        elif retry_smaller and (smaller := _smaller(job, event)) is not None:
            again[event.job] = smaller
            batch = smaller.conditions.evaluation_batch
            event = Event(
                EventKind.NOTE, event.job, reason=f"out of memory in evaluation; retried with batch size {batch}"
            )
        elif event.kind is EventKind.ENDED and event.status is not None:
            outcomes[event.job] = Outcome(job.cell, job.folder, event.status, event.reason, cached=False)
        watcher.heard(job, event)

    engine.run(jobs, heard)
    return outcomes, again


def _smaller(job: Job, event: Event) -> Job | None:
    """The job with half the evaluation batch, where that may help. The training batch would change the numbers."""
    batch = job.conditions.evaluation_batch // 2
    if event.status is not Status.OOM or event.phase is not Phase.EVALUATION or batch < SMALLEST_EVALUATION_BATCH:
        return None
    return replace(job, conditions=replace(job.conditions, evaluation_batch=batch))


def _dataset(job: Job) -> DataSource | None:
    """The data set that a cell needs; None for one that will be skipped."""
    benchmark = catalogue.find(job.cell.benchmark_reference)
    return None if job.cell.scenario in benchmark.undefined else benchmark.dataset


def _lacking_data(jobs: Sequence[Job], conditions: Conditions) -> dict[DataSource, str]:
    """Unusable data sets, each with the reason in a sentence; fetches missing data where permitted."""
    folder = Path(conditions.data_dir) if conditions.data_dir else None
    problems: dict[DataSource, str] = {}
    for dataset in dict.fromkeys(filter(None, map(_dataset, jobs))):
        problem = _complaint(lambda name=dataset: _obtain(name, folder))
        if problem is not None:
            problems[dataset] = problem
    return problems


def _too_large(jobs: Sequence[Job], conditions: Conditions) -> dict[str, str]:
    """Cells that cannot fit the device, each with the numbers."""
    from runners.plan import footprint

    return footprint.refusals([job.cell for job in jobs], conditions.device)


def _obtain(dataset: DataSource, folder: Path | None) -> None:
    """Make a data set ready where that is not left to the workers. Raises DataError."""
    if problem := data.check(dataset, folder):
        raise data.DataError(problem)
    if data.source_of(dataset, locate(folder)) is not None:
        data.load(dataset, folder, download=True)


def _complaint(action: Callable[[], object]) -> str | None:
    try:
        action()
    except UserError as error:
        return str(error)
    except Exception as error:  # whatever is wrong with one data set, the others are run
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return None


def _fail(job: Job, reason: str, status: Status | None = None) -> Outcome:
    """Record a failure that no worker could record."""
    status = status or Status.FAILED
    from runners.cell.blank import blank_record

    folder = CellFolder(job.folder)
    with folder.lock() as held:
        if held and finished_record(job.folder, job.cell.key) is None:
            asides: list[str] = []
            folder.usable(job.cell.key, asides.append)
            reason = " ".join((reason, *(f"({words})" for words in asides)))
            folder.write(blank_record(job, status, reason))
    return Outcome(job.cell, job.folder, status, reason, cached=False)
