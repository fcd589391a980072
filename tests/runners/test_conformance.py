"""Every check of the conformance suite can fail, and passes where nothing is wrong."""

import pytest

from benchmarks.types import TIL
from runners.conformance import CHECKS, FIELDS, conform
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
    assert "learn, on task 0 raises RuntimeError: not written yet" in str(only)
