"""One comparison, from the options of the command line to the exit code. Imports no torch."""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from benchmarks.types import Scenario, UserError
from reports.words import count
from runners.command_line import EXIT_FAILED_CELLS, complain
from runners.grid.cells import TUNING_SEEDS
from runners.loggers import registry
from runners.records.record import Status

if TYPE_CHECKING:
    from runners.engines.engine import Engine
    from runners.engines.scheduler import Outcome
    from runners.grid.build import Grid
    from runners.grid.cells import Cell
    from runners.loggers.logger import Logger

ENGINES = ("local", "ray", "inline")
ON_OOM = ("record", "retry-smaller")
FAILURES_SHOWN = 20
WORKERS_AT_MOST, THREADS_AT_MOST = 100_000, 1024
"""More than any machine has a use for: a slip."""
BUDGET_SCALE_AT_MOST, MEMORY_AT_MOST = 1e6, 1e6
"""Limits that keep steps and bytes countable; memory in GiB."""


@dataclass(frozen=True)
class Options:
    """Options of the command line, parsed."""

    suites: tuple[str, ...]
    methods: tuple[str, ...] | None = None
    foreign: tuple[str, ...] = ()
    benchmarks: tuple[str, ...] | None = None
    own_benchmarks: tuple[str, ...] = ()
    scenarios: tuple[Scenario, ...] | None = None
    seeds: int | tuple[int, ...] | None = None
    """Number of seeds, or the seeds themselves; None: the suites'."""
    assignments: tuple[str, ...] = ()
    budget_scale: float = 1.0
    device: str = "auto"
    workers: int | None = None
    threads: int = 1
    engine: str = "local"
    cell_timeout: float | None = None
    on_oom: str = "record"
    ray_address: str = "local"
    cell_gpus: float = 1.0
    cell_memory: float | None = None
    """GiB."""
    data: Path | None = None
    results: Path = Path("results")
    reference: bool | None = None
    """Take shipped reference records if key and code agree; None: only if `foreign` names a method."""
    dry_run: bool = False
    rerun: tuple[str, ...] = ()
    """Names of cells: only these are run, also where they are finished."""
    verbose: bool = False
    """A dry run shows every cell."""
    report: bool = True
    check: bool = True
    """Switch of the conformance check of foreign methods."""
    loggers: tuple[str | Logger, ...] = ()
    """Names, FILE.py:CLASS, and objects; see runners.loggers.feed."""
    command: str = ""


def run(options: Options, console: Console) -> int:
    """Run the grid and write the report; return 0, or 1 if a cell or the report failed. Raises UserError."""
    check(options)
    grid = build_cells(options)
    cells = _chosen(grid, options)
    tell(cells, console)
    assigned = devices_of(options)
    if options.dry_run:
        _show_plan(cells, options, assigned, console)
        return 0
    outcomes = run_cells(cells, options, console)
    written = _report(grid, options.results, console) if options.report else True
    failed = sum_up(outcomes, console)
    return EXIT_FAILED_CELLS if failed or not written else 0


def _chosen(grid: Grid, options: Options) -> Grid:
    if not options.rerun:
        return grid
    from runners import again
    from runners.grid.build import Grid

    return Grid(again.chosen(grid, options.rerun), grid.unmet)


def tell(cells: Sequence[Cell], console: Console) -> None:
    """Print what the user should know of these cells before they run."""
    for sentence in [*not_in_keys(cells), *remarks(cells)]:
        console.print(f"note: {sentence}", highlight=False, soft_wrap=True, markup=False)


def check(options: Options) -> None:
    """Check the values of options that are invalid on every machine. Raises UserError."""
    check_seeds(options.seeds)
    for name, most in (("workers", WORKERS_AT_MOST), ("threads", THREADS_AT_MOST)):
        value = getattr(options, name)
        if value is not None and not 1 <= value <= most:
            raise UserError(f"--{name} {value}: must be at least 1 and at most {most}")
    if not 0 < options.budget_scale <= BUDGET_SCALE_AT_MOST:
        limit = f"at most {BUDGET_SCALE_AT_MOST:g}"
        raise UserError(f"--budget-scale {options.budget_scale:g}: must be a positive number, {limit}")
    if options.cell_timeout is not None and not options.cell_timeout > 0:
        raise UserError(f"--cell-timeout {options.cell_timeout:g}: must be a positive number of seconds")
    if not options.cell_gpus > 0 or (options.cell_gpus > 1 and options.cell_gpus % 1):
        raise UserError(f"--cell-gpus {options.cell_gpus:g}: must be a fraction of one GPU or a whole number of them")
    if options.cell_memory is not None and not 0 < options.cell_memory <= MEMORY_AT_MOST:
        limit = f"at most {MEMORY_AT_MOST:g}"
        raise UserError(f"--cell-memory {options.cell_memory:g}: must be a positive number of GiB, {limit}")
    for name, permitted in (("engine", ENGINES), ("on_oom", ON_OOM)):
        if getattr(options, name) not in permitted:
            option = name.replace("_", "-")
            raise UserError(f"--{option} {getattr(options, name)}: permitted are {', '.join(permitted)}")
    if options.engine == "ray" and options.device not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {options.device}: with --engine ray, Ray chooses the GPU; write auto, cpu or cuda")
    if "://" in options.ray_address:
        raise UserError(f"--ray-address {options.ray_address}: run this command on a node of the cluster, with auto")
    if options.data is not None and not options.data.is_dir():
        raise UserError(f"--data {options.data}: there is no such folder")
    registry.check([name for name in options.loggers if isinstance(name, str)])


