"""Training loops of a method's own are full members: curve, progress, divergence, memory, and what is said of them."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from benchmarks.types import CIL, TIL
from methods import registry
from methods.base import Diverged
from reports.deviations import deviations
from reports.load import load
from runners.cell import finite
from runners.cell.events import Event, EventKind
from runners.cell.execution import run_cell
from runners.conformance import Trial, conform, costs
from runners.records.record import Record, Status
from tests.methods.helpers import made, opened
from tests.runners.helpers import ROOT, cells, job
from tests.runners.loops import NearestMean, Own
from tests.test_docs import write_files

LOOPS = Path(__file__).with_name("loops.py")


def ran(name: str, results: Path, file: Path = LOOPS) -> tuple[Record, list[list[str]], list[Event]]:
    """The record of a cell of the class, the rows of its loss curve, and its events."""
    [cell] = [cell for cell in cells(f"{file}:{name}") if ".py:" in cell.reference]
    told: list[Event] = []
    run_cell(job(cell, results), told.append)
    folder = cell.folder(results)
    with (folder / "steps.csv").open(newline="") as curve:
        return Record.from_json((folder / "cell.json").read_text()), list(csv.reader(curve))[1:], told


def test_its_curve_reaches_the_record(tmp_path: Path) -> None:
    record, curve, _ = ran("Own", tmp_path)
    assert record.status is Status.DONE
    assert [row[:2] for row in curve] == [[str(task), step] for task in range(5) for step in ("3", "6")]
    assert all(task["steps"] == task["steps_allowed"] == 6 for task in record.fairness["tasks"])


def test_its_reports_of_progress_are_the_curve_where_it_keeps_none(tmp_path: Path) -> None:
    record, curve, told = ran("Reporting", tmp_path)
    assert record.status is Status.DONE and len(curve) == 5 * 6 and curve[7][:2] == ["1", "2"]
    heard = [event for event in told if event.kind is EventKind.PROGRESS]
    assert {type(event.loss) for event in heard} == {float} and heard[7].loss == float(curve[7][2])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("NanInTheCurve", "the loss of task 1 is nan at step 3"),
        ("InfiniteWeights", "after task 1 the weights net."),
        ("Raising", "the loss of task 1 is inf at step 1"),
    ],
)
def test_what_is_not_finite_ends_as_diverged(tmp_path: Path, name: str, reason: str) -> None:
    record, _, _ = ran(name, tmp_path)
    assert record.status is Status.DIVERGED and record.reason and record.reason.startswith(reason)
    assert record.traceback is None


@pytest.mark.parametrize("loss", [math.inf, -math.inf, math.nan])
def test_every_loss_of_a_curve_has_to_be_finite(loss: float) -> None:
    method = made("finetune", opened(TIL))
    finite.assure(method, 1, [(1, 0, 1e30), (1, 1, 0.0)])
    with pytest.raises(Diverged, match=f"the loss of task 1 is {loss} at step 2"):
        finite.assure(method, 1, [(1, 0, 1e30), (1, 2, loss), (1, 3, 0.5)])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("WrongReport", "wrong-report: progress is told something that is no Progress of numbers"),
        ("SamplesByText", "samples-by-text: memory_samples gives 'few', which is not a whole number"),
    ],
)
def test_a_wrong_statement_fails_the_cell_with_a_sentence(tmp_path: Path, name: str, reason: str) -> None:
    record, _, _ = ran(name, tmp_path)
    assert record.status is Status.FAILED and record.reason and record.reason.startswith(reason)


def test_samples_are_declared_in_the_record_whatever_becomes_of_the_cell(tmp_path: Path) -> None:
    done, _, _ = ran("Keeping", tmp_path / "done")
    assert (done.fairness["held"]["declared"], done.fairness["held"]["found"]) == (40, 30)
    [loaded] = load(tmp_path / "done").records
    assert "declares 40 training samples; its state holds 30" in deviations(loaded)
    diverged, _, _ = ran("KeepingAndDiverging", tmp_path / "diverged")
    assert diverged.status is Status.DIVERGED
    assert diverged.fairness["held"] == {"rehearses": False, "declared": 40}


def test_adam_reading_its_own_counter_is_no_wait() -> None:
    assert not list(costs._waits(Trial(Own, TIL)))


@pytest.mark.parametrize("scenario", [TIL, CIL])
def test_a_method_in_closed_form_is_not_accused_of_training_nothing(scenario: str) -> None:
    assert not conform(NearestMean, [scenario])


def test_the_loop_of_the_docs_is_sound_and_its_curve_is_recorded(tmp_path: Path) -> None:
    write_files(ROOT / "docs" / "adding-a-method.md", tmp_path)
    assert not conform(registry.load(f"{tmp_path / 'sam.py'}:Sam"), [TIL], with_fields=False)
    record, curve, _ = ran("Sam", tmp_path / "results", tmp_path / "sam.py")
    assert record.status is Status.DONE and [row[:2] for row in curve] == [[str(task), "6"] for task in range(5)]
