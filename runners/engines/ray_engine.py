"""The Ray engine: one cell is one Ray task; this process alone reads and writes the results folder."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.types import UserError
from runners.cell.events import Emit, Event, EventKind, again
from runners.engines import ray_worker, shipping
from runners.grid.cells import Job
from runners.process import cpu
from runners.process.resources import Need, fitting, largest
from runners.records.folder import CellFolder, StorageError
from runners.records.record import Status

LOCAL = "local"
RETRIES = 3
"""Retries of a cell that was lost with its node, from its last finished task."""
CRASHES = 1
"""Retries after a worker crash; a second crash is blamed on the cell."""
WRITERS = 4
SECONDS_BETWEEN_COUNTS = 5.0
SECONDS_TO_WRITE = 0.03
"""Seconds between checks of pending writes of records."""
PROGRESS_A_SECOND = 100
"""Events of progress that the driver takes in a second from all cells together, about."""
SHARED_FILES = ("samples.png",)
_ENDS = (EventKind.ENDED, EventKind.AGAIN)


@dataclass
class _Active:
    """A cell that was handed to Ray."""

    index: int
    folder: CellFolder
    generator: Any
    held: ExitStack
    """Holds the lock of the cell's folder."""
    begun: float | None = None
    """Time of its first message; until then it waits for resources."""
    writing: Future[list[Event]] | None = None
    overdue: bool = False


