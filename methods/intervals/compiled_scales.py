"""Elementwise parts of the contraction as machine code: scales.cpp, for float32 on a CPU.

Each function has the bits of the operations in PyTorch that replace it where `suits` is False.
"""

from __future__ import annotations

import ctypes
import math
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from methods.compiled import threads
from methods.compiled.library import ELEMENTWISE, Library, Pointer

A_THREAD = 1 << 16
"""Least count of numbers per thread; for fewer, waking another thread costs more than it saves."""
LIBRARY = Library(
    "the contraction",
    (ELEMENTWISE, Path(__file__).with_name("scales.cpp")),
    "8064facea0f91c6b194bf14a8373a7642b6c8d1338d4c5606ef0c0518e2c16fc",
    {
        "scaled_sides": [ctypes.c_long, *[Pointer] * 5],
        "scale_gradient": [ctypes.c_long, *[Pointer] * 6],
        "add_through_clamp": [ctypes.c_long, *[Pointer] * 3, *[ctypes.c_float] * 3],
    },
)


@cache
def library() -> ctypes.CDLL | None:
    """Compiled functions, or None; the log has the reason once."""
    return LIBRARY.load()


def suits(*tensors: Tensor) -> bool:
    """Check whether the machine code serves these tensors."""
    plain = all(t.device.type == "cpu" and t.dtype == torch.float32 and t.is_contiguous() for t in tensors)
    return plain and library() is not None


def scaled_sides(k: Tensor, middle: Tensor, room: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds middle -+ k room of flat tensors (N,)."""
    lower, upper = torch.empty_like(k), torch.empty_like(k)
    _call("scaled_sides", k, middle, room, lower, upper)
    return lower, upper


def scale_gradient(
    lower: Tensor, upper: Tensor, k: Tensor, room: Tensor, given_up: Tensor | None, grad: Tensor
) -> None:
    """Write the gradient of raw scales v, k = sigmoid(v), (N,), from the bounds' and, if given, the room given up's."""
    _call("scale_gradient", lower, upper, k, room, grad, scalars=(None if given_up is None else given_up.data_ptr(),))


def add_through_clamp(grad: Tensor, weight: Tensor, through: Tensor, highest: float, sign: float) -> None:
    """Add sign * through to `grad` where weight < highest: the gradient of a clamp at zero."""
    _call("add_through_clamp", weight, through, grad, scalars=(-math.inf, highest, sign))


def _call(name: str, *arrays: Tensor, scalars: tuple[Any, ...] = ()) -> None:
    threads.elementwise(getattr(library(), name), arrays, scalars, A_THREAD)
