"""Checks of a method's own statements before they enter a record: numbers, loss curves, answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.types import UserError
from methods.base import Claim, Method

ENTRIES_AT_MOST = 100_000
"""Of one task's loss curve."""


def whole(value: Any, what: str) -> int:
    """The value, which must be a whole number. Raises UserError; `what` gave it."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < 1 << 63:
        raise UserError(f"{what} gives {_shown(value)}, which is not a whole number")
    return int(value)


def curve(method: Method) -> list[tuple[int, int, float]]:
    """Task, step and loss of every entry. Raises UserError where they are no numbers, or endlessly many."""
    if not isinstance(method.curve, list | tuple):
        raise UserError(f"{_name(method)}: the curve is {_shown(method.curve)}, not a list of Progress")
    if len(method.curve) > ENTRIES_AT_MOST:
        raise UserError(
            f"{_name(method)}: the curve of a task has {len(method.curve)} entries; at most {ENTRIES_AT_MOST}"
        )
    return [entry(one, method, "the curve has an entry") for one in method.curve]


def entry(given: Any, method: Method, what: str) -> tuple[int, int, float]:
    """Task, step and loss of a Progress. Raises UserError where it is none; `what` is in the sentence."""
    try:
        return int(given.task), int(given.step), float(given.loss)
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{_name(method)}: {what} that is no Progress of numbers ({error})") from error


def answers(logits: Any, method: Method, shape: tuple[int, int], device: torch.device) -> Tensor:
    """The logits, which must be floating-point numbers of this shape on this device. Raises UserError."""
    if not isinstance(logits, Tensor):
        raise UserError(f"{_name(method)}: predict gives {_shown(logits)}, not a tensor of logits {shape}")
    if tuple(logits.shape) != shape:
        raise UserError(f"{_name(method)}: predict gives logits of the shape {tuple(logits.shape)}, not {shape}")
    if not logits.is_floating_point():
        raise UserError(f"{_name(method)}: predict gives {logits.dtype}, not floating-point logits")
    if logits.device != device:
        raise UserError(f"{_name(method)}: predict gives logits on {logits.device}; the samples are on {device}")
    return logits


def tasks(inferred: Any, method: Method, n: int) -> Tensor:
    """The inferred tasks, which must be one whole number for each of n samples. Raises UserError."""
    if not isinstance(inferred, Tensor) or tuple(inferred.shape) != (n,) or inferred.is_floating_point():
        found = f"the shape {tuple(inferred.shape)}" if isinstance(inferred, Tensor) else _shown(inferred)
        raise UserError(f"{_name(method)}: infer_task gives {found}, not a whole number for each of {n} samples")
    return inferred


def claims(found: Any, method: Method, learnt: int) -> list[Claim]:
    """The claims, at most one for each task that was learnt. Raises UserError."""
    rows = list(found)
    about = [whole(row.task, f"{_name(method)}: the task of a claim") for row in rows]
    if len(set(about)) < len(about) or any(task >= learnt for task in about):
        raise UserError(
            f"{_name(method)}: audit speaks of the tasks {about[:10]}; "
            f"it may make one claim for each of the {learnt} learnt"
        )
    return rows


def _shown(value: Any) -> str:
    return (
        repr(value) if isinstance(value, bool | float | str) and len(repr(value)) < 50 else f"a {type(value).__name__}"
    )


def _name(method: Any) -> str:
    return getattr(method, "name", type(method).__name__)
