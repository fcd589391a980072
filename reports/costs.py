"""Costs of every method: time, memory, stored parameters."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from statistics import fmean

import numpy as np

from reports import machines
from reports.study import Entry, Study
from reports.tables import Cell, Table, method_cell

COSTS = ("train", "evaluate", "memory MB", "device MB", "trained", "stored", "per task")


def cost_table(study: Study) -> Table | None:
    """Table of training and evaluation time, memory and parameters; None if no cell finished."""
    rows, empty, names = [], empty_processes(study), machines.letters(study)
    for group in study.groups:
        for label in study.rows(group):
            for name, entries in machines.by_machine(study.done(group, label)).items():
                place = Cell(names.get(name, "–"), key=name)
                rows.append((Cell(group.title), method_cell(label), place, *map(Cell, _costs(entries, empty))))
    if not rows:
        return None
    columns = ("benchmark", "method", "machine", *COSTS)
    kept = [i for i in range(len(columns)) if i < 2 or any(row[i].text != "–" for row in rows)]
    several = (
        f" Times and memory of two machines do not compare, so each has rows of its own ({machines.in_words(names)})."
        if names
        else ""
    )
    return Table(
        "cost",
        "Cost, mean over seeds: time on the training and on the evaluation clock for the whole stream; peak memory of "
        f"the process above {_above(empty.values())}; peak memory of the device; parameters trained; what is stored "
        "between tasks to predict and to learn further ones, in numbers of 32 bits (without copies; the values of "
        f"stored samples count one each), and its growth per task.{several}",
        tuple(columns[i] for i in kept),
        tuple(tuple(row[i] for i in kept) for row in rows),
        text_columns=frozenset({0, 1, 2} if names else {0, 1}),
        named_once=1,
    )


def empty_processes(study: Study) -> dict[str, float]:
    """Bytes of a process before a cell's own, by environment: the least peak of any cell there.

    Records do not hold the size of an empty process; the interpreter and the libraries are most of every peak.
    """
    least: dict[str, float] = {}
    for entry in study.entries:
        peak = entry.record.peak_rss
        if peak is not None:
            machine = environment_of(entry)
            least[machine] = min(peak, least.get(machine, peak))
    return least


def environment_of(entry: Entry) -> str:
    """Properties of the environment that decide the size of an empty process."""
    environment = entry.record.environment
    names = ("platform", "processor", "python", "packages", "torch", "device", "device_name", "threads", "engine")
    return json.dumps([environment.get(name) for name in names], sort_keys=True, default=str)


def _above(least: Collection[float]) -> str:
    low, high = (f"{value / 1e6:.0f}" for value in (min(least, default=0), max(least, default=0)))
    between = f"{low} MB" if low == high else f"{low} to {high} MB, by environment"
    return f"that of the leanest cell of the same environment, nearly an empty process ({between})"


def _costs(entries: list[Entry], empty: Mapping[str, float]) -> list[str]:
    records = [entry.record for entry in entries]
    above = [None if (p := e.record.peak_rss) is None else p - empty[environment_of(e)] for e in entries]

    def mean(values: list[float | None], show: Callable[[float], str]) -> str:
        known = [value for value in values if value is not None]
        return show(fmean(known)) if known else "–"

    growth = [_growth(record.stored_per_task) for record in records]
    return [
        mean([sum(r.train_seconds) if r.train_seconds else None for r in records], duration),
        mean([sum(r.evaluate_seconds) if r.evaluate_seconds else None for r in records], duration),
        mean(above, lambda v: f"{v / 1e6:.0f}"),
        mean([r.peak_device for r in records], lambda v: f"{v / 1e6:.0f}"),
        mean([r.parameters_trained for r in records], thousands),
        mean([r.parameters_stored for r in records], thousands),
        mean(growth, lambda v: "0" if v == 0 else f"{'+' if v > 0 else '−'}{thousands(abs(v))}"),
    ]


def _growth(stored: tuple[int, ...]) -> float | None:
    return float(np.mean(np.diff(stored))) if len(stored) > 1 else None


def duration(seconds: float) -> str:
    """Format a time in seconds, or below one in milliseconds: 63.2 -> 63 s, 3.42 -> 3.4 s, 0.0123 -> 12 ms."""
    value, unit = (seconds, "s") if seconds >= 1 else (1000 * seconds, "ms")
    return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"


def thousands(value: float) -> str:
    """1234567 -> 1.23 M."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
