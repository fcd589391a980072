"""Every engine gives the same records; what a Ray task loses is found again."""

from __future__ import annotations

from pathlib import Path

import pytest

from runners.cell import blank
from runners.cell.events import Event, EventKind
from runners.engines import scheduler
from runners.engines.engine import Engine, InlineEngine
from runners.engines.local import LocalEngine
from runners.engines.ray_engine import RayEngine
from runners.engines.scheduler import Outcome, run_grid
from runners.grid.cells import Cell, Conditions
from runners.process.resources import Need
from runners.records.folder import LOCK, CellFolder
from runners.records.record import Status
from tests.runners.helpers import Watching, cells, decisive, foreign, job, tables


def a_ray_engine(**options: object) -> RayEngine:
    return RayEngine(**{"address": "local", "workers": 2, "device": "cpu", "threads": 1, "need": Need(), **options})


@pytest.fixture(scope="module")
def ray_engine():
    engine = a_ray_engine()
    yield engine
    engine.close()


def run(some: list[Cell], results: Path, engine: Engine, watcher: Watching | None = None) -> dict[str, Outcome]:
    outcomes = run_grid(some, results, Conditions(command="test"), engine, watcher or Watching())
    return {outcome.cell.label: outcome for outcome in outcomes}


def notes(watcher: Watching) -> list[str]:
    return [str(event.reason) for _, event in watcher.events if event.kind is EventKind.NOTE]


def test_one_grid_gives_the_same_records_bit_for_bit_on_every_engine(tmp_path, ray_engine):
    some = cells("hnet", "si", foreign("Good"), foreign("TilOnly"), scenarios=("til", "cil"))
    run(some, tmp_path / "inline", InlineEngine(threads=1))
    wanted, records = tables(tmp_path / "inline"), decisive(tmp_path / "inline")
    assert len(records) == 8 and len(wanted) >= 14
    for name, workers in (("one", 1), ("two", 2)):
        engine = LocalEngine(["cpu"] * workers, threads=1)
        try:
            run(some, tmp_path / name, engine)
        finally:
            engine.close()
    run(some, tmp_path / "ray", ray_engine)
    for name in ("one", "two", "ray"):
        assert tables(tmp_path / name) == wanted, name
        assert decisive(tmp_path / name) == records, name
    sheet = (tmp_path / "inline" / "split-digits" / "samples.png").read_bytes()
    assert (tmp_path / "ray" / "split-digits" / "samples.png").read_bytes() == sheet


def test_a_ray_task_that_dies_goes_on_elsewhere_from_its_last_finished_task(tmp_path, ray_engine):
    [cell] = cells(foreign("KilledOnce"), assignments=(("killed-once", "flag", str(tmp_path / "flag")),))
    watcher = Watching()
    outcome = run([cell], tmp_path / "killed", ray_engine, watcher)["killed-once"]
    assert outcome.status is Status.DONE, outcome.reason
    assert notes(watcher) == ["its process died; retried", "resumed after task 1 of 5"]
    run([cell], tmp_path / "whole", InlineEngine(threads=1))
    assert tables(tmp_path / "killed") == tables(tmp_path / "whole")


@pytest.mark.slow
def test_misbehaving_ray_tasks_fail_by_themselves_and_the_others_run(tmp_path, ray_engine):
    names = ("Killed", "Raises", "Good", "NanLoss", "OutOfMemory")
    found = run(cells(*map(foreign, names)), tmp_path, ray_engine)
    assert {label: outcome.status for label, outcome in found.items()} == {
        "killed": Status.FAILED,
        "raises": Status.FAILED,
        "good": Status.DONE,
        "nan-loss": Status.DIVERGED,
        "out-of-memory": Status.OOM,
    }
    assert found["killed"].reason == "the process of the cell died 2 times"
    record = CellFolder(found["raises"].folder).read()
    assert record is not None and "the third law does not hold" in str(record.traceback)
    for outcome in found.values():
        with CellFolder(outcome.folder).lock() as held:
            assert held, f"{outcome.folder / LOCK} is still held"


@pytest.mark.slow
def test_a_ray_task_that_hangs_is_ended(tmp_path, ray_engine):
    ray_engine.cell_timeout = 3.0
    try:
        found = run(cells(foreign("Hangs")), tmp_path, ray_engine)
    finally:
        ray_engine.cell_timeout = None
    assert found["hangs"].reason == "timeout: the cell ran longer than 3 s"


def test_a_cell_that_cannot_be_handed_to_ray_fails_by_itself(tmp_path, ray_engine, monkeypatch):
    """An error on the driver's side, before the task is begun; the others run."""
    first, second = cells(foreign("Good"), "si")
    usable = blank.usable_record

    def broken_for_the_first(folder, key, emit):
        if key == first.key:
            raise RuntimeError("the second law does not hold")
        return usable(folder, key, emit)

    monkeypatch.setattr(blank, "usable_record", broken_for_the_first)
    found = run([first, second], tmp_path, ray_engine)
    assert [found[cell.label].status for cell in (first, second)] == [Status.FAILED, Status.DONE]
    record = CellFolder(found[first.label].folder).read()
    assert record is not None and "the second law does not hold" in str(record.reason)


def test_a_failure_recorded_by_the_driver_sets_an_unusable_record_aside(tmp_path, monkeypatch):
    [cell] = cells("finetune")
    folder = CellFolder(cell.folder(tmp_path))
    folder.path.mkdir(parents=True)
    (folder.path / "cell.json").write_text('{"schema": 2}')
    monkeypatch.setattr(
        scheduler, "_lacking_data", lambda jobs, _: {scheduler._dataset(job): "no data" for job in jobs}
    )
    [outcome] = run([cell], tmp_path, InlineEngine(threads=1)).values()
    assert outcome.status is Status.FAILED and (folder.read() or pytest.fail()).status is Status.FAILED
    assert (outcome.reason or "").startswith(f"no data ({cell.place}: unusable record (schema 2")
    assert (folder.path / "aside-0" / "cell.json.old").read_text() == '{"schema": 2}'


def test_a_cell_that_another_process_holds_is_left_alone(tmp_path, ray_engine):
    [cell] = cells("finetune")
    heard: list[Event] = []
    with CellFolder(cell.folder(tmp_path)).lock():
        ray_engine.run([job(cell, tmp_path)], heard.append)
    assert [event.kind for event in heard] == [EventKind.ELSEWHERE]
