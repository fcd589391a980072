"""Run-time estimate of a grid from the times of finished cells of the same methods."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import untrusted
from benchmarks.types import Budget, UserError
from reports.schema import CELL_FOLDERS, RECORD
from runners.grid.cells import Cell

CLOSE = 2
"""The first kinds of `_kinds`, of the same benchmark and network, predict a cell well."""


@dataclass(frozen=True)
class Estimate:
    """Wall-clock seconds for the cells that have a precedent, and how many have none."""

    seconds: float
    unknown: int
    rough: bool = False
    """True if a precedent is of another benchmark or network."""


_Kind = tuple[str, ...]
Names = tuple[str, str, str, str]
"""Method, benchmark, network and scenario of a cell."""
Weight = Callable[[str, str, int], float]


class Rates:
    """Rates of finished cells; the most similar ones predict another cell.

    Most similar: same method, benchmark, network and scenario, then any scenario, then any network, then any benchmark
    (with a budget in steps).
    Training counts in seconds per task and step (or epoch), evaluation in seconds per pair of tasks, since all tasks
    are evaluated after each. weight: relative time of a training step on (benchmark, network, batch size), by which
    records of others are converted.
    """

    def __init__(self, weight: Weight | None = None) -> None:
        self.weight = weight or (lambda _benchmark, _network, _batch_size: 1.0)
        self.seen: dict[_Kind, list[tuple[float, float]]] = defaultdict(list)
        self.medians: dict[_Kind, tuple[float, float]] = {}

    def add(self, cell: Cell, train: float, evaluate: float = 0.0) -> None:
        """Note a cell's seconds; where both kinds are not known apart, all as training."""
        self.note(_names(cell), cell.budget, cell.n_tasks, train, evaluate)

    def note(self, names: Names, budget: Budget, n_tasks: int, train: float, evaluate: float) -> None:
        """Note a record's seconds, as `add` does."""
        weight = self._weight(names, budget)
        rates = train / (n_tasks * _length(budget) * weight), evaluate / (n_tasks**2 * weight)
        for kind in _kinds(names, budget):
            self.seen[kind].append(rates)
            self.medians.pop(kind, None)

    def _weight(self, names: Names, budget: Budget) -> float:
        _, benchmark, network, _ = names
        return self.weight(benchmark, network, budget.batch_size)

    def of(self, cell: Cell) -> float | None:
        """Seconds that the cell will take, None for a method never run."""
        found = expected(cell, self)
        return None if found is None else found.seconds

    def of_kind(self, kind: _Kind, cell: Cell) -> float | None:
        """Seconds that the cell will take by the records of one kind; None without any."""
        if kind not in self.seen:
            return None
        if kind not in self.medians:
            train, evaluate = zip(*self.seen[kind], strict=True)
            self.medians[kind] = median(train), median(evaluate)
        train, evaluate = self.medians[kind]
        whole = train * cell.n_tasks * _length(cell.budget) + evaluate * cell.n_tasks**2
        return whole * self._weight(_names(cell), cell.budget)

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


@dataclass(frozen=True)
class Expected:
    """Expected seconds of a cell."""

    seconds: float
    rough: bool
    """True if they are those of another benchmark or network."""


def expected(cell: Cell, *sources: Rates) -> Expected | None:
    """Seconds of a cell by the most similar records; among equally similar ones, by those of the earlier source."""
    for place, kind in enumerate(_kinds(_names(cell), cell.budget)):
        for rates in sources:
            seconds = rates.of_kind(kind, cell)
            if seconds is not None:
                return Expected(seconds, rough=place >= CLOSE)
    return None


def estimate(cells: Sequence[Cell], of: Callable[[Cell], Expected | None], workers: int) -> Estimate:
    """Time for `cells` on `workers`."""
    known = [found for cell in cells if (found := of(cell)) is not None]
    seconds = [found.seconds for found in known]
    return Estimate(
        max(sum(seconds) / max(1, workers), max(seconds, default=0.0)),
        len(cells) - len(known),
        any(found.rough for found in known),
    )


def history(results: Path, weight: Weight | None = None) -> Rates:
    """The rates of all finished cells in `results`."""
    rates = Rates(weight)
    for file in results.glob(f"{CELL_FOLDERS}/{RECORD}"):
        try:
            body = untrusted.read_record(file)
            if body["status"] == "done":
                train, evaluate = (sum(body["seconds"][name]) for name in ("train", "evaluate"))
                names = (body["method"], body["benchmark"], body["network"], body["scenario"])
                rates.note(names, Budget.of(body["budget"]), body["n_tasks"], train, evaluate)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, UserError):
            continue
    return rates


def _names(cell: Cell) -> Names:
    return cell.method, cell.benchmark, cell.network, str(cell.scenario)


def _kinds(names: Names, budget: Budget) -> list[_Kind]:
    """Kinds of records that predict such a cell, the most similar first."""
    method, benchmark, network, scenario = names
    same = ("steps" if budget.steps is not None else "epochs", method, benchmark)
    kinds = [(*same, network, scenario), (*same, network), same]
    # The steps of an epoch depend on the benchmark's samples, which are not known before its data is read.
    return kinds if budget.steps is None else [*kinds, same[:2]]


def _length(budget: Budget) -> int:
    return budget.steps if budget.steps is not None else (budget.epochs or 1)


def in_words(seconds: float) -> str:
    """`0.2 s`, `42 s`, `3 min 20 s`, `5 h 10 min`, `1,322 h`."""
    whole = round(seconds)
    if whole < 10:
        return f"{seconds:.1f} s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 100 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{round(whole / 3600):,} h"
