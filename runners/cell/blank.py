"""Records of a cell before it runs: the one in its folder, if usable, or an empty one."""

from __future__ import annotations

from datetime import UTC, datetime

from runners.cell.events import Emit, Event, EventKind
from runners.grid.cells import Job
from runners.records.folder import CellFolder
from runners.records.record import Record, Status


def usable_record(folder: CellFolder, key: str, emit: Emit) -> Record | None:
    """The folder's record if it is whole and has the key; an unusable one is set aside and reported."""
    return folder.usable(key, lambda words: emit(Event(EventKind.NOTE, reason=f"{words}, rerun")))


def blank_record(job: Job, status: Status, reason: str | None = None) -> Record:
    """Empty record of the cell: nothing measured yet."""
    cell, now = job.cell, stamp()
    return Record(
        key=cell.key,
        status=status,
        reason=reason,
        benchmark=cell.benchmark,
        scenario=cell.scenario,
        method=cell.method,
        label=cell.label,
        seed=cell.seed,
        config=cell.config,
        chosen=dict(cell.chosen),
        definition=dict(cell.definition),
        judged_on=cell.judged_on,
        budget=cell.budget,
        network=cell.network,
        n_tasks=cell.n_tasks,
        classes_per_task=int(cell.definition["classes_per_task"]),
        source=cell.source,
        parts=dict(cell.parts),
        suite=cell.suite,
        command=job.conditions.command,
        fairness={"conformance": verdict} if (verdict := job.conditions.conformance.get(cell.method)) else {},
        environment=dict(job.conditions.environment or {}),
        started=now,
        finished=None if status is Status.RUNNING else now,
    )


def stamp() -> str:
    """Present time in UTC, ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
