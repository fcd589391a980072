"""Messages of a running cell to the driver: plain values, so that they travel between processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from runners.records.record import Status


class EventKind(StrEnum):
    READY = "ready"
    """A worker process waits for a job."""
    STARTED = "started"
    """Training begins at `task`: with the accuracy and the metrics after the tasks before, if the cell is resumed."""
    PROGRESS = "progress"
    """Training: task, step, steps, loss."""
    TASK_DONE = "task_done"
    """Evaluated and saved: task, accuracy so far, metrics."""
    ENDED = "ended"
    """The cell has a status and a record."""
    ELSEWHERE = "elsewhere"
    """Another process holds the cell."""
    STORAGE = "storage"
    """The results folder cannot be written any more; the reason says why."""
    LOST = "lost"
    """The cell failed and nothing could record it, e.g. since its worker is gone; the driver does."""
    AGAIN = "again"
    """The cell is to be run again, step by step and in another process: a capture failed, for the `reason` given, and
    this process is to end."""
    NOTE = "note"
    """Something the user should know, in `reason`."""


ENDS = frozenset({EventKind.ENDED, EventKind.ELSEWHERE, EventKind.STORAGE, EventKind.LOST, EventKind.AGAIN})
"""After these a worker has its cell no longer in hand."""


class Phase(StrEnum):
    """Phase of a cell."""

    PREPARATION = "preparation"
    TRAINING = "training"
    EVALUATION = "evaluation"


@dataclass(frozen=True)
class Event:
    """One message about the job `job` (its place in the list given to the engine)."""

    kind: EventKind
    job: int = -1
    task: int | None = None
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    accuracy: float | None = None
    """Mean test accuracy over the tasks learnt so far."""
    status: Status | None = None
    reason: str | None = None
    memory: int | None = None
    """Peak bytes of a cell that ended: on the GPU, or of its process where it ran on the CPU."""
    phase: Phase | None = None
    """Of a cell that ended before its time."""
    curve: tuple[tuple[int, int, int, float], ...] | None = None
    """Points of the loss curve since the event before: task, steps done, steps to do, loss. None: this event's own."""
    metrics: dict[str, float] | None = None
    """Of the latest task that is done; see runners.cell.metrics."""

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Event:
        kinds = {"kind": EventKind, "status": Status, "phase": Phase, "curve": _points}
        return Event(**{name: kinds[name](value) if name in kinds else value for name, value in data.items()})


def _points(lists: list[list[Any]]) -> tuple[tuple[int, int, int, float], ...]:
    return tuple((task, step, steps, loss) for task, step, steps, loss in lists)


def spoils(status: Status | None, device: str) -> bool:
    """Check whether a cell's end makes its process unusable: memory may be corrupt, the GPU in an error state."""
    return status is Status.OOM or (device != "cpu" and status is Status.FAILED)


def again(event: Event) -> str:
    """Message to the user about a cell that is retried after a failed capture."""
    return f"the training steps could not be captured ({event.reason}); run again in another process, step by step"


Emit = Callable[[Event], None]


class Throttle:
    """Throttle of progress events: at most one in `seconds`; all other events pass. No point of the curve is lost."""

    def __init__(self, emit: Emit, seconds: float) -> None:
        self.emit, self.seconds, self.latest = emit, seconds, float("-inf")
        self.curve: list[tuple[int, int, int, float]] = []

    def __call__(self, event: Event) -> None:
        if event.kind is EventKind.PROGRESS:
            self.curve += points(event)
            now = time.monotonic()
            if now - self.latest < self.seconds:
                return
            self.latest = now
        if self.curve:
            event, self.curve = replace(event, curve=tuple(self.curve)), []
        self.emit(event)


def points(event: Event) -> tuple[tuple[int, int, int, float], ...]:
    """Points of the loss curve that an event brings: task, steps done, steps to do, loss."""
    if event.curve is not None:
        return event.curve
    if event.task is None or event.step is None or event.steps is None or event.loss is None:
        return ()
    return ((event.task, event.step, event.steps, event.loss),)
