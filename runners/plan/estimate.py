"""Run-time estimate of a grid from the times of finished cells of the same methods."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import untrusted
from benchmarks.types import Budget, UserError
from reports.schema import CELL_FOLDERS, RECORD
from runners.grid.cells import Cell


@dataclass(frozen=True)
class Estimate:
    """Wall-clock seconds for the cells that have a precedent, and how many have none."""

    seconds: float
    unknown: int


_RateKey = tuple[str, ...]


class Rates:
    """Rates of finished cells, in seconds per task and step; the most similar ones predict another cell.

    Most similar: same method, benchmark and scenario, then same method and benchmark, then same method.
    """

    def __init__(self) -> None:
        self.seen: dict[_RateKey, list[float]] = defaultdict(list)
        self.medians: dict[_RateKey, float] = {}

    def add(self, cell: Cell, seconds: float) -> None:
        self.note(cell.method, cell.benchmark, cell.scenario, cell.budget, cell.n_tasks, seconds)

    def note(self, method: str, benchmark: str, scenario: str, budget: Budget, n_tasks: int, seconds: float) -> None:
        for kind in _kinds(method, benchmark, scenario, budget):
            self.seen[kind].append(seconds / (n_tasks * _length(budget)))
            self.medians.pop(kind, None)

    def of(self, cell: Cell) -> float | None:
        """Seconds that the cell will take, None for a method never run."""
        for kind in _kinds(cell.method, cell.benchmark, cell.scenario, cell.budget):
            if kind in self.seen:
                if kind not in self.medians:
                    self.medians[kind] = median(self.seen[kind])
                return self.medians[kind] * cell.n_tasks * _length(cell.budget)
        return None

    def total(self, groups: Iterable[tuple[Cell, int]]) -> float | None:
        """For so many cells like each of those given, one after the other.

        Unknown ones count as the mean of the others; None if all are unknown.
        """
        found = [(self.of(cell), count) for cell, count in groups]
        known = [(seconds * count, count) for seconds, count in found if seconds is not None]
        if not known:
            return None if found else 0.0
        return (
            sum(seconds for seconds, _ in known) * sum(count for _, count in found) / sum(count for _, count in known)
        )


def estimate(cells: Sequence[Cell], results: Path, workers: int) -> Estimate:
    """Time for `cells` on `workers`, from the records in `results`."""
    rates = history(results)
    known = [seconds for cell in cells if (seconds := rates.of(cell)) is not None]
    return Estimate(max(sum(known) / max(1, workers), max(known, default=0.0)), len(cells) - len(known))


def history(results: Path) -> Rates:
    """The rates of all finished cells in `results`."""
    rates = Rates()
    for file in results.glob(f"{CELL_FOLDERS}/{RECORD}"):
        try:
            body = untrusted.read_record(file)
            if body["status"] == "done":
                seconds = sum(body["seconds"]["train"]) + sum(body["seconds"]["evaluate"])
                budget = Budget.of(body["budget"])
                rates.note(body["method"], body["benchmark"], body["scenario"], budget, body["n_tasks"], seconds)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError):
            continue
    return rates


def _kinds(method: str, benchmark: str, scenario: str, budget: Budget) -> list[_RateKey]:
    unit = "steps" if budget.steps is not None else "epochs"
    return [(unit, method, benchmark, scenario), (unit, method, benchmark), (unit, method)]


def _length(budget: Budget) -> int:
    return budget.steps if budget.steps is not None else (budget.epochs or 1)


def in_words(seconds: float) -> str:
    """`0.2 s`, `42 s`, `3 min 20 s`, `5 h 10 min`."""
    whole = round(seconds)
    if whole < 10:
        return f"{seconds:.1f} s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
