"""Reference records of this repository: each is a cell of the suite that it names, as that suite is now."""

import re
from collections import defaultdict
from collections.abc import Iterator

import pytest

from benchmarks.types import Scenario
from runners.grid import suite
from runners.grid.build import Choices, build
from runners.grid.cells import Cell
from runners.records import reference_records
from runners.records.record import Record

SUITES = {found.name: found for found in map(suite.read, sorted(suite.SUITES.glob("*.toml")))}


@pytest.fixture(scope="module")
def shipped() -> dict[str, list[Record]]:
    """Records by suite."""
    found: dict[str, list[Record]] = defaultdict(list)
    for cell in reference_records.read().values():
        found[cell.record.suite].append(cell.record)
    return found


def cells(records: list[Record]) -> Iterator[Cell]:
    """Cells of the rows of these records, at the budgets of their commands."""
    rows: dict[tuple[str, float, Scenario], set[int]] = defaultdict(set)
    for record in records:
        scale = re.search(r"--budget-scale (\S+)", record.command)
        rows[record.label, float(scale[1]) if scale else 1.0, record.scenario].add(record.seed)
    by_choice: dict[tuple[float, Scenario, frozenset[int]], list[str]] = defaultdict(list)
    for (label, scale, scenario), seeds in rows.items():
        by_choice[scale, scenario, frozenset(seeds)].append(label)
    for (scale, scenario, seeds), labels in by_choice.items():
        choices = Choices(methods=tuple(labels), scenarios=(scenario,), seeds=sorted(seeds), budget_scale=scale)
        yield from build([SUITES[records[0].suite]], choices)


@pytest.mark.parametrize("name", sorted(SUITES))
def test_no_record_is_stale(name: str, shipped: dict[str, list[Record]]) -> None:
    """Neither its numbers nor the words on how its values were chosen."""
    records = shipped.get(name, [])
    now = {cell.key: dict(cell.chosen) for cell in cells(records)}
    title = "{0.label}, {0.benchmark} {0.scenario} seed {0.seed}".format
    stale = [title(record) for record in records if record.key not in now]
    assert not stale
    assert not [title(record) for record in records if now.get(record.key, record.chosen) != record.chosen]


def test_every_record_names_a_shipped_suite(shipped: dict[str, list[Record]]) -> None:
    assert shipped.keys() <= SUITES.keys()
