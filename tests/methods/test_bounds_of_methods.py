"""What methods with boxes say of them: bounds for inputs of any sign, width, drift; and which parameters tie."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmarks.types import DIL, TIL, Scenario
from methods.hypernetworks.candidates import OfficialRule
from methods.intervals.bounding import Interval, contains
from methods.shared.archive import Archive
from tests.methods.helpers import learn, made, opened


@pytest.mark.parametrize("scenario", [TIL, DIL])
def test_a_claim_of_hyperinterval_tells_the_width_of_its_box_and_the_drift_of_either_side(scenario: Scenario) -> None:
    stream = opened(scenario)
    method: Any = made("hyperinterval", stream)
    learn(method, stream, range(2))
    claims = method.audit()
    with torch.no_grad():
        radii = [method.weights(claim.task)[1][0] for claim in claims]
    for claim, radius in zip(claims, radii, strict=True):
        assert claim.median_width == pytest.approx(2 * float(radius.median())) and claim.median_width > 0
    kept = [box.clone() for box in method.audit_boxes]
    for side in range(2):
        moved = [box.clone() for box in kept]
        moved[0][side][0] += 8.0
        method.audit_boxes = Archive(moved)
        assert method.audit()[0].drift == pytest.approx(8, abs=1)


@pytest.mark.parametrize("name", ["hyperinterval", "intercontinet"])
def test_bounds_hold_for_inputs_of_both_signs(name: str) -> None:
    stream = opened(DIL)
    stream.spec = replace(stream.spec, nonnegative_inputs=False)
    method: Any = made(name, stream)
    learn(method, stream, range(1))
    method.tasks_seen = 1
    x = 8 * (stream.test(0).x - 0.5)
    assert x.min() < -1 and x.max() > 1
    with torch.no_grad():
        lower, upper = method.bounds(x, 0)
        torch.manual_seed(0)
        for _ in range(50):
            assert contains(Interval(lower - 1e-4, upper + 1e-4), method.sampled(x, 0)).all()


def test_the_official_rule_keeps_the_earlier_of_equals() -> None:
    rule, weights = OfficialRule.__new__(OfficialRule), torch.zeros(1)
    rule.tensors, rule.best, rule.kept, rule.i = [weights], 0.0, [], 0
    for step, score in enumerate((0.0, 0.5, 0.5), start=1):
        rule.score = score
        weights.fill_(step)
        rule.after_step()
    assert rule.kept[0].tolist() == [2.0]
