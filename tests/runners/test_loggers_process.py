"""A logger's process outlives signals to the command, and what goes wrong in it is told."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock, Timeout
from rich.console import Console

from runners.cell import checkpoint
from runners.cell.events import Event, EventKind
from runners.cell.execution import run_cell
from runners.loggers import process, registry
from runners.loggers.feed import Feed
from runners.loggers.logger import Axis
from runners.loggers.messages import LONGEST
from runners.loggers.process import Remote
from runners.records.record import Status
from tests.runners.helpers import cells, command, environment, job

LOGGERS = """
import os
import sys
import time
from runners.loggers.logger import Logger


class Writes(Logger):
    def __init__(self, results):
        self.file = open(results / "heard.txt", "w")

    def begin(self, run):
        print("begin", file=self.file)

    def end(self, run, status, reason, metrics):
        print("end", status, file=self.file)

    def close(self):
        print("close", file=self.file, flush=True)


class Leaves(Logger):
    def begin(self, run):
        sys.exit()


class Quits(Logger):
    def close(self):
        os._exit(0)


class Sleeps(Logger):
    def __init__(self, results):
        time.sleep(1000)


class Breaks(Logger):
    def begin(self, run):
        raise OSError("(Operational) duplicate column\\n[SQL: " + 50 * "ALTER TABLE metrics " + "to the last]")


class Grumbles(Logger):
    def __init__(self, results):
        raise OSError(100 * "no disk " + "to the last")
"""


@pytest.fixture
def named(tmp_path: Path):
    """The name of a class of LOGGERS."""
    (tmp_path / "own.py").write_text(LOGGERS)
    return lambda name: f"{tmp_path / 'own.py'}:{name}"


def run_one(results: Path, *loggers: str) -> str:
    """What is printed about loggers of one cell that starts."""
    console = Console(file=io.StringIO(), width=200)
    (cell,) = cells("finetune")
    with Feed(loggers, results, console) as feed:
        feed.heard(job(cell, results), Event(EventKind.STARTED, task=0))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_sigterm_to_the_whole_group_lets_the_logger_end_its_runs(tmp_path: Path, named) -> None:
    """As `kill -- -GROUP`, `timeout` and batch systems send it."""
    grid = ("--suite", "quick", "--methods", "ewc", "--scenarios", "til", "--seeds", "1", "--no-reference")
    out = tmp_path / "out"
    printed = subprocess.Popen(
        command(*grid, "--no-report", "--engine", "inline", "--results", out, "--logger", named("Writes")),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(), start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not list(out.rglob("checkpoint.pt")):
        assert printed.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(printed.pid, signal.SIGTERM)
    output, _ = printed.communicate(timeout=300)
    assert printed.returncode == 130 and "ended early" not in output
    assert (out / "heard.txt").read_text().split("\n") == ["begin", "end stopped", "close", ""]


def test_signals_to_the_logger_itself_do_not_end_it(tmp_path: Path, named) -> None:
    """A batch system may signal every process of a job, whatever its group."""
    console = Console(file=io.StringIO(), width=200)
    (cell,) = cells("finetune")
    with Feed([named("Writes")], tmp_path, console) as feed:
        (remote,) = feed.receivers
        assert isinstance(remote, Remote) and os.getsid(remote.process.pid) != os.getsid(0)
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(remote.process.pid, number)
        feed.heard(job(cell, tmp_path), Event(EventKind.STARTED, task=0))
    assert (tmp_path / "heard.txt").read_text().splitlines() == ["begin", "end stopped", "close"]
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]


def test_a_logger_that_leaves_with_exit_code_0_is_told_of(tmp_path: Path, named) -> None:
    printed = run_one(tmp_path, named("Leaves"), named("Quits"), named("Writes"))
    assert printed.count("ended early") == 2 and ":Leaves ended" in printed and ":Quits ended" in printed


def test_a_logger_that_does_not_start_is_named_at_once_and_at_the_end(tmp_path, named, monkeypatch) -> None:
    monkeypatch.setattr(process, "SECONDS_TO_START", 0.1)
    monkeypatch.setattr(process, "SECONDS_TO_CLOSE", 0.1)
    console = Console(file=io.StringIO(), width=200)
    with Feed([named("Sleeps")], tmp_path, console):
        first = console.file.getvalue()  # type: ignore[attr-defined]
        assert first.endswith("Sleeps has not started after 0.1 s; the cells do not wait for it\n")
    assert console.file.getvalue()[len(first) :].endswith("never started: nothing was logged\n")  # type: ignore[attr-defined]


def test_all_loggers_are_told_of_the_end_before_the_first_is_waited_for(tmp_path: Path) -> None:
    calls: list[str] = []
    fake = SimpleNamespace(finish=lambda: calls.append("finish"), close=lambda: calls.append("close"))
    with Feed([], tmp_path, Console(file=io.StringIO())) as feed:
        feed.receivers += [fake, fake]  # type: ignore[list-item]
    assert calls == ["finish", "finish", "close", "close"]


def test_long_errors_are_told_in_short_and_stand_in_the_log_in_full(tmp_path: Path, named) -> None:
    breaks, grumbles = run_one(tmp_path, named("Breaks"), named("Grumbles")).splitlines()[::-1]
    assert breaks.endswith("is no longer logged: OSError: (Operational) duplicate column")
    told = grumbles.partition("OSError: ")[2].partition("; the cells")[0]
    assert len(told) == LONGEST and told.endswith("...")
    for name in ("Breaks", "Grumbles"):
        assert "to the last" in (tmp_path / "loggers" / f"own.py-{name}.log").read_text()


def test_mlflow_makes_its_store_alone_and_gives_a_dead_server_up_soon(tmp_path, monkeypatch) -> None:
    """With a client that looks around: commands that start together must not create one store's tables twice."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    retries = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    monkeypatch.delenv(retries, raising=False)
    seen = []

    class Client:
        def __init__(self, place: str) -> None:
            self.place = place

        def get_experiment_by_name(self, name: str):
            try:
                FileLock(tmp_path / ".mlflow.lock", timeout=0).acquire()
                alone = False
            except Timeout:
                alone = True
            seen.append((self.place.partition(":")[0], alone, os.environ.get(retries)))
            return SimpleNamespace(experiment_id="7") if len(seen) > 1 else None

        def create_experiment(self, name: str, files: str | None):
            raise RuntimeError("it exists")  # another command was faster

    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=Client))
    monkeypatch.setitem(sys.modules, "mlflow.entities", SimpleNamespace(Metric=None))
    assert registry.make("mlflow", tmp_path).experiment == "7"  # type: ignore[attr-defined]
    assert seen == [("sqlite", True, "2"), ("sqlite", True, "2")] and retries not in os.environ
    monkeypatch.setenv(retries, "9")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    registry.make("mlflow", tmp_path)
    assert seen[2:] == [("http", False, "9")]


