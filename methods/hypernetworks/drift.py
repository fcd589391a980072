"""Drift of a chunked hypernetwork's outputs since a frozen state, without the outputs.

The outputs of old tasks are C W' + b for inputs C (k, h) of the output layer: k rows, one for each task and chunk, of
rank h. Their targets are C0 W0' + b0, those of the state before a new task. With D = C - C0, V = W - W0 and v = b - b0

    C W' + b - (C0 W0' + b0) = D W' + C0 V' + 1 v' = A B',    A = [D C0 1] (k, 2h + 1),    B = [W V v] (N, 2h + 1).

So the sum of squares is <A'A, B'B>, and its gradients are 2 B (A'[C 1]) by W and b, and 2 A (B'W) by C. Work and
memory per row of W do not depend on k, the number of old tasks. All terms vanish with the drift, so nothing cancels
that is as large as the outputs. Terms cancel each other where W makes up for a change of C: A'A and B'B are summed in
float64. The last chunk may be cut: rows of W from `edge` on have no outputs there, so all products exist twice, for
the rows before `edge` and for the others.
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
    blocks: Tensor
    """The weight again, as the machine code reads it (`compiled_drift.in_blocks`); (0,) without machine code."""

    def of(self, rows: slice | Tensor) -> Frozen:
        """The same for some of the tasks."""
        return self._replace(inputs=self.inputs[rows])


def squared_drift(inputs: Tensor, weight: Tensor, bias: Tensor, since: Frozen, edge: int) -> Tensor:
    """Sum of squared differences, 0-d, of inputs (t, c, h) times weight (N, h), plus bias (N,), to those frozen.

    edge: number of outputs of the last chunk that count; those behind are no target weights.
    """
    return _SquaredDrift.apply(inputs, weight, bias, since, edge)


def of_inputs(inputs: Tensor, since: Frozen) -> tuple[Tensor, Tensor]:
    """A (t, c, 2h + 1), and A'A (2, 2h + 1, 2h + 1) in float64 over all chunks and over all but the last."""
    a = torch.cat([inputs - since.inputs, since.inputs, torch.ones_like(inputs[..., :1])], -1)
    return a, _grams(a.flatten(0, 1), a[:, :-1].flatten(0, 1))


def _grams(*parts: Tensor) -> Tensor:
    """Product of each part (n, m) with itself: (parts, m, m) in float64."""
    return torch.stack([part.t() @ part for part in (part.double() for part in parts)])


def for_weights(gram: Tensor) -> Tensor:
    """A'A (2, 2h + 1, 2h + 1) -> A'[C 1] (2, 2h + 1, h + 1)."""
    h = gram.shape[-1] // 2
    return torch.cat([gram[..., :h] + gram[..., h : 2 * h], gram[..., 2 * h :]], -1)


def for_inputs(a: Tensor, gram: Tensor) -> Tensor:
    """A (t, c, 2h + 1) times B'W, from B'B (2, 2h + 1, 2h + 1): half the gradient by the inputs (t, c, h)."""
    h = gram.shape[-1] // 2
    gradient = a @ gram[0, :, :h]
    gradient[:, :-1] += a[:, :-1] @ gram[1, :, :h]
    return gradient


class _SquaredDrift(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, since: Frozen, edge: int) -> Tensor:
        a, inner = of_inputs(inputs, since)
        b = torch.cat([weight, weight - since.weight, (bias - since.bias)[:, None]], 1)
        outer = _grams(b[:edge], b[edge:])
        ctx.save_for_backward(a, inner, b, outer)
        ctx.edge = edge
        return (inner * outer).sum().to(inputs.dtype)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        (a, inner, b, outer), scale = ctx.saved_tensors, 2 * cotangents[0]
        products, h = for_weights(inner * scale).to(a.dtype), a.shape[-1] // 2
        grad_weight, grad_bias = b.new_empty(len(b), h), b.new_empty(len(b))
        for rows, product in zip((slice(0, ctx.edge), slice(ctx.edge, None)), products, strict=True):
            torch.mm(b[rows], product[:, :h], out=grad_weight[rows])
            torch.mv(b[rows], product[:, h], out=grad_bias[rows])
        grad_inputs = for_inputs(a, (outer * scale).to(a.dtype)) if ctx.needs_input_grad[0] else None
        return grad_inputs, grad_weight, grad_bias, None, None
