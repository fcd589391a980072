"""Cells of tuning: judged on validation data, without any test data at hand; and cells that pause."""

import dataclasses

import pytest
import torch

from benchmarks import data
from benchmarks.catalogue import find
from benchmarks.stream import TuningStream, open_stream
from benchmarks.types import CIL, TIL, UserError
from reports.load import load
from runners.cell import execution
from runners.cell.execution import run_cell
from runners.grid.cells import Cell, Conditions, Job
from runners.records.folder import CellFolder
from runners.records.record import Status
from tests.runners.helpers import cells, foreign, job, silent, tables


def tuning_cell(method: str = "finetune", **options) -> Cell:
    return dataclasses.replace(cells(method, steps=40, **options)[0], judged_on="validation")


def test_a_stream_for_tuning_judges_by_validation_samples_and_holds_no_test_data():
    stream = open_stream(find("split-digits"), CIL, 0)
    tuning = TuningStream(stream)
    for j in range(len(stream)):
        assert torch.equal(tuning.test(j).x, stream.task(j).validation.x)
        assert torch.equal(tuning.test(j).labels, stream.task(j).validation.labels)
        assert torch.equal(tuning.task(j).x, stream.task(j).x)
    assert tuning.data.test_images.numel() == tuning.data.test_labels.numel() == 0
    unheld = dataclasses.replace(find("split-digits"), validation=0)
    with pytest.raises(UserError, match="no validation samples"):
        TuningStream(open_stream(unheld, TIL, 0))


def test_test_data_is_out_of_reach_of_tuning(tmp_path, monkeypatch):
    """Ruined test data (all pictures noise, all labels wrong) changes no number of a tuning cell, and every other's."""
    plain = job(tuning_cell(), tmp_path / "plain")
    assert run_cell(plain, silent) is Status.DONE
    ordinary = job(cells("finetune", steps=40)[0], tmp_path / "ordinary")
    assert run_cell(ordinary, silent) is Status.DONE

    whole = data.load("digits")
    ruined = dataclasses.replace(whole, test_images=whole.test_images * 0, test_labels=(whole.test_labels + 1) % 10)
    monkeypatch.setattr("benchmarks.stream.load", lambda *_args, **_options: ruined)
    again = job(plain.cell, tmp_path / "again")
    assert run_cell(again, silent) is Status.DONE
    accuracy = "split-digits/til/finetune/" + plain.folder.name + "/accuracy.csv"
    assert tables(tmp_path / "plain")[accuracy] == tables(tmp_path / "again")[accuracy]
    spoilt = job(ordinary.cell, tmp_path / "spoilt")
    assert run_cell(spoilt, silent) is Status.DONE
    assert tables(tmp_path / "ordinary") != tables(tmp_path / "spoilt")


def test_a_method_that_holds_the_stream_finds_no_test_data(tmp_path, monkeypatch):
    seen = []
    evaluator = execution.Evaluator

    def watched(method, stream, batch_size):
        seen.append(stream)
        return evaluator(method, stream, batch_size)

    monkeypatch.setattr(execution, "Evaluator", watched)
    assert run_cell(job(tuning_cell(), tmp_path), silent) is Status.DONE
    (stream,) = seen
    sizes = {key: value.numel() for key, value in vars(stream.data).items() if isinstance(value, torch.Tensor)}
    assert sizes["test_images"] == sizes["test_labels"] == 0 and sizes["train_images"] > 0


def test_a_record_of_tuning_has_a_key_of_its_own_and_enters_no_report(tmp_path):
    cell = tuning_cell()
    assert cell.key != dataclasses.replace(cell, judged_on="test").key
    done = job(cell, tmp_path)
    run_cell(done, silent)
    record = CellFolder(done.folder).read()
    assert record is not None and record.judged_on == "validation"
    with pytest.raises(UserError, match="a record of tuning, judged on validation data"):
        load(tmp_path)


def test_a_paused_cell_goes_on_and_ends_as_if_it_had_not_paused(tmp_path):
    cell = tuning_cell("ewc", scenarios=("dil",))
    whole, parts = job(cell, tmp_path / "whole"), job(cell, tmp_path / "parts")
    run_cell(whole, silent)
    for stop in (2, 2, 4):
        paused = Job(cell, parts.folder, Conditions(stop_after=stop))
        assert run_cell(paused, silent) is Status.RUNNING
    assert run_cell(parts, silent) is Status.DONE
    assert tables(tmp_path / "whole") == tables(tmp_path / "parts")


def test_a_method_that_cannot_resume_leaves_no_checkpoint_and_begins_anew(tmp_path):
    cell = cells(foreign("Forgetful"))[0]
    paused = Job(cell, cell.folder(tmp_path), Conditions(stop_after=2))
    assert run_cell(paused, silent) is Status.RUNNING
    assert not CellFolder(paused.folder).has_checkpoint()
    assert run_cell(job(cell, tmp_path), silent) is Status.DONE
