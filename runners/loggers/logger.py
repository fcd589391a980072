"""Interface of loggers, which pass the progress of running cells on to a dashboard or a program of the user's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

Value = str | int | float | bool


class Axis(StrEnum):
    """What a metric is plotted over."""

    STEP = "step"
    """Training steps of the cell, all tasks together."""
    TASK = "task"
    """Number of tasks learnt."""


@dataclass(frozen=True)
class Run:
    """One cell as a logger sees it."""

    key: str
    """The cell's key; an interrupted cell that goes on has the same one."""
    name: str
    """Benchmark, scenario, method and seed, to be read."""
    group: str
    """The name without the seed."""
    folder: str
    """The folder of the record, relative to the results folder."""
    config: Mapping[str, Value]
    """Benchmark, scenario, method, seed, budget, network, and every hyperparameter as `config.NAME`."""
    tasks_before: int = 0
    """Tasks learnt before an interruption; what they gave was logged then."""


class Logger:
    """Receiver of the progress of running cells; a subclass overrides what it needs.

    Cells run at the same time, so calls for several runs alternate; those for one run are in order. An exception ends
    the logging of its run, with a note to the user, and never the cell.
    """

    def __init__(self, results: Path) -> None:
        """Start. results: the results folder, for files of the logger's own."""

    def begin(self, run: Run) -> None:
        """Receive a cell that starts, or goes on after an interruption and then repeats some steps."""

    def log(self, run: Run, metrics: Mapping[str, float], axis: Axis, at: int) -> None:
        """Receive metrics at a place on an axis.

        Over steps: `loss`, the mean since the point before. Over tasks: `accuracy/mean`, `accuracy/task_1` and so on,
        `certified/task_1`, `inferred/task_1`, as fractions of the test samples; `seconds/train`, `seconds/evaluate`;
        `parameters/stored`.
        """

    def end(self, run: Run, status: str, reason: str | None, metrics: Mapping[str, float]) -> None:
        """Receive the end of a cell: its status, the reason for one other than `done`, and its total costs."""

    def close(self) -> None:
        """Finish; no call follows."""
