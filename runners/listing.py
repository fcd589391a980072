"""Tables of the available methods, benchmarks and suites. Imports no torch and no package of an entry point."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

from benchmarks import catalogue, plugins
from benchmarks.catalogue import BENCHMARKS, SHUFFLED_SUFFIX, Benchmark
from benchmarks.types import Budget, Scenario, ValidatedBudget
from methods import registry
from reports.words import count
from runners.columns import Columns
from runners.grid import suite

WORDS = "description"
AVALANCHE = "A strategy of Avalanche; `continual-intervals show avalanche:` lists them."
IMAGES = "FOLDER-TASKSxCLASSES"
"""Form of the names of image folders."""


def tables() -> Iterator[Columns]:
    """Tables of methods, benchmarks and suites."""
    yield _methods()
    yield _benchmarks()
    yield _suites()


def _methods() -> Columns:
    found = registry.available().values()
    rows = [(info.name, _scenarios(info.scenarios), info.summary) for info in found]
    rows.append((f"{registry.AVALANCHE_PREFIX}NAME", _scenarios(tuple(Scenario)), AVALANCHE))
    return Columns("Methods", ("name", "scenarios", WORDS), rows, frozenset({WORDS}))


def _benchmarks() -> Columns:
    rows = []
    for benchmark in BENCHMARKS.values():
        rows.append((benchmark.name, *_setting(benchmark, _tasks(benchmark))))
    for name, point in plugins.points().items():
        found = plugins.described(name)
        rows.append((name, *_setting(found, _tasks(found))) if found else (name, "", f"from {point.value}", "", ""))
    rows.append(("images-" + IMAGES, *_setting(catalogue.find("images-FOLDER-2x2"), "TASKS x CLASSES")))
    rows.append((f"SPLIT{SHUFFLED_SUFFIX}", "", "of any split-... or images-..., in an order from the seed", "", ""))
    return Columns("Benchmarks", ("name", "scenarios", "tasks", "budget per task", "network"), rows)


def _suites() -> Columns:
    listed = []
    others = {name: suite.unimported_path(point) for name, point in suite.points().items()}
    for name, path in (suite.shipped() | others).items():
        if path is None:
            listed.append((name, "", "", f"from {suite.points()[name].value}"))
            continue
        found = suite.read(path)
        rows = len(found.methods) + len(found.variants)
        listed.append((name, str(rows), str(_cells(found)), found.description))
    listed.append((suite.ALL, "", "", "Every suite of this repository except those with in_all = false"))
    return Columns("Suites", ("name", "methods", "cells", WORDS), listed, frozenset({WORDS}))


def _cells(found: suite.Suite) -> int:
    """Cells of a suite: of each row in its scenarios. A variant with the values of another row is the same cell."""
    rows = [(name, name, {}, found.scenarios) for name in found.methods]
    rows += [(each.method, each.label, each.values, each.scenarios or found.scenarios) for each in found.variants]
    streams = 0
    for entry, scenario in product(found.benchmarks, found.scenarios):
        distinct: list[tuple[str, dict[str, Any]]] = []
        for method, label, own, scenarios in rows:
            blocks = found.blocks(method, label, entry.name, scenario, (own, None), entry.values_of)
            cell = method, {key: value for values, _ in blocks for key, value in values.items()}
            if scenario in scenarios and cell not in distinct:
                distinct.append(cell)
        streams += len(distinct)
    return streams * found.seeds


def _tasks(benchmark: Benchmark) -> str:
    sizes = benchmark.sizes
    counts = f"{len(sizes)} x {sizes[0]}" if len(set(sizes)) == 1 else f"{len(sizes)}: {', '.join(map(str, sizes))}"
    return f"{counts} classes"


def _setting(benchmark: Benchmark, tasks: str) -> tuple[str, ...]:
    return _scenarios(benchmark.scenarios), tasks, budget_in_words(benchmark.budget), benchmark.network


def budget_in_words(budget: Budget) -> str:
    length = count(budget.steps, "step") if budget.steps is not None else count(budget.epochs or 0, "epoch")
    most = "at most " if isinstance(budget, ValidatedBudget) else ""
    return f"{most}{length} of {budget.batch_size}"


def _scenarios(scenarios: tuple[Scenario, ...]) -> str:
    return " ".join(scenarios)
