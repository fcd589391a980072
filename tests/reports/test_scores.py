"""Scores relative to finetune and joint: their mean, its interval, their profile and figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import trim_mean

from reports.front_figures import score_figure
from reports.load import load
from reports.scores import interquartile_mean, iqm_interval, probability_of_improvement, profile, scores_of
from reports.statistics import mean_interval
from reports.study import study
from reports.style import looks
from tests.reports.synthetic import Synthetic


def test_the_interquartile_mean_of_a_hand_computed_example() -> None:
    """Of 0..7 the lowest and the highest two are left out: (2 + 3 + 4 + 5) / 4; an outlier changes nothing."""
    values = np.array([[0.0, 4], [1, 5], [2, 6], [3, 700]])
    assert interquartile_mean(values) == 3.5


def test_the_bootstrap_draws_seeds_with_all_their_benchmarks() -> None:
    """Seeds agree within each benchmark, so that every resample is the sample, however far apart benchmarks are."""
    values = np.array([[0.0, 1.0]] * 4)
    assert iqm_interval(values) == (0.5, 0.5)
    assert iqm_interval(values[:2]) is None
    # The worse a seed on one benchmark, the better on the other: the seeds' means are alike.
    assert iqm_interval(np.array([[0.0, 1], [1, 0], [0.5, 0.5]])) == pytest.approx((0.5, 0.5), abs=0.05)


def test_the_interval_of_three_seeds_on_one_benchmark_is_a_t_interval() -> None:
    """None of three is trimmed, so that the IQM is the mean."""
    low, high = iqm_interval(np.array([[0.1], [0.2], [0.6]])) or (0, 0)
    expected = mean_interval([0.1, 0.2, 0.6])
    assert expected and (low, high) == pytest.approx(expected, abs=0.02)


def test_the_interval_holds_for_few_seeds() -> None:
    """Expectation of the IQM of 3 seeds on two and three benchmarks, from many samples; percentiles: 83 % or less."""
    rng = np.random.default_rng(0)
    for benchmarks in (np.array([0.3, 0.6]), np.array([0.1, 0.8, 0.9])):
        shape = (3, len(benchmarks))
        samples = benchmarks + rng.normal(0, 0.05, (4_000, *shape))
        expected = trim_mean(samples.reshape(len(samples), -1), 0.25, axis=1).mean()
        found = [interval for values in samples[:150] if (interval := iqm_interval(values))]
        assert sum(low <= expected <= high for low, high in found) >= 0.9 * 150


def test_the_probability_of_improvement_of_a_hand_computed_example() -> None:
    """First benchmark: 3 of 4 pairs are won; second: one pair is won, two are tied, one lost: 2 of 4."""
    first, second = np.array([[1.0, 5], [3, 7]]), np.array([[0.0, 5], [2, 7]])
    assert probability_of_improvement(first, second) == (3 / 4 + 2 / 4) / 2
    assert probability_of_improvement(first, first) == 0.5
    assert probability_of_improvement(np.array([[0.1 + 0.2]]), np.array([[0.3]])) == 0.5, "rounding is no win"


def test_the_profile_is_the_share_of_runs_above() -> None:
    assert profile(np.array([[0.1, 0.5], [0.5, 0.9]]), np.array([0.0, 0.5, 1.0])).tolist() == [1.0, 0.25, 0.0]


def test_scores_are_relative_to_finetune_and_joint(tmp_path: Path) -> None:
    for method, value in (("finetune", 0.4), ("joint", 0.8), ("ewc", 0.7), ("hnet", 0.9)):
        for seed in range(2):
            Synthetic(method, seed=seed, accuracy=np.full((6, 5), value)).write(tmp_path)
    scores = scores_of(study(load(tmp_path)), "til")
    assert scores and scores.values["ewc"].ravel() == pytest.approx([0.75, 0.75])
    assert scores.values["hnet"].ravel() == pytest.approx([1.25, 1.25])


@pytest.mark.parametrize(("worst", "cut"), [(0.1, True), (0.3, False)])
def test_the_front_says_where_profiles_begin_and_which_benchmarks_are_left_out(
    tmp_path: Path, worst: float, cut: bool
) -> None:
    """The lowest score is -0.75 or -0.25."""
    for benchmark, seeds in (("split-digits", 2), ("split-mnist", 2), ("permuted-digits", 1)):
        for method, value in (("finetune", 0.4), ("joint", 0.8), ("ewc", worst)):
            for seed in range(seeds):
                Synthetic(method, benchmark, seed=seed, accuracy=np.full((6, 5), value)).write(tmp_path)
    found = study(load(tmp_path))
    drawn = score_figure(found, looks(found))
    assert ("above τ (from −0.5)" in drawn.caption) is cut
    assert (
        "Permuted" not in drawn.caption and "or with other methods or numbers of seeds, are left out" in drawn.caption
    )


def test_a_method_without_every_seed_is_named_under_the_scores(tmp_path: Path) -> None:
    """HNET lacks a seed of one benchmark, EWC one of each, and LwF was not run on the second."""
    for benchmark in ("split-digits", "split-mnist"):
        for method, value in (
            ("finetune", 0.4),
            ("joint", 0.8),
            ("hnet", 0.7),
            ("ewc", 0.6),
            ("lwf", 0.5),
            ("si", 0.6),
        ):
            for seed in range(2 if (method, benchmark) != ("lwf", "split-mnist") else 0):
                lost = seed == 1 and (method == "ewc" or (method, benchmark) == ("hnet", "split-mnist"))
                r, status = np.full((6, 5), value), "diverged" if lost else "done"
                Synthetic(method, benchmark, seed=seed, accuracy=r, status=status, reason="nan").write(tmp_path)
    found = study(load(tmp_path))
    scores = scores_of(found, "til")
    assert scores and [*scores.values] == ["finetune", "si"]
    caption = score_figure(found, looks(found)).caption
    assert "left out: EWC and HNET (without a value on every seed)" in caption
    assert "and so are methods not run on all of those named" in caption


def test_no_score_without_a_range(tmp_path: Path) -> None:
    for method, value in (("finetune", 0.79), ("joint", 0.8), ("ewc", 0.7)):
        Synthetic(method, accuracy=np.full((6, 5), value)).write(tmp_path)
    assert scores_of(study(load(tmp_path)), "til") is None
