"""Findings of the conformance suite in methods that do not ship with the project: one line per failed check."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reports.deviations import ALL, verdict
from reports.study import Study
from reports.tables import Table, shorten, text_cells


def conformance_table(study: Study) -> Table | None:
    """Table of failed checks and unchecked methods; None if no record has a foreign method."""
    known = [entry for entry in study.entries if verdict(entry.record)]
    if not known:
        return None
    rows: dict[tuple[str, ...], None] = {}
    for entry in study.entries:
        if entry.label in {other.label for other in known}:
            rows |= dict.fromkeys(_rows(entry.label, entry.record.scenario, verdict(entry.record)))
    return Table(
        "conformance",
        "Conformance of the methods that do not ship with the suite: checks on two tasks of the digits that were "
        "passed, failed and skipped, and what those that failed found. No finding leaves a method out.",
        ("method", "scenario", "passed", "failed", "skipped", "check", "finding"),
        tuple(text_cells(row, 0) for row in rows),
        text_columns=frozenset({0, 1, 5, 6}),
        named_once=5,
    )


def _rows(label: str, scenario: str, found: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    why = found.get("not_checked") if found else "the record was made without a check"
    if why:
        yield (label, scenario, "", "", "", "", f"not checked: {shorten(str(why))}")
        return

    def of_scenario(name: str) -> list[dict[str, str]]:
        return [row for row in found.get(name) or () if row["scenario"] in (scenario, ALL)]

    failed = of_scenario("failed")
    counts = (len(of_scenario("passed")), len({row["check"] for row in failed}), len(of_scenario("skipped")))
    head = (label, scenario, *map(str, counts))
    yield from ((*head, row["check"], shorten(row["sentence"])) for row in failed)
    if not failed:
        yield (*head, "", "nothing found")
