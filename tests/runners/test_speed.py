"""The measurement of speed measures every phase of the first, middle and last task."""

import pytest

from benchmarks.types import TIL
from runners.timing import Order, measure, rows


@pytest.mark.parametrize(("method", "phases", "has_floor"), [("finetune", 1, False), ("hyperinterval", 1, True)])
def test_rows(method, phases, has_floor):
    settings = {"hidden": [10]} if method == "hyperinterval" else {}
    found = rows(measure(Order(method, "split-digits", TIL, "cpu", 1, 2, None, None, settings)))
    assert [(row["task"], row["phase"]) for row in found] == [(t, p) for t in (0, 2, 4) for p in range(phases)]
    for row in found:
        assert row["ms_per_step"] > 0 and row["over_plain_loop"] > 0
        assert (row["over_floor"] is not None) == has_floor
    if has_floor:  # W has a row of 10 weights and no bias for each of the target's 64-100-100-2 weights
        assert found[0]["output_weights"] == 10 * (64 * 100 + 100 + 100 * 100 + 100 + 2 * 100 + 2)
