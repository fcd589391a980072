"""What happens when memory runs out: the status, what it says, and evaluation in smaller batches."""

from __future__ import annotations

import importlib

import pytest
import torch

from runners.cell.events import EventKind
from runners.cell.execution import run_cell
from runners.engines.engine import InlineEngine
from runners.engines.scheduler import Outcome, run_grid
from runners.grid.cells import Conditions
from runners.records.folder import CellFolder
from runners.records.record import Status
from tests.runners.helpers import Watching, cells, compare_here, foreign, job, silent, tables


def run(name: str, results, retry_smaller: bool) -> tuple[Outcome, list[str]]:
    watcher = Watching()
    [cell] = cells(foreign(name))
    conditions = Conditions(command="test")
    [outcome] = run_grid([cell], results, conditions, InlineEngine(1), watcher, retry_smaller)
    return outcome, [str(event.reason) for _, event in watcher.events if event.kind is EventKind.NOTE]


def test_a_lack_of_memory_says_where_how_much_there_was_and_what_may_help(tmp_path):
    outcome, _ = run("Greedy", tmp_path, retry_smaller=False)
    assert outcome.status is Status.OOM
    said = str(outcome.reason)
    assert said.startswith("out of memory in evaluation (peak ") and " GiB)" in said
    assert "--on-oom retry-smaller, fewer cells at a time (--workers)" in said


def test_evaluation_in_halved_batches_goes_on_and_gives_the_same_numbers(tmp_path):
    outcome, notes = run("Greedy", tmp_path / "greedy", retry_smaller=True)
    assert outcome.status is Status.DONE
    halved = [note for note in notes if note.startswith("out of memory in evaluation; retried with batch size")]
    assert [int(note.split()[-1]) for note in halved] == [1000, 500, 250, 125, 62]
    record = CellFolder(outcome.folder).read()
    assert record is not None and record.environment["evaluation_batch"] == 62
    run("Good", tmp_path / "good", retry_smaller=False)
    numbers = [sorted(tables(tmp_path / name).values()) for name in ("greedy", "good")]
    assert numbers[0] == numbers[1]


def test_a_lack_of_memory_in_training_is_not_tried_again(tmp_path):
    outcome, notes = run("OutOfMemory", tmp_path, retry_smaller=True)
    assert outcome.status is Status.OOM and notes == []
    assert str(outcome.reason).startswith("out of memory in training") and "--on-oom" not in str(outcome.reason)


@pytest.mark.parametrize("on_oom, code", [("record", 1), ("retry-smaller", 0)])
def test_the_option_of_the_command(tmp_path, on_oom, code):
    options = {"methods": ("finetune",), "foreign": (foreign("Greedy"),), "seeds": 1, "reference": False}
    found, output = compare_here(tmp_path, on_oom=on_oom, **options)
    assert found == code, output


@pytest.mark.parametrize(
    "place", ["certificates.measure", "exhibits.collect", "independence._measure", "network_used.numbers_met"]
)
def test_no_finished_record_lacks_what_there_was_no_memory_for(tmp_path, monkeypatch, place):
    """Otherwise the content of a record would depend on the cells that share the memory."""
    module, name = place.split(".")

    def lacking(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 4.20 GiB")

    monkeypatch.setattr(importlib.import_module(f"runners.cell.{module}"), name, lacking)
    [cell] = cells("intercontinet")
    assert run_cell(job(cell, tmp_path), silent) is Status.OOM
    record = CellFolder(cell.folder(tmp_path)).read()
    assert record is not None and str(record.reason).startswith("out of memory in evaluation")
