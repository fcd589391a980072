"""Running one cell: stream, method, tasks, measurements, checkpoints, and a record at the end."""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import catalogue, door
from benchmarks.catalogue import Benchmark
from benchmarks.data import DataSet
from benchmarks.stream import Stream, TuningStream, open_stream
from benchmarks.tally import counting
from benchmarks.types import UserError, derived_seed
from methods.base import Certifying, Diverged, Method, Progress
from methods.shared import state
from methods.shared.stepping import CaptureFailed
from runners.cell import certificates, checkpoint, exhibits, finite, sample_sheet, stated, usage
from runners.cell.blank import blank_record, stamp, usable_record
from runners.cell.evaluation import Evaluator, accuracy_so_far
from runners.cell.events import Emit, Event, EventKind, Phase
from runners.cell.metrics import after_task
from runners.grid import hyperparameters
from runners.grid.cells import Conditions, Job
from runners.grid.loading import LoadedMethod, load_method, modules_of, parts_of
from runners.process import cpu, devices
from runners.process.guard import Guard
from runners.process.memory import MemoryPeak
from runners.process.precision import in_force
from runners.process.resources import GIB
from runners.process.shortage import diagnose, first_line, shortage, text
from runners.records import environment
from runners.records.folder import CellFolder, StorageError, Store
from runners.records.record import Measurements, Status

TRACEBACK_CHARACTERS = 100_000
"""Of a traceback so much is kept, its end: a message in it may be endless, and a record must stay readable."""


class Skip(Exception):
    """The cell is not defined; the text says why."""


class SourceChanged(UserError):
    """The method's code, or the data, is no longer that of the cell's key."""


def run_cell(job: Job, emit: Emit) -> Status | None:
    """Run a cell to its end, resuming from its checkpoint if it has one, and record the outcome.

    Nothing raised by the method, nor on the way to it, leaves this function: it becomes the record's status, or,
    where no record could be written, an event by which the driver writes one. Returns None where another process
    holds the cell. Raises StorageError where the record cannot be written, CaptureFailed where this process is to end
    and the cell to be run again in another, step by step; and lets KeyboardInterrupt through.
    """
    folder = CellFolder(job.folder.absolute())  # a method may change the working directory
    try:
        with folder.lock() as held:
            end = _held(job, folder, emit) if held else Event(EventKind.ELSEWHERE)
    except (StorageError, CaptureFailed):
        raise
    except Exception as error:
        end = lost(error)
    emit(end)
    return end.status


def _held(job: Job, folder: CellFolder, emit: Emit) -> Event:
    existing = usable_record(folder, job.cell.key, emit)
    if existing is not None and existing.status.finished:
        return Event(EventKind.ENDED, status=existing.status, reason=existing.reason)
    return run_held(job, folder, emit)


def lost(error: BaseException) -> Event:
    """Event of a cell whose failure could not be recorded; it names the line of code."""
    status, reason = diagnose(error)
    at = traceback.extract_tb(error.__traceback__)[-1]
    return Event(EventKind.LOST, status=status, reason=f"{reason} (at {Path(at.filename).name}:{at.lineno})")


def run_held(job: Job, folder: Store, emit: Emit) -> Event:
    """Run a cell that the caller holds, resuming from the checkpoint in `folder`; return the event of its end.

    Raises what `run_cell` raises.
    """
    end = _CellRun(job, folder, emit).run()
    devices.give_back(job.conditions.device)  # before the driver hears that there is room for another cell
    return end


@cache
def _loaded(reference: str, _source: str) -> LoadedMethod:
    """One class and hash per process and source: an edit while a grid runs does not reach cells of running workers."""
    return load_method(reference)


@cache
def _parts(benchmark: str, network: str) -> dict[str, str]:
    return parts_of(catalogue.find(benchmark), network)


