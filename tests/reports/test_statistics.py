"""Statistics against values worked out by hand, scipy and statsmodels."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import friedmanchisquare, permutation_test, ttest_1samp
from statsmodels.stats.multitest import multipletests

from reports import statistics

VALUES = st.lists(st.floats(-1, 1).map(lambda x: round(x, 3)), min_size=2, max_size=7)


def test_three_seeds_in_one_direction_give_a_quarter() -> None:
    assert statistics.sign_flip([3, 4, 5], [1, 2, 2]).p == pytest.approx(0.25)


def test_six_seeds_in_one_direction_give_one_in_thirty_two() -> None:
    result = statistics.sign_flip([2, 3, 4, 5, 6, 7], [1, 1, 1, 1, 1, 1])
    assert result.p == pytest.approx(2 / 64) == pytest.approx(statistics.smallest_p(6))
    assert result.difference == pytest.approx(3.5)
    assert result.effect == pytest.approx(3.5 / np.std([1, 2, 3, 4, 5, 6], ddof=1))


@given(VALUES)
def test_the_sign_flip_test_goes_through_all_signs(differences: list[float]) -> None:
    flips = np.array(list(product([1, -1], repeat=len(differences)))) @ np.array(differences)
    extreme = np.abs(flips) >= abs(sum(differences)) - 1e-9
    p = statistics.sign_flip(differences, [0.0] * len(differences)).p
    assert p == pytest.approx(extreme.mean())


@given(VALUES)
def test_the_sign_flip_test_agrees_with_scipy(differences: list[float]) -> None:
    zeros = [0.0] * len(differences)
    expected = permutation_test(
        (np.array(differences), np.array(zeros)),
        lambda x, y, axis: (x - y).mean(axis=axis),
        permutation_type="samples",
        n_resamples=10**9,  # more than there are: all of them
        vectorized=True,
    )
    assert statistics.sign_flip(differences, zeros).p == pytest.approx(expected.pvalue)


def test_many_seeds_are_tested_by_drawing_signs() -> None:
    rng = np.random.default_rng(3)
    a = rng.normal(0.5, 1, 20)
    p = statistics.sign_flip(a, np.zeros(20)).p
    expected: Any = ttest_1samp(a, 0)
    assert 0.0001 <= p <= 1
    assert p == pytest.approx(expected.pvalue, abs=0.03)


def test_a_p_by_drawing_signs_counts_the_observed_ones_and_is_never_zero() -> None:
    """Of 2^40 choices of signs two are as far as all of one sign: none of 9,999 drawn is, but the observed one is."""
    assert statistics.sign_flip(np.arange(1.0, 41.0), np.zeros(40)).p == pytest.approx(1 / 10_000)


@given(VALUES)
def test_swapping_the_methods_swaps_the_sign_only(values: list[float]) -> None:
    other = [value / 2 + 0.1 for value in values]
    there, back = statistics.sign_flip(values, other), statistics.sign_flip(other, values)
    assert there.p == pytest.approx(back.p)
    assert there.difference == pytest.approx(-back.difference)


def test_level_methods_and_single_seeds_are_never_significant() -> None:
    assert statistics.sign_flip([1, 2, 3], [1, 2, 3]).p == 1.0
    assert statistics.sign_flip([5], [1]).p == 1.0


def test_no_test_below_six_seeds_can_be_significant() -> None:
    reach = [n for n in range(1, 10) if statistics.smallest_p(n) <= statistics.ALPHA]
    assert reach[0] == 6


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_agrees_with_statsmodels(p_values: list[float]) -> None:
    assert statistics.holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_the_bootstrap_of_three_values_is_exact() -> None:
    values = [1.0, 2.0, 6.0]
    means = sorted(np.mean(sample) for sample in product(values, repeat=3))
    low, high = statistics.bootstrap_mean(values) or (0, 0)
    assert (low, high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))


def test_the_bootstrap_of_many_values_is_near_the_normal_interval_and_repeatable() -> None:
    values = np.random.default_rng(1).normal(size=60).tolist()
    low, high = statistics.bootstrap_mean(values) or (0, 0)
    half = 1.96 * np.std(values, ddof=1) / np.sqrt(60)
    assert (low, high) == pytest.approx((np.mean(values) - half, np.mean(values) + half), abs=0.05)
    assert statistics.bootstrap_mean(values) == (low, high)


@given(st.permutations([0.1, 0.5, 0.7, 0.9]))
def test_the_order_of_seeds_changes_nothing(values: list[float]) -> None:
    assert statistics.spread(values) == pytest.approx(statistics.spread(sorted(values)))
    assert statistics.bootstrap_mean(values) == pytest.approx(statistics.bootstrap_mean(sorted(values)))


def test_one_value_has_no_spread() -> None:
    assert statistics.spread([0.5]) is None
    assert statistics.bootstrap_mean([0.5]) is None


SCORES = pd.DataFrame({"a": [9, 8, 9, 7], "b": [5, 6, 7, 5], "c": [1, 2, 8, 1]}, dtype=float)


def test_friedman_agrees_with_scipy_and_ranks_from_the_best() -> None:
    assert statistics.untestable(SCORES) is None
    result = statistics.friedman(SCORES)
    assert result.p == pytest.approx(friedmanchisquare(SCORES["a"], SCORES["b"], SCORES["c"]).pvalue)
    assert result.ranks.to_dict() == {"a": 1.0, "b": 2.25, "c": 2.75}
    assert list(result.pairwise.columns) == ["a", "b", "c"]


@pytest.mark.parametrize("scores", [SCORES.iloc[:2], SCORES[["a", "b"]]])
def test_too_few_blocks_or_methods_are_said(scores: pd.DataFrame) -> None:
    assert "needs 3 benchmarks and 3 methods" in str(statistics.untestable(scores))
    with pytest.raises(ValueError, match="needs 3 benchmarks"):
        statistics.friedman(scores)


def test_two_values_have_a_spread_an_interval_and_an_effect() -> None:
    """The least n at which there is one: of 1 and 3, and of differences of them."""
    assert statistics.spread([1.0, 3.0]) == pytest.approx(2**0.5)
    # Of the means 1, 2, 2, 3 of all samples of two, 2.5 % lies at 0.075 of the way from 1 to 2.
    assert statistics.bootstrap_mean([1, 3]) == pytest.approx((1.075, 2.925))
    assert statistics.sign_flip([2.0, 4.0], [1.0, 1.0]).effect == pytest.approx(2 / 2**0.5)


def test_an_effect_without_spread_has_no_end_or_is_none() -> None:
    for difference, effect in ((0.5, np.inf), (-0.5, -np.inf), (0.0, 0.0)):
        assert statistics.sign_flip([1.0 + difference] * 3, [1.0] * 3).effect == effect
        assert statistics.sign_flip([1.0 + difference], [1.0]).effect == effect
