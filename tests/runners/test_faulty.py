"""Whatever a method states or answers ends its own cell, with a sentence; the next cell runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.catalogue import find
from reports.schema import RECORD
from runners.cell.events import Event, EventKind
from runners.cell.execution import run_cell
from runners.engines.engine import InlineEngine
from runners.engines.local import LocalEngine
from runners.engines.scheduler import run_grid
from runners.grid.cells import Conditions
from runners.records.folder import CHECKPOINT, TRACEBACK, CellFolder
from runners.records.record import Status
from tests.runners.faulty import ANSWERS, LEARNING
from tests.runners.helpers import STEPS, Watching, cells, foreign, job, silent, tables

FAULTY = f"{Path(__file__).with_name('faulty.py')}:Faulty"

SAID = {
    "unprintable": "Unprintable: its message cannot be printed (ValueError)",
    "endless words": "RuntimeError: xxxx",
    "own exit": "GeneratorExit: done",
    "budget": "faulty has changed its budget, from Budget(batch_size=32, steps=6, epochs=None) to ",
    "cycle": "the attribute 'notes[0]' leads back to itself, which a checkpoint cannot keep",
    "endless state": "the state is too large: with 'notes' it has 100000",
    "huge state": "the state is too large: with 'notes' it has ",
    "stored tensor": "faulty: parameters_stored gives a Tensor, which is not a whole number",
    "stored fraction": "faulty: parameters_stored gives 0.5, which is not a whole number",
    "curve of tensors": "faulty: the curve has an entry that is no Progress of numbers",
    "endless curve": "faulty: the curve of a task has 100001 entries; at most 100000",
    "wide": "faulty: predict gives logits of the shape (90, 3), not (90, 2)",
    "narrow": "faulty: predict gives logits of the shape (90, 1), not (90, 2)",
    "few": "faulty: predict gives logits of the shape (89, 2), not (90, 2)",
    "integers": "faulty: predict gives torch.int64, not floating-point logits",
    "list": "faulty: predict gives a list, not a tensor of logits (90, 2)",
    "elsewhere": "faulty: predict gives logits on meta; the samples are on cpu",
    "infinite": "predictions for task 0 after 2 of 5 tasks are infinite",
    "minus infinite": "predictions for task 0 after 2 of 5 tasks are infinite",
    "inferred": "faulty: infer_task gives the shape (1,), not a whole number for each of ",
    "claims": "faulty: audit speaks of the tasks [0, 1, 2, 3, 4, 5, 6]; it may make one claim for each of the 1 learnt",
}


def faulty(what: str):
    scenarios = ("cil",) if what == "inferred" else ("til",)
    return cells(FAULTY, scenarios=scenarios, assignments=(("faulty", "what", what),))[0]


def test_every_fault_has_its_sentence():
    assert set(SAID) == {*LEARNING, *ANSWERS, "inferred", "claims"}


@pytest.mark.parametrize("what", [*SAID])
def test_a_fault_ends_its_cell_with_a_sentence_and_no_other(tmp_path, what):
    watcher = Watching()
    both = [faulty(what), *cells("finetune")]
    first, second = run_grid(both, tmp_path, Conditions(command="test"), InlineEngine(1), watcher)
    assert first.status is (Status.DIVERGED if "infinite" in what else Status.FAILED)
    assert str(first.reason).startswith(SAID[what])
    assert len(str(first.reason)) < 5000
    assert second.status is Status.DONE
    record = CellFolder(first.folder).read()
    assert record is not None and record.reason == first.reason
    assert second.cell.budget.steps == STEPS and (find("split-digits").budget.steps or 0) < 10**6


def test_a_state_of_its_own_that_is_not_plain_is_no_checkpoint(tmp_path):
    cell = cells(FAULTY.replace("Faulty", "OddState"))[0]
    heard: list[Event] = []
    assert run_cell(job(cell, tmp_path), heard.append) is Status.DONE
    notes = [str(event.reason) for event in heard if event.kind is EventKind.NOTE]
    assert len(notes) == 1 and notes[0].startswith("odd-state: no checkpoint: state.object is a ")


# -- what lies in the place of files -------------------------------------------------------------


def folder(place: Path) -> None:
    (place / "inside").mkdir(parents=True)


def fifo(place: Path) -> None:
    os.mkfifo(place)


def device(place: Path) -> None:
    place.symlink_to("/dev/zero")


def nested(place: Path) -> None:
    place.write_text("[" * 100_000)


@pytest.mark.parametrize("name", [RECORD, CHECKPOINT, TRACEBACK, "accuracy.csv"])
@pytest.mark.parametrize("put", [folder, fifo, device, nested])
def test_what_is_no_file_in_the_place_of_one_costs_no_cell(tmp_path, name, put):
    here, other = cells("finetune", "l2")
    run_cell(job(here, tmp_path / "clean"), silent)
    here.folder(tmp_path).mkdir(parents=True)
    put(here.folder(tmp_path) / name)
    outcomes = run_grid([here, other], tmp_path, Conditions(command="test"), InlineEngine(1), Watching())
    assert [outcome.status for outcome in outcomes] == [Status.DONE] * 2
    of_here = {path: text for path, text in tables(tmp_path).items() if "/finetune/" in path and "/clean/" not in path}
    assert of_here == tables(tmp_path / "clean")


def test_a_lost_cell_whose_record_is_a_folder_ends_no_run(tmp_path):
    """The driver itself records it."""
    killed, other = cells(foreign("Killed"))[0], cells("l2")[0]

    def put(this, event) -> None:
        if event.kind is EventKind.TASK_DONE and this.cell.label == "killed":
            (this.folder / RECORD).unlink()
            (this.folder / RECORD / "inside").mkdir(parents=True)

    engine = LocalEngine(["cpu"], threads=1)
    try:
        outcomes = run_grid([killed, other], tmp_path, Conditions(command="test"), engine, Watching(put))
    finally:
        engine.close()
    assert [outcome.status for outcome in outcomes] == [Status.FAILED, Status.DONE]
    record = CellFolder(killed.folder(tmp_path)).read()
    assert record is not None and "signal 9" in str(record.reason)
