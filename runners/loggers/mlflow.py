"""MLflow: a run for each cell, in the store that MLFLOW_TRACKING_URI names or `mlflow.db` in the results folder."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runners.loggers.logger import Axis, Logger, Run

EXPERIMENT = "continual-intervals"
"""Default of MLFLOW_EXPERIMENT_NAME."""
STORE, FILES = "mlflow.db", "mlflow"
LONGEST = 500
"""Characters of a parameter's value that every store takes."""
_KEY = "cell"
_ENDS = {"done": "FINISHED", "skipped": "FINISHED", "diverged": "FINISHED", "stopped": "KILLED", "running": "KILLED"}


class MlflowLogger(Logger):
    """Settings as parameters, metrics by step or task; status and reason as tags."""

    def __init__(self, results: Path) -> None:
        self.metric = importlib.import_module("mlflow.entities").Metric  # an extra, unknown to type checkers
        client = importlib.import_module("mlflow").MlflowClient
        place = os.environ.get("MLFLOW_TRACKING_URI")
        self.client: Any = client(place or f"sqlite:///{(results / STORE).resolve()}")
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = self.client.get_experiment_by_name(name)
        files = None if place else (results / FILES).resolve().as_uri()
        self.experiment = found.experiment_id if found else self.client.create_experiment(name, files)
        self.runs: dict[str, str] = {}

    def begin(self, run: Run) -> None:
        known = self.client.search_runs([self.experiment], f"tags.{_KEY} = '{run.key}'", max_results=1)
        if known and run.tasks_before:  # goes on
            self.runs[run.key] = known[0].info.run_id
            self.client.update_run(self.runs[run.key], status="RUNNING")
            return
        made = self.client.create_run(self.experiment, run_name=run.name, tags={_KEY: run.key, "group": run.group})
        self.runs[run.key] = made.info.run_id
        for name, value in run.config.items():
            self.client.log_param(made.info.run_id, name, str(value)[:LONGEST])

    def log(self, run: Run, metrics: Mapping[str, float], axis: Axis, at: int) -> None:
        self._metrics(run, metrics, at)

    def end(self, run: Run, status: str, reason: str | None, metrics: Mapping[str, float]) -> None:
        self._metrics(run, metrics, 0)
        number = self.runs.pop(run.key)
        self.client.set_tag(number, "status", status)
        if reason:
            self.client.set_tag(number, "reason", reason[:LONGEST])
        self.client.set_terminated(number, _ENDS.get(status, "FAILED"))

    def close(self) -> None:
        for number in self.runs.values():
            self.client.set_terminated(number, "KILLED")

    def _metrics(self, run: Run, metrics: Mapping[str, float], at: int) -> None:
        now = int(1000 * time.time())
        values = [self.metric(name, value, now, at) for name, value in metrics.items()]
        self.client.log_batch(self.runs[run.key], values)
