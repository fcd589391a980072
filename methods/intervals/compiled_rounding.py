"""Outward rounding of bounds as machine code: rounding.cpp, for float64 on a CPU, without gradients.

In PyTorch it takes some sixty elementwise passes a layer, which these functions join. Each has the bits of the
operations in PyTorch that replace it where `suits` is False.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from methods.compiled import threads
from methods.compiled.library import ELEMENTWISE, Library, Pointer

A_THREAD = 1 << 15
"""Least count of numbers per thread; for fewer, waking another thread costs more than it saves."""
LIBRARY = Library(
    "outward rounding",
    (ELEMENTWISE, Path(__file__).with_name("rounding.cpp")),
    "33dbfa62b6dc9b15d3c41e71e58bb02ef6248937766c5c67e2d3c430c4055026",
    {
        "widen_sums": [*[ctypes.c_long] * 2, *[Pointer] * 8, *[ctypes.c_double] * 2],
        "outward": [ctypes.c_long, *[Pointer] * 4, ctypes.c_double],
        "add_outward": [ctypes.c_long, *[Pointer] * 6, ctypes.c_double],
        "normalise": [*[ctypes.c_long] * 4, *[Pointer] * 8],
    },
)
Sides = tuple[Tensor, Tensor]
"""Lower and upper bound."""


@cache
def library() -> ctypes.CDLL | None:
    """Compiled functions, or None; the log has the reason once."""
    return LIBRARY.load()


def suits(*tensors: Tensor) -> bool:
    """Check whether the machine code serves these tensors, each of them contiguous in memory."""
    return _served(tensors) and all(tensor.is_contiguous() for tensor in tensors)


def suits_samples(*tensors: Tensor) -> bool:
    """Check the same of tensors of one shape whose samples are contiguous, whatever lies between them."""
    return (
        _served(tensors)
        and tensors[0].dim() > 0
        and len({tensor.shape for tensor in tensors}) == 1
        and len(tensors[0]) > 0
        and all(tensor[0].is_contiguous() for tensor in tensors)
    )


def _served(tensors: tuple[Tensor, ...]) -> bool:
    plain = all(tensor.device.type == "cpu" and tensor.dtype == torch.float64 for tensor in tensors)
    learns = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    return plain and not learns and library() is not None


def widen_sums(
    lower: Tensor, upper: Tensor, below: Tensor | None, above: Tensor | None, size: Tensor,
    factor: float, constant: float, out: Sides | None = None,
) -> Sides:  # fmt: skip
    """Bounds lower + below and upper - above of samples (b, ...), widened by size * factor + constant.

    `below` and `above` are given both or neither. out: where to write them.
    """
    given = [lower, upper, lower if below is None else below, upper if above is None else above, size]
    low, high = out or (lower.new_empty(lower.shape), lower.new_empty(lower.shape))
    n = lower[0].numel()
    strides = (ctypes.c_long * 5)(*(tensor.stride(0) for tensor in given))

    def run(_: int, first: int, last: int) -> None:
        at: list[int | None] = [tensor.data_ptr() + 8 * first * tensor.stride(0) for tensor in given]
        if below is None:
            at[2:4] = [None, None]
        to = [tensor.data_ptr() + 8 * first * n for tensor in (low, high)]
        library().widen_sums(last - first, n, *at, *to, strides, factor, constant)  # type: ignore[union-attr]

    threads.in_parallel(run, len(lower), min(len(lower), threads.parts(lower.numel(), A_THREAD)))
    return low, high


def outward(lower: Tensor, upper: Tensor, ulps: int) -> Sides:
    """Bounds widened by so many units in the last place, any shape."""
    found = torch.empty_like(lower), torch.empty_like(lower)
    threads.elementwise(library().outward, (lower, upper, *found), (ulps,), A_THREAD)  # type: ignore[union-attr]
    return found


def add_outward(a: Sides, b: Sides, ulps: int) -> Sides:
    """Sums of intervals of one shape, widened."""
    found = torch.empty_like(a[0]), torch.empty_like(a[0])
    threads.elementwise(library().add_outward, (*a, *b, *found), (ulps,), A_THREAD)  # type: ignore[union-attr]
    return found


def normalise(
    lower: Tensor, upper: Tensor, shift: Tensor, scale: Tensor, gamma: Sides | None, beta: Sides | None
) -> Sides:
    """Bounds (b, c, ...) of gamma (x - shift) scale + beta, widened after each step; parameters (c,)."""
    found = torch.empty_like(lower), torch.empty_like(lower)
    rows, n = lower.shape[0] * lower.shape[1], lower[0, 0].numel()
    sides = [None if side is None else torch.stack(side) for side in (gamma, beta)]
    parameters = [None if it is None else it.data_ptr() for it in (shift, scale, *sides)]

    def run(_: int, first: int, last: int) -> None:
        library().normalise(  # type: ignore[union-attr]
            first, last, lower.shape[1], n, *(it.data_ptr() for it in (lower, upper, *found)), *parameters
        )

    threads.in_parallel(run, rows, threads.parts(lower.numel(), A_THREAD))
    return found
