"""Comparison of the best method of each benchmark with every other: difference, significance, effect size."""

from __future__ import annotations

from statistics import fmean

from reports import statistics
from reports.findings import means
from reports.metrics import ACC
from reports.study import Group, Study
from reports.tables import MISSING, Cell, Table, percent


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
        "have, with the 95 % bootstrap interval of the paired differences; p of the exact sign-flip test paired over "
        "seeds, alone and after Holm over the lines of one benchmark and scenario; Cohen's d of the paired "
        "differences (mean over standard deviation). With fewer than 6 seeds p cannot be below 0.05.",
        ("benchmark", "best", "other", "seeds", "difference", "95 % interval", "p", "p (Holm)", "d"),
        tuple(rows),
        text_columns=frozenset({0, 1, 2}),
        named_once=2,
    )


def _against(study: Study, group: Group, best: str, others: list[str]) -> list[tuple[Cell, ...]]:
    top = study.values(group, best, ACC)
    found = []
    for other in others:
        values = study.values(group, other, ACC)
        seeds = sorted(top.keys() & values.keys())
        if seeds:
            differences = [top[seed] - values[seed] for seed in seeds]
            tested = statistics.sign_flip([top[seed] for seed in seeds], [values[seed] for seed in seeds])
            found.append((other, differences, tested))
    adjusted = statistics.holm([tested.p for _, _, tested in found])
    rows = []
    for (other, differences, tested), p in zip(found, adjusted, strict=True):
        interval = statistics.bootstrap_mean(differences)
        cells = (
            group.title,
            best,
            other,
            str(tested.n),
            percent(fmean(differences), signed=True),
            f"{percent(interval[0], signed=True)} to {percent(interval[1], signed=True)}" if interval else MISSING,
            f"{tested.p:.3g}",
            f"{p:.3g}",
            _effect(tested),
        )
        rows.append(tuple(Cell(text, best=j == 7 and p <= statistics.ALPHA) for j, text in enumerate(cells)))
    return rows


def _effect(tested: statistics.Comparison) -> str:
    if tested.n < 2:
        return MISSING
    return f"{tested.effect:.1f}".replace("inf", "∞").replace("-", "−")
