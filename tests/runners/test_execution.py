from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from runners.cell.evaluation import holds
from runners.cell.events import Event, EventKind
from runners.cell.execution import run_cell
from runners.records.folder import CHECKPOINT, CellFolder
from runners.records.record import Measurements, Record, Status
from tests.methods.helpers import CASES, in_turn
from tests.runners.helpers import cells, foreign, job, silent, tables


def run(cell, results, emit=silent) -> Record:
    run_cell(job(cell, results), emit)
    record = CellFolder(cell.folder(results)).read()
    assert record is not None
    return record


def matrix(cell, results, name="accuracy.csv") -> list[list[str]]:
    lines = (cell.folder(results) / name).read_text().splitlines()
    return [line.split(",")[1:] for line in lines[1:]]


def measured_pattern(rows: list[list[str]]) -> list[str]:
    return ["".join("x" if value else "." for value in row) for row in rows]


# -- what is measured ----------------------------------------------------------------------------

SEEN_AND_NEXT = ["xxxxx", "xx...", "xxx..", "xxxx.", "xxxxx", "xxxxx"]
SEEN = [".....", "x....", "xx...", "xxx..", "xxxx.", "xxxxx"]


@pytest.mark.parametrize("scenario, pattern", [("til", SEEN_AND_NEXT), ("dil", SEEN_AND_NEXT), ("cil", SEEN)])
def test_r_holds_all_tasks_seen_and_the_next_where_that_makes_sense(tmp_path, scenario, pattern):
    [cell] = cells("finetune", scenarios=(scenario,))
    record = run(cell, tmp_path)
    assert record.status is Status.DONE and record.reason is None
    rows = matrix(cell, tmp_path)
    assert measured_pattern(rows) == pattern
    assert all(0 <= float(value) <= 1 for row in rows for value in row if value)


def test_the_record_says_what_was_run_and_what_it_cost(tmp_path):
    [cell] = cells("finetune")
    record = run(cell, tmp_path)
    assert record.task_names == ("0 1", "2 3", "4 5", "6 7", "8 9")
    assert len(record.seconds["train"]) == len(record.seconds["evaluate"]) == 5
    assert all(second > 0 for clock in record.seconds.values() for second in clock)
    peak = record.memory_bytes["peak_rss"]
    assert peak is not None and peak > 10**7 and record.memory_bytes["peak_device"] is None
    weights = 64 * 100 + 100 + 100 * 100 + 100 + 100 * 10 + 10
    assert record.parameters == {"trained": weights, "stored": weights}
    assert record.environment["torch"] == torch.__version__ and record.environment["threads"] == 1
    assert (cell.folder(tmp_path) / "steps.csv").read_text().startswith("task,step,loss\n0,6,")
    assert not (cell.folder(tmp_path) / CHECKPOINT).exists()


@pytest.mark.parametrize("scenario", ["til", "dil", "cil"])
def test_the_task_id_is_handed_over_in_til_only(tmp_path, scenario):
    [cell] = cells(foreign("Told"), scenarios=(scenario,))
    assert run(cell, tmp_path).status is Status.DONE


def test_task_inference_is_measured_in_cil(tmp_path):
    til, cil = cells(foreign("Guesses"), scenarios=("til", "cil"))
    assert run(til, tmp_path).status is run(cil, tmp_path).status is Status.DONE
    assert not (til.folder(tmp_path) / "inferred.csv").exists()
    assert matrix(cil, tmp_path, "inferred.csv")[5] == ["1.0", "0.0", "0.0", "0.0", "0.0"]


def test_certificates_and_claims(tmp_path):
    [cell] = cells(foreign("Certifies"), steps=40)
    run(cell, tmp_path)
    accuracy, certified = matrix(cell, tmp_path), matrix(cell, tmp_path, "certified.csv")
    assert measured_pattern(certified) == SEEN
    assert all(float(certified[i][j]) <= float(accuracy[i][j]) for i in range(1, 6) for j in range(i))
    lines = (cell.folder(tmp_path) / "claims.csv").read_text().splitlines()
    assert len(lines) == 1 + 15
    rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    for row in rows:
        i, j = int(row["after"]), int(row["task"])
        assert row["violation"] == str(float(accuracy[i][j]) < float(certified[j + 1][j])).lower()
        assert float(row["median_logit_width"]) == pytest.approx(0.02, abs=1e-5)
    assert rows[-1]["contained"] == "false" and rows[-1]["outside"] == "4" and rows[-1]["reason"] == "moved"


