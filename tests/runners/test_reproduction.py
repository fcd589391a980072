"""Shipped numbers, got again or not: what the check of reference.py says."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from runners import reference
from runners.records import reference_records, reproduction
from runners.records.record import Status

from .helpers import cells, job, silent

RUN = CliRunner()


@pytest.fixture(scope="module")
def run_twice(tmp_path_factory):
    """The same cells run in two folders; the first is the reference."""
    from runners.cell.execution import run_cell

    folders = [tmp_path_factory.mktemp(name) for name in ("shipped", "here")]
    for results in folders:
        for cell in cells("finetune", "ewc", steps=20):
            run_cell(job(cell, results), silent)
    return folders


def known_of(results):
    return {cell.record.key: cell for cell in reference_records.collect(results)}


def _said(results, folder):
    before = {file.name: file.read_bytes() for file in folder.glob("*.json*")}
    done = RUN.invoke(reference.app, [str(results), "--check", "--out", str(folder)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert before == {file.name: file.read_bytes() for file in folder.glob("*.json*")}  # nothing was written
    return done.output.splitlines()


def test_cells_run_again_are_identical_and_taken_ones_do_not_count(run_twice, tmp_path):
    shipped, here = run_twice
    reference_records.write(reference_records.collect(shipped), tmp_path)
    (line,) = _said(here, tmp_path)
    assert line.endswith("2 of 2 cells repeated are identical")
    reference_records.unpack(tmp_path / "unpacked", tmp_path)
    assert _said(tmp_path / "unpacked", tmp_path) == [
        "taken from the reference records, not run, so that they show nothing: 2"
    ]


def test_a_cell_that_another_machine_began_at_the_same_time_was_run(run_twice):
    known = known_of(run_twice[0])
    there = [replace(cell, record=replace(cell.record, environment={"device_name": "b"})) for cell in known.values()]
    found = reproduction.check(there, known)
    assert (found.taken, found.unknown) == (0, 0) and [group.identical for group in found.groups.values()] == [2]


def test_a_change_is_measured_in_points_of_acc_and_named(run_twice):
    shipped, here = run_twice
    known = known_of(shipped)
    own = list(known_of(here).values())
    (ewc,) = (cell for cell in own if cell.record.method == "ewc")
    header, *rows, last = ewc.tables["accuracy.csv"].splitlines()
    label, *values = last.split(",")
    values[0] = str(float(values[0]) - 0.1)
    changed = {**ewc.tables, "accuracy.csv": "\n".join([header, *rows, ",".join([label, *values])])}
    own[own.index(ewc)] = replace(ewc, tables=changed)
    found = reproduction.check(own, known)
    (group,) = found.groups.values()
    change, name, seed = group.largest
    assert (name, seed) == ("ewc", 0) and change == pytest.approx(-0.1 / len(values))
    (line,) = found.in_words()
    assert "1 of 2 cells repeated are identical" in line
    assert f"at most {10 / len(values):.2f} points (ewc, seed 0)" in line


def test_the_change_of_a_mean_is_one_over_seeds():
    group = reproduction.Repeated("b", "til", changes={"ewc": {0: 0.01, 1: -0.03}, "si": {0: 0.015}})
    assert group.largest == (-0.03, "ewc", 1)
    assert group.largest_mean == pytest.approx((0.015, "si"))  # of ewc -0.01
    (line,) = reproduction.Check({("b", "til"): group}).in_words()
    assert line.endswith("at most 3.00 points (ewc, seed 1), the mean of a method by at most 1.50 (si)")


def test_another_end_and_cells_without_a_reference_are_said(run_twice):
    shipped, here = run_twice
    known = known_of(shipped)
    first, second = known_of(here).values()
    diverged = replace(first, record=replace(first.record, status=Status.DIVERGED))
    stranger = replace(second, record=replace(second.record, key="0" * 64))
    lines = list(reproduction.check([diverged, stranger], known).in_words())
    assert lines[0].endswith("0 of 1 cell repeated are identical")
    assert lines[1:] == [
        f"  {first.record.label} seed 0: diverged here, done shipped",
        "without a reference record (other code, settings, length or seed): 1",
    ]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    from benchmarks.types import UserError

    with pytest.raises(UserError, match="there is no results folder"):
        RUN.invoke(reference.app, [str(tmp_path / "none"), "--check"], catch_exceptions=False, standalone_mode=False)
