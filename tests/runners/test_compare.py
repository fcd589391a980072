"""The compare command from start to end: kills, interrupts, two at once, and what it prints."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from runners.records.record import Record
from tests.runners.helpers import call, command, compare_here, environment, foreign, tables

GRID = ("--methods", "ewc,si", "--scenarios", "til,cil", "--seeds", "1", "--budget-scale", "0.2", "--no-report")
OPTIONS = {"methods": ("ewc", "si"), "seeds": 1, "budget_scale": 0.2}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, str]:
    """The tables of the grid, made in this process without interruption."""
    from benchmarks.types import CIL, TIL

    results = tmp_path_factory.mktemp("undisturbed")
    code, _ = compare_here(results, scenarios=(TIL, CIL), **OPTIONS)
    assert code == 0
    return tables(results)


def begin(results: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*GRID, "--workers", "1", "--results", results),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )


def wait_for_a_checkpoint(process: subprocess.Popen[str], results: Path) -> None:
    deadline = time.monotonic() + 300
    while not list(results.rglob("checkpoint.pt")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


def test_a_killed_run_goes_on_and_equals_an_undisturbed_one(tmp_path, undisturbed):
    process = begin(tmp_path)
    wait_for_a_checkpoint(process, tmp_path)
    process.kill()
    process.communicate()
    assert tables(tmp_path) != undisturbed
    before = {file: file.read_text() for file in tmp_path.rglob("cell.json")}
    again = call(*GRID, "--engine", "inline", "--results", tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert tables(tmp_path) == undisturbed
    finished = {file: text for file, text in before.items() if Record.from_json(text).status.finished}
    assert all(file.read_text() == text for file, text in finished.items())
    third = call(*GRID, "--engine", "inline", "--results", tmp_path)
    assert third.stdout.splitlines()[0] == "4 cells: 4 finished before, 0 to run"


@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupt_ends_cleanly_and_the_same_command_goes_on(tmp_path, undisturbed, how):
    process = begin(tmp_path)
    wait_for_a_checkpoint(process, tmp_path)
    process.send_signal(how)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 130
    assert output.splitlines()[-1] == "stopped; run the same command again to resume"
    assert "Traceback" not in output
    assert call(*GRID, "--engine", "inline", "--results", tmp_path).returncode == 0
    assert tables(tmp_path) == undisturbed


def test_two_commands_on_one_results_folder_share_the_cells(tmp_path, undisturbed):
    both = [begin(tmp_path) for _ in range(2)]
    outputs = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert all("4 done" in output for output in outputs)
    assert tables(tmp_path) == undisturbed
    assert not list(tmp_path.rglob("aside-*")) and not list(tmp_path.rglob("checkpoint.pt"))


def test_nothing_around_a_run_changes_a_number(tmp_path):
    """Order of the cells, number of workers, engine, hash seed and locale."""
    one, other = tmp_path / "one", tmp_path / "other"
    methods = ("ewc", "hyperinterval")
    assert compare_here(one, methods=methods, seeds=1)[0] == 0
    arguments = ("--methods", ",".join(reversed(methods)), "--scenarios", "cil,dil,til", "--seeds", "1")
    done = subprocess.run(
        command(*arguments, "--budget-scale", "0.02", "--no-report", "--workers", "2", "--results", other),
        env=environment(PYTHONHASHSEED="7", LC_ALL="C"), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(tables(one)) > 6 and tables(other) == tables(one)


def test_plain_lines_where_the_output_is_no_terminal(tmp_path):
    code, output = compare_here(tmp_path, methods=("finetune",), seeds=2)
    lines = output.splitlines()
    assert code == 0
    assert lines[0] == "6 cells: 0 finished before, 6 to run"
    assert lines[1].startswith("[1/6] done      split-digits til finetune seed 0  accuracy ")
    assert lines[-1] == "6 done"


def test_a_dry_run_writes_nothing_and_estimates_from_what_is_on_record(tmp_path):
    options = {"methods": ("finetune",), "seeds": 1}
    code, output = compare_here(tmp_path / "none", dry_run=True, **options)
    assert code == 0 and not (tmp_path / "none").exists()
    assert output.splitlines()[-1].startswith("3 cells, 0 finished, 3 to run: about ")
    assert "shipped times of " in output
    compare_here(tmp_path, **options)
    _, output = compare_here(tmp_path, dry_run=True, **options)
    assert re.search(r"split-digits +til +1 +1 +0 +6 steps of 32 +mlp-100-100 +6\d\d MB \(finetune\)", output)
    assert "3 cells, 3 finished, 0 to run: nothing left" in output
    _, output = compare_here(tmp_path, dry_run=True, methods=("finetune", "ewc"), seeds=2)
    assert "12 cells, 3 finished, 9 to run: about " in output and "shipped times" in output
    _, output = compare_here(tmp_path, dry_run=True, methods=(), foreign=(foreign("Good"),), seeds=1)
    assert "3 cells, 0 finished, 3 to run: no estimate and 3 cells that no record predicts" in output
    _, output = compare_here(tmp_path, dry_run=True, verbose=True, seeds=(5, 7), methods=("finetune",))
    assert "split-digits til finetune: 2 seeds, 0 finished, memory at least about 6" in output
    assert re.findall(r"  split-digits/til/finetune/(seed\d)-\w{12}: to run, about ", output) == ["seed5", "seed7"]


def test_the_report_holds_this_grid_and_not_what_else_lies_in_the_folder(tmp_path):
    options = {"methods": ("finetune",), "seeds": 1, "report": True}
    compare_here(tmp_path, methods=("joint",), seeds=1)
    code, output = compare_here(tmp_path, **options)
    assert code == 0 and "report.pdf" in output
    assert (tmp_path / "report" / "report.pdf").stat().st_size > 1000
    text = (tmp_path / "report" / "cells.csv").read_text()
    assert "finetune" in text and "joint" not in text
    done = call(tmp_path, "--out", tmp_path / "all", script="report.py")
    assert done.returncode == 0, done.stderr
    assert "joint" in (tmp_path / "all" / "cells.csv").read_text()


def test_the_command_works_from_any_folder(tmp_path):
    assert call("--list", cwd=tmp_path).returncode == 0
