"""Checkpoint of a cell between tasks: tensors and plain values only, read with weights_only."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from runners.records.environment import CPU_KERNELS
from runners.records.folder import Store
from runners.records.record import Measurements, Record

LAYOUT = 1
CONDITIONS = ("device", "device_name", "torch", "threads", *CPU_KERNELS, "commit")
"""Fields of the environment that are recorded where they change within a cell."""


@dataclass(frozen=True)
class Checkpoint:
    """The method's state and the measurements after `tasks_done` tasks."""

    tasks_done: int
    state: dict[str, Any]
    measured: Measurements
    started: str
    """Time of the cell's first start, ISO 8601."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    """That of the tasks so far, as in the record; empty in older checkpoints."""


def save(folder: Store, key: str, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint in `folder`, atomically."""
    buffer = io.BytesIO()
    torch.save(
        {
            "layout": LAYOUT,
            "key": key,
            "tasks_done": checkpoint.tasks_done,
            "state": checkpoint.state,
            "measured": checkpoint.measured.to_json(),
            "started": checkpoint.started,
            "environment": json.dumps(checkpoint.environment),
        },
        buffer,
    )
    folder.write_checkpoint(buffer.getvalue())


def load(folder: Store, key: str) -> Checkpoint | None:
    """The checkpoint of the cell `key`; None if it is missing, damaged or of another cell."""
    payload = folder.read_checkpoint()
    if payload is None:
        return None
    try:
        data = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        if data["layout"] != LAYOUT or data["key"] != key:
            return None
        measured = Measurements.from_json(data["measured"])
        environment = dict(json.loads(data.get("environment", "{}")))
        return Checkpoint(data["tasks_done"], data["state"], measured, data["started"], environment)
    except (pickle.UnpicklingError, RuntimeError, KeyError, TypeError, ValueError, EOFError):
        return None


def resumed(record: Record, checkpoint: Checkpoint) -> tuple[Record, list[str]]:
    """The record of a cell that goes on from a checkpoint, and notes for the user.

    Conditions under which earlier tasks were run, where they are others than now, are kept as `resumed_from`.
    """
    before, now = checkpoint.environment, record.environment
    changed = {name: before[name] for name in CONDITIONS if name in before and _differ(name, before, now)}
    parts = list(before.get("resumed_from", ()))
    notes = [f"resumed after task {checkpoint.tasks_done} of {record.n_tasks}"]
    if changed:
        parts.append({"tasks_done": checkpoint.tasks_done, **changed})
        words = "; ".join(f"{name} was {value} and is {now.get(name)}" for name, value in changed.items())
        notes.append(f"begun under other conditions, so that numbers may differ by rounding: {words}")
    environment = {**now, "resumed_from": parts} if parts else now
    return replace(record, started=checkpoint.started, environment=environment), notes


def _differ(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    values = [str(found.get(name)) for found in (before, now)]
    if name == "device":
        values = [value.partition(":")[0] for value in values]  # which of several GPUs makes no difference
    return values[0] != values[1]