def test_bounds_that_say_nothing_certify_nothing(tmp_path):
    [cell] = cells(foreign("Unsure"))
    run(cell, tmp_path)
    assert set(matrix(cell, tmp_path, "certified.csv")[5]) == {"0.0"}


def test_a_sample_is_certified_when_its_lower_bound_exceeds_every_other_upper_bound():
    lower = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [float("nan"), 0, 0], [1.0, 0.0, 0.0]])
    upper = torch.tensor([[2.0, 0.9, 0.5], [2.0, 1.0, 0.5], [3.0, 2.0, 0.5], [9.0, 0.0, 0.0], [1, float("nan"), 0]])
    y = torch.tensor([0, 0, 1, 0, 0])
    assert holds(lower, upper, y).tolist() == [True, False, False, False, False]


# -- statuses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method, status, reason",
    [
        ("NanLoss", Status.DIVERGED, "the loss of task 1 is nan at step 0"),
        ("NanPrediction", Status.DIVERGED, "predictions for task 0 after 2 of 5 tasks are not numbers"),
        ("Raises", Status.FAILED, "RuntimeError: the third law does not hold"),
        ("OutOfMemory", Status.OOM, "out of memory in training (peak "),
    ],
)
def test_what_goes_wrong_becomes_a_status_with_a_reason(tmp_path, method, status, reason):
    [cell] = cells(foreign(method))
    record = run(cell, tmp_path)
    assert record.status is status
    assert record.reason is not None and record.reason.startswith(reason)
    assert (record.traceback is None) == (status is Status.DIVERGED)
    assert matrix(cell, tmp_path)[1][0]  # what was measured before is kept


def test_a_scenario_that_is_not_defined_is_skipped_with_the_reason(tmp_path):
    til, cil = cells(foreign("TilOnly"), scenarios=("til", "cil"))
    assert run(til, tmp_path).status is Status.DONE
    assert run(cil, tmp_path).reason == "til-only is not defined in cil"
    [rotated] = cells("finetune", scenarios=("cil",), benchmark="rotated-mnist")
    record = run(rotated, tmp_path)
    assert record.status is Status.SKIPPED and record.reason is not None and "does not determine" in record.reason


@pytest.mark.parametrize("method", ["hyperinterval", "intercontinet"])
def test_a_network_without_known_bounds_is_skipped_before_training_with_the_layer_that_has_none(tmp_path, method):
    [cell] = cells(method, benchmark="cifar-mini", network="timm:test_efficientnet")
    record = run(cell, tmp_path)  # no data are read for it
    assert record.status is Status.SKIPPED
    wanted = f"{method} cannot run with timm:test_efficientnet: interval bounds: no bound is known for"
    assert str(record.reason).startswith(wanted)
    heard: list[Event] = []
    assert run(cell, tmp_path, heard.append) == record
    assert [event.kind for event in heard] == [EventKind.ENDED]


def test_code_that_changed_after_the_grid_was_made_is_not_recorded_under_the_old_key(tmp_path):
    [cell] = cells("finetune")
    record = run(replace(cell, source="0" * 64), tmp_path)
    assert record.status is Status.FAILED and "changed while the run was under way" in str(record.reason)


def test_a_failure_is_run_again_and_a_result_is_not(tmp_path):
    [failing], [good] = cells(foreign("Raises")), cells("finetune")
    for cell in (failing, good):
        run(cell, tmp_path)
    before = {cell.label: (cell.folder(tmp_path) / "cell.json").read_text() for cell in (failing, good)}
    for cell in (failing, good):
        run(cell, tmp_path)
    after = {cell.label: (cell.folder(tmp_path) / "cell.json").read_text() for cell in (failing, good)}
    assert after["finetune"] == before["finetune"] and after["raises"] != before["raises"]


def test_a_cell_that_another_process_holds_is_left_alone(tmp_path):
    [cell] = cells("finetune")
    heard: list[Event] = []
    with CellFolder(cell.folder(tmp_path)).lock():
        assert run_cell(job(cell, tmp_path), heard.append) is None
    assert [event.kind for event in heard] == [EventKind.ELSEWHERE]
    assert not (cell.folder(tmp_path) / "cell.json").exists()