def check_seeds(seeds: int | Sequence[int] | None) -> None:
    """Check a number of seeds, or the seeds themselves. Raises UserError."""
    if seeds is None:
        return
    if isinstance(seeds, int) and seeds < 1:
        raise UserError(f"--seeds {seeds}: must be at least 1")
    listed = [seeds - 1] if isinstance(seeds, int) else list(seeds)
    shown = seeds if isinstance(seeds, int) else ",".join(map(str, listed))
    if not listed or min(listed) < 0:
        raise UserError(f"--seeds {shown}: a list has whole numbers from 0")
    if max(listed) >= TUNING_SEEDS:
        raise UserError(f"--seeds {shown}: seeds from {TUNING_SEEDS:,} on are kept for tuning; write smaller ones")


def build_cells(options: Options) -> Grid:
    """Cells of the chosen suites. Raises UserError for unknown names and for a choice that leaves none."""
    from runners.grid import build, hyperparameters, suite

    suites = suite.find(options.suites)
    labels = [variant.label for each in suites for variant in each.variants]
    choices = build.Choices(
        methods=options.methods,
        foreign=options.foreign,
        benchmarks=options.benchmarks,
        own_benchmarks=options.own_benchmarks,
        scenarios=options.scenarios,
        seeds=options.seeds,
        assignments=tuple(hyperparameters.parse_assignment(text, labels) for text in options.assignments),
        budget_scale=options.budget_scale,
        data=options.data,
    )
    cells = build.build(suites, choices)
    if not cells:
        raise UserError("nothing to run: the options select no cell of the suites")
    return cells


def not_in_keys(cells: Sequence[Cell]) -> list[str]:
    """Warnings of inputs to these cells that their keys do not cover, one sentence each."""
    from benchmarks import catalogue, plugins
    from runners.grid.fingerprint import Sources
    from runners.grid.loading import source_file

    files = dict.fromkeys(source_file(name) for name in dict.fromkeys(cell.reference for cell in cells))
    sets = dict.fromkeys(
        catalogue.find(name).dataset for name in dict.fromkeys(cell.benchmark_reference for cell in cells)
    )
    made = [dataset for dataset in sets if plugins.is_reference(dataset) and plugins.problem(dataset) is None]
    sources = Sources()
    every = [*files, *map(plugins.file_of, made)]
    places = dict.fromkeys(place for file in every for place in sources.not_followed(file))
    found = []
    if places:
        found.append(
            f"{', '.join(places)}: an import by a name known only at run time is not followed; after an edit of the "
            "imported code, finished cells still count as finished"
        )
    return found


def remarks(cells: Sequence[Cell]) -> list[str]:
    """Remarks of the methods on the cells' hyperparameters, each sentence once."""
    from runners.grid import remarks

    return remarks.of_cells(cells)


def devices_of(options: Options) -> list[str]:
    """Device of each worker of this machine; with the Ray engine, Ray assigns the devices of the cluster."""
    from runners.process import devices

    if options.engine == "ray":
        return [options.device] * (options.workers or 1)
    return devices.for_workers(options.device, options.workers)


def _take_reference(cells: Sequence[Cell], options: Options, console: Console) -> None:
    if not _wants_reference(options):
        return
    from runners.records import reference_records

    taken = reference_records.take(cells, options.results.resolve(), _warning(console))
    if taken:
        console.print(f"{count(taken, 'cell')} taken from the reference records", highlight=False)


def _warning(console: Console) -> Callable[[str], None]:
    return partial(console.print, style="yellow", soft_wrap=True, highlight=False, markup=False)


def _wants_reference(options: Options) -> bool:
    return bool(options.foreign) if options.reference is None else options.reference


