"""Optimisers that a method's configuration may name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks.types import UserError

OptimizerName = Literal["adam", "sgd"]


def adam(parameters: Iterable[Tensor], lr: float, **options: Any) -> torch.optim.Adam:
    """Adam in its fused form, ready for graph capture on CUDA."""
    parameters = list(parameters)
    on_cuda = any(p.is_cuda for p in parameters)
    optimizer = torch.optim.Adam(parameters, lr=lr, fused=True, capturable=on_cuda, **options)
    optimizer._warned_capturable_if_run_uncaptured = True  # type: ignore[attr-defined]  # the warm-up does so on purpose
    return optimizer


def make(name: OptimizerName, parameters: Iterable[Tensor], lr: float) -> torch.optim.Optimizer:
    """Make a fresh optimiser with the library's defaults otherwise (SGD: no momentum)."""
    if name == "adam":
        return adam(parameters, lr)
    if name == "sgd":
        return torch.optim.SGD(parameters, lr)
    raise UserError(f"optimizer = {name!r}: permitted are 'adam' and 'sgd'")
