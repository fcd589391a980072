"""Every check of the conformance suite can fail, and passes where nothing is wrong."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.types import CIL, TIL
from methods import registry
from methods.base import Claim
from methods.intervals.interval import Interval
from runners.conformance import CHECKS, FIELDS, Trial, conduct, conform
from runners.conformance.rounding import UNITS, Magnitude
from tests.runners.broken import BROKEN, KeepsACopy, Sound


def test_nothing_is_found_in_a_sound_method() -> None:
    assert not conform(Sound)


def test_declared_samples_may_be_kept() -> None:
    assert not {finding.check for finding in conform(KeepsACopy, [TIL])} & {"runs", "memory"}


@pytest.mark.parametrize(("check", "cls", "scenario"), BROKEN, ids=lambda part: getattr(part, "__name__", str(part)))
def test_a_broken_method_is_found_out(check: str, cls: type, scenario: str) -> None:
    found = conform(cls, [scenario], with_fields=check == "fields")
    assert check in {finding.check for finding in found}
    assert all(len(str(finding)) > 60 and str(finding).endswith(".") for finding in found)


def test_there_is_a_broken_method_for_every_check() -> None:
    assert {check for check, *_ in BROKEN} == {check.name for check in (*CHECKS, FIELDS)} | {"runs"}


def test_what_has_crashed_is_not_judged_further() -> None:
    crashing = next(cls for check, cls, _ in BROKEN if check == "runs")
    (only,) = conform(crashing, [TIL])
    assert "learn, on task 0, raises RuntimeError: not written yet (broken.py, line" in str(only)


class Stated(Sound):
    """Answers are those of `logits`; the bounds lie `short` of them."""

    logits, short = (0.0, 0.0), (0.0, 0.0)

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        return torch.tensor(self.logits).repeat(len(x), self.spec.classes_per_task // 2)

    def sampled(self, x: Tensor, task_id: int | None = None) -> Tensor:
        return self.predict(x, task_id)

    def bounds(self, x: Tensor, task_id: int | None = None) -> tuple[Tensor, Tensor]:
        low = self.predict(x, task_id).double() + torch.tensor(self.short, dtype=torch.float64)
        return low, low + 1e5

    def audit(self) -> list[Claim]:
        return [Claim(j, True, 0, 0.0, 0.1) for j in range(self.tasks_seen)]


@pytest.mark.parametrize(
    ("short", "wrong"),
    [((0.0, 4.5e-4), False), ((5e-6, 0.0), False), ((1e-3, 0.0), True), ((0.0, 1.0), True), ((0.0, math.nan), True)],
)
def test_each_answer_may_lie_outside_by_the_rounding_of_its_own_size(short: tuple[float, float], wrong: bool) -> None:
    """-1e4 is exact to 5e-4 in float32; -1 in the same row to 6e-8."""
    cls = type("Here", (Stated,), {"logits": (-1.0, -1e4), "short": short})
    assert bool(list(conduct._bounds(Trial(cls, TIL)))) is wrong


class Settled(Stated):
    """Bounds are those of the latest task, or of the first one for good."""

    follows, claimed = True, True

    def bounds(self, x: Tensor, task_id: int | None = None) -> tuple[Tensor, Tensor]:
        low = self.predict(x, task_id) - (self.tasks_seen if self.follows else 1)
        return low, low + 1e5

    def unchanged(self, task_id: int) -> bool:
        return self.claimed


@pytest.mark.parametrize(
    ("follows", "claimed", "wrong"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_bounds_that_are_called_unchanged_must_be(follows: bool, claimed: bool, wrong: bool) -> None:
    cls = type("Here", (Settled,), {"follows": follows, "claimed": claimed})
    assert bool(list(conduct._bounds(Trial(cls, TIL)))) is wrong


def test_rounding_is_that_of_the_terms_where_they_cancel() -> None:
    weight, x = torch.tensor([[3e3, 4e3]]), torch.tensor([[5.0, -3.75]])
    for layer in (lambda: nn.functional.linear(x, weight), lambda: x @ weight.T):
        with Magnitude() as magnitude:
            answer = layer()
        assert answer.item() == 0 and magnitude.largest == 3e4
        assert magnitude.slack(answer).item() == UNITS * 2.0**-23 * 3e4
    with Magnitude() as magnitude:
        nn.functional.conv1d(x[:, None], weight[:, None], bias=torch.tensor([-7.0]))
    assert magnitude.largest == 3e4 + 7


def test_bounds_of_a_box_that_is_a_little_too_small_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Class-incremental answers mix log-probabilities with numbers near -1e4."""
    trial = Trial(registry.load("hyperinterval"), CIL, settings={"hidden": "20"})
    assert not list(conduct._bounds(trial))
    method, target = trial.run.method, trial.run.method.target
    whole = target.bounds

    def shrunk(lower: Tensor, upper: Tensor, *more: Any, **named: Any) -> Interval:
        middle = (lower + upper) / 2
        return whole(torch.lerp(lower, middle, 0.9), torch.lerp(upper, middle, 0.9), *more, **named)

    monkeypatch.setattr(target, "bounds", shrunk)
    assert list(conduct._bounds(trial)), method
