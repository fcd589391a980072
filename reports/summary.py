"""summary.csv: every mean with its spread, confidence interval and n, one per line."""

from __future__ import annotations

from statistics import fmean

import pandas as pd

from reports import keeping, statistics
from reports.study import METRICS, Study

COLUMNS = (
    "benchmark",
    "scenario",
    "method",
    "metric",
    "mean",
    "std",
    "n",
    "seeds_run",
    "ci95_low",
    "ci95_high",
    "keeps",
    "reason",
)


def summary(study: Study) -> pd.DataFrame:
    """Table in percent. std: sample standard deviation; ci95: t interval of the mean, from 3 seeds on.

    Without a value, n is 0 and `reason` says why.
    """
    lines = []
    for group in study.groups:
        for label in study.rows(group):
            entries = study.at(group, label)
            kept = keeping.in_words(entry.record for entry in entries)
            for metric in METRICS:
                values = list(study.values(group, label, metric).values())
                low, high = statistics.mean_interval(values) or (None, None)
                reasons = dict.fromkeys(e.measures[metric.key].reason for e in entries)
                lines.append(
                    (
                        group.benchmark,
                        group.scenario,
                        label,
                        metric.key,
                        _percent(fmean(values) if values else None),
                        _percent(statistics.spread(values)),
                        len(values),
                        len(entries),
                        _percent(low),
                        _percent(high),
                        kept,
                        "; ".join(reason for reason in reasons if reason),
                    )
                )
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction
