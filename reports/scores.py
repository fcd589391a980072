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
from reports.statistics import MIN_FOR_INTERVAL, NOISE
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
    """Scores on the comparable benchmarks of a scenario; None without two methods or a benchmark with a range.

    They are those of the methods with a value on every seed; `tables.lost` has the words on the others.
    """
    groups, labels = study.comparable(scenario)
    ends = {group: found for group in groups if (found := _ends(study, group))}
    if not ends:
        return None
    values = {
        label: np.column_stack([_column(study, group, label, *found) for group, found in ends.items()])
        for label in study.in_full(ends, labels, ACC)
    }
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
    """Interval of the IQM by Student's t distribution with the bootstrap's standard error; None below 3 seeds.

    Seeds are drawn with all their benchmarks, on which they may agree. A resample of n seeds varies by (n - 1) / n too
    little. Percentiles of the resamples cover the IQM of 3 seeds on two benchmarks in 83 % of the cases instead of 95.
    """
    from scipy.special import stdtrit
    from scipy.stats import trim_mean

    seeds = len(values)
    if seeds < MIN_FOR_INTERVAL:
        return None
    drawn = np.random.default_rng(0).integers(0, seeds, (RESAMPLES, seeds))
    error = float(np.std(trim_mean(values[drawn].reshape(RESAMPLES, -1), 0.25, axis=1))) * (seeds / (seeds - 1)) ** 0.5
    middle, half = interquartile_mean(values), float(stdtrit(seeds - 1, (1 + confidence) / 2)) * error
    return middle - half, middle + half


def probability_of_improvement(first: Array, second: Array) -> float:
    """Probability that a run of the first has a higher score than one of the second; ties count half.

    The mean over benchmarks of the Mann-Whitney statistic over the number of pairs.
    """
    differences = first[:, None, :] - second[None, :, :]
    won = (differences > NOISE).sum(axis=(0, 1)) + 0.5 * (np.abs(differences) <= NOISE).sum(axis=(0, 1))
    return float(np.mean(won / (len(first) * len(second))))


def profile(values: Array, at: Array) -> Array:
    """Share of runs (all benchmarks) with a score above each of `at`."""
    return (values.reshape(-1)[None, :] > at[:, None]).mean(axis=1)
