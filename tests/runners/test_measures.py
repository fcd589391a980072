"""The record of a real cell says what training took and what the method holds."""

from pathlib import Path

import pytest

from runners.cell.execution import run_cell
from runners.grid.cells import Conditions, Job
from runners.records.record import Record
from tests.runners.helpers import cells


@pytest.mark.parametrize(("method", "rehearses"), [("finetune", False), ("hyperinterval", False), ("joint", True)])
def test_a_cell_counts_its_steps_and_samples(tmp_path: Path, method: str, rehearses: bool) -> None:
    [cell] = cells(method, steps=3)
    run_cell(Job(cell, cell.folder(tmp_path), Conditions()), lambda _: None)
    record = Record.from_json((cell.folder(tmp_path) / "cell.json").read_text())
    tasks, held = record.fairness["tasks"], record.fairness["held"]
    assert len(tasks) == record.n_tasks
    for task in tasks:
        assert (task["steps"], task["steps_allowed"], task["aside"], task["validation"]) == (3, 3, 0, 0)
        assert task["samples"] == task["samples_allowed"] == 3 * record.budget.batch_size
    assert held["rehearses"] is rehearses and (held["declared"], held["found"]) == (0, 0)
