"""Costs of every method: time, memory, stored parameters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from reports.study import Entry, Study
from reports.tables import Cell, Table

COSTS = ("train s", "evaluate s", "peak RSS MB", "peak device MB", "trained", "stored", "per task")


def cost_table(study: Study) -> Table | None:
    """Table of training and evaluation seconds, memory and parameters; None if no cell finished."""
    rows = []
    for group in study.groups:
        for label in study.rows(group):
            entries = study.done(group, label)
            if entries:
                rows.append((Cell(group.title), Cell(label), *map(Cell, _costs(entries))))
    if not rows:
        return None
    columns = ("benchmark", "method", *COSTS)
    kept = [i for i in range(len(columns)) if i < 2 or any(row[i].text != "–" for row in rows)]
    return Table(
        "cost",
        "Cost, mean over seeds: seconds on the training and on the evaluation clock for the whole stream, peak memory "
        "of the process and of the device, parameters trained, parameters stored to predict and to learn further "
        "tasks, and their growth per task.",
        tuple(columns[i] for i in kept),
        tuple(tuple(row[i] for i in kept) for row in rows),
        text_columns=frozenset({0, 1}),
        named_once=1,
    )


def _costs(entries: list[Entry]) -> list[str]:
    records = [entry.record for entry in entries]

    def mean(values: list[float | None], show: Callable[[float], str]) -> str:
        known = [value for value in values if value is not None]
        return show(sum(known) / len(known)) if known else "–"

    growth = [_growth(record.stored_per_task) for record in records]
    return [
        mean([sum(r.train_seconds) if r.train_seconds else None for r in records], lambda v: f"{v:.1f}"),
        mean([sum(r.evaluate_seconds) if r.evaluate_seconds else None for r in records], lambda v: f"{v:.1f}"),
        mean([r.peak_rss for r in records], lambda v: f"{v / 1e6:.0f}"),
        mean([r.peak_device for r in records], lambda v: f"{v / 1e6:.0f}"),
        mean([r.parameters_trained for r in records], thousands),
        mean([r.parameters_stored for r in records], thousands),
        mean(growth, lambda v: "0" if v == 0 else f"+{thousands(v)}"),
    ]


def _growth(stored: tuple[int, ...]) -> float | None:
    return float(np.mean(np.diff(stored))) if len(stored) > 1 else None


def thousands(value: float) -> str:
    """1234567 -> 1.23 M."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
