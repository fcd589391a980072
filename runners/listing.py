"""Tables of the available methods, benchmarks and suites. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import plugins
from benchmarks.catalogue import BENCHMARKS
from benchmarks.types import Budget, Scenario, ValidatedBudget
from methods import registry
from runners.columns import Columns
from runners.grid import suite

WORDS = "description"


def tables() -> Iterator[Columns]:
    """Tables of methods, benchmarks and suites."""
    yield _methods()
    yield _benchmarks()
    yield _suites()


def _methods() -> Columns:
    found = registry.available().values()
    rows = [(info.name, _scenarios(info.scenarios), info.summary) for info in found]
    return Columns("Methods", ("name", "scenarios", WORDS), rows, frozenset({WORDS}))


def _benchmarks() -> Columns:
    rows = []
    for benchmark in (*BENCHMARKS.values(), *map(plugins.benchmark, plugins.points())):
        tasks = f"{benchmark.n_tasks} x {benchmark.classes_per_task} classes"
        scenarios = _scenarios(benchmark.scenarios)
        rows.append((benchmark.name, scenarios, tasks, budget_in_words(benchmark.budget), benchmark.network))
    return Columns("Benchmarks", ("name", "scenarios", "tasks", "budget per task", "network"), rows)


def _suites() -> Columns:
    listed = []
    for name, path in suite.available().items():
        found = suite.read(path)
        rows = len(found.methods) + len(found.variants)
        cells = rows * len(found.benchmarks) * len(found.scenarios) * found.seeds
        listed.append((name, str(rows), str(cells), found.description))
    listed.append((suite.ALL, "", "", "Every suite of this repository except those with in_all = false"))
    return Columns("Suites", ("name", "methods", "cells", WORDS), listed, frozenset({WORDS}))


def budget_in_words(budget: Budget) -> str:
    length = f"{budget.steps} steps" if budget.steps is not None else f"{budget.epochs} epochs"
    most = "at most " if isinstance(budget, ValidatedBudget) else ""
    return f"{most}{length} of {budget.batch_size}"


def _scenarios(scenarios: tuple[Scenario, ...]) -> str:
    return " ".join(scenarios)
