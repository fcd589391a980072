"""Weights & Biases: a run for each cell; without a network with WANDB_MODE=offline."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runners.loggers.logger import Axis, Logger, Run

PROJECT = "continual-intervals"
"""Default of WANDB_PROJECT."""
IDS = "wandb/ids"
"""In the results folder: the number of each cell's latest run, so that an interrupted one goes on."""


class WandbLogger(Logger):
    """Metrics with axes of their own (`step`, `task`); status, reason and total costs in the summary."""

    def __init__(self, results: Path) -> None:
        import wandb

        self.wandb, self.folder = wandb, results
        self.runs: dict[str, Any] = {}

    def begin(self, run: Run) -> None:
        self.runs[run.key] = found = self.wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            dir=self.folder,
            id=self._id(run),
            resume="allow",
            reinit="create_new",  # cells run at the same time
            name=run.name,
            group=run.group,
            config=dict(run.config),
            settings=self.wandb.Settings(silent=True, console="off"),
        )
        if run.tasks_before:  # the summary has the end of the interrupted part
            found.summary.update({"status": "running", "reason": ""})
        for axis in Axis:
            found.define_metric(str(axis), hidden=True)
        found.define_metric("loss", step_metric=str(Axis.STEP))
        for group in ("accuracy", "certified", "inferred", "seconds", "parameters"):
            found.define_metric(f"{group}/*", step_metric=str(Axis.TASK))

    def _id(self, run: Run) -> str:
        """The number of the run that goes on, or a new one: a run that was deleted on the server keeps its number."""
        file = self.folder / IDS / run.key
        if run.tasks_before and file.is_file():
            return file.read_text()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(made := secrets.token_hex(8))
        return made

    def log(self, run: Run, metrics: Mapping[str, float], axis: Axis, at: int) -> None:
        self.runs[run.key].log({**metrics, str(axis): at})

    def end(self, run: Run, status: str, reason: str | None, metrics: Mapping[str, float]) -> None:
        found = self.runs.pop(run.key)
        found.summary.update({**metrics, "status": status, "reason": reason or ""})
        found.finish(exit_code=0 if status in ("done", "skipped", "diverged", "running") else 1)

    def close(self) -> None:
        for found in self.runs.values():
            found.summary.update({"status": "stopped", "reason": ""})
            found.finish(exit_code=1)
