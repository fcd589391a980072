"""The measurement of speed measures every phase of the first, middle and last task."""

import pytest
import torch

from benchmarks.types import CIL, TIL, UserError
from runners import official, speed
from runners.timing import Order, measure, opened, rows


@pytest.mark.parametrize(("method", "phases", "has_floor"), [("finetune", 1, False), ("hyperinterval", 1, True)])
def test_rows(method, phases, has_floor):
    settings = {"hidden": [10]} if method == "hyperinterval" else {}
    found = rows(measure(Order(method, "split-digits", TIL, "cpu", 1, 2, None, None, settings)))
    assert [(row["task"], row["phase"]) for row in found] == [(t, p) for t in (0, 2, 4) for p in range(phases)]
    for row in found:
        assert row["ms_per_step"] > 0 and row["over_plain_loop"] > 0
        assert (row["over_floor"] is not None) == has_floor
        assert row["over_same_by_hand"] is None
    if has_floor:  # W has a row of 10 weights and no bias for each of the target's 64-100-100-2 weights
        assert found[0]["output_weights"] == 10 * (64 * 100 + 100 + 100 * 100 + 100 + 2 * 100 + 2)


def test_ewc_has_a_loop_of_its_own_kind_to_be_compared_with():
    """It has a penalty for each old task and each parameter, so it costs more than finetuning's loop."""
    found = rows(measure(Order("ewc", "split-digits", TIL, "cpu", 1, 1, None, None, seen=(0, 9))))
    first, last = (row["over_same_by_hand"] / row["over_plain_loop"] for row in found)
    assert 0 < last < first


def test_a_split_benchmark_is_lengthened_for_timing():
    """Split Digits has 5 tasks; the eighth has the third's samples, under its own index."""
    order = Order("finetune", "split-digits", TIL, "cpu", 1, 1, None, None, seen=(0, 7))
    stream = opened(order)
    assert len(stream) == stream.spec.n_tasks == 8
    eighth, third = stream.task(7, previous=True), opened(order).task(2)
    assert (eighth.index, eighth.train.batch(slice(2)).task, len(eighth.previous)) == (7, 7, 7)
    assert torch.equal(eighth.x, third.x) and torch.equal(eighth.y, third.y)
    with pytest.raises(UserError, match="only split benchmarks in til and dil"):
        opened(Order("finetune", "split-digits", CIL, "cpu", 1, 1, None, None, seen=(7,)))


def test_steps_after_a_chosen_number_of_tasks():
    found = rows(measure(Order("finetune", "split-digits", TIL, "cpu", 1, 2, None, None, seen=(1, 6))))
    assert [row["task"] for row in found] == [1, 6]
    assert all(row["cpu_ms_per_step"] > 0 and row["growth"] is None for row in found)


def test_ours_is_compared_with_the_official_step_of_the_same_task():
    def row(method, task, ms):
        return {"benchmark": "b", "scenario": "til", "method": method, "task": task, "ms_per_step": ms}

    found = [row("hyperinterval", 0, 10.0), row("hyperinterval", 4, 20.0), row("hyperinterval (official)", 4, 300.0)]
    speed._compare(found)
    assert [entry["times_faster"] for entry in found] == [None, 15.0, None]


def test_a_folder_that_is_no_checkout_is_named(tmp_path):
    order = Order("hyperinterval", "split-digits", TIL, "cpu", 1, 1, None, None, official=tmp_path)
    with pytest.raises(UserError, match="no checkout"):
        official._imported(order)
