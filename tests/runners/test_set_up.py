"""What goes wrong before a cell's method runs is that cell's failure; the process goes on to the next cell."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from runners.cell import execution
from runners.cell.events import Event, EventKind
from runners.cell.execution import run_cell
from runners.engines.engine import InlineEngine
from runners.engines.local import LocalEngine
from runners.engines.scheduler import run_grid
from runners.grid.cells import Conditions
from runners.plan import footprint
from runners.process import devices
from runners.records.folder import CellFolder, StorageError
from runners.records.record import Status
from tests.pretended import pretended
from tests.runners.helpers import Watching, cells, foreign, job, silent


@pytest.fixture
def gpu(monkeypatch):
    """A pretended GPU as a fresh process finds it: its memory cannot be asked for before it was set. Those set."""
    used: list[str] = []

    def reset(device):
        if str(device) not in used:
            raise RuntimeError("Invalid device argument : did you call init?")

    with pretended(), monkeypatch.context() as patch:
        patch.setenv("CONTINUAL_GRAPHS", "0")
        patch.setattr(torch.cuda, "set_device", lambda device: used.append(str(device)), raising=False)
        patch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
        yield used


def test_a_cell_on_a_gpu_that_the_process_has_not_used_yet(tmp_path, gpu):
    [cell] = cells("finetune")
    on_gpu = replace(job(cell, tmp_path), conditions=Conditions(device="cuda:0"))
    assert run_cell(on_gpu, silent) is Status.DONE
    record = CellFolder(on_gpu.folder).read()
    assert record is not None and record.environment["device"] == "cuda:0" and gpu == ["cuda:0"]
    assert record.memory_bytes["peak_device"] == 1 << 20


def test_the_device_of_a_cell_is_the_current_one(gpu):
    """Triton launches on the current device, whatever the device of its tensors."""
    devices.use(torch.device("cuda:3"))
    devices.use(torch.device("cpu"))
    assert gpu == ["cuda:3"]


def broken(*_: object) -> None:
    raise RuntimeError("the second law does not hold")


@pytest.mark.parametrize(
    "place, told", [("MemoryPeak", EventKind.ENDED), ("_CellRun", EventKind.LOST), ("usable_record", EventKind.LOST)]
)
def test_an_error_before_the_method_is_the_cells_failure(tmp_path, monkeypatch, place, told):
    [cell] = cells("finetune")
    heard: list[Event] = []
    monkeypatch.setattr(execution, place, broken)
    assert run_cell(job(cell, tmp_path), heard.append) is Status.FAILED
    assert heard[-1].kind is told and str(heard[-1].reason).startswith("RuntimeError: the second law does not hold")
    with CellFolder(cell.folder(tmp_path)).lock() as held:
        assert held


@pytest.mark.parametrize("error", [StorageError, KeyboardInterrupt])
def test_a_full_disk_and_an_interrupt_before_the_method_end_the_run(tmp_path, monkeypatch, error):
    def ends(*_: object) -> None:
        raise error("no more")

    [cell] = cells("finetune")
    monkeypatch.setattr(execution, "usable_record", ends)
    with pytest.raises(error):
        run_cell(job(cell, tmp_path), silent)


def test_the_next_cell_runs_and_the_driver_records_what_the_cell_could_not(tmp_path, monkeypatch):
    first, second = cells("finetune", "si")
    usable = execution.usable_record

    def broken_for_the_first(folder, key, emit):
        return broken() if key == first.key else usable(folder, key, emit)

    monkeypatch.setattr(execution, "usable_record", broken_for_the_first)
    outcomes = run_grid([first, second], tmp_path, Conditions(), InlineEngine(1), Watching())
    assert [outcome.status for outcome in outcomes] == [Status.FAILED, Status.DONE]
    record = CellFolder(outcomes[0].folder).read()
    assert record is not None and record.status is Status.FAILED
    assert "the second law does not hold" in str(record.reason) and "test_set_up.py:" in str(record.reason)


def test_a_worker_whose_device_is_none_fails_its_cells_with_their_traceback(tmp_path):
    engine = LocalEngine(["nowhere"], threads=1)
    try:
        [outcome] = run_grid(cells("finetune"), tmp_path, Conditions(), engine, Watching())
    finally:
        engine.close()
    record = CellFolder(outcome.folder).read()
    assert record is not None and record.status is Status.FAILED
    assert "nowhere" in str(record.reason) and "torch.device(" in str(record.traceback)


def test_a_folder_where_the_record_should_be_is_set_aside(tmp_path):
    [cell] = cells(foreign("Good"))
    (cell.folder(tmp_path) / "cell.json").mkdir(parents=True)
    watcher = Watching()
    [outcome] = run_grid([cell], tmp_path, Conditions(), InlineEngine(1), watcher)
    assert outcome.status is Status.DONE
    notes = [str(event.reason) for _, event in watcher.events if event.kind is EventKind.NOTE]
    assert len(notes) == 1 and "moved to aside-0" in notes[0]


def test_a_file_system_without_locks_is_a_clear_mistake(tmp_path, monkeypatch):
    def refuse(self):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr("filelock.FileLock._acquire", refuse)
    [cell] = cells("finetune")
    with pytest.raises(StorageError, match="does not appear to support flock"):
        run_cell(job(cell, tmp_path), silent)


def test_a_gpu_of_another_machine_refuses_no_cell(monkeypatch):
    """The driver of a cluster may have no GPU itself."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert footprint.capacity_of("cuda") == float("inf")
