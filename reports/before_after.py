"""Comparison of two results folders: effect of a change on every method, and its significance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from reports import statistics
from reports.distinct_names import config, setting
from reports.labels import shown
from reports.metrics import ACC, BWT, Metric
from reports.record import Record
from reports.study import Group, Study
from reports.tables import MISSING, Cell, Notes, Table, method_cell, percent, shorten

Row = tuple[Group, str]
"""Row of a study: a group and a label."""


@dataclass(frozen=True)
class Change:
    """Change of one metric of one method in one group, over the seeds that both folders have; fractions."""

    group: Group
    label: str
    metric: Metric
    before: float
    after: float
    comparison: statistics.Comparison
    adjusted: float
    """p value, Holm-adjusted over all changes of the same metric."""
    differs: str
    """Settings and hyperparameters in which the two rows differ, in words; empty if they agree."""


def changes(before: Study, after: Study, metric: Metric = ACC) -> list[Change]:
    """Changes of every method and group that both studies have, in the order of `after`."""
    was, now = _rows(before), _rows(after)
    found: list[tuple[Row, tuple[float, float], statistics.Comparison, str]] = []
    for row, earlier in _pairs(was, now).items():
        old, new = before.values(*earlier, metric), after.values(*row, metric)
        seeds = sorted(old.keys() & new.keys())
        if seeds:
            tested = statistics.sign_flip([new[s] for s in seeds], [old[s] for s in seeds])
            means = fmean(old[s] for s in seeds), fmean(new[s] for s in seeds)
            found.append((row, means, tested, _differences(was[earlier], now[row])))
    adjusted = statistics.holm([tested.p for _, _, tested, _ in found])
    return [
        Change(group, label, metric, old, new, tested, p, differs)
        for ((group, label), (old, new), tested, differs), p in zip(found, adjusted, strict=True)
    ]


def _rows(study: Study) -> dict[Row, Record]:
    """Rows with an ACC, and a record of each: those of a row agree in setting and hyperparameters."""
    return {
        (group, label): study.at(group, label)[0].record
        for group in study.groups
        for label in study.rows(group)
        if study.values(group, label, ACC)
    }


def _pairs(before: Mapping[Row, Record], after: Mapping[Row, Record]) -> dict[Row, Row]:
    """Row before of each row after, if there is one.

    Names for readers are no key: what else a folder holds extends them. Rows of one benchmark, scenario and method that
    agree in setting and hyperparameters are pairs. So are those that do not, if they are the only ones in both folders.
    """
    found: dict[Row, Row] = {}
    for alike in _ALIKE:
        for row, record in after.items():
            partners = [other for other, old in before.items() if alike(old, record)]
            if row in found or len(partners) != 1 or partners[0] in found.values():
                continue
            if sum(alike(before[partners[0]], new) for new in after.values()) == 1:
                found[row] = partners[0]
    return {row: found[row] for row in after if row in found}


def _same_name(one: Record, other: Record) -> bool:
    names = [(r.benchmark, r.scenario, r.method, r.label) for r in (one, other)]
    return names[0] == names[1]


def _same_setting(one: Record, other: Record) -> bool:
    return _same_name(one, other) and not _differing(setting(one), setting(other))


def _same_config(one: Record, other: Record) -> bool:
    return _same_name(one, other) and not _differing(config(one), config(other))


def _same(one: Record, other: Record) -> bool:
    return _same_setting(one, other) and _same_config(one, other)


_ALIKE = (_same, _same_setting, _same_config, _same_name)
"""Rules of `_pairs`, the strictest first."""


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Keys of both with other values; records of older code lack some."""
    return [key for key in one if key in other and repr(one[key]) != repr(other[key])]


def _differences(before: Record, after: Record) -> str:
    parts = []
    for of in (setting, config):
        old, new = of(before), of(after)
        parts += [f"{key} {shown(old[key])} before, {shown(new[key])} after" for key in _differing(old, new)]
    return shorten("; ".join(parts))


def change_table(before: Study, after: Study, name: str) -> Table:
    """Table of ACC and BWT before and after; its notes name what differs in a pair, and rows without one.

    name: name of the other folder in the caption.
    """
    acc = changes(before, after, ACC)
    bwt = {(change.group, change.label): change for change in changes(before, after, BWT)}
    notes = Notes()
    rows = [_row(change, bwt.get((change.group, change.label)), notes) for change in acc]
    return Table(
        "before-after",
        f"Before ({name}) and after: ACC and BWT in percent, means over the seeds that both folders have; p: exact "
        "sign-flip test of ACC paired over seeds, Holm over all lines. With fewer than 6 seeds p cannot be below 0.05.",
        ("benchmark", "method", "seeds", "ACC before", "after", "change", "p", "BWT before", "after", "change"),
        tuple(rows),
        (*notes.lines(), *_only(before, after, acc)),
        text_columns=frozenset({0, 1}),
    )


def _row(acc: Change, bwt: Change | None, notes: Notes) -> tuple[Cell, ...]:
    transfer = [Cell(MISSING)] * 3
    if bwt:
        transfer = [Cell(percent(v, signed=True)) for v in (bwt.before, bwt.after, bwt.comparison.difference)]
    return (
        Cell(acc.group.title),
        method_cell(acc.label, notes.mark(acc.differs) if acc.differs else ""),
        Cell(str(acc.comparison.n)),
        Cell(percent(acc.before)),
        Cell(percent(acc.after)),
        Cell(percent(acc.comparison.difference, signed=True), best=acc.adjusted <= statistics.ALPHA),
        Cell(f"{acc.adjusted:.3g}"),
        *transfer,
    )


def _only(before: Study, after: Study, changed: Sequence[Change]) -> tuple[str, ...]:
    """Notes on rows of one folder only, and on pairs that share no seed."""
    was, now = _rows(before), _rows(after)
    paired, tested = _pairs(was, now), {(change.group, change.label) for change in changed}
    rows = {
        "Only before": [row for row in was if row not in paired.values()],
        "Only after": [row for row in now if row not in paired],
        "No seed in both": [row for row in paired if row not in tested],
    }
    notes = []
    for words, found in rows.items():
        if found:
            more = f" and {len(found) - 12} more" if len(found) > 12 else ""
            notes.append(f"{words}: {', '.join(f'{label} ({group.title})' for group, label in found[:12])}{more}.")
    return tuple(notes)
