"""Metrics of a cell after a task, by the names that loggers show."""

from __future__ import annotations

from collections.abc import Sequence

from runners.cell.evaluation import accuracy_so_far
from runners.records.record import Measurements


def after_task(measured: Measurements, after: int) -> dict[str, float]:
    """Accuracies as fractions on every task measured after `after` tasks (tasks count from 1), and the task's costs.

    `accuracy/mean` is the mean over the tasks learnt so far.
    """
    found: dict[str, float | None] = {"accuracy/mean": accuracy_so_far(measured, after)}
    for name, matrix in (
        ("accuracy", measured.accuracy),
        ("certified", measured.certified),
        ("inferred", measured.inferred),
    ):
        found |= {f"{name}/task_{j}": value for j, value in enumerate(matrix[after], 1)}
    found["seconds/train"] = _last(measured.train_seconds)
    found["seconds/evaluate"] = _last(measured.evaluate_seconds)
    found["parameters/stored"] = _last(measured.stored_per_task)
    return {name: float(value) for name, value in found.items() if value is not None}


def _last(values: Sequence[float]) -> float | None:
    return values[-1] if values else None
