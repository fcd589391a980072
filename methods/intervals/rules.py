"""Rules for the bounds of functions; a rule honours or refuses every one of its arguments.

A rule has the signature of the function that it bounds, with PyTorch's argument names, so that an argument that it
does not name is refused, never dropped. Pooling and shapes are in `shapes`, layers in `layers`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from methods.intervals import ops
from methods.intervals.arithmetic import Arithmetic, Value, require
from methods.intervals.interval import Interval

Rule = Callable[..., Any]
"""Function (arithmetic, *arguments) -> Value, or a plain number or shape."""

FUNCTIONS: dict[Any, Rule] = {}
"""Rules by function, or by the name of the tensor's method."""


def rule(*targets: Any) -> Callable[[Rule], Rule]:
    """Register the decorated function as the rule of functions, or of tensor methods by name."""

    def registered(written: Rule) -> Rule:
        FUNCTIONS.update(dict.fromkeys(targets, written))
        return written

    return registered


# -- sums and products ---------------------------------------------------------------------------------


@rule(operator.add, operator.iadd, torch.add, "add", "add_")
def _add(a: Arithmetic, input: Any, other: Any, *, alpha: float = 1) -> Value:
    return a.sum(input, other if alpha == 1 else a.product(other, alpha))


@rule(operator.sub, operator.isub, torch.sub, torch.subtract, "sub", "sub_")
def _sub(a: Arithmetic, input: Any, other: Any, *, alpha: float = 1) -> Value:
    return a.sum(input, _neg(a, other if alpha == 1 else a.product(other, alpha)))


@rule(operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_")
def _mul(a: Arithmetic, input: Any, other: Any) -> Value:
    return a.product(input, other)


@rule(operator.neg, torch.neg, "neg")
def _neg(a: Arithmetic, input: Any) -> Value:
    return Value(ops.negate(a.lifted(input).bounds))


@rule(F.linear)
def linear(a: Arithmetic, input: Any, weight: Any, bias: Any = None) -> Value:
    x, w, b = a.lifted(input), a.lifted(weight).bounds, None if bias is None else a.lifted(bias).bounds
    return Value(ops.linear(x.bounds, w, b, nonnegative=x.nonnegative, rounded=a.rounded))


@rule(torch.conv2d)
def conv2d(
    a: Arithmetic, input: Any, weight: Any, bias: Any = None,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Value:  # fmt: skip
    x, w, b = a.lifted(input), a.lifted(weight).bounds, None if bias is None else a.lifted(bias).bounds
    geometry: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return Value(ops.conv2d(x.bounds, w, b, **geometry, nonnegative=x.nonnegative, rounded=a.rounded))


# -- increasing functions ------------------------------------------------------------------------------


@rule(F.relu, torch.relu, torch.relu_, "relu", "relu_")
def relu(a: Arithmetic, input: Value, inplace: bool = False) -> Value:
    return a.exact(torch.relu, input, nonnegative=True)


@rule(F.relu6)
def relu6(a: Arithmetic, input: Value, inplace: bool = False) -> Value:
    return a.exact(F.relu6, input, nonnegative=True)


@rule(F.hardtanh)
def hardtanh(a: Arithmetic, input: Value, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Value:
    return a.exact(lambda x: F.hardtanh(x, min_val, max_val), input, nonnegative=min_val >= 0)


@rule(F.leaky_relu)
def leaky_relu(a: Arithmetic, input: Value, negative_slope: float = 0.01, inplace: bool = False) -> Value:
    require(negative_slope >= 0, f"negative_slope = {negative_slope}")
    return a.smooth(lambda x: F.leaky_relu(x, negative_slope), input)


@rule(F.elu)
def elu(a: Arithmetic, input: Value, alpha: float = 1.0, inplace: bool = False) -> Value:
    require(alpha >= 0, f"alpha = {alpha}")
    return a.smooth(lambda x: F.elu(x, alpha), input)


@rule(F.celu, torch.celu)
def celu(a: Arithmetic, input: Value, alpha: float = 1.0, inplace: bool = False) -> Value:
    require(alpha > 0, f"alpha = {alpha}")
    return a.smooth(lambda x: F.celu(x, alpha), input)


@rule(F.selu, torch.selu)
def selu(a: Arithmetic, input: Value, inplace: bool = False) -> Value:
    return a.smooth(F.selu, input)


@rule(torch.tanh, "tanh", "tanh_")
def tanh(a: Arithmetic, input: Value) -> Value:
    return a.smooth(torch.tanh, input)


@rule(torch.sigmoid, "sigmoid", "sigmoid_")
def sigmoid(a: Arithmetic, input: Value) -> Value:
    return a.smooth(torch.sigmoid, input, nonnegative=True)


@rule(F.hardsigmoid)
def hardsigmoid(a: Arithmetic, input: Value, inplace: bool = False) -> Value:
    return a.smooth(F.hardsigmoid, input, nonnegative=True)


@rule(F.softsign)
def softsign(a: Arithmetic, input: Value) -> Value:
    return a.smooth(F.softsign, input)


@rule(F.softplus)
def softplus(a: Arithmetic, input: Value, beta: float = 1.0, threshold: float = 20.0) -> Value:
    """Softplus is not quite increasing: above the threshold of beta x it is x, and so drops by `jump` there."""
    require(beta > 0, f"beta = {beta}")
    image = a.smooth(lambda x: F.softplus(x, beta, threshold), input, nonnegative=threshold >= 0)
    if image.bounds.is_point:
        return image
    jump = 1.001 * (max(-threshold, 0.0) + math.log1p(math.exp(-abs(threshold)))) / beta
    lower = (image.bounds.lower - jump).clamp(min=min(threshold / beta, 0.0))
    return Value(Interval(lower, image.bounds.upper + jump), image.nonnegative)
