"""The optimisers that a method's configuration may name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from benchmarks.types import UserError
from methods.base import adam

OptimizerName = Literal["adam", "sgd"]


def make(name: OptimizerName, parameters: Iterable[Tensor], lr: float) -> torch.optim.Optimizer:
    """A fresh optimiser with the library's other defaults (SGD: no momentum)."""
    if name == "adam":
        return adam(parameters, lr)
    if name == "sgd":
        return torch.optim.SGD(parameters, lr)
    raise UserError(f"optimizer = {name!r}: permitted are 'adam' and 'sgd'")
