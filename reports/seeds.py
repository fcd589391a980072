"""Results of single seeds."""

from __future__ import annotations

from collections.abc import Sequence

from reports.distinct_names import pretty
from reports.metrics import ACC, BWT, Metric
from reports.study import Group, Study
from reports.tables import Cell, Table, method_cell, percent

COLUMNS_AT_MOST = 12
"""Largest number of columns of a table of single seeds."""


def seed_tables(study: Study, benchmark: str) -> list[Table]:
    """Tables of ACC and BWT of every seed: methods in rows, seeds in columns, scenario by scenario."""
    groups = [group for group in study.groups if group.benchmark == benchmark]
    columns = [(group, seed) for group in groups for seed in study.seeds(group)]
    labels = [label for label in study.labels if any(study.at(group, label) for group in groups)]
    tables = []
    for metric in (ACC, BWT):
        for i, part in enumerate(_parts(columns)):
            rows = tuple(
                (method_cell(label), *(_single(study, g, label, metric, s) for g, s in part)) for label in labels
            )
            stem = f"seeds-{metric.key}-{Group(benchmark, '').stem}" + (f"-{i + 1}" if i else "")
            names = ("method", *(f"{group.scenario.upper()} {seed}" for group, seed in part))
            caption = f"{pretty(benchmark)}: {metric.short} of every seed in percent (column: scenario and seed)."
            tables.append(Table(stem, caption, names, rows))
    return [table for table in tables if any(cell.value is not None for row in table.rows for cell in row)]


def _parts(columns: Sequence[tuple[Group, int]]) -> list[list[tuple[Group, int]]]:
    """Split columns into tables of at most COLUMNS_AT_MOST, without dividing scenarios that fit."""
    parts: list[list[tuple[Group, int]]] = []
    for group in dict.fromkeys(group for group, _ in columns):
        own = [column for column in columns if column[0] == group]
        if parts and len(parts[-1]) + len(own) <= COLUMNS_AT_MOST:
            parts[-1] += own
        else:
            parts += [own[i : i + COLUMNS_AT_MOST] for i in range(0, len(own), COLUMNS_AT_MOST)]
    return parts


def _single(study: Study, group: Group, label: str, metric: Metric, seed: int) -> Cell:
    for entry in study.at(group, label):
        if entry.seed == seed:
            value = entry.measures[metric.key].value
            if value is None:
                return Cell("–" if entry.record.done else str(entry.record.status))
            return Cell(percent(value, signed=metric is BWT, digits=2), value, None, 1)
    return Cell("–")
