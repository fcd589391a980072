"""How long a grid will take, from what finished cells of the same methods took."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.types import Budget
from runners.cells import Cell


@dataclass(frozen=True)
class Estimate:
    """Wall-clock seconds for the cells that have a precedent, and how many have none."""

    seconds: float
    unknown: int


def estimate(cells: Sequence[Cell], results: Path, workers: int) -> Estimate:
    """Time for `cells` on `workers`: seconds per task and step of the same method, medians of what is
    on record in `results`, most alike first: same benchmark and scenario, same benchmark, any.
    """
    history = _history(results)
    total, longest, unknown = 0.0, 0.0, 0
    for cell in cells:
        rate = next(
            (
                median(history[kind])
                for kind in _kinds(cell.method, cell.benchmark, cell.scenario, cell.budget)
                if kind in history
            ),
            None,
        )
        if rate is None:
            unknown += 1
            continue
        seconds = rate * cell.n_tasks * _length(cell.budget)
        total, longest = total + seconds, max(longest, seconds)
    return Estimate(max(total / max(1, workers), longest), unknown)


_Kind = tuple[str, ...]


def _history(results: Path) -> dict[_Kind, list[float]]:
    rates: dict[_Kind, list[float]] = defaultdict(list)
    for file in results.glob("*/*/*/seed*/cell.json"):
        try:
            body = json.loads(file.read_text(encoding="utf-8"))
            if body["status"] != "done":
                continue
            budget = Budget(**body["budget"])
            seconds = sum(body["seconds"]["train"]) + sum(body["seconds"]["evaluate"])
            rate = seconds / (body["n_tasks"] * _length(budget))
            for kind in _kinds(body["method"], body["benchmark"], body["scenario"], budget):
                rates[kind].append(rate)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return rates


def _kinds(method: str, benchmark: str, scenario: str, budget: Budget) -> list[_Kind]:
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
