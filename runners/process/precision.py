"""Arithmetic of evaluation: IEEE 754 float32 on every device, independent of training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch
from torch.backends import cuda, cudnn, mkldnn


@contextmanager
def ieee_float32() -> Iterator[None]:
    """Context without TF32 or bfloat16 inside float32 products; all settings read as before afterwards.

    cuDNN convolves float32 in TF32 by default, with 10 bits of a factor. Setting one of the operations means that it
    no longer follows `torch.backends.fp32_precision` later.
    """
    operations = _operations()
    before = [operation.fp32_precision for operation in operations]
    older = []
    with suppress(RuntimeError):  # PyTorch refuses to read the older switches where the newer settings contradict them
        older.append((torch.set_float32_matmul_precision, torch.get_float32_matmul_precision(), "highest"))
    with suppress(RuntimeError):
        older.append((partial(setattr, cudnn, "allow_tf32"), cudnn.allow_tf32, False))
    try:
        # The older switches as well: they raise if a method reads them while they contradict the newer settings.
        for write, _, strict in older:
            write(strict)
        for operation in operations:
            operation.fp32_precision = "ieee"
        yield
    finally:
        for write, allowed, _ in older:
            write(allowed)
        for operation, precision in zip(operations, before, strict=True):
            operation.fp32_precision = precision


def in_force(on_cuda: bool) -> str:
    """The precision of products of float32 on the device at this moment, for the record."""
    cuda, mkldnn = _operations()[:2], _operations()[3:5]
    chosen = [operation.fp32_precision for operation in (cuda if on_cuda else mkldnn)]
    # "none" means that nobody chose, and PyTorch's default holds.
    matmul, convolution = ("ieee" if name == "none" else name for name in chosen)
    return f"matmul {matmul}, convolution {convolution}"


def _operations() -> list[Any]:
    return [cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn]  # type: ignore[attr-defined]
