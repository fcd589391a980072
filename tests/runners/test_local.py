"""The local engine with real worker processes, which are started once for most tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from benchmarks.types import UserError
from runners.cell.events import Event, EventKind
from runners.engines import local
from runners.engines.local import LocalEngine, cause_of_death
from runners.engines.scheduler import run_grid
from runners.grid.cells import Conditions, Job
from runners.records.folder import CellFolder
from runners.records.record import Status
from tests.runners.helpers import Watching, cells, compare_here, foreign, job, tables


@pytest.fixture(scope="module")
def engine():
    engine = LocalEngine(["cpu", "cpu"], threads=1)
    yield engine
    engine.close()


def run(some, results, engine, watcher=None):
    outcomes = run_grid(some, results, Conditions(command="test"), engine, watcher or Watching())
    return {outcome.cell.label: outcome for outcome in outcomes}


@pytest.mark.slow
def test_the_same_grid_gives_the_same_tables_whatever_the_engine(tmp_path, engine):
    some = cells("finetune", "si", scenarios=("til", "cil"))
    run(some, tmp_path / "two", engine)
    file = tmp_path / "defaults.toml"  # the suite quick has tuned values, which these cells have not
    file.write_text(
        'description = "defaults"\nmethods = ["finetune", "si"]\nscenarios = ["til", "cil"]\nseeds = 1\n'
        '[[benchmarks]]\nname = "split-digits"\n'
    )
    options = {"suites": (str(file),), "benchmarks": ("split-digits",), "seeds": 1}
    scenarios = {"scenarios": tuple(dict.fromkeys(cell.scenario for cell in some))}
    code, _ = compare_here(tmp_path / "here", **options, **scenarios)
    assert code == 0
    assert {cell.budget for cell in some} == {some[0].budget} and len(tables(tmp_path / "two")) == 8
    assert tables(tmp_path / "two") == tables(tmp_path / "here")


def test_misbehaving_cells_fail_by_themselves_and_the_others_run(tmp_path, engine):
    names = ("Killed", "Raises", "Good", "NanLoss", "Noisy", "OutOfMemory")
    watcher = Watching()
    found = run(cells(*map(foreign, names)), tmp_path, engine, watcher)
    assert {label: outcome.status for label, outcome in found.items()} == {
        "killed": Status.FAILED,
        "raises": Status.FAILED,
        "good": Status.DONE,
        "nan-loss": Status.DIVERGED,
        "noisy": Status.DONE,
        "out-of-memory": Status.OOM,
    }
    assert str(found["killed"].reason).startswith("worker killed by signal 9 (SIGKILL)")
    record = CellFolder(found["killed"].folder).read()
    assert record is not None and record.status is Status.FAILED and record.reason == found["killed"].reason
    ended = [job.cell.label for job, event in watcher.events if event.kind is EventKind.ENDED]
    assert sorted(ended) == sorted(found)


def test_finished_cells_are_not_run_again_and_failed_ones_are(tmp_path, engine):
    some = cells(foreign("Good"), foreign("NanLoss"), foreign("TilOnly"), foreign("Raises"), scenarios=("cil",))
    run(some, tmp_path, engine)
    watcher = Watching()
    found = run(some, tmp_path, engine, watcher)
    assert {job.cell.label for job, _ in watcher.events} == {"raises"}
    assert {label for label, outcome in found.items() if outcome.cached} == {"good", "nan-loss", "til-only"}


def test_a_worker_killed_from_outside_costs_its_cell_which_then_goes_on(tmp_path, engine):
    [cell] = cells("ewc")
    run([cell], tmp_path / "whole", engine)

    def kill(_job: Job, event: Event) -> None:
        if event.kind is EventKind.TASK_DONE and event.task == 1:
            busy = next(worker for worker in engine.workers if worker.job is not None)
            os.kill(busy.process.pid, signal.SIGKILL)

    outcome = run([cell], tmp_path / "killed", engine, Watching(kill))["ewc"]
    assert outcome.status is Status.FAILED and "signal 9" in str(outcome.reason)
    watcher = Watching()
    assert run([cell], tmp_path / "killed", engine, watcher)["ewc"].status is Status.DONE
    assert any("resumed after task" in str(event.reason) for _, event in watcher.events)
    assert tables(tmp_path / "killed") == tables(tmp_path / "whole")


def test_a_cell_that_hangs_is_ended(tmp_path):
    engine = LocalEngine(["cpu"], threads=1, cell_timeout=8.0)
    try:
        found = run(cells(foreign("Hangs")), tmp_path, engine)
    finally:
        engine.close()
    assert found["hangs"].reason == "timeout: the cell ran longer than 8 s"


def test_workers_that_do_not_start_are_a_clear_mistake(monkeypatch, tmp_path):
    monkeypatch.setattr(local, "WORKER", "no.such.module")
    engine = LocalEngine(["cpu"], threads=1)
    try:
        with pytest.raises(UserError, match="the worker processes do not start: worker ended with exit code 1"):
            engine.run([job(cells("finetune")[0], tmp_path)], lambda event: None)
    finally:
        engine.close()


def test_workers_end_when_their_driver_is_gone():
    code = (
        "import sys, time; from runners.engines.local import LocalEngine; "
        "engine = LocalEngine(['cpu'], 1); engine.start(1); print(engine.workers[0].process.pid, flush=True); "
        "time.sleep(60)"
    )
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    worker = int(driver.stdout.readline())
    driver.kill()
    driver.communicate()
    _wait_for_the_end_of(worker)


def _wait_for_the_end_of(process: int) -> None:
    import time

    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{process}/stat") as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return
        except FileNotFoundError:
            return
        time.sleep(0.05)
    raise AssertionError(f"process {process} is still there")


@pytest.mark.parametrize(
    "returncode, last_words, said",
    [
        (-9, "", "worker killed by signal 9 (SIGKILL); often the system's answer to a lack of memory"),
        (-11, "Fatal Python error", "worker killed by signal 11 (SIGSEGV); its last words: Fatal Python error"),
        (3, "", "worker ended with exit code 3"),
    ],
)
def test_the_cause_of_death_in_words(returncode, last_words, said):
    assert cause_of_death(returncode, last_words) == said
