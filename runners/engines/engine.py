"""Interface of engines, which run jobs and report events, and the simplest engine, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from runners.cell.events import Emit, Event, EventKind, spoils
from runners.grid.cells import Job
from runners.process import cpu, devices
from runners.records.folder import StorageError
from runners.records.record import Status


class Engine(Protocol):
    """Runs jobs; every event carries the index of its job and is emitted in the caller's thread."""

    def run(self, jobs: Sequence[Job], emit: Emit) -> None:
        """Run all jobs. An exception raised by `emit` ends the run."""
        ...

    def close(self) -> None:
        """Stop everything that still runs, at once; cells can be resumed from their checkpoints."""
        ...


class InlineEngine:
    """One cell after the other in this process, for debuggers and profilers."""

    def __init__(self, threads: int) -> None:
        self.threads, self.spoilt = threads, ""

    def run(self, jobs: Sequence[Job], emit: Emit) -> None:
        from methods.shared.stepping import CaptureFailed
        from runners.cell.execution import run_cell
        from runners.process import known_state

        cpu.prepare(self.threads)
        known_state.taken()
        for index, job in enumerate(jobs):

            def tell(event: Event, index: int = index) -> None:
                emit(replace(event, job=index))

            try:
                if not self.spoilt:
                    status = run_cell(job, tell)
                    device = job.conditions.device
                    if spoils(status, device) and device != "cpu" and not devices.answers(device):
                        self.spoilt = f"{job.cell.method} has left {device} in a state in which it refuses everything"
                        self.spoilt += " in this process; --engine local runs the other cells in another"
                        continue
                    if lasting := known_state.taken().lasting:
                        self.spoilt = _lasting(job.cell.method, lasting)
                        continue
            except StorageError as error:
                tell(Event(EventKind.STORAGE, reason=str(error)))
            except CaptureFailed as error:
                self.spoilt = f"{error}, and --engine local runs the cell again in a process that this has not spoilt"
            if self.spoilt:
                tell(Event(EventKind.LOST, status=Status.FAILED, reason=self.spoilt))

    def close(self) -> None:
        """Nothing runs when `run` has returned."""


def _lasting(method: str, names: Sequence[str]) -> str:
    return (
        f"{method} has changed {', '.join(names)} of this process, which cannot be put back; "
        "--engine local runs the other cells in a process that this has not spoilt"
    )
