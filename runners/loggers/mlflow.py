"""MLflow: a run for each cell, in the store that MLFLOW_TRACKING_URI names or `mlflow.db` in the results folder."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock

from runners.loggers.logger import Axis, Logger, Run

EXPERIMENT = "continual-intervals"
"""Default of MLFLOW_EXPERIMENT_NAME."""
STORE, FILES, LOCK = "mlflow.db", "mlflow", ".mlflow.lock"
LONGEST = 500
"""Characters of a parameter's value that every store takes."""
RETRIES, FEW = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"
"""Variable of MLflow, and its value at the start where it is unset: a server that is down is told of soon."""
_KEY = "cell"
_ENDS = {"done": "FINISHED", "skipped": "FINISHED", "diverged": "FINISHED", "stopped": "KILLED", "running": "KILLED"}


class MlflowLogger(Logger):
    """Settings as parameters, metrics by step or task; status and reason as tags."""

    def __init__(self, results: Path) -> None:
        self.metric = importlib.import_module("mlflow.entities").Metric  # an extra, unknown to type checkers
        client = importlib.import_module("mlflow").MlflowClient
        place = os.environ.get("MLFLOW_TRACKING_URI")
        files = None if place else (results / FILES).resolve().as_uri()
        # Commands that start together would create the tables of one store at the same time.
        with nullcontext() if place else FileLock(results / LOCK), _few_retries():
            self.client: Any = client(place or f"sqlite:///{(results / STORE).resolve()}")
            self.experiment: str = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT), files)
        self.runs: dict[str, str] = {}
        self.logged: dict[str, int] = {}
        """For each run, the steps that its loss curve had before an interruption; they are repeated."""

    def _experiment(self, name: str, files: str | None) -> str:
        if found := self.client.get_experiment_by_name(name):
            return found.experiment_id
        try:
            return self.client.create_experiment(name, files)
        except Exception:
            if found := self.client.get_experiment_by_name(name):  # another command has just created it on the server
                return found.experiment_id
            raise

    def begin(self, run: Run) -> None:
        known = self.client.search_runs([self.experiment], f"tags.{_KEY} = '{run.key}'", max_results=1)
        if known and run.tasks_before:  # goes on
            self.runs[run.key] = number = known[0].info.run_id
            self.client.update_run(number, status="RUNNING")
            self._tag(number, "running", None)
            before = self.client.get_metric_history(number, "loss")
            self.logged[run.key] = max((point.step for point in before), default=0)
            return
        made = self.client.create_run(self.experiment, run_name=run.name, tags={_KEY: run.key, "group": run.group})
        self.runs[run.key], self.logged[run.key] = made.info.run_id, 0
        for name, value in run.config.items():
            self.client.log_param(made.info.run_id, name, str(value)[:LONGEST])

    def log(self, run: Run, metrics: Mapping[str, float], axis: Axis, at: int) -> None:
        if axis is Axis.TASK or at > self.logged[run.key]:
            self._metrics(run, metrics, at)

    def end(self, run: Run, status: str, reason: str | None, metrics: Mapping[str, float]) -> None:
        self._metrics(run, metrics, 0)
        number = self.runs.pop(run.key)
        self._tag(number, status, reason)
        self.client.set_terminated(number, _ENDS.get(status, "FAILED"))

    def close(self) -> None:
        for number in self.runs.values():
            self._tag(number, "stopped", None)
            self.client.set_terminated(number, "KILLED")

    def _tag(self, number: str, status: str, reason: str | None) -> None:
        """Set both tags: a run that goes on has those of its interruption."""
        self.client.set_tag(number, "status", status)
        self.client.set_tag(number, "reason", (reason or "")[:LONGEST])

    def _metrics(self, run: Run, metrics: Mapping[str, float], at: int) -> None:
        now = int(1000 * time.time())
        values = [self.metric(name, value, now, at) for name, value in metrics.items()]
        self.client.log_batch(self.runs[run.key], values)


@contextmanager
def _few_retries() -> Iterator[None]:
    if RETRIES in os.environ:
        yield
        return
    os.environ[RETRIES] = FEW
    try:
        yield
    finally:
        del os.environ[RETRIES]
