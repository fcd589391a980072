"""The local engine: persistent worker processes on this machine, each with its device and threads."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import IO

from benchmarks.types import UserError
from runners.cell.events import ENDS, Emit, Event, EventKind, again
from runners.engines.packing import Packer
from runners.grid.cells import Job
from runners.grid.fingerprint import ROOT
from runners.process import cpu
from runners.records.record import Status

SECONDS_TO_STOP = 5.0
FRUITLESS_STARTS = 3
WORKER = "runners.engines.worker"


@dataclass
class _Worker:
    """A process, its pipes, and the job it has in hand."""

    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    device: str
    ready: bool = False
    """True while the worker waits for a job."""
    starting: bool = True
    job: int | None = None
    begun: float = 0.0
    overdue: bool = False
    buffer: bytes = b""

    def last_words(self) -> str:
        self.errors.seek(max(0, self.errors.seek(0, os.SEEK_END) - 2000))
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""


class LocalEngine:
    """Engine with one worker per device of `devices`; a crash of a worker loses only its cell."""

    def __init__(
        self, devices: Sequence[str], threads: int, cell_timeout: float | None = None, packer: Packer | None = None
    ) -> None:
        """packer: decides which cells may share a device; without one, all may."""
        self.devices, self.threads, self.cell_timeout, self.packer = list(devices), threads, cell_timeout, packer
        self.workers: list[_Worker] = []
        self.selector = selectors.DefaultSelector()
        self.fruitless = 0

    def start(self, n_jobs: int) -> None:
        """Start the workers for `n_jobs`; they load torch while the caller does other things."""
        missing = Counter(self.devices[:n_jobs]) - Counter(worker.device for worker in self.workers)
        for device in missing.elements():
            self._start(device)

    def run(self, jobs: Sequence[Job], emit: Emit) -> None:
        jobs, waiting = list(jobs), deque(range(len(jobs)))
        self.start(len(jobs))
        self._feed_all(jobs, waiting)
        while waiting or any(worker.job is not None for worker in self.workers):
            for key, _ in self.selector.select(timeout=1.0):
                self._read(key.data, jobs, waiting, emit)
            self._end_overdue()

    def close(self) -> None:
        for worker in self.workers:
            with contextlib.suppress(OSError):
                worker.process.stdin.close()  # type: ignore[union-attr]
        deadline = time.monotonic() + SECONDS_TO_STOP
        for worker in self.workers:
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            self._forget(worker)
        self.workers = []

    # -- workers ---------------------------------------------------------------------------------

    def _start(self, device: str) -> None:
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {
            **os.environ,
            **cpu.variables(self.threads),
            "PYTHONPATH": os.pathsep.join(paths),
        }
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", WORKER],  # -P: no package in the user's folder stands in for this project's
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
        )
        worker = _Worker(process, errors, device)  # type: ignore[arg-type]
        assert process.stdout is not None
        # A read must never block the loop that serves all workers.
        os.set_blocking(process.stdout.fileno(), False)
        self.selector.register(process.stdout, selectors.EVENT_READ, worker)
        self.workers.append(worker)

    def _forget(self, worker: _Worker) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(worker.process.stdout)  # type: ignore[arg-type]
        for pipe in (worker.process.stdin, worker.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
        worker.errors.close()

    def _feed_all(self, jobs: Sequence[Job], waiting: deque[int]) -> None:
        for worker in self.workers:
            self._feed(worker, jobs, waiting)

    def _feed(self, worker: _Worker, jobs: Sequence[Job], waiting: deque[int]) -> None:
        """Give the worker the first job that fits on its device now."""
        if not (waiting and worker.ready):
            return
        index = waiting[0]
        if self.packer is not None:
            device, fits = worker.device, self.packer.fits
            index = next((i for i in waiting if fits(device, i, jobs[i].cell)), None)
            if index is None:
                return
            self.packer.take(device, index, jobs[index].cell)
        waiting.remove(index)
        job = replace(jobs[index], conditions=replace(jobs[index].conditions, device=worker.device))
        worker.job, worker.begun, worker.ready = index, time.monotonic(), False
        line = (json.dumps(job.to_json()) + "\n").encode()
        with contextlib.suppress(BrokenPipeError):  # its end is seen on the other pipe
            worker.process.stdin.write(line)  # type: ignore[union-attr, arg-type]
            worker.process.stdin.flush()  # type: ignore[union-attr]

    # -- events ----------------------------------------------------------------------------------

    def _read(self, worker: _Worker, jobs: list[Job], waiting: deque[int], emit: Emit) -> None:
        assert worker.process.stdout is not None
        try:
            content = os.read(worker.process.stdout.fileno(), 1 << 16)
        except BlockingIOError:
            return
        if not content:
            self._bury(worker, jobs, waiting, emit)
            return
        *lines, worker.buffer = (worker.buffer + content).split(b"\n")
        for line in lines:
            self._hear(worker, Event.from_json(json.loads(line)), jobs, waiting, emit)

    def _hear(self, worker: _Worker, event: Event, jobs: list[Job], waiting: deque[int], emit: Emit) -> None:
        if event.kind is EventKind.READY:
            worker.ready, worker.starting, self.fruitless = True, False, 0
            self._feed_all(jobs, waiting)
        elif worker.job is not None:
            index = worker.job
            if event.kind in ENDS:
                worker.job = None
                crowded_out = self._crowded_out(worker, index, jobs, event)
                if event.kind is EventKind.AGAIN:
                    jobs[index] = jobs[index].uncaptured(event.reason or "")
                    waiting.appendleft(index)
                    event = Event(EventKind.NOTE, reason=again(event))
                elif crowded_out:
                    waiting.append(index)
                    event = Event(EventKind.NOTE, reason="out of memory among other cells; retried alone on its device")
            emit(replace(event, job=index))

    def _crowded_out(self, worker: _Worker, index: int, jobs: Sequence[Job], event: Event) -> bool:
        """Release the cell from the packer; return whether it ran out of memory because it shared its device."""
        if self.packer is None:
            return False
        shared = self.packer.release(worker.device, index)
        if event.status is Status.OOM and shared:
            self.packer.alone.add(index)
            return True
        self.packer.note(jobs[index].cell, event.memory)
        return False

    def _bury(self, worker: _Worker, jobs: list[Job], waiting: deque[int], emit: Emit) -> None:
        worker.process.wait()
        reason = cause_of_death(worker.process.returncode, worker.last_words())
        if worker.overdue:
            reason = f"timeout: the cell ran longer than {self.cell_timeout:g} s"
        self.workers.remove(worker)
        self._forget(worker)
        if worker.job is not None:
            if self.packer is not None:
                self.packer.release(worker.device, worker.job)
            emit(Event(EventKind.LOST, job=worker.job, reason=reason))
        if worker.starting:
            # A worker that dies before it is ready points to the installation, not to a cell.
            self.fruitless += 1
            if self.fruitless >= FRUITLESS_STARTS:
                raise UserError(f"the worker processes do not start: {reason}")
        if waiting:
            self._start(worker.device)

    def _end_overdue(self) -> None:
        if self.cell_timeout is None:
            return
        for worker in self.workers:
            if worker.job is not None and time.monotonic() - worker.begun > self.cell_timeout:
                worker.overdue = True
                worker.process.kill()


def cause_of_death(returncode: int, last_words: str) -> str:
    """Cause of the end of a worker process, in words."""
    said = f"; its last words: {last_words}" if last_words else ""
    if returncode >= 0:
        return f"worker ended with exit code {returncode}{said}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = "unknown"
    hint = "; often the system's answer to a lack of memory" if -returncode == signal.SIGKILL else ""
    return f"worker killed by signal {-returncode} ({name}){hint}{said}"
