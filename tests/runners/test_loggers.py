"""Loggers receive what cells measure, and nothing that they do reaches a cell."""

from __future__ import annotations

import importlib.util
import io
import random
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

import continual_intervals as ci
from benchmarks.types import UserError
from runners import tune
from runners.cell.events import Event, EventKind, Throttle
from runners.cell.metrics import after_task
from runners.loggers import process, registry
from runners.loggers.feed import POINTS_A_TASK, Feed, _Curve
from runners.loggers.logger import Axis, Logger, Run
from runners.records.record import Measurements, Status
from tests.runners.helpers import cells, compare_here, decisive, job, tables

FEW = {"budget_scale": 0.02, "engine": "inline", "device": "cpu", "progress": False}
RUN = Run(
    "a" * 64, "digits til ewc seed 0", "digits til ewc", "digits/til/ewc/seed0-aaa", {"seed": 0, "config.lr": 0.1}
)
WRITES = """
import os
from continual_intervals import Logger
from helper_of_the_logger import SIGN


class Writes(Logger):
    def __init__(self, results):
        self.file = open(results / "heard.txt", "w")

    def begin(self, run):
        print(SIGN, run.name, file=self.file)

    def log(self, run, metrics, axis, at):
        print(axis, at, *metrics, file=self.file)

    def close(self):
        self.file.close()


class Dies(Logger):
    def begin(self, run):
        print("my last words")
        os._exit(3)
"""