def test_a_task_that_was_saved_but_not_told_is_logged_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process ends between the two; the next one tells the loggers, and later ones do not repeat it."""
    from tests.runners.test_loggers import Remembers

    save = checkpoint.save

    def part(results: Path, heard: Remembers, saves: int | None = None, tasks_told: int | None = None) -> None:
        """Run the cell on until it has saved so many tasks, or has begun to train after being told of so many."""
        (cell,) = cells("finetune")
        here = job(cell, results)

        def save_and_end(*args) -> None:
            save(*args)
            if args[2].tasks_done == saves:
                raise KeyboardInterrupt

        def hear(event: Event) -> None:
            feed.heard(here, event)
            if event.kind is EventKind.PROGRESS and event.task == tasks_told:
                raise KeyboardInterrupt

        monkeypatch.setattr(checkpoint, "save", save_and_end)
        with suppress(KeyboardInterrupt), Feed([heard], results, Console(file=io.StringIO())) as feed:
            run_cell(here, hear)

    def logged(heard: Remembers) -> list[tuple[int, dict[str, float]]]:
        calls = (call for call in heard.calls if call[0] == "log")
        found = [(at, metrics) for _, _, metrics, axis, at in calls if axis is Axis.TASK]
        return [(at, {name: value for name, value in each.items() if "seconds" not in name}) for at, each in found]

    whole, resumed = Remembers(), Remembers()
    part(tmp_path / "whole", whole)
    part(tmp_path / "resumed", resumed, saves=1)
    assert logged(resumed) == []
    part(tmp_path / "resumed", resumed, saves=3)
    assert [at for at, _ in logged(resumed)] == [1, 2]
    part(tmp_path / "resumed", resumed, tasks_told=3)
    part(tmp_path / "resumed", resumed)
    assert logged(resumed) == logged(whole) and [at for at, _ in logged(whole)] == [1, 2, 3, 4, 5]


def test_a_cell_that_goes_on_keeps_its_axis(tmp_path: Path) -> None:
    """Tasks of different lengths; and a failure before the training is one of the run that goes on."""
    from tests.runners.test_loggers import Remembers

    (cell,) = cells("finetune")
    heard, here = Remembers(), job(cell, tmp_path)
    for task, steps, step in ((0, 10, 10), (1, 20, 5), (1, 20, 20)):
        with Feed([heard], tmp_path, Console(file=io.StringIO())) as feed:
            feed.heard(here, Event(EventKind.STARTED, task=task))
            feed.heard(here, Event(EventKind.PROGRESS, task=task, step=step, steps=steps, loss=0.5))
            if step == steps:
                feed.heard(here, Event(EventKind.TASK_DONE, task=task, metrics={}))
    assert [call[4] for call in heard.calls if call[0] == "log" and call[2]] == [10, 15, 30]
    with Feed([heard], tmp_path, Console(file=io.StringIO())) as feed:
        feed.heard(here, Event(EventKind.ENDED, status=Status.FAILED, reason="no build"))
        assert heard.calls[-2][1].tasks_before == 2
        feed.heard(here, Event(EventKind.STARTED, task=2))
        feed.heard(here, Event(EventKind.ENDED, status=Status.DONE))
        feed.heard(here, Event(EventKind.ENDED, status=Status.FAILED, reason="no build"))
        assert heard.calls[-2][1].tasks_before == 0
