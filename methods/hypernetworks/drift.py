"""Drift of a chunked hypernetwork's outputs since a frozen state, without the outputs.

The outputs of old tasks are C W' + b for inputs C (k, h) of the output layer: k rows, one for each task and chunk, of rank
h. Their targets are C0 W0' + b0, those of the state before a new task. With D = C - C0, V = W - W0 and v = b - b0

    C W' + b - (C0 W0' + b0) = D W' + C0 V' + 1 v' = A B',    A = [D C0 1] (k, 2h + 1),    B = [W V v] (N, 2h + 1).

So the sum of squares is <A'A, B'B>, and its gradients are 2 B (A'[C 1]) by W and b, and 2 A (B'W) by C. Work and memory
per row of W do not depend on k, the number of old tasks. All terms vanish with the drift, so nothing cancels that is as
large as the outputs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Frozen(NamedTuple):
    """State in which the outputs of t tasks in c chunks are held."""

    inputs: Tensor
    """Inputs of the output layer, (t, c, h)."""
    weight: Tensor
    """(N, h)."""
    bias: Tensor
    """(N,)."""

    def of(self, rows: slice | Tensor) -> Frozen:
        """The same for some of the tasks."""
        return self._replace(inputs=self.inputs[rows])


def squared_drift(inputs: Tensor, weight: Tensor, bias: Tensor, since: Frozen, last: int) -> Tensor:
    """Sum of squared differences, 0-d, of inputs (t, c, h) times weight (N, h), plus bias (N,), to those frozen.

    last: number of outputs of the last chunk that count; those behind are no target weights.
    """
    return _SquaredDrift.apply(inputs, weight, bias, *since, last)


class _SquaredDrift(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor,
        frozen_inputs: Tensor, frozen_weight: Tensor, frozen_bias: Tensor, last: int,
    ) -> Tensor:  # fmt: skip
        a = torch.cat([inputs - frozen_inputs, frozen_inputs, torch.ones_like(inputs[..., :1])], -1)
        b = torch.cat([weight, weight - frozen_weight, (bias - frozen_bias)[:, None]], 1)
        # the last chunk may be cut: the outputs behind its end belong to the other chunks only
        parts = [(slice(0, last), a.flatten(0, 1)), (slice(last, None), a[:, :-1].flatten(0, 1))]
        ctx.products = [(rows, part.t() @ part, b[rows].t() @ b[rows]) for rows, part in parts if len(b[rows])]
        ctx.save_for_backward(a, b)
        drifts = [(of_inputs * of_weights).sum() for _, of_inputs, of_weights in ctx.products]
        return torch.stack(drifts).sum()

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        (a, b), scale = ctx.saved_tensors, 2 * cotangents[0]
        n, h = len(b), a.shape[-1] // 2
        grad_inputs = torch.zeros_like(a[..., :h]) if ctx.needs_input_grad[0] else None
        grad_weight, grad_bias = b.new_empty(n, h), b.new_empty(n)
        for rows, of_inputs, of_weights in ctx.products:
            of_inputs = of_inputs * scale
            torch.mm(b[rows], of_inputs[:, :h] + of_inputs[:, h : 2 * h], out=grad_weight[rows])
            torch.mv(b[rows], of_inputs[:, 2 * h], out=grad_bias[rows])
            if grad_inputs is not None:
                chunks = slice(0, None if rows.stop is not None else -1)
                grad_inputs[:, chunks] += a[:, chunks] @ (of_weights[:, :h] * scale)
        return grad_inputs, grad_weight, grad_bias, None, None, None, None
