"""Measured use of budget, network and memory: one line per method."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from reports.deviations import deviations, of_tasks
from reports.record import Record
from reports.study import Group, Study
from reports.tables import MISSING, Cell, Notes, Table


def conduct_table(study: Study) -> Table | None:
    """Table of steps, samples, parameters and kept images of every method; None if no record has them."""
    notes, rows = Notes(), []
    for group in study.groups:
        rows += [row for label in study.rows(group) if (row := _row(study, group, label, notes))]
    if not rows:
        return None
    return Table(
        "conduct",
        "Measured use of resources: optimiser steps and training samples of the whole stream over the budget (largest "
        "over the seeds), samples read after the last step of each task, parameters of the benchmark's network and of "
        "all modules the method holds, and earlier training data that it keeps (declared; found in its state).",
        ("benchmark", "method", "steps", "samples", "read aside", "network", "modules", "keeps", "found"),
        tuple(rows),
        notes.lines(),
        text_columns=frozenset({0, 1, 7}),
        named_once=1,
    )


def _row(study: Study, group: Group, label: str, notes: Notes) -> tuple[Cell, ...] | None:
    done = [entry.record for entry in study.done(group, label)]
    records = [record for record in done if record.fairness]
    if not done:
        return None
    if not records:
        return (Cell(group.title), Cell(label), *(Cell(MISSING, mark=notes.mark("not measured")) for _ in range(7)))
    found = dict.fromkeys(text for record in records for text in deviations(record))
    mark = notes.mark("; ".join(found)) if found else ""
    helds = [record.fairness.get("held") or {} for record in records]
    return (
        Cell(group.title),
        Cell(label, mark=mark),
        Cell(_over(records, "steps")),
        Cell(_over(records, "samples")),
        Cell(f"{max(sum(task['aside'] for task in of_tasks(record)) for record in records):,}"),
        Cell(f"{_largest(helds, 'network_parameters'):,}"),
        Cell(f"{_largest(helds, 'module_parameters'):,}"),
        Cell(_kept(helds)),
        Cell(f"{_largest(helds, 'found'):,}"),
    )


def _over(records: Sequence[Record], name: str) -> str:
    def total(record: Record, key: str) -> int:
        return sum(task[key] for task in of_tasks(record))

    taken, allowed = max((total(record, name), total(record, f"{name}_allowed")) for record in records)
    return f"{taken:,} / {allowed:,}"


def _kept(helds: Iterable[dict[str, Any]]) -> str:
    helds = list(helds)
    if any(held.get("rehearses") for held in helds):
        return "all"
    declared = _largest(helds, "declared")
    return f"{declared:,} samples" if declared else "nothing"


def _largest(helds: Iterable[dict[str, Any]], name: str) -> int:
    return max((int(held.get(name, 0)) for held in helds), default=0)
