"""Provenance of the records: machines, versions, commands."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from reports.distinct_names import pretty
from reports.names import display
from reports.study import Entry, Study
from reports.tables import Cell, Table, shorten
from reports.words import count

VALUES_AT_MOST = 6
"""Largest number of values of one property that the environment lists."""
LINES_AT_MOST = 200
"""Largest number of command lines that the report prints, besides those that a benchmark or method needs."""
EVIDENCE_AT_MOST = 120
"""Largest number of characters of the evidence on earlier code that the table shows."""
SEEDS_OPTION = re.compile(r"(?<= --seeds)[ =](\d+)(?= |$)")


def environment(study: Study) -> Table:
    """Table of machines and versions: each property, its values and the number of cells with each."""
    flat = [dict(_flat(entry.record.environment)) for entry in study.entries]
    rows = []
    for key in dict.fromkeys(key for one in flat for key in one):
        values = Counter(one.get(key, "not recorded") for one in flat)
        rows.append((Cell(key), Cell(_shown(values))))
    sources: dict[str, set[str]] = {}
    for entry in study.entries:
        sources.setdefault(entry.record.method, set()).add(entry.record.source[:12])
    text = ", ".join(f"{display(method)} {'/'.join(sorted(hashes))}" for method, hashes in sorted(sources.items()))
    rows.append((Cell("source of methods"), Cell(text)))
    carried: dict[str, Counter[str]] = {}
    for entry in study.entries:
        if entry.record.carried:
            carried.setdefault(entry.record.method, Counter())[entry.record.carried] += 1
    for method, evidence in sorted(carried.items()):
        rows.append((Cell(f"earlier code of {display(method)}"), _carried(evidence)))
    return Table(
        "environment",
        "Environment of the cells.",
        ("property", "value"),
        tuple(rows),
        text_columns=frozenset({0, 1}),
    )


def _carried(evidence: Counter[str]) -> Cell:
    """Cells of earlier code, and the evidence that it gives the same numbers: in full where it fits, and in the CSV."""
    full = "; ".join(f"{count(n, 'cell')}: {words}" for words, n in evidence.items())
    if len(full) <= EVIDENCE_AT_MOST:
        return Cell(full)
    text = (
        f"{count(sum(evidence.values()), 'cell')}, which give the same numbers by {count(len(evidence), 'comparison')}"
    )
    return Cell(f"{text} of both codes, named in the CSV of this table and in the records", key=full)


def _shown(values: Counter[str]) -> str:
    """List the most frequent values, each with its number of cells, and say how many others there are."""
    if len(values) == 1:
        return next(iter(values))
    most = values.most_common(VALUES_AT_MOST)
    shown = "; ".join(f"{shorten(value, 60)} ({count(n, 'cell')})" for value, n in most)
    left = len(values) - len(most)
    if not left:
        return shown
    cells = sum(values.values()) - sum(n for _, n in most)
    others = f"{count(left, 'other')} ({count(cells, 'cell')})"
    return f"{len(most)} of {len(values)} values: {shown}; {others}, see the records"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key} ")
        else:
            yield f"{prefix}{key}", "none" if value in (None, "") else str(value)


def commands(study: Study) -> tuple[list[tuple[str, str]], str]:
    """Command lines that produced the records, each with its number of cells, benchmarks and scenarios.

    Also a sentence on those left out, empty if there are none: LINES_AT_MOST lines are kept, those of the most cells,
    and the first line of every benchmark and of every method.

    `--seeds N` means the seeds 0 to N-1. Of lines that differ in N only, the one with the largest N covers all.
    """
    alike: dict[str, dict[str, list[Entry]]] = {}
    for entry in study.entries:
        if entry.record.command:
            apart = SEEDS_OPTION.sub(" N", entry.record.command)
            alike.setdefault(apart, {}).setdefault(entry.record.command, []).append(entry)
    lines = [(max(runs, key=_seeds_asked), [e for run in runs.values() for e in run]) for runs in alike.values()]
    found, rest, covered = [], [], set()
    for command, entries in sorted(lines, key=lambda pair: -len(pair[1])):
        names = {("benchmark", entry.group.benchmark) for entry in entries}
        names |= {("method", entry.record.method) for entry in entries}
        if len(found) >= LINES_AT_MOST and names <= covered:
            rest.append(len(entries))
            continue
        covered |= names
        groups = [group for group in study.groups if any(entry.group == group for entry in entries)]
        scenarios: dict[str, list[str]] = {}
        for group in groups:
            scenarios.setdefault(pretty(group.benchmark), []).append(group.scenario.upper())
        where = "; ".join(f"{name} in {', '.join(some)}" for name, some in scenarios.items())
        found.append((command, f"{len(entries)} {'cell' if len(entries) == 1 else 'cells'}: {shorten(where, 400)}"))
    if not rest:
        return found, ""
    return found, (
        f"{count(len(rest), 'further command line')} made {count(sum(rest), 'cell')}; the column `command` of "
        "cells.csv has them."
    )


def _seeds_asked(command: str) -> int:
    option = SEEDS_OPTION.search(command)
    return int(option[1]) if option else 0
