"""Optimisers that a method's configuration may name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks.types import UserError

OptimizerName = Literal["adam", "sgd"]
_adam_step, _sgd_step = (inspect.unwrap(kind.step) for kind in (torch.optim.Adam, torch.optim.SGD))


class _Uncompiled(torch.optim.Optimizer):
    """An optimiser without the wrappers that torch.compile needs.

    Their first call in a process imports torch._dynamo, which takes longer than many a cell; each later one takes
    microseconds. The functions that they wrap do the same work.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)


class Adam(_Uncompiled, torch.optim.Adam):
    """Adam; the numbers are those of `torch.optim.Adam`."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        return _adam_step(self, closure)


class SGD(_Uncompiled, torch.optim.SGD):
    """SGD; the numbers are those of `torch.optim.SGD`."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        return _sgd_step(self, closure)


def adam(parameters: Iterable[Tensor], lr: float, **options: Any) -> Adam:
    """Adam in its fused form, ready for graph capture on CUDA."""
    parameters = list(parameters)
    on_cuda = any(p.is_cuda for p in parameters)
    optimizer = Adam(parameters, lr=lr, fused=True, capturable=on_cuda, **options)
    optimizer._warned_capturable_if_run_uncaptured = True  # type: ignore[attr-defined]  # the warm-up does so on purpose
    return optimizer


def make(name: OptimizerName, parameters: Iterable[Tensor], lr: float) -> torch.optim.Optimizer:
    """Make a fresh optimiser with the library's defaults otherwise (SGD: no momentum)."""
    if name == "adam":
        return adam(parameters, lr)
    if name == "sgd":
        return SGD(parameters, lr)
    raise UserError(f"optimizer = {name!r}: permitted are 'adam' and 'sgd'")
