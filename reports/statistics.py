"""Spread and significance, paired over seeds and benchmarks; scikit-posthocs and scipy where they have the test.

Intervals are Student's. An exact two-sided test on n paired seeds cannot give a p below 2 / 2^n, so fewer than 6 seeds
are never significant at 5 %; with `smallest_p` the report says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

ALPHA = 0.05
EXACT_UP_TO = 16
"""Largest number of pairs for which all sign flips are enumerated."""
RESAMPLES = 9_999
TOLERANCE = 1e-9
"""Tolerance relative to the sum of absolute values, so that sums that differ only by rounding count as equal."""
NOISE = 1e-9
"""Size of a difference of two shares that is rounding: far less than one sample of any benchmark."""
MIN_FOR_INTERVAL = 3
"""Smallest sample that gets an interval."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """Comparison of two methods on one benchmark, paired over `n` seeds; difference = mean of first - second."""

    difference: float
    p: float
    n: int
    effect: float
    """Cohen's d_z: mean over standard deviation of the paired differences (inf if they do not vary)."""


def spread(values: Sequence[float]) -> float | None:
    """Sample standard deviation (n - 1); None for fewer than two values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Interval of the mean by Student's t distribution; None for fewer than MIN_FOR_INTERVAL values.

    A percentile bootstrap of three values covers the mean in 69 % of the cases instead of 95.
    """
    if len(values) < MIN_FOR_INTERVAL:
        return None
    deviation = spread(values) or 0.0
    return _around(float(np.mean(values)), deviation / len(values) ** 0.5, len(values) - 1, confidence)


@dataclass(frozen=True)
class Moments:
    """Mean, sample standard deviation and number of a sample, as papers print them."""

    mean: float
    deviation: float
    n: int


def difference_interval(first: Moments, second: Moments, confidence: float = 0.95) -> tuple[float, float] | None:
    """Interval of mean(first) - mean(second) of independent samples (Welch 1947); None if either is too small."""
    if min(first.n, second.n) < MIN_FOR_INTERVAL:
        return None
    parts = [sample.deviation**2 / sample.n for sample in (first, second)]
    error = sum(parts) ** 0.5
    each = sum(part**2 / (sample.n - 1) for part, sample in zip(parts, (first, second), strict=True))
    freedom = sum(parts) ** 2 / each if each > 0 else 1.0
    return _around(first.mean - second.mean, error, freedom, confidence)


def _around(middle: float, error: float, freedom: float, confidence: float) -> tuple[float, float]:
    from scipy.special import stdtrit

    half = float(stdtrit(freedom, (1 + confidence) / 2)) * error
    return middle - half, middle + half


def smallest_p(n: int) -> float:
    """Smallest two-sided p that a sign-flip test on n pairs can give."""
    return min(1.0, 2.0 / 2.0**n)


def sign_flip(first: ArrayLike, second: ArrayLike) -> Comparison:
    """Two-sided permutation test of paired values (swapping the two of a pair): exact for n <= 16, else 9,999 draws."""
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"paired values needed, got shapes {a.shape} and {b.shape}")
    difference = _without_noise(a - b)
    deviation = float(np.std(difference, ddof=1)) if len(a) > 1 else 0.0
    mean = float(difference.mean())
    effect = mean / deviation if deviation > NOISE else float(np.copysign(np.inf, mean)) if mean else 0.0
    return Comparison(mean, _sign_flip_p(difference), len(a), effect)


def shown(first: Mapping[int, float], second: Mapping[int, float], p: float) -> bool:
    """True if a p of at most ALPHA shows that the first is higher. first, second: values by seed.

    The test is two-sided and of common seeds only, whose mean difference may have another sign than that of all seeds.
    """
    difference = common_difference(first, second)
    return p <= ALPHA and difference is not None and difference > NOISE


def common_difference(first: Mapping[int, float], second: Mapping[int, float]) -> float | None:
    """Mean of first - second over the seeds that both have; None without such seeds."""
    differences = [first[seed] - second[seed] for seed in first.keys() & second.keys()]
    return float(np.mean(differences)) if differences else None


def _without_noise(differences: Array) -> Array:
    return np.where(np.abs(differences) < NOISE, 0.0, differences)


def _sign_flip_p(difference: Array) -> float:
    if len(difference) == 1 or not difference.any():
        return 1.0
    signs = _all_or_drawn(len(difference))
    sums = np.abs(signs @ difference)
    least = abs(float(difference.sum())) - TOLERANCE * np.abs(difference).sum()
    return float(_share((sums >= least).sum(), len(difference)))


def _all_or_drawn(n: int) -> Array:
    return _signs(n) if n <= EXACT_UP_TO else _drawn_signs(n)


def _share(as_far: Any, n: int) -> Any:
    """Turn numbers of sign vectors of length n into p values; the observed signs count as one of those drawn."""
    total = len(_all_or_drawn(n))
    return as_far / total if n <= EXACT_UP_TO else (as_far + 1) / (total + 1)