def run_cells(cells: Sequence[Cell], options: Options, console: Console) -> list[Outcome]:
    """Outcomes of all cells; those that are unfinished are run, with `options.rerun` all. Raises UserError."""
    from runners import again
    from runners.engines import scheduler
    from runners.grid.cells import Conditions
    from runners.loggers.feed import Feed
    from runners.records import environment, folder
    from runners.watch import notebook
    from runners.watch.status import StatusFile

    # A folder that cannot be written to must be noticed before the training, not at its end.
    folder.probe(options.results)
    results = options.results.resolve()
    again.recover(results)
    if not options.rerun:
        _take_reference(cells, options, console)
    assigned = devices_of(options)
    conditions = Conditions(
        device=assigned[0],
        data_dir=str(options.data.resolve()) if options.data else None,
        threads=options.threads,
        command=options.command,
        conformance=_verdicts(cells, options, console),
        environment=environment.of_driver(),
    )
    engine = make_engine(options, assigned)
    try:
        with (
            notebook.display(console) as display,
            StatusFile(options.results, display.board, options.command),
            Feed(options.loggers, options.results, console) as feed,
        ):
            place = again.scratch(results) if options.rerun else results
            smaller = options.on_oom == "retry-smaller"
            watcher = scheduler.Watchers((display, feed))
            outcomes = scheduler.run_grid(cells, place, conditions, engine, watcher, smaller)
    finally:
        engine.close()
    return again.put_in_place(outcomes, results, _warning(console)) if options.rerun else outcomes


def _verdicts(cells: Sequence[Cell], options: Options, console: Console) -> dict[str, dict[str, Any]]:
    """Verdicts of the conformance suite on the foreign methods that have cells to run."""
    from runners.conformance import verdicts
    from runners.engines import scheduler
    from runners.grid.cells import Conditions

    foreign = [cell for cell in cells if verdicts.is_foreign(cell.reference)]
    results = options.results.resolve()
    jobs, _ = scheduler.plan(foreign, results, Conditions())

    def say(line: str) -> None:
        console.print(line, highlight=False, soft_wrap=True, markup=False)

    return verdicts.of_cells([job.cell for job in jobs], results, say, check=options.check)


def make_engine(options: Options, assigned: Sequence[str]) -> Engine:
    """Engine that `--engine` names. `assigned` has the device of each worker."""
    if options.engine == "inline":
        from runners.engines.engine import InlineEngine

        return InlineEngine(options.threads)
    if options.engine == "ray":
        from runners.engines.ray_engine import RayEngine
        from runners.process.resources import GIB, Need

        need = Need(options.threads, options.cell_gpus, int((options.cell_memory or 0) * GIB))
        return RayEngine(
            options.ray_address, options.workers, options.device, options.threads, need, options.cell_timeout
        )
    from runners.engines.local import LocalEngine

    packer = None
    # Workers on one GPU compete for its memory, so cells are packed by their measured memory.
    if len(set(assigned)) < len(assigned) and assigned[0] != "cpu":
        from runners.engines.packing import Packer
        from runners.process import devices

        packer = Packer(devices.free_memory(assigned), assigned)
        packer.note_records(options.results)
    return LocalEngine(assigned, options.threads, options.cell_timeout, packer)


def _show_plan(cells: Sequence[Cell], options: Options, assigned: Sequence[str], console: Console) -> None:
    from runners import planned

    place = planned.Place(
        options.results, tuple(assigned), options.threads, _wants_reference(options), bool(options.rerun)
    )
    planned.show(planned.Plan(cells, place), options.verbose, console)


def _report(grid: Sequence[Cell], results: Path, console: Console) -> bool:
    """Write the report of this grid's cells; return False on failure, which leaves the records intact."""
    from reports.build import build_report

    begun = time.monotonic()
    try:
        report = build_report(results, cells=[cell.folder(results.resolve()) for cell in grid])
    except UserError as error:
        complain(f"no report: {error}")
        return False
    except Exception:
        complain(traceback.format_exc(), heading="")
        complain(f"no report; the records are intact: after a fix, run continual-intervals report {results}")
        return False
    line = f"report: {report.pdf} ({time.monotonic() - begun:.0f} s)"
    console.print(line, soft_wrap=True, highlight=False, markup=False)
    return True


def sum_up(outcomes: Sequence[Outcome], console: Console) -> bool:
    """Print counts and failures, each with the file of its details; return True if there were failures."""
    from reports.schema import RECORD
    from runners.records.folder import TRACEBACK

    counts = Counter(outcome.status for outcome in outcomes)
    console.print(", ".join(f"{counts[status]} {status}" for status in Status if counts[status]), highlight=False)
    failed = [outcome for outcome in outcomes if not outcome.status.finished]
    for outcome in failed[:FAILURES_SHOWN]:
        trace = outcome.folder / TRACEBACK
        place = trace if trace.exists() else outcome.folder / RECORD
        line = f"{outcome.status} {outcome.cell.title}: {outcome.reason} ({place})"
        console.print(line, style="red", soft_wrap=True, highlight=False, markup=False)
    if len(failed) > FAILURES_SHOWN:
        console.print(f"... and {len(failed) - FAILURES_SHOWN} more", style="red")
    return bool(failed)
