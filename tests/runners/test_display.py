from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.types import Budget
from runners.cell.events import Event, EventKind
from runners.engines.scheduler import Outcome
from runners.grid.cells import Conditions, Job
from runners.plan.estimate import estimate, expected, history, in_words
from runners.records.record import Status
from runners.watch.live import Display
from tests.runners.helpers import cells, compare_here


def jobs(n: int) -> list[Job]:
    return [Job(cell, Path("folder"), Conditions()) for cell in cells("finetune", seeds=n)]


def shown(display: Display) -> str:
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    console.print(display.render())
    return console.file.getvalue()  # type: ignore[attr-defined]


def printed(display: Display) -> str:
    return display.console.file.getvalue()  # type: ignore[attr-defined]


def a_display(terminal: bool) -> Display:
    return Display(Console(file=io.StringIO(), width=120, force_terminal=terminal, color_system=None))


def test_a_row_for_each_cell_in_progress_and_counts_by_status():
    display, (first, second, third) = a_display(terminal=True), jobs(3)
    display.planned([first, second], [Outcome(third.cell, Path("f"), Status.DONE, None, cached=True)])
    for job in (first, second):
        display.heard(job, Event(EventKind.STARTED, task=0))
    display.heard(first, Event(EventKind.TASK_DONE, task=1, accuracy=0.987))
    display.heard(first, Event(EventKind.PROGRESS, task=2, step=50, steps=100, loss=0.125))
    text = shown(display)
    assert "1/3 cells" in text and "1 done  1 of them finished before" in text
    row = next(line for line in text.splitlines() if "seed 0" in line)
    assert "3/5" in row and "0.125" in row and "98.7 %" in row
    assert sum("split-digits til finetune" in line for line in text.splitlines()) == 2
    display.heard(first, Event(EventKind.ENDED, status=Status.DIVERGED, reason="the loss [nan] of task 2"))
    text = shown(display)
    assert "2/3 cells" in text and "1 diverged" in text and "seed 0" not in text
    assert "[2/3] diverged  split-digits til finetune seed 0  the loss [nan] of task 2" in printed(display)


def test_time_left_counts_from_where_the_cell_went_on(monkeypatch):
    display, [job] = a_display(terminal=True), jobs(1)
    now = 1000.0
    monkeypatch.setattr("runners.watch.board.time.monotonic", lambda: now)
    display.planned([job], [])
    display.heard(job, Event(EventKind.STARTED, task=2))
    now += 10.0
    display.heard(job, Event(EventKind.PROGRESS, task=3, step=0, steps=10, loss=1.0))
    assert "20 s" in shown(display)  # one task of the three left took ten seconds


def test_time_left_of_the_run_comes_from_cells_like_those_that_wait(monkeypatch):
    display, some = a_display(terminal=True), jobs(5)
    now = 1000.0
    monkeypatch.setattr("runners.watch.board.time.monotonic", lambda: now)
    display.planned(some, [])
    assert display.board.snapshot().seconds_left is None
    for job in some[:2]:
        display.heard(job, Event(EventKind.STARTED, task=0))
    now += 30.0
    display.heard(some[0], Event(EventKind.ENDED, status=Status.DONE))
    display.heard(some[1], Event(EventKind.TASK_DONE, task=3, accuracy=1.0))
    snapshot = display.board.snapshot()
    assert snapshot.seconds_left == pytest.approx((3 * 30.0 + 30.0 / 4) / 2)
    assert [(group.method, group.cells) for group in snapshot.waiting] == [("finetune", 3)]


def test_many_cells_and_failures_are_cut_to_the_screen():
    display, some = a_display(terminal=True), jobs(40)
    display.planned(some, [])
    for job in some:
        display.heard(job, Event(EventKind.STARTED, task=0))
    for job in some[:5]:
        display.heard(job, Event(EventKind.ENDED, status=Status.FAILED, reason="the third law"))
    text = shown(display)
    assert len(text.splitlines()) <= display.console.size.height
    assert text.count("the third law") == 3 and "and 2 more without a result" in text and "more under way" in text


def test_a_cell_that_runs_elsewhere_says_so():
    display, [job] = a_display(terminal=True), jobs(1)
    display.planned([job], [])
    display.heard(job, Event(EventKind.ELSEWHERE))
    assert "1 cell is running elsewhere" in shown(display)


def test_plain_output_has_one_line_for_each_end_and_nothing_else():
    display, [job] = a_display(terminal=False), jobs(1)
    with display:
        display.planned([job], [])
        display.heard(job, Event(EventKind.STARTED, task=0))
        display.heard(job, Event(EventKind.PROGRESS, task=0, step=1, steps=2, loss=1.0))
        display.heard(job, Event(EventKind.TASK_DONE, task=4, accuracy=0.5))
        display.heard(job, Event(EventKind.ENDED, status=Status.DONE))
    lines = printed(display).splitlines()
    assert lines[0] == "1 cell: 0 finished before, 1 to run"
    assert len(lines) == 2 and lines[1].startswith("[1/1] done      split-digits til finetune seed 0  accuracy 50.0 %")


def test_an_event_survives_the_pipe():
    event = Event(EventKind.ENDED, 3, task=1, status=Status.OOM, reason="r", loss=0.5)
    assert Event.from_json(event.to_json()) == event


def test_durations_in_words():
    assert [in_words(s) for s in (0.25, 9.96, 42, 200, 18_600, 3.6e6)] == [
        "0.2 s",
        "10 s",
        "42 s",
        "3 min 20 s",
        "5 h 10 min",
        "1,000 h",
    ]


def test_an_estimate_scales_with_the_budget_and_the_workers(tmp_path):
    compare_here(tmp_path, methods=("finetune",), seeds=1)
    [cell] = cells("finetune", steps=600)
    own = history(tmp_path)

    def told(some, workers):
        return estimate(some, lambda cell: expected(cell, own), workers)

    one = told([cell] * 10, 1)
    assert one.unknown == 0 and one.seconds > 0
    longer, longest = (
        told([replace(cell, budget=replace(cell.budget, steps=steps))] * 10, 1) for steps in (1200, 1800)
    )
    assert longer.seconds > one.seconds
    assert longest.seconds - longer.seconds == pytest.approx(longer.seconds - one.seconds), "evaluation takes as long"
    assert told([cell] * 10, 2).seconds == pytest.approx(one.seconds / 2)
    assert told([cell], 2).seconds == pytest.approx(one.seconds / 10)
    assert told(cells("joint"), 1).unknown == 1
    by_epochs = replace(cell, benchmark="permuted-digits", budget=Budget(32, epochs=2))
    own.add(replace(cell, budget=Budget(32, epochs=1)), 1.0)
    assert told([by_epochs], 1).unknown == 1, "epochs of two benchmarks have different numbers of steps"
    assert not one.rough and told([replace(cell, network="mlp-400")], 1).rough
