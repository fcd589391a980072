"""Published tables as a whole: every row of a paper's table on a benchmark built after it, with ours next to it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from reports import statistics
from reports.metrics import ACC, BWT
from reports.published import (
    CAP,
    METRICS,
    READ,
    Published,
    interval,
    metric_values,
    protocol_differences,
    published,
    two,
)
from reports.study import Group, Study
from reports.tables import MISSING, Cell, Notes, Table, method_cell

WHOLE = (
    "permuted-mnist-10-wsn",
    "split-cifar-100-wsn-shuffled",
    "split-cifar-100-superclass",
    "split-tiny-imagenet-wsn",
)
"""Benchmarks that exist for a published table: its network, sizes and budget are theirs."""
_OF_ALL = (ACC, BWT, CAP)


def whole_tables(study: Study) -> list[Table]:
    """A table for each group of such a benchmark with a published row of ours, at the published size and length."""
    found = []
    for group in study.groups:
        rows = _published(study, group)
        ours = [label for label in study.rows(group) if _alike(study, group, label, rows)]
        if set(ours) & set(rows):
            found.append(_table(study, group, rows, ours))
    return found


def _published(study: Study, group: Group) -> dict[str, dict[str, Published]]:
    """Published values by method, then metric, in the order of the file; none of a benchmark that is not in WHOLE."""
    # Not the group's name, which has the network where a study has two.
    names = {entry.record.benchmark for label in study.rows(group) for entry in study.at(group, label)} & set(WHOLE)
    found: dict[str, dict[str, Published]] = {}
    for one in published():
        if one.benchmark in names and one.scenario == group.scenario and one.trust in READ:
            found.setdefault(one.method, {})[one.metric] = one
    return found


def _alike(study: Study, group: Group, label: str, rows: dict[str, dict[str, Published]]) -> bool:
    """Check that the finished cells have the network, length and batches of the table."""
    one = next((value for values in rows.values() for value in values.values()), None)
    done = study.done(group, label)
    return one is not None and bool(done) and not protocol_differences(one, done[0].record)


def _table(study: Study, group: Group, rows: dict[str, dict[str, Published]], ours: Sequence[str]) -> Table:
    order = [*dict.fromkeys(study.label(name) for name in rows), *(label for label in ours if label not in rows)]
    clauses = {label: _clauses(values) for label, values in rows.items()}
    shared = [one for one in next(iter(clauses.values())) if all(one in others for others in clauses.values())]
    notes, lines = Notes(), []
    for label in order:
        own = "; ".join(one for one in clauses.get(label, ()) if one not in shared)
        cells = _line(study, group, label, rows.get(label, {}), label in ours)
        lines.append((method_cell(label, notes.mark(own) if own else ""), *cells))
    sources = dict.fromkeys(f"{one.source}, {one.where}" for values in rows.values() for one in values.values())
    return Table(
        f"published-{group.stem}",
        f"{group.title}: the published table and ours, in percent (BWT: points): mean ± sample standard deviation over "
        "n seeds (theirs: as printed, five), and the 95 % t interval of published less ours. CAP: share of the shared "
        "weights in use plus the size of the masks, by the authors' estimate of a Huffman code (0.22 bits an entry). A "
        f"dash: not published, not run, diverged, failed, or not defined. Source: {'; '.join(sources)}"
        f"{''.join(f'; {one}' for one in shared)}.",
        (
            "method",
            *(f"{metric.short} {whose}" for metric in _OF_ALL for whose in ("published", "ours")),
            "n",
            "interval of ACC",
        ),
        tuple(lines),
        notes.lines(),
    )


def _clauses(values: dict[str, Published]) -> list[str]:
    """Statements on a published row's protocol, of all its metrics, each once."""
    found = [clause for one in values.values() for clause in one.other.split("; ")]
    return [clause for clause in dict.fromkeys(found) if clause]


def _line(study: Study, group: Group, label: str, values: dict[str, Published], present: bool) -> tuple[Cell, ...]:
    """Cells of a row, after the method's."""
    cells: list[Cell] = []
    n, apart = len(metric_values(study, group, label, ACC)) if present else 0, MISSING
    for metric in _OF_ALL:
        one = next((values[key] for key in values if METRICS[key] is metric), None)
        measured = metric_values(study, group, label, metric) if present else []
        cells.append(Cell(one.text if one else MISSING))
        cells.append(_ours(measured, n, signed=metric is BWT))
        if metric is ACC and one:
            apart = interval(one, measured)
    return (*cells, Cell(str(n) if n else MISSING), Cell(apart))


def _ours(values: Sequence[float], n: int, signed: bool) -> Cell:
    """Cell with the mean of values; with their number where it is not the row's `n`."""
    if not values:
        return Cell(MISSING)
    mean, deviation = fmean(values), statistics.spread(values)
    spread = "" if deviation is None else f" ± {two(deviation)}"
    few = "" if len(values) == n else f" (n={len(values)})"
    return Cell(two(mean, signed) + spread + few, mean, deviation, len(values))
