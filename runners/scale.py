"""Measure the cost of many cells: the driver's time and memory, the scan of finished cells, the report, two workers.

python runners/scale.py cells --engine ray
python runners/scale.py resume
python runners/scale.py report
python runners/scale.py workers
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder; with -m, not the working directory

from benchmarks.types import Scenario, UserError
from reports.schema import RECORD, folder_name
from runners import command_line
from runners.cell.events import Event, EventKind
from runners.grid.cells import Cell, Conditions, Job
from runners.process import cpu
from runners.records.folder import CellFolder
from runners.session import Options, build_cells, check, make_engine

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)
NO_OP = """
from methods.base import Method, register

@register("no-op")
class NoOp(Method):
    supports = frozenset()
    def learn(self, task): ...
    def predict(self, x, task_id=None): ...
"""
"""A method that supports no scenario: its cells are recorded as skipped, the least that a cell can do."""
MIB = 1 << 20
BENCHMARKS = 8
"""Number of benchmark names among the records of `report`."""
Count = Annotated[int, typer.Option("--cells", min=1, help="Number of cells.")]


class Meter:
    """A watcher of the driver's memory as cells end, and of the time that each cell takes."""

    def __init__(self) -> None:
        self.ended, self.busy, self.total = 0, 0.0, 0
        self.begun: dict[str, float] = {}
        self.memory: list[tuple[int, float]] = []

    def planned(self, jobs: Sequence[Job], outcomes: Sequence[object]) -> None:
        self.total = len(jobs)

    def heard(self, job: Job, event: Event) -> None:
        self.begun.setdefault(job.cell.key, time.monotonic())
        if event.kind is EventKind.ENDED:
            self.busy += time.monotonic() - self.begun.pop(job.cell.key)
            self.ended += 1
            if self.ended % max(1, self.total // 4) == 0:
                self.memory.append((self.ended, _resident() / MIB))


@app.command()
def cells(
    n: Count = 10_000,
    engine: Annotated[str, typer.Option(help="local, ray or inline.")] = "local",
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 2,
) -> None:
    """Run cells that do nothing; print the driver's time for each, and its memory.

    Milliseconds per cell: CPU time of the scheduling thread, CPU time of the whole driver with Ray's own threads and
    the start, and wall clock. Memory of the driver after each quarter of the cells.
    """
    options = Options(("quick",), workers=workers, engine=engine, device="cpu")
    check(options)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "no_op.py"
        file.write_text(NO_OP, encoding="utf-8")
        grid = _grid(f"{file}:NoOp", n)
        meter, wall = Meter(), time.monotonic()
        thread, process = time.thread_time(), time.process_time()
        _run(grid, Path(scratch) / "results", options, meter)
        wall, thread, process = time.monotonic() - wall, time.thread_time() - thread, time.process_time() - process
    table = _table("scheduler", "process", "wall", "memory")
    row = [f"{1000 * seconds / n:.2f} ms" for seconds in (thread, process, wall)]
    table.add_row(f"{n} cells, {engine}", *row, " ".join(f"{mib:.0f}" for _, mib in meter.memory) + " MiB")
    command_line.console().print(table)


@app.command()
def resume(n: Count = 10_000) -> None:
    """Plan a grid of finished cells: all records and tables are read and checked."""
    from runners.engines import scheduler

    cpu.prepare(1)
    with tempfile.TemporaryDirectory() as scratch:
        results = Path(scratch)
        grid = _grid("finetune", n)
        _finish(grid, results)
        grid = [replace(cell) for cell in grid]  # fresh copies: without the cached keys
        wall, busy = time.monotonic(), time.process_time()
        jobs, outcomes = scheduler.plan(grid, results, Conditions())
        wall, busy = time.monotonic() - wall, time.process_time() - busy
    if jobs or len(outcomes) != n:
        raise UserError(f"{len(jobs)} of {n} cells were not recognised as finished")
    table = _table("CPU", "wall")
    table.add_row(f"scan of {n} finished cells", f"{busy:.2f} s", f"{wall:.2f} s")
    command_line.console().print(table)


@app.command()
def report(n: Count = 10_080) -> None:
    """Write the report of many records: copies of the shipped ones of Split Digits.

    Each copy has other seeds, or the name of another of eight benchmarks.
    """
    with tempfile.TemporaryDirectory() as scratch:
        results = Path(scratch)
        _multiply(results, n)
        wall, spent = time.monotonic(), _children()
        command = [sys.executable, str(Path(__file__).with_name("report.py")), str(results)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall, spent = time.monotonic() - wall, _children() - spent
    table = _table("CPU", "wall")
    table.add_row(f"report of {n} records", f"{spent:.1f} s", f"{wall:.1f} s")
    command_line.console().print(table)


@app.command()
def workers(
    suite: Annotated[str, typer.Option(help="Suite to run.")] = "quick",
    budget_scale: Annotated[float, typer.Option(help="Factor of the suite's training length.")] = 0.2,
    seeds: Annotated[int, typer.Option(help="Seeds of each cell.")] = 1,
) -> None:
    """Run a suite with one and with two workers.

    Other programs on the machine disturb the wall clock. The second figure, the speed-up on free cores, is twice the
    workers' share of busy time (relative to one worker), times the ratio of the CPU times of one worker and two.
    """
    options = Options((suite,), seeds=seeds, budget_scale=budget_scale, device="cpu")
    check(options)
    built = build_cells(options)
    found = {}
    for count in (1, 2):
        with tempfile.TemporaryDirectory() as scratch:
            meter, wall, spent = Meter(), time.monotonic(), _children()
            _run(built, Path(scratch), replace(options, workers=count), meter)
            wall = time.monotonic() - wall
            found[count] = wall, _children() - spent, meter.busy / (count * wall)
    table = _table("wall", "CPU", "workers busy")
    for count, (wall, spent, share) in found.items():
        table.add_row(f"{len(built)} cells, {count} workers", f"{wall:.0f} s", f"{spent:.0f} s", f"{100 * share:.0f} %")
    one, two = found[1], found[2]
    command_line.console().print(table)
    free = 2 * two[2] / one[2] * one[1] / two[1]
    command_line.console().print(
        f"speed-up: {one[0] / two[0]:.2f} by the wall clock, {free:.2f} on free cores", highlight=False
    )


def _grid(method: str, n: int) -> list[Cell]:
    """Grid of `n` cells that differ in the seed."""
    from runners.grid import build
    from runners.grid.suite import BenchmarkEntry, Suite

    entry = BenchmarkEntry(name="split-digits", steps=1)
    suite = Suite(description="scale", methods=["finetune"], scenarios=[Scenario.TIL], seeds=n, benchmarks=[entry])
    files = (method,) if ".py:" in method else ()
    cells = build.build([suite], build.Choices(foreign=files))
    return [cell for cell in cells if cell.method != "finetune" or not files]


def _run(grid: Sequence[Cell], results: Path, options: Options, meter: Meter) -> None:
    from runners.engines import scheduler
    from runners.process import devices
    from runners.records import environment

    conditions = Conditions(environment=environment.of_driver(), command="python runners/scale.py")
    engine = make_engine(options, devices.for_workers("cpu", options.workers))
    try:
        outcomes = scheduler.run_grid(grid, results, conditions, engine, meter)
    finally:
        engine.close()
    failed = [outcome for outcome in outcomes if not outcome.status.finished]
    if failed:
        raise UserError(f"{len(failed)} cells failed, the first: {failed[0].reason}")


def _finish(grid: Sequence[Cell], results: Path) -> None:
    """Run the first cell and give all others its record, each under its own key."""
    from runners.cell.execution import run_cell

    first = grid[0]
    run_cell(Job(first, first.folder(results), Conditions()), lambda event: None)
    record = CellFolder(first.folder(results)).read()
    assert record is not None
    tables = {name: (first.folder(results) / name).read_text(encoding="utf-8") for name in record.files}
    for cell in grid[1:]:
        folder = cell.folder(results)
        folder.mkdir(parents=True)
        (folder / RECORD).write_text(replace(record, key=cell.key, seed=cell.seed).to_json(), encoding="utf-8")
        for name, text in tables.items():
            (folder / name).write_text(text, encoding="utf-8")


def _multiply(results: Path, n: int) -> None:
    """Write `n` records into `results`, made of the reference records of Split Digits."""
    from runners.records import reference_records
    from runners.records.record import digest

    shipped = [cell for cell in reference_records.read().values() if cell.record.benchmark == "split-digits"]
    if not shipped:
        raise UserError(f"{reference_records.FOLDER} has no records of split-digits to multiply")
    seeds = 1 + max(cell.record.seed for cell in shipped)
    for i in range(n):
        again, cell = i // len(shipped), shipped[i % len(shipped)]
        record = replace(
            cell.record,
            key=digest(f"{cell.record.key} {again}"),
            benchmark=f"copy-{again % BENCHMARKS + 1}",
            seed=cell.record.seed + again // BENCHMARKS * seeds,
        )
        folder = results.joinpath(record.benchmark, record.scenario, record.label, folder_name(record.seed, record.key))
        folder.mkdir(parents=True)
        (folder / RECORD).write_text(record.to_json(), encoding="utf-8")
        for name, text in cell.tables.items():
            (folder / name).write_text(text, encoding="utf-8")


def _resident() -> int:
    """Resident memory of this process, in bytes."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _children() -> float:
    """CPU seconds of all ended child processes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


if __name__ == "__main__":
    command_line.main(app)
