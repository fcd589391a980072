"""What there is to run: methods, benchmarks, suites, as tables. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from benchmarks import plugins
from benchmarks.catalogue import BENCHMARKS
from benchmarks.types import Budget, Scenario
from methods import registry
from runners import suite


def tables() -> Iterator[Table]:
    """Three tables: methods, benchmarks, suites."""
    yield _methods()
    yield _benchmarks()
    yield _suites()


def _methods() -> Table:
    table = _table("Methods", "name", "scenarios", "what it is")
    for info in registry.available().values():
        table.add_row(info.name, _scenarios(info.scenarios), info.summary)
    return table


def _benchmarks() -> Table:
    table = _table("Benchmarks", "name", "scenarios", "tasks", "budget per task", "network")
    for benchmark in (*BENCHMARKS.values(), *map(plugins.benchmark, plugins.points())):
        tasks = f"{benchmark.n_tasks} x {benchmark.classes_per_task} classes"
        scenarios = _scenarios(benchmark.scenarios)
        table.add_row(benchmark.name, scenarios, tasks, budget_in_words(benchmark.budget), benchmark.network)
    return table


def _suites() -> Table:
    table = _table("Suites", "name", "methods", "cells", "what it is")
    for name, path in suite.available().items():
        found = suite.read(path)
        rows = len(found.methods) + len(found.variants)
        cells = rows * len(found.benchmarks) * len(found.scenarios) * found.seeds
        table.add_row(name, str(rows), str(cells), found.description)
    table.add_row(suite.ALL, "", "", "Every suite of this repository but those that say in_all = false")
    return table


def budget_in_words(budget: Budget) -> str:
    length = f"{budget.steps} steps" if budget.steps is not None else f"{budget.epochs} epochs"
    return f"{length} of {budget.batch_size}"


def _scenarios(scenarios: tuple[Scenario, ...]) -> str:
    return " ".join(scenarios)


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, no_wrap=heading == "name", header_style="dim")
    return table
