"""Plan of a run: one line for each benchmark and scenario, or every cell, with expected time and memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rich.console import Console

from reports.words import count
from runners.columns import Columns
from runners.engines import scheduler
from runners.grid.cells import Cell, Conditions
from runners.listing import budget_in_words
from runners.plan import footprint, pace
from runners.plan.estimate import Estimate, Expected, estimate, expected, history, in_words
from runners.records import reference_records

HEADINGS = ("benchmark", "scenario", "methods", "cells", "to run", "budget per task", "network", "time", "memory")


@dataclass(frozen=True)
class Place:
    """Circumstances of a run that its plan depends on."""

    results: Path
    devices: tuple[str, ...]
    """Of each worker."""
    threads: int = 1
    takes_reference: bool = False
    """True if shipped records are taken instead of running cells."""
    again: bool = False
    """True if finished cells are run again (`--rerun`)."""

    @property
    def measured_on(self) -> str:
        """Device to time a step on: with Ray, which assigns devices itself, the processor."""
        first = self.devices[0]
        return first if first == "cpu" or ":" in first else "cpu"


class Plan:
    """Cells with what is known of them before they run."""

    def __init__(self, cells: Sequence[Cell], place: Place) -> None:
        self.cells, self.place = cells, place
        jobs, outcomes = scheduler.plan(cells, place.results.resolve(), Conditions())
        unfinished = list(cells) if place.again else [job.cell for job in jobs]
        self.finished = frozenset[str]() if place.again else frozenset(outcome.cell.key for outcome in outcomes)
        shipped = {} if place.again else reference_records.read()
        self.taken = [cell for cell in unfinished if cell.key in shipped]
        skipped = {cell.key for cell in self.taken} if place.takes_reference else set[str]()
        self.to_run = [cell for cell in unfinished if cell.key not in skipped]
        self.memory = footprint.of_cells(cells)
        self.refused = footprint.refusals(cells, place.devices[0], self.memory)
        self.paces: list[pace.Pace] = []
        self.expected = self._expected(shipped or reference_records.read())

    def estimate(self, cells: Sequence[Cell]) -> Estimate:
        """Time of these cells on all workers."""
        return estimate(cells, lambda cell: self.expected.get(cell.key), len(self.place.devices))

    def state(self, cell: Cell) -> str:
        """What happens to a cell: `finished`, `to run`, ..."""
        if cell.key in self.finished:
            return "finished"
        if cell.key in self.refused:
            return "refused"
        taken = self.place.takes_reference and any(cell is one for one in self.taken)
        return "taken from the reference records" if taken else "to run"

    def _expected(self, shipped: dict[str, reference_records.ReferenceCell]) -> dict[str, Expected]:
        @cache
        def measure(step: pace.Step) -> float:
            return pace.seconds(step, self.place.measured_on, self.place.threads)

        weight = pace.weights(measure)
        own = history(self.place.results.resolve(), weight)
        found = {cell.key: expected(cell, own) for cell in self.to_run}
        methods = {cell.method for cell in self.to_run if (one := found[cell.key]) is None or one.rough}
        records = [one.record for one in shipped.values()]
        scaled, self.paces = pace.rates(
            [r for r in records if r.method in methods], pace.Paces(records, measure), weight
        )
        found |= {cell.key: expected(cell, own, scaled) for cell in self.to_run if cell.method in methods}
        return {key: one for key, one in found.items() if one is not None}


def show(plan: Plan, verbose: bool, console: Console) -> None:
    """Print the plan: a table, or with `verbose` every cell by the name that `--rerun` takes."""

    def say(line: str, style: str | None = None) -> None:
        console.print(line, style=style, highlight=False, soft_wrap=True, markup=False)

    if verbose:
        _details(plan, say)
    else:
        console.print(Columns("Plan", HEADINGS, [_row(plan, some) for some in _groups(plan.cells, _setting)]))
        for line in _legend(plan):
            say(line)
    for sentence in dict.fromkeys(plan.refused.values()):
        say(f"refused: {sentence}", "red")
    if plan.taken:
        how = "will be taken" if plan.place.takes_reference else "could be taken, by --reference,"
        say(f"{count(len(plan.taken), 'cell')} {how} from the reference records")
    say(_total(plan))


def _setting(cell: Cell) -> tuple[object, ...]:
    return cell.benchmark, cell.scenario, cell.network, cell.budget


def _groups(cells: Sequence[Cell], kind: Callable[[Cell], tuple[object, ...]]) -> list[list[Cell]]:
    found: dict[tuple[object, ...], list[Cell]] = defaultdict(list)
    for cell in cells:
        found[kind(cell)].append(cell)
    return list(found.values())


def _row(plan: Plan, cells: Sequence[Cell]) -> tuple[str, ...]:
    first = cells[0]
    keys = {cell.key for cell in cells}
    to_run = [cell for cell in plan.to_run if cell.key in keys]
    needs = [(found.total, cell.label) for cell in cells if (found := plan.memory[cell.key])]
    largest = max(needs, default=None)
    return (
        first.benchmark,
        str(first.scenario),
        str(len({cell.label for cell in cells})),
        str(len(cells)),
        str(len(to_run)),
        budget_in_words(first.budget),
        first.network,
        _time(plan.estimate(to_run), len(to_run)),
        f"{footprint.in_words(largest[0])} ({largest[1]})" if largest else "",
    )


def _time(found: Estimate, cells: int) -> str:
    """`3 min 20 s`, `~3 min 20 s` by other benchmarks, `3 min 20 s + 4?` with four cells unknown."""
    if found.unknown == cells:
        return "?" if cells else ""
    unknown = f" + {found.unknown}?" if found.unknown else ""
    return f"{'~' if found.rough else ''}{in_words(found.seconds)}{unknown}"


def _legend(plan: Plan) -> list[str]:
    workers = count(len(plan.place.devices), "worker")
    lines = [f"time: of the cells to run on {workers}; ~: by records of another benchmark or network; ?: no record"]
    for one in plan.paces:
        lines.append(
            f"shipped times of {one.machine}, {one.benchmark}: times {one.factor:.2g}, since a step of {pace.PLAIN} "
            f"takes {1000 * one.here:.2g} ms here and took {1000 * one.there:.2g} ms there"
        )
    return [*lines, "memory: the least that the largest method needs; --verbose lists every cell"]


def _details(plan: Plan, say: Callable[[str], object]) -> None:
    for cells in _groups(plan.cells, lambda cell: (*_setting(cell), cell.label)):
        first = cells[0]
        needed = f", memory at least about {plan.memory[first.key]}" if plan.memory[first.key] else ""
        finished = sum(cell.key in plan.finished for cell in cells)
        title = f"{first.benchmark} {first.scenario} {first.label}"
        say(f"{title}: {count(len(cells), 'seed')}, {finished} finished{needed}")
        for cell in cells:
            found = plan.expected.get(cell.key)
            about = f", about {in_words(found.seconds)}" if found else ""
            say(f"  {cell.place}: {plan.state(cell)}{about}")


def _total(plan: Plan) -> str:
    found, cells = plan.estimate(plan.to_run), len(plan.to_run)
    known = f"about {in_words(found.seconds)}" if found.unknown < cells else "no estimate"
    rest = f" and {count(found.unknown, 'cell')} that no record predicts" if found.unknown else ""
    return (
        f"{count(len(plan.cells), 'cell')}, {len(plan.finished)} finished, {cells} to run: "
        f"{known + rest if cells else 'nothing left'} on {count(len(plan.place.devices), 'worker')}"
    )