class Remembers(Logger):
    """A logger that remembers its calls, draws random numbers, and may fail."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.calls = fails, list[tuple]()

    def begin(self, run: Run) -> None:
        self._call("begin", run)

    def log(self, run: Run, metrics: Mapping[str, float], axis: Axis, at: int) -> None:
        self._call("log", run, dict(metrics), axis, at)

    def end(self, run: Run, status: str, reason: str | None, metrics: Mapping[str, float]) -> None:
        self._call("end", run, status, dict(metrics))

    def _call(self, name: str, *values: object) -> None:
        self.drawn = random.random(), np.random.rand(), torch.rand(1)
        self.calls.append((name, *values))
        if name == self.fails:
            raise ValueError("no luck")


def test_a_logger_hears_the_numbers_of_the_record(tmp_path: Path) -> None:
    heard = Remembers()
    found = ci.run("hyperinterval", "split-digits", "til", results=tmp_path, logger=heard, **FEW)
    kinds = [call[0] for call in heard.calls]
    assert kinds[0] == "begin" and kinds[-1] == "end" and kinds.count("begin") == kinds.count("end") == 1
    run = heard.calls[0][1]
    (folder,) = tmp_path.glob("split-digits/til/hyperinterval/seed*")
    assert run.config["scenario"] == "til" and "config.lr" in run.config and "budget.steps" in run.config
    assert tmp_path / run.folder == folder
    logged = {axis: [call[2:] for call in heard.calls if call[0] == "log" and call[3] is axis] for axis in Axis}
    steps = [at for *_, at in logged[Axis.STEP]]
    assert steps == sorted(set(steps)) and steps[-1] == 5 * run.config["budget.steps"]
    losses = pd.read_csv(folder / "steps.csv").loss
    assert [metrics["loss"] for metrics, *_ in logged[Axis.STEP]] == list(losses)
    certified = pd.read_csv(folder / "certified.csv", index_col=0)
    assert [at for *_, at in logged[Axis.TASK]] == [1, 2, 3, 4, 5]
    for metrics, _, after in logged[Axis.TASK]:
        row = found.loc[0, after].dropna()
        assert [metrics[f"accuracy/task_{j}"] for j in range(1, len(row) + 1)] == list(row)
        assert metrics["accuracy/mean"] == pytest.approx(row.iloc[:after].mean())
        assert metrics["certified/task_1"] == certified.loc[after, "task0"] and metrics["seconds/train"] > 0
    _, _, status, costs = heard.calls[-1]
    assert status == "done" and costs["parameters/trained"] > 0 and costs["total_seconds/train"] > 0


def test_a_failing_logger_changes_no_number_and_ends_no_cell(tmp_path: Path) -> None:
    """The generators of random numbers, which cells share with it in this process, too."""
    grid = {
        "methods": ("finetune",),
        "benchmarks": ("split-digits",),
        "scenarios": ("til",),
        "seeds": 4,
    }
    assert compare_here(tmp_path / "without", **grid)[0] == 0
    bad = Remembers("log")
    code, printed = compare_here(tmp_path / "with", loggers=(bad,), **grid)
    assert code == 0 and tables(tmp_path / "with") == tables(tmp_path / "without")
    assert decisive(tmp_path / "with") == decisive(tmp_path / "without")
    assert printed.count("is no longer logged: ValueError: no luck") == 2
    assert "logger Remembers failed 3 times and gets no more" in printed
    assert [call[0] for call in bad.calls] == ["begin", "log"] * 3


def test_a_file_runs_in_its_own_process_and_its_death_is_told(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(WRITES)
    (tmp_path / "helper_of_the_logger.py").write_text("SIGN = 'started'\n")
    names = tuple(f"{tmp_path / 'own.py'}:{name}" for name in ("Writes", "Dies"))
    grid = {"methods": ("finetune",), "benchmarks": ("split-digits",), "scenarios": ("til",), "seeds": 1}
    code, printed = compare_here(tmp_path / "out", loggers=names, **grid)
    assert code == 0 and "own.py:Dies ended early: my last words" in printed
    heard = (tmp_path / "out" / "heard.txt").read_text().splitlines()
    assert heard[0] == "started split-digits til finetune seed 0"
    assert sum(line.startswith("task 5 accuracy/mean accuracy/task_1") for line in heard) == 1
    assert "own" not in sys.modules


def test_a_logger_that_hangs_does_not_hold_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "SECONDS_TO_CLOSE", 0.1)
    file = tmp_path / "own.py"
    file.write_text(
        "import time\nfrom runners.loggers.logger import Logger\n\n\n"
        "class Hangs(Logger):\n    def begin(self, run):\n        time.sleep(1000)\n"
    )
    console = Console(file=io.StringIO(), width=200)
    (cell,) = cells("finetune")
    with Feed([f"{file}:Hangs"], tmp_path, console) as feed:
        for _ in range(2000):  # more than a pipe holds
            feed.heard(job(cell, tmp_path), Event(EventKind.STARTED, task=0))
    assert "Hangs did not end in 0.1 s; its last entries may be missing" in console.file.getvalue()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wnadb", r"no such logger. Did you mean wandb\? Available: tensorboard, wandb, mlflow, FILE.py:CLASS"),
        ("none.py:Mine", "there is no file none.py"),
        (f"{__file__}:Rememberz", "has no class 'Rememberz'. Did you mean Remembers?"),
        ("mlflow", r"needs the package mlflow: pip install -c constraints.txt -e '.\[mlflow\]'"),
    ],
)
def test_mistakes_get_a_sentence_before_anything_runs(tmp_path, monkeypatch, name, said) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mlflow" else there(name))
    with pytest.raises(UserError, match=said):
        compare_here(tmp_path / "out", methods=("finetune",), loggers=(name,))
    assert not (tmp_path / "out").exists()


def test_trials_are_logged_and_one_that_waits_for_a_look_goes_on_in_its_run(tmp_path: Path) -> None:
    """tune.py: one logger hears all studies, also the trials' streams, whose first ones stop at a look."""
    (tmp_path / "own.py").write_text(WRITES)
    (tmp_path / "helper_of_the_logger.py").write_text("SIGN = 'started'\n")
    arguments = ["--suite", "quick", "--method", "finetune", "--method", "ewc", "--scenarios", "til", "--trials", "1"]
    arguments += ["--budget-scale", "0.02", "--engine", "inline", "--device", "cpu", "--results", str(tmp_path / "out")]
    logger = ["--logger", f"{tmp_path / 'own.py'}:Writes"]
    done = CliRunner().invoke(tune.app, [*arguments, *logger], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    heard = (tmp_path / "out" / "heard.txt").read_text().splitlines()
    for method in ("finetune", "ewc"):
        begun = [i for i, line in enumerate(heard) if line.startswith(f"started split-digits til {method} (")]
        assert len(begun) == 2  # from the start, and from the look on
    tasks = [line.split()[1] for line in heard if line.startswith("task ")]
    assert tasks == ["1", "2", "3", "4", "5"] * 2


def test_an_object_that_is_no_logger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"give a name, FILE.py:CLASS, or an object of a subclass of Logger"):
        ci.run("finetune", "split-digits", "til", results=tmp_path, logger=print, **FEW)  # type: ignore[arg-type]


