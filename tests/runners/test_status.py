from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from runners.cell.events import Event, EventKind
from runners.grid.cells import Conditions, Job
from runners.records.record import Status
from runners.watch import status
from runners.watch.board import Board
from runners.watch.status import StatusFile
from tests.runners.helpers import call, cells, command, compare_here, environment, foreign


def jobs(results, n: int) -> list[Job]:
    return [Job(cell, cell.folder(results), Conditions()) for cell in cells("finetune", seeds=n)]


def a_board(results) -> Board:
    """Three cells: one under way, one failed, one waiting."""
    board, (first, second, third) = Board(), jobs(results, 3)
    board.planned([first, second, third], [])
    board.heard(first, Event(EventKind.STARTED, task=0))
    board.heard(first, Event(EventKind.TASK_DONE, task=1, accuracy=0.75))
    board.heard(second, Event(EventKind.ENDED, status=Status.FAILED, reason="ValueError: no such law"))
    return board


def shown(results) -> str:
    console = Console(file=io.StringIO(), width=160, color_system=None)
    status.show(results, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_status_json_tells_what_is_done_under_way_failed_and_left(tmp_path, monkeypatch):
    monkeypatch.setattr(status, "SECONDS_BETWEEN_WRITES", 0.02)
    with StatusFile(tmp_path, a_board(tmp_path), "the command"):
        deadline = time.monotonic() + 300
        while not (tmp_path / "status.json").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        body = json.loads((tmp_path / "status.json").read_text())
        text = shown(tmp_path)
    [run] = body["runs"]
    assert (body["schema"], run["state"], run["command"], run["process"]) == (1, "running", "the command", os.getpid())
    progress = run["progress"]
    assert progress["counts"] == {"failed": 1} and progress["total"] == 3
    [running], [failure] = progress["running"], progress["failures"]
    assert (running["task"], running["n_tasks"], running["accuracy"]) == (3, 5, 0.75)
    assert failure["reason"] == "ValueError: no such law" and failure["folder"].startswith(str(tmp_path))
    assert progress["waiting"] == [{"benchmark": "split-digits", "scenario": "til", "method": "finetune", "cells": 1}]
    for said in ("1/3 cells", "1 failed", "3/5", "75.0 %", "no such law", "split-digits til: finetune 1", "running on"):
        assert said in text
    assert status.read(tmp_path)[0].state == "ended"


def test_two_runs_on_one_folder_keep_an_entry_each_until_they_end(tmp_path):
    with StatusFile(tmp_path, a_board(tmp_path), "first") as first:
        first._write("running")
        second = StatusFile(tmp_path, a_board(tmp_path), "second")
        second.run = replace(second.run, started="2020-01-01T00:00:00+00:00")
        with second:
            second._write("running")
            assert {run.command for run in status.read(tmp_path)} == {"first", "second"}
    assert [run.command for run in status.read(tmp_path)] == ["first"]


def test_a_loss_that_is_no_number_takes_no_run_from_status_json(tmp_path):
    first = StatusFile(tmp_path, a_board(tmp_path), "first")
    second = StatusFile(tmp_path, a_board(tmp_path), "second \x1b[31m")
    second.run = replace(second.run, started="2020-01-01T00:00:00+00:00")
    running = Event(EventKind.PROGRESS, task=0, step=1, steps=2, loss=float("nan"))
    second.board.heard(jobs(tmp_path, 3)[0], running)
    for file in (first, second, first):
        file._write("running")
        json.loads((tmp_path / "status.json").read_text(), parse_constant=pytest.fail)
    second, first = status.read(tmp_path)
    assert (first.command, second.command) == ("first", "second \\x1b[31m")
    assert second.progress.running[0].loss is None and "second" in shown(tmp_path)


def test_a_run_whose_process_is_gone_does_not_look_alive(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    file = StatusFile(tmp_path, a_board(tmp_path), "the command")
    file.run = replace(file.run, process=ended.pid)
    file._write("running")
    assert status.read(tmp_path)[0].state == "gone"
    assert "the same command resumes it" in shown(tmp_path)


def test_a_later_process_of_the_same_number_does_not_make_a_run_look_alive(tmp_path, monkeypatch):
    run = StatusFile(tmp_path, a_board(tmp_path), "the command").run
    silent = replace(run, updated="2020-01-01T00:00:00+00:00")
    assert status._state(run) == status._state(silent) == "running"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        assert status._state(replace(run, process=other.pid)) == "gone"
        other.communicate()
    monkeypatch.setattr(status, "_born", lambda _: "")  # another system, or a file of an earlier version
    assert status._state(run) == "running" and status._state(silent) == "gone"


@pytest.mark.parametrize("updated, state", [("2020-01-01T00:00:00+00:00", "gone"), (None, "running")])
def test_a_run_on_another_machine_is_judged_by_its_last_sign_of_life(tmp_path, updated, state):
    file = StatusFile(tmp_path, a_board(tmp_path), "the command")
    run = replace(file.run, host="elsewhere", updated=updated or status._now())
    assert status._state(run) == state


@pytest.fixture(scope="module")
def failing(tmp_path_factory) -> tuple[Path, int, str]:
    """A results folder with three cells done and three failed, the exit code and what was printed."""
    results = tmp_path_factory.mktemp("failing")
    return results, *compare_here(results, methods=("finetune",), foreign=(foreign("Raises"),), seeds=1)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 1, "runs": [{}]}', '{"schema": 2, "runs": []}'])
def test_without_a_usable_status_json_the_records_speak(failing, content, tmp_path):
    results = tmp_path / "copy"
    shutil.copytree(failing[0], results)
    (results / "status.json").write_text(content)
    text = shown(results)
    assert "6/6 cells" in text and "3 done" in text and "3 failed" in text and "the third law does not hold" in text


def test_a_folder_that_is_not_there_is_a_clear_mistake(tmp_path):
    done = call("--status", tmp_path / "none")
    assert done.returncode == 2 and f"--status {tmp_path / 'none'}: there is no such folder" in done.stderr
    done = call("--watch")
    assert done.returncode == 2 and "write --status RESULTS --watch" in done.stderr


def test_failures_are_summed_up_with_the_file_of_their_traceback(failing):
    results, code, output = failing
    failed = [line for line in output.splitlines() if line.startswith("failed ")]
    assert code == 1 and len(failed) == 3
    path = failed[0].rpartition("(")[2].rstrip(")")
    assert "the third law does not hold" in failed[0] and "line" in Path(path).read_text()
    assert status.read(results)[0].progress.counts == {"done": 3, "failed": 3}


def test_watching_ends_with_the_run_and_shows_how_it_ended(tmp_path):
    run = subprocess.Popen(
        command(
            *("--methods", "ewc", "--scenarios", "til", "--seeds", "1", "--no-report", "--workers", "1"),
            *("--results", tmp_path, "--budget-scale", "1000"),
        ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    deadline = time.monotonic() + 300
    while not (tmp_path / "status.json").exists():
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    watching = subprocess.Popen(
        command("--status", tmp_path, "--watch"), stdout=subprocess.PIPE, text=True, env=environment()
    )
    time.sleep(1.0)  # long enough for it to watch, mostly; where it comes too late it says the same
    run.send_signal(signal.SIGINT)
    run.wait(300)
    output, _ = watching.communicate(timeout=300)
    assert watching.returncode == 0
    said = " ".join(output.split())  # long commands are wrapped
    assert "stopped on" in said and "the same command resumes it" in said
