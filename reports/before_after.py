"""Comparison of two results folders: effect of a change on every method, and its significance."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from reports import statistics
from reports.metrics import ACC, BWT, Metric
from reports.study import Group, Study
from reports.tables import MISSING, Cell, Table, method_cell, percent


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


def changes(before: Study, after: Study, metric: Metric = ACC) -> list[Change]:
    """Changes of every method and group that both studies have, in the order of `after`."""
    pairs = []
    for group in after.groups:
        for label in after.rows(group):
            old, new = before.values(group, label, metric), after.values(group, label, metric)
            seeds = sorted(old.keys() & new.keys())
            if seeds:
                found = statistics.sign_flip([new[s] for s in seeds], [old[s] for s in seeds])
                pairs.append((group, label, fmean(old[s] for s in seeds), fmean(new[s] for s in seeds), found))
    adjusted = statistics.holm([pair[-1].p for pair in pairs])
    return [
        Change(group, label, metric, old, new, found, p)
        for (group, label, old, new, found), p in zip(pairs, adjusted, strict=True)
    ]


def change_table(before: Study, after: Study, name: str) -> Table:
    """Table of ACC and BWT before and after; its notes name methods and groups that only one folder has.

    name: name of the other folder in the caption.
    """
    acc = changes(before, after, ACC)
    bwt = {(change.group, change.label): change for change in changes(before, after, BWT)}
    rows = [_row(change, bwt.get((change.group, change.label))) for change in acc]
    return Table(
        "before-after",
        f"Before ({name}) and after: ACC and BWT in percent, means over the seeds that both folders have; p: exact "
        "sign-flip test of ACC paired over seeds, Holm over all lines. With fewer than 6 seeds p cannot be below 0.05.",
        ("benchmark", "method", "seeds", "ACC before", "after", "change", "p", "BWT before", "after", "change"),
        tuple(rows),
        _only(before, after),
        text_columns=frozenset({0, 1}),
    )


def _row(acc: Change, bwt: Change | None) -> tuple[Cell, ...]:
    transfer = [Cell(MISSING)] * 3
    if bwt:
        transfer = [Cell(percent(v, signed=True)) for v in (bwt.before, bwt.after, bwt.comparison.difference)]
    return (
        Cell(acc.group.title),
        method_cell(acc.label),
        Cell(str(acc.comparison.n)),
        Cell(percent(acc.before)),
        Cell(percent(acc.after)),
        Cell(percent(acc.comparison.difference, signed=True), best=acc.adjusted <= statistics.ALPHA),
        Cell(f"{acc.adjusted:.3g}"),
        *transfer,
    )


def _only(before: Study, after: Study) -> tuple[str, ...]:
    def rows(study: Study) -> dict[tuple[Group, str], str]:
        return {
            (group, label): f"{label} ({group.title})"
            for group in study.groups
            for label in study.rows(group)
            if study.values(group, label, ACC)
        }

    old, new = rows(before), rows(after)
    notes = []
    for words, here, there in (("Only before", old, new), ("Only after", new, old)):
        names = [text for key, text in here.items() if key not in there]
        if names:
            more = f" and {len(names) - 12} more" if len(names) > 12 else ""
            notes.append(f"{words}: {', '.join(names[:12])}{more}.")
    return tuple(notes)
