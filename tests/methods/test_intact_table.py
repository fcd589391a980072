"""InTAct: the table of drifts and ranges, and settings and networks that it does not take."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from benchmarks.types import TIL, Scenario, StreamSpec, UserError
from methods.abilities import Certifying
from methods.intact import InTAct
from tests.methods.regularised import learn_all
from tests.methods.test_intact import SCENARIOS, activations, after_one, linear_layers, made, table


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_table_measures_what_moved_and_what_is_covered(scenario: Scenario) -> None:
    method, tasks = after_one(scenario, percentiles=(0.5, 0.95))
    assert not isinstance(method, Certifying)
    old_low, old_high = [b.clone() for b in method.lower], [b.clone() for b in method.upper]
    before = [(m.weight.detach().clone(), m.bias.detach().clone()) for m in linear_layers(method)]
    learn_all(method, tasks[1:2])
    after = [(m.weight.detach(), m.bias.detach()) for m in linear_layers(method)]
    rows = table(method)
    assert [(row["task"], row["layer"]) for row in rows] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert all(row["lower"] == row["upper"] == 0 for row in rows[:2])
    inside = torch.ones(40, dtype=torch.bool)
    for i, (row, a) in enumerate(zip(rows[2:], activations(method, tasks[1].x), strict=True)):
        change, shift = (now - then for now, then in zip(after[i + 1], before[i + 1], strict=True))
        old_rows = 2 if i == 1 else len(shift)
        a_side, b_side = change.clamp(min=0), (-change).clamp(min=0)
        low = (a_side @ old_low[i] - b_side @ old_high[i] + shift)[:old_rows]
        high = (a_side @ old_high[i] - b_side @ old_low[i] + shift)[:old_rows]
        assert row["lower"] == pytest.approx(float(low.abs().max()), abs=1e-12)
        assert row["upper"] == pytest.approx(float(high.abs().max()), abs=1e-12)
        inside &= ((a >= method.lower[i]) & (a <= method.upper[i])).all(1)
        assert row["inside"] == pytest.approx(float(inside.double().mean()))
        assert row["width"] == pytest.approx(float((method.upper[i] - method.lower[i]).median()))
    assert (rows[3]["upper"] == 0) == (scenario is TIL)


def test_minimum_and_maximum_cover_all_training_samples_and_percentiles_do_not() -> None:
    for percentiles, covered in (((0.0, 1.0), True), ((0.05, 0.95), False)):
        method, tasks = made(percentiles=percentiles)
        learn_all(method, tasks)
        assert all((row["inside"] == 1) == covered for row in table(method))


@pytest.mark.parametrize(
    "options",
    [{"percentiles": (0.9, 0.1)}, {"percentiles": (-0.1, 1.0)}, {"percentiles": (0.0, 1.1)}, {"lam_variance": -1.0},
     {"lam_drift": -1.0}, {"lam_feature": -1.0}],
)  # fmt: skip
def test_settings_that_cannot_be_meant(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"intact: {next(iter(options))}"):
        InTAct.Config(**options)


def test_settings_at_the_edge_of_what_is_permitted() -> None:
    assert InTAct.Config(percentiles=(0.0, 1.0), lam_variance=0.0, lam_drift=0.0, lam_feature=0.0)
    assert InTAct.Config(percentiles=(0.5, 0.5))


def test_networks_that_are_no_chain_are_skipped_with_the_reason() -> None:
    spec = StreamSpec("images", TIL, 2, 2, (3, 32, 32), "resnet-18")
    assert "resnet-18 is none: BatchNorm2d" in (InTAct.skip(spec, InTAct.Config()) or "")
    assert "no unit lies below" in (InTAct.skip(dataclasses.replace(spec, network="mlp"), InTAct.Config()) or "")
    for network in ("mlp-5", "alexnet-hat"):
        assert InTAct.skip(dataclasses.replace(spec, network=network), InTAct.Config()) is None
