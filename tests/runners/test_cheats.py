"""Cheats that the conformance suite finds, and the fields by which the record of a cell shows them."""

import pytest

from benchmarks.types import CIL, TIL
from runners.conformance import Trial, conduct, conform
from tests.runners.cheats import DETECTED, KnewBefore, Prototypes


@pytest.mark.parametrize(("check", "cls"), DETECTED, ids=lambda part: getattr(part, "__name__", str(part)))
def test_a_cheat_is_found(check: str, cls: type) -> None:
    assert check in {
        finding.check for finding in conform(cls, [CIL if check == "independence" else TIL], with_fields=False)
    }


def test_labels_that_were_known_before_are_found_by_the_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(KnewBefore, TIL)
    table = KnewBefore(trial.stream.spec, KnewBefore.Config()).known(trial.stream.test(0).x)
    monkeypatch.setattr("tests.runners.cheats.KNOWN", table)
    (said,) = conduct._test_data(trial)
    assert said == "before any training it is right for 100% of the test samples, as if it knew their labels"


def test_class_means_are_not_kept_images() -> None:
    assert not conform(Prototypes, [TIL], with_fields=False)