@pytest.mark.parametrize("damage", ["truncated", "schema"])
def test_an_unusable_record_is_set_aside_told_and_computed_anew(tmp_path, damage):
    [cell] = cells("finetune")
    run(cell, tmp_path)
    before, file = tables(tmp_path), cell.folder(tmp_path) / "cell.json"
    text = file.read_text()
    file.write_text(text[: len(text) // 2] if damage == "truncated" else text.replace('"schema": 1', '"schema": 0'))
    heard: list[Event] = []
    assert run(cell, tmp_path, heard.append).status is Status.DONE
    notes = [str(event.reason) for event in heard if event.kind is EventKind.NOTE]
    assert len(notes) == 1 and "moved to aside-0" in notes[0]
    assert tables(tmp_path) == before
    assert len(list(tmp_path.rglob("cell.json"))) == 1


# -- going on ------------------------------------------------------------------------------------


class Stop(KeyboardInterrupt):
    """Ends a cell from outside."""


def stop_after(task: int):
    def emit(event: Event) -> None:
        if event.kind is EventKind.TASK_DONE and event.task == task:
            raise Stop

    return emit


def interrupted(cell, results, task: int) -> None:
    with pytest.raises(Stop):
        run_cell(job(cell, results), stop_after(task))


@pytest.mark.parametrize(("method", "scenario"), in_turn(CASES))
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, method, scenario):
    small = (("analytic", "width", "100"),) if method == "analytic" else ()
    [cell] = cells(method, scenarios=(scenario,), steps=3, assignments=small)
    run(cell, tmp_path / "whole")
    interrupted(cell, tmp_path / "resumed", task=0)
    assert json.loads((cell.folder(tmp_path / "resumed") / "cell.json").read_text())["status"] == "running"
    interrupted(cell, tmp_path / "resumed", task=2)
    heard: list[Event] = []
    whole, record = run(cell, tmp_path / "whole"), run(cell, tmp_path / "resumed", heard.append)
    assert [event.reason for event in heard if event.kind is EventKind.NOTE] == ["resumed after task 3 of 5"]
    assert (record.status, record.reason) == (whole.status, whole.reason)
    assert tables(tmp_path / "resumed") == tables(tmp_path / "whole")
    assert record.parameters == whole.parameters and record.stored_per_task == whole.stored_per_task


def test_every_generator_starts_each_task_from_the_seed(tmp_path):
    """What was drawn before, by another cell or in tasks that a resumed run does not repeat, changes nothing."""
    first, second = cells(foreign("Draws"), seeds=2, steps=3)

    def drawn(cell, results) -> list[list[str]]:
        return [line.split(",") for line in (cell.folder(results) / "exhibit-drawn.csv").read_text().splitlines()[1:]]

    def disturb() -> None:
        random.seed()
        np.random.seed(None)
        torch.seed()

    disturb()
    run(first, tmp_path / "whole")
    interrupted(first, tmp_path / "resumed", task=0)
    disturb()
    interrupted(first, tmp_path / "resumed", task=2)
    disturb()
    run(first, tmp_path / "resumed")
    run(second, tmp_path / "whole")
    whole = drawn(first, tmp_path / "whole")
    assert drawn(first, tmp_path / "resumed") == whole
    numbers = [*whole, *drawn(second, tmp_path / "whole")]
    assert len(numbers) == 12
    for generator in zip(*numbers, strict=True):
        assert len(set(generator)) == 12, "tasks and seeds draw other numbers"


def test_a_damaged_checkpoint_costs_time_and_nothing_else(tmp_path):
    [cell] = cells("ewc")
    run(cell, tmp_path / "whole")
    interrupted(cell, tmp_path / "resumed", task=1)
    checkpoint = cell.folder(tmp_path / "resumed") / CHECKPOINT
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(bytes(content))
    heard: list[Event] = []
    assert run(cell, tmp_path / "resumed", heard.append).status is Status.DONE
    assert any("checkpoint is damaged" in str(event.reason) for event in heard)
    assert tables(tmp_path / "resumed") == tables(tmp_path / "whole")


def test_a_checkpoint_holds_no_objects(tmp_path):
    """Reading one must not be able to run code: torch.load with weights_only refuses everything else."""
    from runners.cell import checkpoint

    [cell] = cells("finetune")
    interrupted(cell, tmp_path, task=0)
    saved = checkpoint.load(CellFolder(cell.folder(tmp_path)), cell.key)
    assert saved is not None and saved.tasks_done == 1
    folder = CellFolder(tmp_path)
    checkpoint.save(folder, "k", checkpoint.Checkpoint(1, {"evil": Stop}, Measurements.empty(5), ""))
    assert checkpoint.load(folder, "k") is None


def test_another_seed_gives_other_numbers(tmp_path):
    first, second = cells("finetune", seeds=2)
    run(first, tmp_path)
    run(second, tmp_path)
    assert matrix(first, tmp_path) != matrix(second, tmp_path)
