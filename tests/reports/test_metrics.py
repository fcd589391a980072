"""Metrics: a worked example by hand, and the identities that hold for every matrix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from reports import metrics
from reports.metrics import Matrix

NAN = float("nan")
# Rows after 0..5 tasks; other libraries' "forgetting" of this very matrix is 14, 17, 19.75 or 24.
EXAMPLE = (
    np.array(
        [
            [NAN, NAN, NAN, NAN, NAN],
            [90, NAN, NAN, NAN, NAN],
            [85, 80, NAN, NAN, NAN],
            [88, 92, 91, NAN, NAN],
            [60, 55, 80, 93, NAN],
            [95, 50, 60, 70, 90],
        ]
    )
    / 100
)


@st.composite
def matrices(draw: st.DrawFn, least: int = 2) -> Matrix:
    tasks = draw(st.integers(least, 7))
    return draw(arrays(float, (tasks + 1, tasks), elements=st.floats(0, 1)))


def test_worked_example() -> None:
    assert metrics.acc(EXAMPLE).value == pytest.approx(0.73)
    assert metrics.bwt(EXAMPLE).value == pytest.approx(-0.1975)
    assert metrics.forgetting(EXAMPLE).value == pytest.approx(0.2275)
    assert metrics.learning_accuracy(EXAMPLE).value == pytest.approx((90 + 80 + 91 + 93 + 90) / 500)
    first = [90, (85 + 80) / 2, (88 + 92 + 91) / 3, (60 + 55 + 80 + 93) / 4, 73]
    assert metrics.average_incremental_accuracy(EXAMPLE).value == pytest.approx(np.mean(first) / 100)
    assert metrics.accuracy_so_far(EXAMPLE) == pytest.approx(np.array(first) / 100)


def test_forward_transfer_compares_the_next_task_with_the_untrained_network() -> None:
    r = np.array([[0.5, 0.4, 0.3], [0.9, 0.6, NAN], [0.8, 0.9, 0.7], [0.7, 0.8, 0.9]])
    assert metrics.fwt(r, "til").value == pytest.approx(((0.6 - 0.4) + (0.7 - 0.3)) / 2)
    cil = metrics.fwt(r, "cil")
    assert cil.value is None
    assert "CIL" in cil.reason


@given(matrices())
def test_acc_is_la_plus_weighted_bwt(r: Matrix) -> None:
    tasks = r.shape[1]
    acc, la, bwt = (f(r).value for f in (metrics.acc, metrics.learning_accuracy, metrics.bwt))
    assert acc is not None and la is not None and bwt is not None
    assert acc == pytest.approx(la + (tasks - 1) / tasks * bwt, abs=1e-12)


@given(matrices())
def test_forgetting_is_at_least_minus_bwt(r: Matrix) -> None:
    forgetting, bwt = metrics.forgetting(r).value, metrics.bwt(r).value
    assert forgetting is not None and bwt is not None
    assert forgetting >= -bwt - 1e-12


@given(matrices())
def test_forgetting_is_minus_bwt_where_every_column_peaks_on_the_diagonal(r: Matrix) -> None:
    for task in range(r.shape[1]):
        r[task + 1, task] = 1.0
    assert metrics.forgetting(r).value == pytest.approx(-(metrics.bwt(r).value or 0.0), abs=1e-12)


@given(matrices(), st.floats(-0.5, 0.5))
def test_differences_ignore_a_shift_and_means_follow_it(r: Matrix, shift: float) -> None:
    for metric in (metrics.bwt, metrics.forgetting, lambda m: metrics.fwt(m, "dil")):
        assert metric(r + shift).value == pytest.approx(metric(r).value, abs=1e-12)
    for metric in (metrics.acc, metrics.learning_accuracy, metrics.average_incremental_accuracy):
        assert metric(r + shift).value == pytest.approx((metric(r).value or 0.0) + shift, abs=1e-12)


@given(matrices(), matrices())
def test_intransigence_is_the_gap_in_learning_accuracy(r: Matrix, reference: Matrix) -> None:
    found = metrics.intransigence(r, reference)
    if r.shape != reference.shape:
        assert found.value is None and "number of tasks" in found.reason
        return
    la, best = metrics.learning_accuracy(r).value, metrics.learning_accuracy(reference).value
    assert found.value == pytest.approx((best or 0.0) - (la or 0.0), abs=1e-12)


@given(st.floats(0, 1), st.floats(0, 1))
def test_one_task_has_no_transfer_and_says_so(before: float, after: float) -> None:
    r = np.array([[before], [after]])
    assert metrics.acc(r).value == metrics.learning_accuracy(r).value == after
    for measure in (metrics.bwt(r), metrics.forgetting(r), metrics.fwt(r, "til")):
        assert measure.value is None
        assert measure.reason == "undefined: needs 2 tasks"


@given(matrices(least=3), st.data())
def test_a_missing_value_is_a_reason_never_zero(r: Matrix, data: st.DataObject) -> None:
    task = data.draw(st.integers(0, r.shape[1] - 2))
    r[-1, task] = NAN
    for measure in (metrics.acc(r), metrics.bwt(r), metrics.forgetting(r), metrics.average_incremental_accuracy(r)):
        assert measure.value is None
        assert "not measured" in measure.reason


@given(matrices())
def test_forgetting_so_far_ends_with_forgetting(r: Matrix) -> None:
    curve = metrics.forgetting_so_far(r)
    assert len(curve) == r.shape[1] - 1
    assert curve[-1] == pytest.approx(metrics.forgetting(r).value)


def test_forgetting_so_far_by_hand() -> None:
    """After 2, 3, 4 and 5 tasks: the best so far less the present one, mean over the tasks learnt before."""
    wanted = [5 / 1, (2 - 12) / 2, (30 + 37 + 11) / 3, (-5 + 42 + 31 + 23) / 4]
    assert metrics.forgetting_so_far(EXAMPLE) == pytest.approx(np.array(wanted) / 100)


def test_without_a_joint_run_intransigence_says_what_is_missing() -> None:
    assert "joint" in metrics.intransigence(EXAMPLE, None).reason


BETTER = {
    "acc": "last", "bwt": "last", "forgetting": "last", "fwt": "next",
    "la": "own", "aia": "own", "intransigence": "own",
}  # fmt: skip
"""The accuracies in which a run is better, where the metric must tell it from the other one."""


@pytest.mark.parametrize("metric", metrics.TABLE_METRICS, ids=lambda metric: metric.key)
def test_of_two_runs_the_one_that_is_right_more_often_is_better_by_every_metric(metric: metrics.Metric) -> None:
    worse = np.random.default_rng(0).uniform(0.3, 0.6, (5, 4))
    better, tasks = worse.copy(), np.arange(4)
    at = {"last": (-1, slice(0, 3)), "next": (tasks[1:], tasks[1:]), "own": (tasks + 1, tasks)}[BETTER[metric.key]]
    better[at] += 0.1

    def value(r: Matrix) -> float:
        measures = {
            "acc": metrics.acc(r), "bwt": metrics.bwt(r), "forgetting": metrics.forgetting(r),
            "fwt": metrics.fwt(r, "til"), "la": metrics.learning_accuracy(r),
            "aia": metrics.average_incremental_accuracy(r), "intransigence": metrics.intransigence(r, np.ones_like(r)),
        }  # fmt: skip
        found = measures[metric.key].value
        assert found is not None
        return found

    assert (value(better) > value(worse)) is metric.higher_is_better and value(better) != value(worse)


def test_shares_of_right_or_certain_answers_are_better_high() -> None:
    assert metrics.CERTIFIED.higher_is_better and metrics.INFERENCE.higher_is_better


def test_names_of_metrics_are_those_of_their_field() -> None:
    """`key` is a column of a CSV, `short` and `title` stand in tables, the source says who defined it."""
    named = {(m.key, m.short, m.title) for m in (*metrics.TABLE_METRICS, metrics.CERTIFIED, metrics.INFERENCE)}
    assert named == {
        ("acc", "ACC", "average accuracy"),
        ("bwt", "BWT", "backward transfer"),
        ("forgetting", "F", "forgetting"),
        ("fwt", "FWT", "forward transfer"),
        ("la", "LA", "learning accuracy"),
        ("aia", "AIA", "average incremental accuracy"),
        ("intransigence", "I", "intransigence"),
        ("certified", "certified ACC", "certified accuracy at the end"),
        ("inference", "task inf.", "task-inference accuracy"),
    }
