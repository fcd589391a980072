"""Spread and significance, paired over seeds and benchmarks; scikit-posthocs and scipy where they have the test.

An exact two-sided test on n paired seeds cannot give a p below 2 / 2^n, so fewer than 6 seeds are
never significant at 5 %; with `smallest_p` the report says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

ALPHA = 0.05
EXACT_UP_TO = 16
"""Largest number of pairs for which all sign flips are enumerated."""
RESAMPLES = 9_999
TOLERANCE = 1e-9
"""Tolerance relative to the sum of absolute values, so that sums that differ only by rounding count as equal."""
ALL_BOOTSTRAPS_UP_TO = 5
"""Largest sample size for which all n^n bootstrap samples are enumerated instead of drawn."""

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


def bootstrap_mean(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the mean; None for fewer than two values.

    All n^n samples for n <= 5, else 9,999 drawn with a fixed seed. Too narrow for few values: always report n with it.
    """
    if len(values) < 2:
        return None
    means = np.asarray(values, dtype=float) @ _weights(len(values))
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


@lru_cache(maxsize=64)
def _weights(n: int) -> Array:
    """Relative frequency (n, samples) of each value in each bootstrap sample."""
    if n <= ALL_BOOTSTRAPS_UP_TO:
        picks = np.array(list(product(range(n), repeat=n)))
    else:
        picks = np.random.default_rng(0).integers(n, size=(RESAMPLES, n))
    counts = (picks[:, :, None] == np.arange(n)).sum(axis=1)
    return np.ascontiguousarray(counts.T / n)


def smallest_p(n: int) -> float:
    """Smallest two-sided p that a sign-flip test on n pairs can give."""
    return min(1.0, 2.0 / 2.0**n)


def sign_flip(first: ArrayLike, second: ArrayLike) -> Comparison:
    """Two-sided permutation test of paired values (swapping the two of a pair): exact for n <= 16, else 9,999 draws."""
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"paired values needed, got shapes {a.shape} and {b.shape}")
    difference = a - b
    deviation = float(np.std(difference, ddof=1)) if len(a) > 1 else 0.0
    mean = float(difference.mean())
    effect = mean / deviation if deviation > 0 else float(np.copysign(np.inf, mean)) if mean else 0.0
    return Comparison(mean, _sign_flip_p(difference), len(a), effect)


def _sign_flip_p(difference: Array) -> float:
    if len(difference) == 1 or not difference.any():
        return 1.0
    exact = len(difference) <= EXACT_UP_TO
    signs = _signs(len(difference)) if exact else _drawn_signs(len(difference))
    sums = np.abs(signs @ difference)
    least = abs(float(difference.sum())) - TOLERANCE * np.abs(difference).sum()
    as_far = int((sums >= least).sum())
    return as_far / len(sums) if exact else (as_far + 1) / (len(sums) + 1)


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
    """Average rank of each method (column) over blocks (rows); 1 is the highest score, ties share."""
    return scores.rank(axis=1, ascending=False).mean(axis=0)


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
        return f"a test needs {MIN_BLOCKS} benchmarks and {MIN_METHODS} methods that have a value on all of them"
    return "all methods are level on every benchmark" if (scores.nunique(axis=1) == 1).all() else None


def friedman(scores: pd.DataFrame) -> RankTest:
    """Friedman's test with Nemenyi's over complete blocks. Raises ValueError for `untestable` blocks."""
    reason = untestable(scores)
    if reason:
        raise ValueError(reason)
    from scikit_posthocs import posthoc_nemenyi_friedman
    from scipy.stats import friedmanchisquare

    p = float(friedmanchisquare(*(scores[name] for name in scores)).pvalue)
    pairwise = posthoc_nemenyi_friedman(scores.to_numpy())
    pairwise.index = pairwise.columns = scores.columns
    return RankTest(mean_ranks(scores), p, len(scores), pairwise)
