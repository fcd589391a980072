"""After a capture that fails in mid-run, the cell is run again step by step, in a process that this has not spoilt."""

from __future__ import annotations

import os

import pytest

from methods.shared.stepping import CaptureFailed
from runners.cell.events import Event, EventKind
from runners.cell.execution import run_cell
from runners.engines import ray_worker
from runners.engines.engine import InlineEngine
from runners.engines.local import LocalEngine
from runners.engines.packing import Packer
from runners.engines.scheduler import run_grid
from runners.grid.cells import Conditions
from runners.records.folder import CellFolder
from runners.records.record import Status
from tests.runners.helpers import Watching, cells, foreign, job, silent, tables
from tests.runners.test_engines import a_ray_engine

WHY = "operation not permitted when stream is capturing"
NOTE = f"the training steps could not be captured ({WHY}); run again in another process, step by step"


def uncapturable(folder):
    folder.mkdir()
    return cells(foreign("CannotBeCaptured"), assignments=(("cannot-be-captured", "folder", str(folder)),))[0]


def a_packer():
    """Everything fits beside everything else."""
    packer = Packer({"cpu": 1 << 40}, ["cpu"])
    for cell in cells("si", "finetune"):
        packer.note(cell, 1)
    return packer


ENGINES = {"local": lambda: LocalEngine(["cpu"], threads=1, packer=a_packer()), "ray": a_ray_engine}


@pytest.mark.parametrize("kind", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_the_cell_goes_on_step_by_step_in_another_process(tmp_path, kind):
    cell, *others = uncapturable(tmp_path / "processes"), *cells("si", "finetune")
    engine, watcher = ENGINES[kind](), Watching()
    try:
        found = run_grid([cell, *others], tmp_path / kind, Conditions(command="test"), engine, watcher)
    finally:
        engine.close()
    assert [outcome.status for outcome in found] == [Status.DONE] * 3, [outcome.reason for outcome in found]
    assert len(list((tmp_path / "processes").iterdir())) == 2
    notes = [str(event.reason) for _, event in watcher.events if event.kind is EventKind.NOTE]
    assert notes == [NOTE, "resumed after task 1 of 5"]
    record = CellFolder(cell.folder(tmp_path / kind)).read()
    assert record is not None and record.environment["steps"] == f"step by step: a capture failed ({WHY})"
    folder = str(cell.folder(tmp_path / kind).relative_to(tmp_path / kind))
    again = {name: text for name, text in tables(tmp_path / kind).items() if name.startswith(folder)}
    assert len(again) >= 2 and "task4" in again[f"{folder}/accuracy.csv"]


def test_this_process_cannot_be_replaced_and_runs_no_other_cell(tmp_path):
    cell, *others = uncapturable(tmp_path / "processes"), *cells("si")
    engine = InlineEngine(1)
    for results in ("first", "second"):
        found = run_grid([cell, *others], tmp_path / results, Conditions(command="test"), engine, Watching())
        assert [outcome.status for outcome in found] == [Status.FAILED] * 2
        for outcome in found:
            assert WHY in str(outcome.reason)
            assert "CONTINUAL_GRAPHS=0" in str(outcome.reason) and "--engine local" in str(outcome.reason)
    assert len(list((tmp_path / "processes").iterdir())) == 1


def test_a_method_that_captures_against_its_orders_fails(tmp_path):
    """Else it would be run again for ever."""
    uncapturable(tmp_path / "processes")
    file = tmp_path / "stubborn.py"
    file.write_text(
        "from tests.runners import foreign\n"
        "from methods.base import register\n\n"
        "@register('stubborn')\n"
        "class Stubborn(foreign.CannotBeCaptured):\n"
        "    step_by_step = property(lambda self: '', lambda self, value: None)\n"
    )
    [cell] = cells(f"{file}:Stubborn", assignments=(("stubborn", "folder", str(tmp_path / "processes")),))
    assert run_cell(job(cell, tmp_path).uncaptured(WHY), silent) is Status.FAILED
    with pytest.raises(CaptureFailed):
        run_cell(job(cell, tmp_path), silent)


class Exit(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize(
    "method, exits", [("Good", False), ("Raises", False), ("OutOfMemory", True), ("CannotBeCaptured", True)]
)
def test_a_spoilt_process_of_rays_ends_once_its_last_messages_are_on_their_way(tmp_path, monkeypatch, method, exits):
    """Ray gives a process to one cell after the other; here the far side runs in this one."""
    (tmp_path / "processes").mkdir()
    folder = (("cannot-be-captured", "folder", str(tmp_path / "processes")),) if method == "CannotBeCaptured" else ()
    [cell] = cells(foreign(method), assignments=folder)

    def leave(code: int) -> None:
        raise Exit

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(ray_worker, "SECONDS_TO_DELIVER", 0.0)
    said: list[ray_worker.Message] = []
    try:
        for batch in ray_worker.tell(job(cell, tmp_path), ray_worker.Handed()):
            said += batch
        exited = False
    except Exit:
        exited = True
    last = said[-1]
    assert exited == exits and isinstance(last, Event)
    assert last.kind is (EventKind.AGAIN if method == "CannotBeCaptured" else EventKind.ENDED)


def test_a_worker_that_ended_is_begun_again_on_its_own_device(monkeypatch):
    """A second round of cells finds a worker for each device, not two for one."""
    begun = []

    class Worker:
        def __init__(self, device):
            self.device = device

    engine = LocalEngine(["cuda:0", "cuda:1", "cuda:0"], threads=1)
    monkeypatch.setattr(engine, "_start", lambda device: (begun.append(device), engine.workers.append(Worker(device))))
    engine.start(3)
    assert sorted(begun) == ["cuda:0", "cuda:0", "cuda:1"]
    engine.workers = [worker for worker in engine.workers if worker.device == "cuda:0"]
    engine.start(3)
    assert begun[3:] == ["cuda:1"]
