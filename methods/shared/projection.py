"""Projection of an optimiser's steps, so that a layer's answers to inputs in the span of a basis do not change.

With a basis M (d, r) of inputs and a change D (o, d) of the weight, D - (D M) M' has the answer 0 to every input in the
span of M. Plain SGD's step is a multiple of the gradient, so the gradient may be projected. Adam scales each
coordinate, which leaves the projected space; there the step itself must be projected (Wang et al. 2021, arXiv
2103.07113, eq. 6).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from methods.shared.bases import Layer


@dataclass(frozen=True)
class Held:
    """Layer whose first `rows` outputs answer inputs in the span of `basis` (d, r) as before.

    normalise: divide the projected change by the Frobenius norm of the projector (Adam-NSCL's code).
    A bias that is no column of the basis does not change in these rows.
    """

    layer: Layer
    basis: Tensor
    rows: int
    normalise: bool = False

    def project(self, weight: Tensor, bias: Tensor | None) -> None:
        """Project a change of the weight and bias in place."""
        part = weight.view(len(weight), -1)[: self.rows]
        below = None if bias is None else bias[: self.rows]
        main = self.basis[: part.shape[1]]
        inside = part @ main
        if below is not None and not self.layer.constant:
            below.zero_()
        elif below is not None:
            inside.addr_(below, self.basis[-1])
            below.addmv_(inside, self.basis[-1], alpha=-1)
        part.addmm_(inside, main.t(), alpha=-1)
        if self.normalise:
            free = self.basis.shape[0] - self.basis.shape[1]
            for each in (part,) if below is None else (part, below):
                each.mul_(1 / math.sqrt(max(1, free)))


def project_gradients(optimizer: Optimizer, held: Sequence[Held]) -> None:
    """Let the optimiser project the gradients before each of its steps; sound for plain SGD alone."""

    @torch.no_grad()
    def before(*_: Any) -> None:
        for each in held:
            module = each.layer.module
            if module.weight.grad is not None:
                each.project(module.weight.grad, None if module.bias is None else module.bias.grad)

    optimizer.register_step_pre_hook(before)


def project_updates(optimizer: Optimizer, held: Sequence[Held]) -> None:
    """Let the optimiser project each of its steps after it, which is sound for every optimiser."""
    pairs = [(each, each.layer.module.weight, each.layer.module.bias) for each in held]
    parameters = [p for _, weight, bias in pairs for p in (weight, bias) if p is not None]
    old = {id(p): p.detach().clone() for p in parameters}

    @torch.no_grad()
    def before(*_: Any) -> None:
        for p in parameters:
            old[id(p)].copy_(p)

    @torch.no_grad()
    def after(*_: Any) -> None:
        for each, weight, bias in pairs:
            changes = {id(p): p - old[id(p)] for p in (weight, bias) if p is not None}
            each.project(changes[id(weight)], None if bias is None else changes[id(bias)])
            for p in (weight, bias):
                if p is not None:
                    p.copy_(old[id(p)] + changes[id(p)])

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)