def test_the_curve_is_thinned_and_runs_over_all_tasks() -> None:
    curve = _Curve()
    found = list(curve.extended([(0, step, 10_000, 0.5) for step in range(1, 10_001)]))
    assert len(found) <= POINTS_A_TASK + 1 and found[-1][0] == 10_000
    assert list(curve.extended([(1, 50, 100, 0.1), (1, 100, 100, 0.2)])) == [(10_050, 0.1), (10_100, 0.2)]
    assert list(_Curve().extended([(3, 50, 100, 0.1)])) == [(350, 0.1)]  # goes on after three tasks


def test_a_throttle_loses_no_point_of_the_curve() -> None:
    said: list[Event] = []
    throttle = Throttle(said.append, 1000.0)
    for step in (1, 2, 3):
        throttle(Event(EventKind.PROGRESS, task=0, step=step, steps=3, loss=float(step)))
    throttle(Event(EventKind.TASK_DONE, task=0))
    throttle(Event(EventKind.ENDED))
    passed = [Event.from_json(event.to_json()) for event in said]
    assert [event.curve for event in passed] == [((0, 1, 3, 1.0),), ((0, 2, 3, 2.0), (0, 3, 3, 3.0)), None]


def test_a_cell_that_is_run_again_or_stopped_ends_every_run(tmp_path: Path) -> None:
    heard = Remembers()
    one, two = (job(cell, tmp_path) for cell in cells("finetune", seeds=2))
    with Feed([heard], tmp_path, Console(file=io.StringIO())) as feed:
        feed.heard(one, Event(EventKind.STARTED, task=0))
        feed.heard(one, Event(EventKind.STARTED, task=2))
        feed.heard(two, Event(EventKind.ENDED, status=Status.FAILED, reason="no build"))
    names = [(name, run.config["seed"], *(rest[:1] or [run.tasks_before])) for name, run, *rest in heard.calls]
    first = [("begin", 0, 0), ("end", 0, "stopped"), ("begin", 0, 2)]
    assert names == [*first, ("begin", 1, 0), ("end", 1, "failed"), ("end", 0, "stopped")]


def test_what_was_not_measured_is_left_out() -> None:
    measured = Measurements.empty(2)
    measured.accuracy[1] = [0.5, None]
    assert after_task(measured, 1) == {"accuracy/mean": 0.5, "accuracy/task_1": 0.5}


def test_the_costs_of_a_task_are_its_own() -> None:
    measured = Measurements.empty(2)
    measured.train_seconds += [1.0, 2.0]
    measured.evaluate_seconds += [0.1, 0.2]
    measured.stored_per_task += [5, 7]
    found = after_task(measured, 2)
    assert (found["seconds/train"], found["seconds/evaluate"], found["parameters/stored"]) == (2.0, 0.2, 7.0)


LOSSES = ((10, 0.5), (20, 0.25), (30, 0.75), (40, 0.75))
"""Steps and losses of the run of `drive` that goes on."""