class _CellRun:
    """State of one running cell."""

    def __init__(self, job: Job, folder: Store, emit: Emit) -> None:
        self.job, self.cell, self.folder, self.emit = job, job.cell, folder, emit
        self.measured = Measurements.empty(job.cell.n_tasks)
        self.record = blank_record(job, Status.RUNNING)
        self.memory: MemoryPeak | None = None
        """None until the device is in use."""
        self.phase = Phase.PREPARATION
        self.guard = Guard(job.cell.method)
        self.reported: list[tuple[int, int, float]] = []
        """Task, step and loss of every report of progress in the present task."""
        self.refused = False
        """True once the user knows that the method's state cannot be kept."""

    def run(self) -> Event:
        try:
            status, reason, trace = self._outcome()
        finally:
            self._put_back()
        self._end(status, reason, trace)
        phase = None if status.finished else self.phase
        memory = self.measured.peak_device or self.measured.peak_rss
        return Event(EventKind.ENDED, status=status, reason=reason, phase=phase, memory=memory)

    def _outcome(self) -> tuple[Status, str | None, str | None]:
        """Status, reason and traceback. A cell that changed its data is `failed`, whatever else it is."""
        try:
            outcome = self._attempt()
        finally:
            changed = self.guard.look("by its end", content=True)
        return (Status.FAILED, changed, outcome[2]) if changed else outcome

    def _attempt(self) -> tuple[Status, str | None, str | None]:
        try:
            self._begin()
            complete = self._run()
            return (Status.DONE, None, None) if complete else (Status.RUNNING, "paused", None)
        except (StorageError, KeyboardInterrupt):
            raise
        except Skip as skip:
            return Status.SKIPPED, text(skip), None
        except (Diverged, finite.NotFinite) as error:
            return Status.DIVERGED, text(error), None
        except BaseException as error:  # sys.exit in a method ends its cell, not the run
            status, reason = diagnose(error)
            if isinstance(error, CaptureFailed) and status is Status.FAILED and not self.job.conditions.step_by_step:
                raise
            if status is Status.OOM:
                reason = self._shortage(reason)
            told = status is not Status.OOM and isinstance(error, UserError)
            return status, reason, None if told else traceback.format_exc()[-TRACEBACK_CHARACTERS:]

    def _put_back(self) -> None:
        if names := self.guard.put_back():
            self.record = replace(self.record, environment={**self.record.environment, "left_behind": names})
            self.emit(Event(EventKind.NOTE, reason=f"{self.cell.method} left its process changed: {names}; put back"))

    def _shortage(self, reason: str) -> str:
        """Description of the memory shortage: what ran out, the peak, and what may help."""
        self._note_peaks()
        host, on_device = self.measured.peak_rss, self.measured.peak_device
        peak = f"peak {on_device / GIB:.3g} GiB on the GPU" if on_device else f"peak {host / GIB:.3g} GiB"
        smaller = "--on-oom retry-smaller, " if self.phase is Phase.EVALUATION else ""
        help_ = f"{smaller}fewer cells at a time (--workers) or a machine with more may help"
        return f"out of memory in {self.phase} ({peak}): {reason}; {help_}"

    def _end(self, status: Status, reason: str | None, trace: str | None) -> None:
        self._note_peaks()
        ended = replace(self.record, status=status, reason=reason, traceback=trace, finished=stamp())
        self.record = ended.with_measurements(self.measured)
        self.folder.write(self.record, self.measured)

    def _note_peaks(self) -> None:
        if self.memory is not None:
            self.measured.peak_rss, self.measured.peak_device = self.memory.peaks(self.measured)

    def _begin(self) -> None:
        self.device = torch.device(self.job.conditions.device)
        devices.use(self.device)
        self.guard.begin()
        self.memory = MemoryPeak(self.device)

    def _run(self) -> bool:
        """Learn and measure task after task; return False if the cell pauses before the last one."""
        stream, make = self._prepare()
        method, start = self._resumed(make)
        self.measured.held = usage.declared(method)
        evaluator = Evaluator(method, stream, self.job.conditions.evaluation_batch)
        method.progress, method.step_by_step = partial(self._report, method), self.job.conditions.step_by_step
        self.emit(self._event(EventKind.STARTED, start, after=start))
        self.folder.write(self.record)
        if self.cell.judged_on == "test":
            sample_sheet.leave(stream, self.folder)
        if start == 0:
            self._evaluate(evaluator, 0)
        stop = min(len(stream), self.job.conditions.stop_after or len(stream))
        for j in range(start, stop):
            self._learn(method, stream, j)
            self.measured.held = usage.declared(method)
            self._evaluate(evaluator, j + 1)
            trained = stated.whole(method.parameters_trained(), f"{self.cell.method}: parameters_trained")
            stored = stated.whole(method.parameters_stored(), f"{self.cell.method}: parameters_stored")
            self.measured.stored_per_task.append(stored)
            self.record = replace(self.record, parameters={"trained": trained, "stored": None})
            if j + 1 < len(stream) and method.resumable:
                self._save(method, j + 1)
            self.emit(self._event(EventKind.TASK_DONE, j, after=j + 1))
        if stop < len(stream):
            return False
        self._certify(method, stream)
        self._exhibit(method)
        self.measured.held = usage.of_method(method, stream, evaluator.answers, evaluator.batch_size)
        return True

    def _event(self, kind: EventKind, task: int, after: int) -> Event:
        """Event with the measurements after so many tasks, if any."""
        metrics = after_task(self.measured, after) if after else None
        return Event(kind, task=task, accuracy=accuracy_so_far(self.measured, after), metrics=metrics)

    def _prepare(self) -> tuple[Stream, Callable[[], Method]]:
        """The stream, and the factory of the method."""
        benchmark = catalogue.find(self.cell.benchmark_reference)
        if self.cell.scenario in benchmark.undefined:
            raise Skip(
                f"{benchmark.name} is not defined in {self.cell.scenario}: {benchmark.undefined[self.cell.scenario]}"
            )
        loaded = _loaded(self.cell.reference, self.cell.source)
        parts = _parts(self.cell.benchmark_reference, self.cell.network)
        if loaded.source != self.cell.source or parts != self.cell.parts:
            raise SourceChanged(f"the code of {self.cell.method} changed while the run was under way; start it again")
        cls: Any = loaded.cls
        config = hyperparameters.configure(self.cell.method, cls.Config, self.cell.config)
        spec = benchmark.spec(self.cell.scenario, self.cell.network)
        if reason := cls.skip(spec, config):
            raise Skip(reason)
        here = environment.of_worker(self.device)
        known = self.record.environment.get("packages", {})
        here["packages"] = environment.of_code(loaded.file, *modules_of(benchmark, self.cell.network)) | known
        if self.job.conditions.evaluation_batch != Conditions().evaluation_batch:
            here["evaluation_batch"] = self.job.conditions.evaluation_batch
        self.record = replace(self.record, environment={**self.record.environment, **here})
        data_dir = self.job.conditions.data_dir
        stream = open_stream(
            benchmark,
            self.cell.scenario,
            self.cell.seed,
            data_dir=Path(data_dir) if data_dir else None,
            device=self.device,
            network=self.cell.network,
            budget=replace(self.cell.budget),  # a copy: in this process other cells may have the same budget
        )
        self._note_data(benchmark, stream.data)
        if self.cell.judged_on == "validation":
            stream = TuningStream(stream)
        self.record = replace(self.record, task_names=tuple(stream.task_names))
        self.guard.over(stream)
        usage.network_parameters(stream.spec.network, stream.spec.input_shape, stream.spec.n_outputs)

        def make() -> Method:
            _seed_others(self.cell.seed, "init")
            return cls(stream.spec, config, self.device, self.cell.seed)

        return stream, make

    def _note_data(self, benchmark: Benchmark, found: DataSet) -> None:
        """Add the notes on the data to the record. Raises SourceChanged where the key belongs to other data."""
        expected = self.cell.definition.get("files") or self.cell.definition.get("content") or found.content
        if found.content != expected:
            raise SourceChanged(
                f"the data of {benchmark.name} are not those of the cell's key: they changed while the run was under "
                "way (start it again), or the function that makes them gives others at each call (seed its generator)"
            )
        if notes := door.notes(benchmark, found):
            self.record = replace(self.record, environment={**self.record.environment, "data_notes": notes})

    def _resumed(self, make: Callable[[], Method]) -> tuple[Method, int]:
        """Method restored from a checkpoint, or new if none is usable; and its number of learnt tasks."""
        method = make()
        saved = checkpoint.load(self.folder, self.cell.key)
        if saved is None:
            if self.folder.has_checkpoint():
                self.emit(Event(EventKind.NOTE, reason=f"{self.folder.path}: the checkpoint is damaged; restarted"))
            return method, 0
        try:
            method.load_state_dict(saved.state)
        except Exception as error:  # of a method whose networks grow, say
            why = f"the checkpoint does not fit the method as it is built ({first_line(error)}); restarted"
            self.emit(Event(EventKind.NOTE, reason=f"{self.folder.path}: {why}"))
            return make(), 0
        self.measured = saved.measured
        self.record, notes = checkpoint.resumed(self.record, saved)
        for note in notes:
            self.emit(Event(EventKind.NOTE, reason=note))
        return method, saved.tasks_done

    def _learn(self, method: Method, stream: Stream, j: int) -> None:
        task = self.guard.lend(stream.task(j, previous=method.rehearses))
        _seed_others(self.cell.seed, "learn", j)
        self.phase = Phase.TRAINING
        cpu.give_back_freed_memory()
        curve, self.reported = [], []
        begun = self._clock()
        try:
            method.begin(task)
            with counting() as tally:
                method.learn(task)
            self.guard.assure(f"learning task {j}")
            method.check_budget()
        finally:
            curve = stated.curve(method) or self.reported
            self.measured.steps += curve
        self.measured.taken.append(usage.of_task(tally, task))
        self.measured.train_seconds.append(self._clock() - begun)
        here = {"training_precision": in_force(self.device.type == "cuda"), **environment.of_training(method)}
        self.record = replace(self.record, environment={**self.record.environment, **here})
        finite.assure(method, j, curve)

    def _evaluate(self, evaluator: Evaluator, after: int) -> None:
        self.phase = Phase.EVALUATION
        begun = self._clock()
        evaluator.measure(after, self.measured)
        self.guard.assure(f"answering after {after} of {self.cell.n_tasks} tasks")
        seconds = self._clock() - begun
        here = {**self.record.environment, "evaluation_precision": evaluator.precision}
        self.record = replace(self.record, environment=here)
        if after:
            self.measured.evaluate_seconds.append(seconds)

    def _certify(self, method: Method, stream: Stream) -> None:
        """Measure more certificates. Bounds of a method's own may not fit; a fault is reported like one of exhibits."""
        if not isinstance(method, Certifying) or self.cell.judged_on != "test":
            return
        try:
            self.measured.certificates = certificates.measure(method, stream, self.job.conditions.evaluation_batch)
        except Exception as error:
            if shortage(error):
                raise  # whether a record has certificates must not depend on what shares the memory
            reason = f"{self.folder.path}: certificates dropped: {type(error).__name__}: {text(error)}"
            self.emit(Event(EventKind.NOTE, reason=reason))
        self.guard.assure("certifying the answers to all tasks")

    def _exhibit(self, method: Method) -> None:
        """Keep the method's own tables. They are no result: a fault in them is reported and the cell continues."""
        try:
            self.measured.exhibits = exhibits.collect(method)
        except Exception as error:
            if shortage(error):
                raise
            reason = f"{self.folder.path}: exhibits dropped: {type(error).__name__}: {text(error)}"
            self.emit(Event(EventKind.NOTE, reason=reason))

    def _save(self, method: Method, tasks_done: int) -> None:
        self.guard.assure(f"by the end of task {tasks_done - 1}", content=True)
        self._note_peaks()
        kept = method.state_dict()
        own = type(method).state_dict is not Method.state_dict
        if why := state.unplain(kept) if own else state.unkept(method):
            self._refuse(why)
            return
        saved = checkpoint.Checkpoint(tasks_done, kept, self.measured, self.record.started, self.record.environment)
        checkpoint.save(self.folder, self.cell.key, saved)

    def _refuse(self, why: str) -> None:
        """Report once that the method's state cannot be kept. The cell continues without checkpoints."""
        if not self.refused:
            advice = "or write state_dict and load_state_dict; interrupted, the cell begins anew"
            self.emit(Event(EventKind.NOTE, reason=f"{self.cell.method}: no checkpoint: {why}, {advice}"))
        self.refused = True

    def _report(self, method: Method, at: Progress) -> None:
        """Hear the progress of training; it is the curve of a loop that keeps none, thinned where it is long."""
        task, step, loss = stated.entry(at, method, "progress is told something")
        self.reported.append((task, step, loss))
        if len(self.reported) > stated.ENTRIES_AT_MOST:
            del self.reported[::2]
        self.emit(Event(EventKind.PROGRESS, task=task, step=step, steps=int(at.steps), loss=loss))

    def _clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def _seed_others(seed: int, *names: str | int) -> None:
    """Seed the generators that `Method.begin` does not, for methods from elsewhere that draw from them."""
    value = derived_seed(seed, "others", *names) % 2**32
    random.seed(value)
    np.random.seed(value)
