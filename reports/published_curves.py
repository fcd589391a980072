"""Published accuracies on every task after the last one, next to ours at the same network and hyperparameter."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import groupby
from statistics import fmean
from types import MappingProxyType
from typing import Any

from reports import statistics
from reports.metrics import ACC
from reports.published import two
from reports.record import Record
from reports.study import Group, Study
from reports.tables import Cell, Notes, Table, method_cell
from reports.words import percent

TITLE = "HINT by its authors and here"
RELEASED = MappingProxyType({"til": {"beta": 0.01, "eps": 0.5}, "dil": {"beta": 0.005, "eps": 5.0}})
"""Released settings of HINT on Permuted MNIST-10; its figures vary one of the two and do not name the other."""
RELEASED_STEPS = 5000
"""Steps a task in the same settings; the figures name none."""
FORM = MappingProxyType({"strength_per": "network", "regulariser_norm": "official"})
"""Form of the published beta. A record without the key is of code that knew this form only."""
SETTINGS = MappingProxyType({"embedding": 24, "hidden": [100, 100], "chunk": 0, "lr": 0.001, "kappa": 0.5})
"""Further released settings, equal in both scenarios. A record with others or other batches has no counterpart."""
BATCH_SIZE = 128
ANSWERS = MappingProxyType({"select": "official", "universal": "official"})
"""How the authors' program selects and answers. Ours may differ, and a note then says how."""
NAMES = ("method", "parameter", "value", "benchmark", "scenario", "network")
"""Columns that name a curve."""
MEAN = "mean"
"""Task of the row with the mean over tasks."""


@dataclass(frozen=True)
class Curve:
    """Published accuracies of one value of a hyperparameter, in percent, digitised from a figure."""

    method: str
    parameter: str
    value: str
    benchmark: str
    scenario: str
    network: str
    mean: float
    tasks: Mapping[int, float]
    """Accuracy by task, from 1; some tasks only if `note` says so."""
    error: float
    """Error of digitising, in points."""
    note: str
    source: str


@dataclass(frozen=True)
class Pair:
    """Published curve, and the row of ours with the same value."""

    curve: Curve
    group: Group
    label: str


@cache
def curves() -> tuple[Curve, ...]:
    """All curves of reports/published_curves.csv, in its order; those by `nesting`, which ours cannot vary, are kept
    for the record only."""
    text = resources.files("reports").joinpath("published_curves.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return tuple(_curve(list(some)) for _, some in groupby(rows, lambda row: [row[name] for name in NAMES]))


def _curve(rows: list[dict[str, str]]) -> Curve:
    (mean,) = [row for row in rows if row["task"] == MEAN]
    return Curve(
        **{name: mean[name] for name in NAMES},
        mean=float(mean["accuracy"]),
        tasks={int(row["task"]): float(row["accuracy"]) for row in rows if row is not mean},
        error=float(mean["error"]),
        note=mean["note"],
        source=mean["source"],
    )


def pairs(study: Study) -> list[Pair]:
    """Published curves with a counterpart of ours: by benchmark of the study, then in the order of the file."""
    found = []
    for benchmark in study.benchmarks:
        groups = [group for group in study.groups if group.benchmark == benchmark]
        for curve in curves():
            for group in groups:
                rows = [row for row in study.rows(group) if study.done(group, row)]
                found += [Pair(curve, group, row) for row in rows if _matches(curve, study.done(group, row)[0].record)]
    return found


def _matches(curve: Curve, record: Record) -> bool:
    """Check for the same network and value; all else must be as released (SETTINGS, RELEASED)."""
    here = (record.method, record.benchmark, record.scenario, record.network)
    released = RELEASED.get(curve.scenario, {})
    if here != (curve.method, curve.benchmark, curve.scenario, curve.network) or curve.parameter not in released:
        return False
    wanted: dict[str, Any] = {**released, curve.parameter: float(curve.value)}
    return (
        all(record.config.get(key) == value for key, value in wanted.items())
        and all(record.config.get(key, value) == value for key, value in {**FORM, **SETTINGS}.items())
        and record.budget.get("batch_size") == BATCH_SIZE
    )


def curve_table(study: Study) -> Table | None:
    """Table of the means over tasks, theirs and ours; None without any counterpart."""
    notes = Notes()
    rows = [_line(study, pair, notes) for pair in pairs(study)]
    if not rows:
        return None
    return Table(
        "published-curves",
        f"{TITLE}: accuracy after the last task, mean over tasks in percent (ours: mean ± sample standard deviation "
        "over n seeds), and theirs less ours in points. The authors' values are digitised from figures, each of one "
        "run; after ±: error of digitising. Their figures name no other setting; ours have the released ones (in TIL "
        "beta 0.01 and eps 0.5, in DIL 0.005 and 5; embedding, hypernetwork, learning rate and batches). "
        f"{steps_words(study)}",
        ("benchmark", "hyperparameter", "row", "authors", "ours", "n", "authors − ours"),
        tuple(rows),
        notes.lines(),
        named_once=1,
        text_columns=frozenset({0, 1, 2}),
    )


def _line(study: Study, pair: Pair, notes: Notes) -> tuple[Cell, ...]:
    curve = pair.curve
    values = list(study.values(pair.group, pair.label, ACC).values())
    mean, deviation = fmean(values), statistics.spread(values)
    other = _other_answers(study.done(pair.group, pair.label)[0].record)
    return (
        Cell(pair.group.title),
        Cell(f"{curve.parameter} {curve.value}"),
        method_cell(pair.label, notes.mark(other) if other else ""),
        Cell(_digitised(curve), mark=notes.mark(curve.note) if curve.note else ""),
        Cell(two(mean) + ("" if deviation is None else f" ± {two(deviation)}"), mean, deviation, len(values)),
        Cell(str(len(values))),
        Cell(percent(curve.mean / 100 - mean, True, _digits(curve))),
    )


def _digitised(curve: Curve) -> str:
    return f"{percent(curve.mean / 100, digits=_digits(curve))} ± {curve.error:g}"


def _digits(curve: Curve) -> int:
    """Decimals that the error of digitising leaves."""
    return 1 if curve.error >= 0.1 else 2


def _other_answers(record: Record) -> str:
    """Note on how ours selects or answers unlike the authors' program; empty if alike."""
    names = [key for key in ANSWERS if key != "universal" or record.scenario == "dil"]
    return "; ".join(
        f"ours: {key} {record.config[key]}, the authors' program: {ANSWERS[key]}"
        for key in names
        if record.config.get(key, ANSWERS[key]) != ANSWERS[key]
    )


def steps_words(study: Study, benchmark: str | None = None) -> str:
    """Sentence on the training length, theirs and ours (of one benchmark of the study, or of all counterparts)."""
    lengths = dict.fromkeys(_lengths(study, benchmark))
    return f"Ours: {' or '.join(lengths)} a task; the authors' released settings: {RELEASED_STEPS} steps."


def _lengths(study: Study, benchmark: str | None) -> Iterator[str]:
    for pair in pairs(study):
        if benchmark in (None, pair.group.benchmark):
            budget = study.done(pair.group, pair.label)[0].record.budget
            yield next((f"{budget[key]} {key}" for key in ("steps", "epochs") if budget.get(key)), "unknown length")