def drive(logger: Logger) -> None:
    """Two runs at the same time, one of which fails and goes on: it repeats step 30."""
    other = Run("b" * 64, "digits til si seed 0", "digits til si", "digits/til/si/seed0-bbb", {"seed": 1})
    for run in (RUN, other):
        logger.begin(run)
    for at, value in ((10, 0.5), (20, 0.25)):
        for run in (RUN, other):
            logger.log(run, {"loss": value}, Axis.STEP, at)
    logger.log(RUN, {"accuracy/mean": 0.75, "accuracy/task_1": 0.75}, Axis.TASK, 1)
    logger.log(RUN, {"loss": 0.75}, Axis.STEP, 30)
    logger.end(RUN, "failed", "no memory", {})
    going_on = replace(RUN, tasks_before=1)
    logger.begin(going_on)
    for at in (30, 40):
        logger.log(going_on, {"loss": 0.75}, Axis.STEP, at)
    logger.log(going_on, {"accuracy/mean": 0.5, "accuracy/task_1": 0.5}, Axis.TASK, 2)
    logger.end(going_on, "done", None, {"total_seconds/train": 3.0})
    logger.end(other, "failed", "no luck", {})
    logger.close()


def test_tensorboard_shows_steps_tasks_and_settings(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    drive(registry.make("tensorboard", tmp_path))
    shown = EventAccumulator(str(tmp_path / "tensorboard" / RUN.folder)).Reload()
    assert [(point.step, point.value) for point in shown.Scalars("loss")] == [*LOSSES]
    assert [(point.step, point.value) for point in shown.Scalars("accuracy/task_1")] == [(1, 0.75), (2, 0.5)]
    assert b"config.lr" in b"".join(map(str.encode, map(str, shown.summary_metadata.values())))
    assert shown.Tensors("status/text_summary")[-1].tensor_proto.string_val == [b"done"]


def test_tensorboard_shows_nothing_of_an_attempt_that_does_not_go_on(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    drive(registry.make("tensorboard", tmp_path))
    logger, folder = registry.make("tensorboard", tmp_path), tmp_path / "tensorboard" / RUN.folder
    (folder / "mine.txt").write_text("of the user")
    logger.begin(RUN)
    logger.log(RUN, {"loss": 0.5}, Axis.STEP, 15)
    logger.close()
    assert [point.step for point in EventAccumulator(str(folder)).Reload().Scalars("loss")] == [15]
    assert (folder / "mine.txt").is_file()


@pytest.mark.slow
def test_wandb_writes_offline_runs_of_cells_that_run_at_the_same_time(tmp_path, monkeypatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    drive(registry.make("wandb", tmp_path))
    ids = {file.name: file.read_text() for file in (tmp_path / "wandb" / "ids").iterdir()}
    assert set(ids) == {RUN.key, "b" * 64}
    written = [file.read_bytes() for file in tmp_path.glob(f"wandb/offline-run-*-{ids[RUN.key]}/*.wandb")]
    assert written and all(RUN.name.encode() in content for content in written)
    assert b"accuracy/task_1" in b"".join(written)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of SQLAlchemy, about MLflow's queries
def test_mlflow_stores_settings_metrics_and_status(tmp_path, monkeypatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    logger = registry.make("mlflow", tmp_path)
    drive(logger)
    client = logger.client
    found = {run.info.run_name: run for run in client.search_runs([logger.experiment])}
    assert set(found) == {RUN.name, "digits til si seed 0"}  # what goes on is no second run
    run = found[RUN.name]
    assert run.data.params == {"seed": "0", "config.lr": "0.1"} and run.info.status == "FINISHED"
    history = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "accuracy/task_1")]
    assert history == [(1, 0.75), (2, 0.5)] and run.data.metrics["total_seconds/train"] == 3.0
    assert [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "loss")] == [*LOSSES]
    assert (run.data.tags["status"], run.data.tags["reason"]) == ("done", "")
    failed = found["digits til si seed 0"]
    assert failed.info.status == "FAILED" and failed.data.tags["reason"] == "no luck"
    logger.begin(Run("b" * 64, failed.info.run_name, "", "", {}, tasks_before=1))
    tags = client.get_run(failed.info.run_id).data.tags
    assert (tags["status"], tags["reason"]) == ("running", "")