@dataclass
class RayEngine:
    """Runs cells on a Ray cluster, or on a local Ray that lives as long as this engine."""

    address: str
    workers: int | None
    """Most cells at a time; None for as many as fit the cluster."""
    device: str
    """auto, cpu or cuda; auto is cuda where the cluster has GPUs."""
    threads: int
    need: Need
    """Declared resources of one cell; GPUs count if the device is cuda."""
    cell_timeout: float | None = None
    active: dict[Any, _Active] = field(default_factory=dict)
    losses: Counter[tuple[str, type]] = field(default_factory=Counter)
    slots: int = 0
    counted: float = float("-inf")

    def __post_init__(self) -> None:
        os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # Ray's own lines would tear the display to pieces
        try:
            import ray
            import ray.exceptions
        except ImportError as error:
            raise UserError(
                "--engine ray needs Ray: pip install 'continual-intervals[cluster]' "
                "(in a checkout: pip install -c constraints.txt -e '.[cluster]')"
            ) from error
        self.ray = ray
        self.writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="records")
        self.staged = tempfile.TemporaryDirectory(prefix="continual-intervals-")
        self.there: dict[str, str] = {}
        self.begin_cell: Any = None

    # -- Engine ----------------------------------------------------------------------------------

    def run(self, jobs: Sequence[Job], emit: Emit) -> None:
        if self.begin_cell is None:
            self._connect(jobs)
        jobs, waiting = list(jobs), deque(range(len(jobs)))
        while waiting or self.active:
            self._count_slots(jobs)
            while waiting and len(self.active) < self.slots:
                self._submit(waiting.popleft(), jobs, emit)
            self._collect(jobs, waiting, emit)
            self._end_overdue()

    def close(self) -> None:
        for active in self.active.values():
            with suppress(Exception):
                self.ray.cancel(active.generator, force=True)
            active.held.close()
        self.active = {}
        self.writers.shutdown(wait=True, cancel_futures=True)
        if self.begin_cell is not None:
            self.ray.shutdown()
        self.staged.cleanup()

    # -- the cluster -----------------------------------------------------------------------------

    def _connect(self, jobs: Sequence[Job]) -> None:
        foreign = dict.fromkeys(reference for job in jobs for reference in shipping.foreign_of(job))
        self.there = shipping.stage(Path(self.staged.name), list(foreign))
        options: dict[str, Any] = {
            "address": self.address,
            "log_to_driver": False,
            "logging_level": "CRITICAL",
            "runtime_env": {
                "working_dir": self.staged.name,
                "env_vars": {**cpu.variables(self.threads), "PYTHONSAFEPATH": "1"},
            },
        }
        if self.address == LOCAL:
            options |= {"include_dashboard": False, "num_cpus": self.workers and self.workers * self.threads}
        try:
            with _own_signal_handlers():
                self.ray.init(**options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(f"--ray-address {self.address}: {_refusal(error)}") from error
        nodes = self._nodes()
        if self.device == "auto":
            self.device = "cuda" if any(node.get("GPU", 0) > 0 for node in nodes) else "cpu"
        if self.device == "cpu":
            self.need = replace(self.need, gpus=0.0)
        if not fitting(self.need, nodes):
            raise UserError(f"no node of the Ray cluster has {self.need}; the largest has {largest(nodes)}")
        self.begin_cell = self.ray.remote(ray_worker.tell).options(
            num_returns="streaming", max_retries=0, **self.need.for_ray()
        )

    def _nodes(self) -> list[dict[str, float]]:
        """The resources of each node that is alive."""
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def _count_slots(self, jobs: Sequence[Job]) -> None:
        """Count the cells to hand over: those that fit now, plus a few waiting ones, so that no node idles."""
        now = time.monotonic()
        if now - self.counted < SECONDS_BETWEEN_COUNTS:
            return
        self.counted = now
        fit = fitting(self.need, self._nodes())
        self.slots = max(1, fit + 2 + fit // 8)
        if self.workers is not None and self.address != LOCAL:  # a local Ray has no more CPUs than that
            self.slots = min(self.slots, self.workers)

    # -- cells -----------------------------------------------------------------------------------

    def _submit(self, index: int, jobs: Sequence[Job], emit: Emit) -> None:
        said: list[Event] = []
        with ExitStack() as held:
            try:
                self._hand_over(index, jobs[index], held, said)
            except StorageError as error:
                said.append(Event(EventKind.STORAGE, reason=str(error)))
            # A fault of the cluster ends the run; any other exception fails only this cell.
            except self.ray.exceptions.RayError:
                raise
            except Exception as error:
                from runners.cell.execution import lost

                said.append(lost(error))
        for event in said:
            emit(replace(event, job=index))

    def _hand_over(self, index: int, job: Job, held: ExitStack, said: list[Event]) -> None:
        """Hold the cell's folder and give the cell to Ray, or say why there is nothing to run."""
        from runners.cell.blank import usable_record

        folder = CellFolder(job.folder)
        if not held.enter_context(folder.lock()):
            said.append(Event(EventKind.ELSEWHERE))
            return
        record = usable_record(folder, job.cell.key, said.append)
        if record is not None and record.status.finished:
            said.append(Event(EventKind.ENDED, status=record.status, reason=record.reason))
            return
        checkpoint = folder.read_checkpoint()
        handed = ray_worker.Handed(
            checkpoint,
            damaged=checkpoint is None and folder.has_checkpoint(),
            shared=frozenset(name for name in SHARED_FILES if folder.has_shared(name)),
            announce=self.cell_timeout is not None,
            seconds_between_progress=max(0.5, self.slots / PROGRESS_A_SECOND),
        )
        device = "cuda:0" if self.device == "cuda" else self.device  # Ray shows a task its own GPUs only
        sent = replace(job, conditions=replace(job.conditions, device=device, threads=self.threads))
        generator = self.begin_cell.remote(shipping.readdressed(sent, self.there), handed)
        self.active[generator] = _Active(index, folder, generator, held.pop_all())

    def _collect(self, jobs: list[Job], waiting: deque[int], emit: Emit) -> None:
        idle = [active.generator for active in self.active.values() if active.writing is None]
        busy = len(idle) < len(self.active)
        if idle:
            ready, rest = self.ray.wait(idle, num_returns=1, timeout=SECONDS_TO_WRITE if busy else 0.5)
            if ready and rest:
                ready += self.ray.wait(rest, num_returns=len(rest), timeout=0)[0]
            for generator in ready:
                self._receive(self.active[generator], jobs, waiting, emit)
        elif busy:
            time.sleep(SECONDS_TO_WRITE / 10)
        for active in list(self.active.values()):
            writing = active.writing
            if writing is None or not writing.done():
                continue
            active.writing = None
            try:
                events = writing.result()
            except StorageError as error:
                events = [Event(EventKind.STORAGE, reason=str(error))]
            self._pass_on(active, events, jobs, waiting, emit)

    def _receive(self, active: _Active, jobs: list[Job], waiting: deque[int], emit: Emit) -> None:
        try:
            batch: list[ray_worker.Message] = self.ray.get(next(active.generator))
        except StopIteration:
            self._lose(active, jobs, waiting, emit, RuntimeError("the task ended without a result"))
            return
        except self.ray.exceptions.RayError as error:
            self._lose(active, jobs, waiting, emit, error)
            return
        if active.begun is None:
            active.begun = time.monotonic()
        if all(isinstance(message, Event) for message in batch):
            self._pass_on(active, batch, jobs, waiting, emit)  # type: ignore[arg-type]
        else:
            active.writing = self.writers.submit(_write, active.folder, batch)

    def _pass_on(
        self, active: _Active, events: Sequence[Event], jobs: list[Job], waiting: deque[int], emit: Emit
    ) -> None:
        """Emit the events; the end of a cell is emitted after its folder was released."""
        for event in events:
            if event.kind in _ENDS:
                self._forget(active)
            if event.kind is EventKind.AGAIN:
                jobs[active.index] = jobs[active.index].uncaptured(event.reason or "")
                waiting.appendleft(active.index)
                event = Event(EventKind.NOTE, reason=again(event))
            emit(replace(event, job=active.index))

    def _forget(self, active: _Active) -> None:
        del self.active[active.generator]
        active.held.close()

    def _lose(self, active: _Active, jobs: Sequence[Job], waiting: deque[int], emit: Emit, error: Exception) -> None:
        """Retry the cell if its node is to blame, else report it as lost."""
        self._forget(active)
        errors, key = self.ray.exceptions, jobs[active.index].cell.key
        crashed = isinstance(error, errors.WorkerCrashedError)
        gone = isinstance(error, errors.NodeDiedError | errors.ObjectLostError | errors.LocalRayletDiedError)
        self.losses[key, type(error)] += 1
        if not active.overdue and (gone or crashed):
            count = self.losses[key, type(error)]
            if count <= (CRASHES if crashed else RETRIES):
                what = "its process died" if crashed else "lost with its node"
                emit(Event(EventKind.NOTE, job=active.index, reason=f"{what}; retried"))
                waiting.appendleft(active.index)
                return
        reason, status = _line(error), Status.FAILED
        if active.overdue:
            reason = f"timeout: the cell ran longer than {self.cell_timeout:g} s"
        elif isinstance(error, errors.OutOfMemoryError):
            reason, status = f"out of memory: Ray ended the task ({reason})", Status.OOM
        elif gone or crashed:
            what = "the process of the cell died" if crashed else "the cell was lost with its node"
            reason = f"{what} {self.losses[key, type(error)]} times"
        emit(Event(EventKind.LOST, job=active.index, status=status, reason=reason))

    def _end_overdue(self) -> None:
        if self.cell_timeout is None:
            return
        now = time.monotonic()
        for active in self.active.values():
            if not active.overdue and active.begun is not None and now - active.begun > self.cell_timeout:
                active.overdue = True
                self.ray.cancel(active.generator, force=True)


def _write(folder: CellFolder, batch: Sequence[ray_worker.Message]) -> list[Event]:
    """Write the files of the batch into the folder, in order; return its events, to be emitted afterwards."""
    for message in batch:
        if not isinstance(message, Event):
            message.put(folder)
    return [message for message in batch if isinstance(message, Event)]


def _refusal(error: BaseException) -> str:
    """Reason for the failed connection. Ray mentions a missing token only in the text of the causes."""
    cause: BaseException | None = error
    while cause is not None:
        if "InvalidAuthToken" in str(cause):
            return "the cluster asks for a token; give this command the one of the cluster, as Ray's documentation says"
        cause = cause.__cause__
    return f"no Ray cluster answers there ({_line(error)})"


def _line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Keep this process's signal handlers: Ray installs its own for SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
