"""Interval product of a dense layer with non-negative inputs, written out because its weights dominate a step.

x_l W+ + x_u W- = x_l W + (x_u - x_l) W-, likewise above. Autograd would keep W- of both sides for the backward
pass, and four gradients of W. Here W- is computed anew in one place of memory, which stays in the cache.
Values and gradients have the roundings of autograd's formulas.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.intervals import compiled_scales
from methods.intervals.interval import Interval


def suits(x: Interval, weight: Interval) -> bool:
    """Check whether `nonnegative_linear` serves these bounds: vectors x >= 0 (b, i), and weights with a width."""
    return x.lower.dim() == 2 and not x.is_point and not weight.is_point


def nonnegative_linear(x: Interval, weight: Interval, bias: Interval | None) -> Interval:
    """x (b, i) with x.lower >= 0, weight (o, i), bias (o,) -> bounds (b, o) of x @ weight' + bias."""
    lower, upper = _NonnegativeLinear.apply(*x, *weight, *(bias or (None, None)))
    return Interval(lower, upper)


class _NonnegativeLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_lower: Tensor, x_upper: Tensor, w_lower: Tensor, w_upper: Tensor,
        b_lower: Tensor | None, b_upper: Tensor | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        width, negative = x_upper - x_lower, torch.empty_like(w_lower)
        below = F.linear(width, torch.clamp(w_lower, max=0, out=negative))
        lower = F.linear(x_lower, w_lower, b_lower).add_(below)
        above = F.linear(width, torch.clamp(w_upper, max=0, out=negative))
        upper = F.linear(x_upper, w_upper, b_upper).sub_(above)
        ctx.save_for_backward(x_lower, x_upper, w_lower, w_upper)
        return lower, upper

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g_lower: Tensor, g_upper: Tensor) -> tuple[Tensor | None, ...]:
        x_lower, x_upper, w_lower, w_upper = ctx.saved_tensors
        of_x, of_weight, of_bias = (any(ctx.needs_input_grad[i : i + 2]) for i in (0, 2, 4))
        grads: list[Tensor | None] = [None] * 6
        if of_bias:
            grads[4:] = g_lower.sum(0), g_upper.sum(0)
        if not (of_x or of_weight):
            return tuple(grads)
        negative = torch.empty_like(w_lower)
        if of_weight:
            width = x_upper - x_lower
            for at, weight, x, g, add in ((2, w_lower, x_lower, g_lower, 1), (3, w_upper, x_upper, g_upper, -1)):
                through, grad = torch.mm(g.t(), width, out=negative), torch.mm(g.t(), x)
                machine_code = compiled_scales.suits(grad, weight, through)
                (compiled_scales.add_through_clamp if machine_code else _add_through_clamp)(
                    grad, weight, through, _highest_passed(weight.dtype), add
                )
                grads[at] = grad
        if of_x:
            of_width = g_lower @ torch.clamp(w_lower, max=0, out=negative)
            of_width -= g_upper @ torch.clamp(w_upper, max=0, out=negative)
            grads[0], grads[1] = (g_lower @ w_lower).sub_(of_width), (g_upper @ w_upper).add_(of_width)
        return tuple(grads)


def _add_through_clamp(grad: Tensor, weight: Tensor, through: Tensor, highest: float, sign: float) -> None:
    """Add sign * through to `grad` where weight < highest: the gradient of weight.clamp(max=0). Overwrites `through`.

    `where` and `masked_fill` branch at every number, and guess wrong at half of them: twenty times slower on a CPU.
    """
    torch.ops.aten.hardtanh_backward.grad_input(through, weight, -math.inf, highest, grad_input=through)
    grad.add_(through, alpha=sign)


def _highest_passed(dtype: torch.dtype) -> float:
    """Number from which on a clamp at zero passes no gradient."""
    return torch.finfo(dtype).tiny if _passes_at_the_bound() else 0.0


@cache
def _passes_at_the_bound() -> bool:
    """Check whether this PyTorch's clamp passes the gradient of a number at its bound; versions differ."""
    with torch.enable_grad():
        zero = torch.zeros((), requires_grad=True)
        return bool(torch.autograd.grad(zero.clamp(max=0), zero)[0])
