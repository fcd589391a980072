"""Normalised scores over benchmarks, and the measures of Agarwal et al. (2021) on them (rliable).

The score of a run is (ACC - finetune) / (joint - finetune) with the mean ACC of the two references on the benchmark: 0
is plain sequential training, 1 the training on all tasks so far. A benchmark counts as a task of that paper, a seed as
a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from reports.metrics import ACC
from reports.study import FINETUNE, JOINT, Group, Study

RESAMPLES = 2_000
LEAST_RANGE = 0.02
"""Least difference of joint and finetune (2 points) of a benchmark with scores; below it they are noise."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Scores of one scenario: by label, an array (seeds, benchmarks)."""

    scenario: str
    groups: tuple[Group, ...]
    values: dict[str, Array]


def scores_of(study: Study, scenario: str) -> Scores | None:
    """Scores on the comparable benchmarks of a scenario; None without two methods or a benchmark with a range."""
    groups, labels = study.comparable(scenario)
    ends = {group: found for group in groups if (found := _ends(study, group))}
    values = {}
    for label in labels:
        columns = [_column(study, group, label, *found) for group, found in ends.items()]
        if columns and all(len(column) == len(columns[0]) > 0 for column in columns):
            values[label] = np.column_stack(columns)
    return Scores(scenario, tuple(ends), values) if len(values) > 1 else None


def _ends(study: Study, group: Group) -> tuple[float, float] | None:
    """Mean ACC of finetune and of joint on a group, None if either is missing or they are too close."""
    means = []
    for method in (FINETUNE, JOINT):
        entries = [e for label in study.rows(group) for e in study.done(group, label) if e.record.method == method]
        found = [value for e in entries if (value := e.measures[ACC.key].value) is not None]
        if not found:
            return None
        means.append(fmean(found))
    return (means[0], means[1]) if means[1] - means[0] >= LEAST_RANGE else None


def _column(study: Study, group: Group, label: str, low: float, high: float) -> Array:
    found = study.values(group, label, ACC)
    return np.array([(found[seed] - low) / (high - low) for seed in sorted(found)])


def interquartile_mean(values: Array) -> float:
    """Mean of the middle half of all scores (runs x benchmarks)."""
    from scipy.stats import trim_mean

    return float(trim_mean(values.ravel(), 0.25))


def iqm_interval(values: Array, confidence: float = 0.95) -> tuple[float, float] | None:
    """Percentile interval of the IQM: seeds are drawn with replacement within each benchmark; None below 3 seeds."""
    from scipy.stats import trim_mean

    seeds, benchmarks = values.shape
    if seeds < 3:
        return None
    drawn = np.random.default_rng(0).integers(0, seeds, (RESAMPLES, seeds, benchmarks))
    again = np.take_along_axis(values[None], drawn, axis=1).reshape(RESAMPLES, -1)
    low, high = np.quantile(trim_mean(again, 0.25, axis=1), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def probability_of_improvement(first: Array, second: Array) -> float:
    """Probability that a run of the first has a higher score than one of the second; ties count half.

    The mean over benchmarks of the Mann-Whitney statistic over the number of pairs.
    """
    from scipy.stats import mannwhitneyu

    pairs = len(first) * len(second)
    shares = [mannwhitneyu(first[:, j], second[:, j]).statistic / pairs for j in range(first.shape[1])]
    return float(np.mean(shares))


def profile(values: Array, at: Array) -> Array:
    """Share of runs (all benchmarks) with a score above each of `at`."""
    return (values.reshape(-1)[None, :] > at[:, None]).mean(axis=1)
