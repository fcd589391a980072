"""Comparison of the best method of each benchmark with every other: difference, significance, effect size."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

from reports import statistics
from reports.leads import effect_size, means
from reports.metrics import ACC
from reports.study import Group, Study
from reports.tables import MISSING, Cell, Table, percent, text_cells

P = 6
"""Column of p."""


def comparison_table(study: Study) -> Table | None:
    """Table of the pairs (best, other) per benchmark and scenario; None if nothing can be compared."""
    rows = []
    for group in study.groups:
        ranked = means(study, group)
        if len(ranked) > 1:
            rows += _against(study, group, ranked[0][0], [label for label, _ in ranked[1:]])
    if not rows:
        return None
    return Table(
        "comparisons",
        "The best method (by mean ACC) against every other: difference of mean ACC in points over the seeds that both "
        f"have; 95 % t interval of the paired differences of that line alone (from {statistics.MIN_FOR_INTERVAL} seeds "
        "on); p of sign flips over the seeds, adjusted for all pairs of methods of the benchmark and scenario, because "
        "the best was chosen on the same seeds (bold: 0.05 or less, and the best is ahead on the seeds of both); "
        "Cohen's d of the paired differences (mean over standard deviation). With fewer than 6 seeds p cannot be below "
        "0.05.",
        ("benchmark", "best", "other", "seeds", "difference", "95 % interval", "p (all pairs)", "d"),
        tuple(rows),
        text_columns=frozenset({0, 1, 2}),
        named_once=2,
    )


def _against(study: Study, group: Group, best: str, others: list[str]) -> list[tuple[Cell, ...]]:
    values = {label: study.values(group, label, ACC) for label in (best, *others)}
    adjusted = statistics.all_pairs(values)
    rows = []
    for other in others:
        seeds = sorted(values[best].keys() & values[other].keys())
        if not seeds:
            continue
        differences = [values[best][seed] - values[other][seed] for seed in seeds]
        interval = statistics.mean_interval(differences)
        p = float(adjusted.at[best, other])
        shown = statistics.shown(values[best], values[other], p)
        cells = (
            group.title,
            best,
            other,
            str(len(seeds)),
            percent(fmean(differences), signed=True),
            f"{percent(interval[0], signed=True)} to {percent(interval[1], signed=True)}" if interval else MISSING,
            f"{p:.3g}",
            _effect(statistics.sign_flip(differences, [0.0] * len(differences))),
        )
        rows.append(tuple(replace(cell, best=j == P and shown) for j, cell in enumerate(text_cells(cells, 1, 2))))
    return rows


def _effect(tested: statistics.Comparison) -> str:
    return effect_size(tested.effect) if tested.n > 1 else MISSING
