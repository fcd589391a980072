"""Checkpoint of a cell between tasks: tensors and plain values only, read with weights_only."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from typing import Any

import torch

from runners.records.folder import Store
from runners.records.record import Measurements

LAYOUT = 1


@dataclass(frozen=True)
class Checkpoint:
    """The method's state and the measurements after `tasks_done` tasks."""

    tasks_done: int
    state: dict[str, Any]
    measured: Measurements
    started: str
    """Time of the cell's first start, ISO 8601."""


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
        return Checkpoint(data["tasks_done"], data["state"], Measurements.from_json(data["measured"]), data["started"])
    except (pickle.UnpicklingError, RuntimeError, KeyError, TypeError, ValueError, EOFError):
        return None
