"""What a running cell tells the driver; plain values, so that they travel between processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from runners.records import Status


class Kind(StrEnum):
    READY = "ready"
    """A worker process waits for a job."""
    STARTED = "started"
    PROGRESS = "progress"
    """Training: task, step, steps, loss."""
    TASK_DONE = "task_done"
    """Evaluated and saved: task, accuracy so far."""
    ENDED = "ended"
    """The cell has a status and a record."""
    ELSEWHERE = "elsewhere"
    """Another process holds the cell."""
    STORAGE = "storage"
    """The results folder cannot be written any more; the reason says why."""
    LOST = "lost"
    """The worker that had the cell is gone; the engine says so, the driver records it."""
    NOTE = "note"
    """Something the user should know, in `reason`."""


@dataclass(frozen=True)
class Event:
    """One message about the job `job` (its place in the list given to the engine)."""

    kind: Kind
    job: int = -1
    task: int | None = None
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    accuracy: float | None = None
    """Mean test accuracy over the tasks learnt so far."""
    status: Status | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Event:
        status = data.get("status")
        return Event(**{**data, "kind": Kind(data["kind"]), "status": Status(status) if status else None})


Emit = Callable[[Event], None]
