"""Remote side of the Ray engine: a cell runs in a Ray worker and reports to the driver, which alone writes."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runners.cell.events import Event, EventKind, Throttle, spoils
from runners.engines import shipping
from runners.grid.cells import Job
from runners.process import cpu
from runners.records.folder import CellFolder
from runners.records.record import Measurements, Record, Status

SECONDS_TO_DELIVER = 2.0
"""Seconds that an ending process waits for the delivery of its last messages."""


@dataclass(frozen=True)
class Handed:
    """Files of the cell's folder, which the driver sends along with a job."""

    checkpoint: bytes | None = None
    damaged: bool = False
    """True if there is an unusable checkpoint."""
    shared: frozenset[str] = frozenset()
    """Files stored next to the benchmark's records."""
    announce: bool = False
    """True to announce at once that the cell begins, which starts its time limit."""
    seconds_between_progress: float = 1.0


@dataclass(frozen=True)
class Written:
    """A record and its tables, to be written in the cell's folder."""

    record: str
    """The content of cell.json."""
    status: Status
    traceback: str | None
    tables: dict[str, str]

    def put(self, folder: CellFolder) -> None:
        folder.write_texts(self.record, self.status, self.traceback, self.tables)


@dataclass(frozen=True)
class Saved:
    """A checkpoint."""

    payload: bytes

    def put(self, folder: CellFolder) -> None:
        folder.write_checkpoint(self.payload)


@dataclass(frozen=True)
class Shared:
    """A file to be stored next to the benchmark's records."""

    name: str
    content: bytes

    def put(self, folder: CellFolder) -> None:
        folder.share(self.name, self.content)


Message = Event | Written | Saved | Shared
_Outbox = queue.SimpleQueue[Message | BaseException | None]


class _Away:
    """Proxy of the cell's folder, which lies with the driver; see runners.records.folder.Store."""

    def __init__(self, path: Path, handed: Handed, outbox: _Outbox) -> None:
        self.path, self.handed, self.outbox = path, handed, outbox

    def write(self, record: Record, measured: Measurements | None = None) -> None:
        tables = measured.tables() if measured else {}
        self.outbox.put(Written(record.to_json(), record.status, record.traceback, tables))

    def write_checkpoint(self, payload: bytes) -> None:
        self.outbox.put(Saved(payload))

    def has_checkpoint(self) -> bool:
        return self.handed.damaged or self.handed.checkpoint is not None

    def read_checkpoint(self) -> bytes | None:
        return self.handed.checkpoint

    def has_shared(self, name: str) -> bool:
        return name in self.handed.shared

    def share(self, name: str, content: bytes) -> None:
        self.outbox.put(Shared(name, content))


def tell(job: Job, handed: Handed) -> Iterator[list[Message]]:
    """Run a cell; yield its messages in order, as they occur.

    The cell runs in a thread of its own, so that this generator is free to hand over its messages.
    """
    outbox: _Outbox = queue.SimpleQueue()
    thread = threading.Thread(target=_run, args=(job, handed, outbox), daemon=True)
    if handed.announce:
        yield []
    thread.start()
    while True:
        batch = [outbox.get()]
        while not outbox.empty():
            batch.append(outbox.get())
        last = batch[-1]
        said = [message for message in batch if message is not None and not isinstance(message, BaseException)]
        if said:
            yield said
        events = [message for message in said if isinstance(message, Event)]
        if any(_ends_the_process(event, job.conditions.device) for event in events):
            time.sleep(SECONDS_TO_DELIVER)
            os._exit(1)  # Ray would give this process to other cells
        if isinstance(last, BaseException):
            raise last
        if last is None:
            return


def _ends_the_process(event: Event, device: str) -> bool:
    """Check whether the process is unusable after the event; the changes a cell left behind are known at its end."""
    if event.kind is EventKind.AGAIN or spoils(event.status, device):
        return True
    from runners.process import known_state

    return event.kind is EventKind.ENDED and bool(known_state.taken().changed)


def _run(job: Job, handed: Handed, outbox: _Outbox) -> None:
    from methods.shared.stepping import CaptureFailed
    from runners.cell.execution import run_held
    from runners.process import known_state

    try:
        known_state.taken()
        shipping.arrive()
        cpu.prepare(job.conditions.threads)  # in this thread: part of it holds for one thread only
        emit = Throttle(outbox.put, handed.seconds_between_progress)
        outbox.put(run_held(job, _Away(job.folder, handed, outbox), emit))
        outbox.put(None)
    except CaptureFailed as error:
        outbox.put(Event(EventKind.AGAIN, reason=error.why))
    except BaseException as error:
        outbox.put(error)
