"""Measured use of budget, network and memory: one line per method."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from reports.deviations import deviations, of_tasks
from reports.record import Record
from reports.study import Group, Study
from reports.tables import MISSING, Cell, Notes, Table, method_cell
from reports.words import count


def conduct_table(study: Study) -> Table | None:
    """Table of steps, samples, parameters and kept images of every method; None if no record has them."""
    notes, rows, unmeasured = Notes(), [], 0
    for group in study.groups:
        for label in study.rows(group):
            done = [entry.record for entry in study.done(group, label)]
            if measured := [record for record in done if of_tasks(record)]:
                rows.append(_row(group, label, measured, notes))
            else:
                unmeasured += bool(done)
    if not rows:
        return None
    left_out = f" {count(unmeasured, 'row')} of records by earlier versions, which measured none of it, left out."
    return Table(
        "conduct",
        "What was measured: optimiser steps and training samples of the whole stream over the budget (largest of the "
        "seeds); samples read after the last step of each task; parameters of the benchmark's network, of the network "
        "that predicts (one task's, where a method has one for each) and of all networks that the method holds; test "
        "answers that change when asked alone or in other batches; earlier training data kept (declared; found)."
        + left_out
        * bool(unmeasured),
        (
            "benchmark",
            "method",
            "steps",
            "samples",
            "aside",
            "network",
            "predicts",
            "held",
            "changed",
            "keeps",
            "found",
        ),
        tuple(rows),
        notes.lines(),
        text_columns=frozenset({0, 1, 9}),
        named_once=1,
    )


def _row(group: Group, label: str, records: Sequence[Record], notes: Notes) -> tuple[Cell, ...]:
    found = dict.fromkeys(text for record in records for text in deviations(record))
    mark = notes.mark("; ".join(found)) if found else ""
    helds = [record.fairness.get("held") or {} for record in records]
    return (
        Cell(group.title),
        method_cell(label, mark),
        Cell(_over(records, "steps")),
        Cell(_over(records, "samples")),
        Cell(f"{max(sum(task['aside'] for task in of_tasks(record)) for record in records):,}"),
        Cell(f"{_largest(helds, 'network_parameters'):,}"),
        Cell(f"{_largest(helds, 'answers_with'):,}" if any("answers_with" in held for held in helds) else MISSING),
        Cell(f"{_largest(helds, 'module_parameters'):,}"),
        Cell(_otherwise(helds)),
        Cell(_kept(helds)),
        Cell(f"{_largest(helds, 'found'):,}"),
    )


def _over(records: Sequence[Record], name: str) -> str:
    def total(record: Record, key: str) -> int:
        return sum(task[key] for task in of_tasks(record))

    taken, allowed = max((total(record, name), total(record, f"{name}_allowed")) for record in records)
    return f"{taken:,} / {allowed:,}"


def _otherwise(helds: Sequence[dict[str, Any]]) -> str:
    asked = [held["independence"] for held in helds if held.get("independence")]
    total = sum(again["asked"] for again in asked)
    return f"{sum(again['differ'] for again in asked):,} / {total:,}" if total else MISSING


def _kept(helds: Iterable[dict[str, Any]]) -> str:
    helds = list(helds)
    if any(held.get("rehearses") for held in helds):
        return "all"
    declared = _largest(helds, "declared")
    return f"{declared:,} samples" if declared else "nothing"


def _largest(helds: Iterable[dict[str, Any]], name: str) -> int:
    return max((int(held.get(name, 0)) for held in helds), default=0)
