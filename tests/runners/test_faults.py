"""Faults, injected: the quick ones once each; all of them, as often as the table says, by -m slow."""

from __future__ import annotations

import pytest

from tests.runners import faults
from tests.runners.faults import AWAY, HERE, ONCE, Count, Fault, Whole, inflict


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Whole:
    return faults.undisturbed(tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.parametrize("fault", ONCE, ids=lambda fault: fault.name)
def test_nothing_is_lost_after_a_fault(fault: Fault, whole: Whole):
    assert inflict(fault, 1, whole) == Count(lost=0, corrupted=0)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [*HERE, *AWAY], ids=lambda fault: fault.name)
def test_nothing_is_lost_however_often(fault: Fault, whole: Whole):
    assert inflict(fault, fault.times, whole, seed=1) == Count(lost=0, corrupted=0)


def test_the_count_notices_what_is_missing_and_what_differs(tmp_path, whole):
    faults.undisturbed(tmp_path)
    records = sorted(tmp_path.rglob("cell.json"))
    records[0].unlink()
    table = records[1].with_name("accuracy.csv")
    table.write_text(table.read_text().replace("1", "2"))
    assert faults.compared(tmp_path, whole) == Count(lost=1, corrupted=1)
