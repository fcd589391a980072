"""Cheats that the conformance suite finds, and the fields by which the record of a cell shows them."""

import pytest

from benchmarks.types import CIL, TIL
from runners.conformance import conform
from tests.runners.cheats import DETECTED, Prototypes


@pytest.mark.parametrize(("check", "cls"), DETECTED, ids=lambda part: getattr(part, "__name__", str(part)))
def test_a_cheat_is_found(check: str, cls: type) -> None:
    assert check in {
        finding.check for finding in conform(cls, [CIL if check == "independence" else TIL], with_fields=False)
    }


def test_class_means_are_not_kept_images() -> None:
    assert not conform(Prototypes, [TIL], with_fields=False)