def all_pairs(values: Mapping[str, Mapping[int, float]]) -> pd.DataFrame:
    """Adjusted two-sided p of every pair of methods, paired over seeds. values: of each method, by seed.

    The signs of a seed's differences are flipped for all pairs together. The largest standardised sum over the pairs
    not yet rejected is the reference (step-down maximum, Romano & Wolf 2005), so that the chance of any false
    difference among all pairs is at most alpha, and a pair may be chosen after a look at the data, such as the best
    against the second. Assumes that the differences of equal methods are symmetric about 0. A pair with n common seeds
    cannot have a p below `smallest_p(n)`.
    """
    names, frame = list(values), pd.DataFrame(values, dtype=float)
    left, right = np.triu_indices(len(names), 1)
    table = frame[names].to_numpy()
    differences = _without_noise(np.nan_to_num(table[:, left] - table[:, right], nan=0.0))
    adjusted = np.ones((len(names), len(names)))
    if len(left) and len(table) > 1:
        adjusted[left, right] = adjusted[right, left] = _step_down(differences)
    return pd.DataFrame(adjusted, index=names, columns=names)


def _step_down(differences: Array) -> Array:
    """Adjusted p (pairs,) of the sums over seeds of differences (seeds, pairs)."""
    size = np.linalg.norm(differences, axis=0)
    scaled = differences / np.where(size > 0, size, 1.0)
    observed = np.abs(scaled.sum(axis=0))
    order = np.argsort(-observed, kind="stable")
    flipped = np.abs(_all_or_drawn(len(differences)) @ scaled[:, order])
    largest = np.maximum.accumulate(flipped[:, ::-1], axis=1)[:, ::-1]
    p = _share((largest >= observed[order] - TOLERANCE).sum(axis=0), len(differences))
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(p)
    return adjusted


@lru_cache(maxsize=4)
def _drawn_signs(n: int) -> Array:
    """Signs (9,999, n) drawn with a fixed seed."""
    return np.random.default_rng(0).choice((-1.0, 1.0), size=(RESAMPLES, n))


@lru_cache(maxsize=EXACT_UP_TO)
def _signs(n: int) -> Array:
    """All signs (2^(n-1), n) up to a common one, which changes no absolute sum."""
    bits = (np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1
    return 1.0 - 2.0 * bits


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment, in the given order."""
    order = np.argsort(p_values, kind="stable")
    adjusted, highest = np.empty(len(p_values)), 0.0
    for place, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = highest
    return adjusted.tolist()


def mean_ranks(scores: pd.DataFrame) -> pd.Series:
    """Average rank of each method (column) over blocks (rows); 1 is the highest score, ties up to rounding share."""
    return _levels(scores).rank(axis=1, ascending=False).mean(axis=0)


def _levels(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores of each block as 0, 1, ... from the lowest up: those that only rounding tells apart are on one level."""
    rows = []
    for row in scores.to_numpy(dtype=float):
        ordered = np.sort(row[~np.isnan(row)])
        steps = ordered[1:][np.diff(ordered) >= NOISE]
        rows.append(np.where(np.isnan(row), np.nan, np.searchsorted(steps, row, side="right")))
    return pd.DataFrame(rows, index=scores.index, columns=scores.columns)


@dataclass(frozen=True)
class RankTest:
    """Test of methods over blocks: Friedman's p, and Nemenyi's p for each pair."""

    ranks: pd.Series
    p: float
    blocks: int
    pairwise: pd.DataFrame


MIN_BLOCKS, MIN_METHODS = 3, 3


def untestable(scores: pd.DataFrame) -> str | None:
    """Reason why `friedman` cannot test these blocks (rows: benchmarks, columns: methods), or None if it can."""
    blocks, methods = scores.shape
    if scores.isna().any(axis=None):
        raise ValueError("the blocks must be complete")
    if methods < MIN_METHODS or blocks < MIN_BLOCKS:
        return f"a test needs {MIN_BLOCKS} benchmarks and {MIN_METHODS} methods with a value on every seed of all"
    return "all methods are level on every benchmark" if (_levels(scores) == 0).all(axis=None) else None


def friedman(scores: pd.DataFrame) -> RankTest:
    """Friedman's test with Nemenyi's over complete blocks. Raises ValueError for `untestable` blocks."""
    reason = untestable(scores)
    if reason:
        raise ValueError(reason)
    from scikit_posthocs import posthoc_nemenyi_friedman
    from scipy.stats import friedmanchisquare

    levels = _levels(scores)
    p = float(friedmanchisquare(*(levels[name] for name in levels)).pvalue)
    pairwise = posthoc_nemenyi_friedman(levels.to_numpy())
    pairwise.index = pairwise.columns = scores.columns
    return RankTest(mean_ranks(scores), p, len(scores), pairwise)
