"""Cells paused after every task end as those in one go, whatever their methods keep; else they are restarted."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from runners.cell import blank, checkpoint
from runners.cell.events import Event, EventKind
from runners.cell.execution import run_cell
from runners.records import environment
from runners.records.folder import CHECKPOINT, CellFolder
from runners.records.record import Record, Status
from tests.runners.helpers import cells, job, silent, tables

KEEPING = Path(__file__).with_name("keeping.py")


def keeping(name: str):
    return cells(f"{KEEPING}:{name}", steps=20)[0]


def paused(cell, results, stops=(1, 2, 3, 4, None)) -> tuple[Record, list[str]]:
    """The record of a cell that pauses after so many tasks, and what the user was told."""
    heard: list[Event] = []
    for stop in stops:
        this = job(cell, results)
        run_cell(replace(this, conditions=replace(this.conditions, stop_after=stop)), heard.append)
    record = CellFolder(cell.folder(results)).read()
    assert record is not None
    return record, [str(event.reason) for event in heard if event.kind is EventKind.NOTE]


@pytest.mark.parametrize("name", ["KeptParameters", "NetworksInAList", "GrowingHeads", "GrowingHeadsByHand"])
def test_paused_after_every_task_and_in_one_go_the_numbers_are_the_same(tmp_path, name):
    cell = keeping(name)
    whole, _ = paused(cell, tmp_path / "whole", [None])
    assert whole.status is Status.DONE, whole.reason
    record, notes = paused(cell, tmp_path / "paused")
    assert record.status is Status.DONE, record.reason
    assert tables(tmp_path / "paused") == tables(tmp_path / "whole")
    assert record.parameters == whole.parameters and record.stored_per_task == whole.stored_per_task
    goes_on = [note for note in notes if note.startswith("resumed after task")]
    assert len(goes_on) == (0 if name == "GrowingHeads" else 4)


def test_parameters_of_networks_in_a_list_are_counted(tmp_path):
    record, _ = paused(keeping("NetworksInAList"), tmp_path, [None])
    assert record.parameters["trained"] == 5 * (64 * 8 + 8 + 16 + 80 + 10)


def test_the_user_is_told_at_the_first_checkpoint_that_heads_which_grow_cannot_be_kept(tmp_path):
    cell = keeping("GrowingHeads")
    _, notes = paused(cell, tmp_path, [None])
    assert len(notes) == 1 and notes[0].startswith("growing-heads: no checkpoint: 'heads' holds other networks")
    assert "make them in build" in notes[0] and "begins anew" in notes[0]
    assert not (cell.folder(tmp_path) / CHECKPOINT).exists()


def test_a_state_that_does_not_fit_a_fresh_build_costs_time_and_nothing_else(tmp_path):
    cell = keeping("GrowingHeadsUnnoticed")
    paused(cell, tmp_path / "whole", [None])
    record, notes = paused(cell, tmp_path / "paused", [2, None])
    assert record.status is Status.DONE and tables(tmp_path / "paused") == tables(tmp_path / "whole")
    assert len(notes) == 1 and "does not fit the method as it is built" in notes[0] and "restarted" in notes[0]


def test_a_checkpoint_of_another_cell_is_never_taken(tmp_path):
    """It lies there whole, but under another key."""
    first, second = cells("finetune", seeds=2)
    run_cell(job(second, tmp_path / "whole"), silent)
    this = job(first, tmp_path)
    run_cell(replace(this, conditions=replace(this.conditions, stop_after=2)), silent)
    stray = first.folder(tmp_path) / CHECKPOINT
    assert checkpoint.load(CellFolder(first.folder(tmp_path)), first.key) is not None
    assert checkpoint.load(CellFolder(first.folder(tmp_path)), second.key) is None
    second.folder(tmp_path).mkdir(parents=True)
    (second.folder(tmp_path) / CHECKPOINT).write_bytes(stray.read_bytes())
    heard: list[Event] = []
    assert run_cell(job(second, tmp_path), heard.append) is Status.DONE
    assert ["restarted" in str(event.reason) for event in heard if event.kind is EventKind.NOTE] == [True]
    of_second = {name: text for name, text in tables(tmp_path).items() if second.key[:12] in name}
    assert of_second == tables(tmp_path / "whole")


def test_a_cell_that_is_resumed_keeps_the_time_of_its_first_start(tmp_path, monkeypatch):
    times = (f"20{year}-01-01T00:00:00.000+00:00" for year in range(10, 99))
    monkeypatch.setattr(blank, "stamp", lambda: next(times))
    [cell] = cells("finetune", steps=3)
    (first, _), (last, notes) = paused(cell, tmp_path, [1]), paused(cell, tmp_path, [None])
    assert last.status is Status.DONE and notes == ["resumed after task 1 of 5"]
    assert first.started.startswith("20") and last.started == first.started


def test_a_record_tells_under_which_other_conditions_its_first_tasks_were_run(tmp_path, monkeypatch):
    [cell] = cells("finetune", steps=3)
    paused(cell, tmp_path, [1])
    here = environment.of_worker

    def elsewhere(device):
        return {**here(device), "torch": "9.0", "device": "cpu:1", "mkl": "none"}

    monkeypatch.setattr(environment, "of_worker", elsewhere)
    record, notes = paused(cell, tmp_path, [2])
    kept = here(torch.device("cpu"))
    parts = [{"tasks_done": 1, "torch": kept["torch"], "mkl": kept["mkl"]}]
    assert record.environment["torch"] == "9.0" and record.environment["resumed_from"] == parts
    assert notes[0] == "resumed after task 1 of 5" and f"torch was {kept['torch']} and is 9.0; mkl was" in notes[1]
    record, notes = paused(cell, tmp_path, [3])
    assert record.environment["resumed_from"] == parts and notes == ["resumed after task 2 of 5"]
    monkeypatch.undo()
    record, _ = paused(cell, tmp_path, [None])
    assert record.environment["resumed_from"] == [*parts, {"tasks_done": 3, "torch": "9.0", "mkl": "none"}]


def test_a_checkpoint_without_an_environment_is_resumed(tmp_path):
    """Code before this one wrote such checkpoints."""
    [cell] = cells("finetune", steps=3)
    paused(cell, tmp_path, [1])
    folder = CellFolder(cell.folder(tmp_path))
    data = torch.load(io.BytesIO(folder.read_checkpoint()), weights_only=True)
    del data["environment"]
    buffer = io.BytesIO()
    torch.save(data, buffer)
    folder.write_checkpoint(buffer.getvalue())
    record, notes = paused(cell, tmp_path, [None])
    assert record.status is Status.DONE and notes == ["resumed after task 1 of 5"]
    assert "resumed_from" not in record.environment
