"""The setting of a comparison: benchmarks, networks, budgets, seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.distinct_names import pretty
from reports.record import Record
from reports.resolution import images_of
from reports.study import Study
from reports.tables import MISSING, Cell, Table
from reports.words import count


def setting_table(study: Study) -> Table:
    """Table of the benchmarks: scenarios, tasks, network, budget, seeds."""
    rows = []
    for benchmark in study.benchmarks:
        groups = [group for group in study.groups if group.benchmark == benchmark]
        entries = [entry for entry in study.entries if entry.group.benchmark == benchmark]
        record = entries[0].record
        seeds = sorted({entry.seed for entry in entries})
        cells = (
            pretty(benchmark),
            ", ".join(group.scenario.upper() for group in groups),
            record.cut,
            " / ".join(dict.fromkeys(entry.record.network for entry in entries)),
            " / ".join(dict.fromkeys(budget_words(entry.record.budget) for entry in entries)),
            " / ".join(dict.fromkeys(_held_out(entry.record) for entry in entries)),
            " / ".join(dict.fromkeys(_images(images_of(study, group)) for group in groups)),
            numbers(seeds),
            str(len({entry.record.method for entry in entries})),
        )
        rows.append(tuple(map(Cell, cells)))
    columns = ("benchmark", "scenarios", "tasks", "network", "budget", "validation", "test images", "seeds", "methods")
    held_out = any(entry.record.definition for entry in study.entries)  # older records do not say
    kept = [i for i, name in enumerate(columns) if name != "validation" or held_out]
    return Table(
        "setting",
        "Setting of the comparison: tasks × classes in each, target network, training budget per task (the same for "
        f"all methods), {'validation samples held out of each task, ' if held_out else ''}test images of all tasks, "
        "seeds, number of methods.",
        tuple(columns[i] for i in kept),
        tuple(tuple(row[i] for i in kept) for row in rows),
        text_columns=frozenset(range(len(kept))),
    )


def _images(number: int | None) -> str:
    return MISSING if number is None else f"{number:,}"


def _held_out(record: Record) -> str:
    held = record.definition.get("validation")
    return "not recorded" if held is None else str(held)


def budget_words(budget: Mapping[str, Any], brief: bool = False) -> str:
    """Training budget of a task in words. brief: without the rule of a schedule that follows the validation loss."""
    length = next(
        (count(budget[key], key.removesuffix("s")) for key in ("steps", "epochs") if budget.get(key)),
        "length not recorded",
    )
    found = f"{length}, batch {budget.get('batch_size', '?')}"
    if "patience" not in budget:
        return found
    if brief:
        return f"at most {found}, by validation loss"
    rule = f"rate / {budget.get('divisor', '?')} after {budget['patience']} epochs without a lower validation loss"
    return f"at most {found}, {rule}, down to {budget.get('lowest_rate', '?')}"


def numbers(values: list[int]) -> str:
    """Numbers as a list, or as a range if they are three or more in a row."""
    if len(values) > 2 and values == list(range(values[0], values[-1] + 1)):
        return f"{values[0]}–{values[-1]}"
    return ", ".join(map(str, values))
