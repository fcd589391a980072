"""Rules of `backward` by layer and by function; where there is none, interval bounds of the output are used."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

from methods.intervals import ops
from methods.intervals.arithmetic import Value
from methods.intervals.backward import Averages, Product, Pushed, Relu, Step, cost, reshaped, summed
from methods.intervals.interval import Interval, exactly, outward

Own = Callable[[str], "Interval | None"]
"""Function from the name of a layer's parameter or buffer to its bounds."""
Push = Callable[[Tensor, Tensor], Pushed]


class Found(NamedTuple):
    """Rule of an operation before its output is known."""

    inputs: tuple[Value, ...]
    push: Push
    weight: Interval | None = None
    """Bounds of the weights that the operation multiplies with."""
    alike: bool = False
    """True if inputs and output must have one shape."""
    alone: Callable[[Tensor], Tensor] | None = None
    """Function of one value, to check that it keeps samples apart."""


def fitting(found: Found, output: Value) -> Step | None:
    """Step of a rule with its output; None where a shape does not fit the rule."""
    first, out = found.inputs[0].bounds.lower, output.bounds.lower
    if found.alike and any(value.bounds.lower.shape != out.shape for value in found.inputs):
        return None
    if found.alone and found.alone(first[:1].double()).shape != (1, *out.shape[1:]):
        return None
    if not found.alone and not found.alike and found.weight is None and first.numel() != out.numel():
        return None
    places = math.prod(out.shape[2:]) if out.dim() > 2 else 1
    return Step(output, found.inputs, found.push, cost(found.weight, places) if found.weight else 0)


def of_layer(module: nn.Module, own: Own, arguments: list[Any]) -> Found | None:
    """Rule of a layer whose parameters have the bounds `own`; None if there is none."""
    x, rule = arguments[0], _LAYERS.get(type(module))
    return rule(module, own, x) if rule and isinstance(x, Value) else None


def of_function(target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Found | None:
    """Rule of a function or of a tensor's method by name; None if there is none, or not with these arguments."""
    rule = _FUNCTIONS.get(target)
    return rule(target, args, dict(kwargs)) if rule and isinstance(args[:1] and args[0], Value) else None


# -- products ------------------------------------------------------------------------------------------


def _transposed(a: Tensor, weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    return a @ weight


def linear(x: Value, weight: Interval | None, bias: Interval | None) -> Found | None:
    """Rule of a linear layer over inputs (b, i).

    None for inputs that are points: the outputs then share no unknown, and their interval bounds lose nothing.
    """
    if weight is None or x.bounds.is_point or x.bounds.lower.dim() != 2:
        return None
    return Found((x,), Product(F.linear, _transposed, x, weight, bias), weight)


def _linear_layer(module: nn.Linear, own: Own, x: Value) -> Found | None:
    return linear(x, own("weight"), own("bias"))


def _convolution(module: nn.Conv2d, own: Own, x: Value) -> Found | None:
    weight, bias = own("weight"), own("bias")
    if weight is None or isinstance(module.padding, str) or x.bounds.lower.dim() != 4:
        return None
    geometry: Any = (module.stride, module.padding, module.dilation, module.groups)

    def forward(value: Tensor, kernel: Tensor) -> Tensor:
        return F.conv2d(value, kernel, None, *geometry)

    def adjoint(a: Tensor, kernel: Tensor, shape: tuple[int, ...]) -> Tensor:
        return conv2d_input((a.shape[0], *shape), kernel, a, *geometry)

    shifted = None if bias is None else ops.reshape(bias, (-1, 1, 1))
    return Found((x,), Product(forward, adjoint, x, weight, shifted), weight)


def _batch_norm(module: nn.BatchNorm1d | nn.BatchNorm2d, own: Own, x: Value) -> Found | None:
    mean, variance, gamma, beta = own("running_mean"), own("running_var"), own("weight"), own("bias")
    if mean is None or variance is None:
        return None
    shape = (-1, *(1,) * (x.bounds.lower.dim() - 2))
    scale = outward(exactly(Interval.point((variance.lower.double() + module.eps).rsqrt())), 8)
    weight = scale if gamma is None else ops.multiply(scale, gamma, rounded=True)
    shift = None if beta is None else ops.reshape(beta, shape)
    mean_there = mean.lower.double().reshape(shape)
    push = Product(operator.mul, lambda a, w, _: a * w, x, ops.reshape(weight, shape), shift, mean_there)
    return Found((x,), push, alike=True)


# -- other layers and functions ------------------------------------------------------------------------


def _relu_layer(module: nn.ReLU, own: Own, x: Value) -> Found:
    return Found((x,), Relu(x), alike=True)


def _reshaping_layer(module: nn.Module, own: Own, x: Value) -> Found:
    return Found((x,), reshaped(x))


def _averaging_layer(module: nn.Module, own: Own, x: Value) -> Found:
    return Found((x,), Averages(module, x), alone=module)


_LAYERS: Mapping[type[nn.Module], Callable[[Any, Own, Value], Found | None]] = {
    nn.Linear: _linear_layer,
    nn.Conv2d: _convolution,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.ReLU: _relu_layer,
    nn.Flatten: _reshaping_layer,
    nn.Unflatten: _reshaping_layer,
    nn.AvgPool2d: _averaging_layer,
    nn.AdaptiveAvgPool2d: _averaging_layer,
}
"""Rules by exact class, as in `layers`."""


def _sum(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Found | None:
    if kwargs or len(args) != 2 or not isinstance(args[1], Value):
        return None
    return Found((args[0], args[1]), summed(-1 if target in _DIFFERENCES else 1), alike=True)


def _relu(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Found:
    return Found((args[0],), Relu(args[0]), alike=True)


def _reshape(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Found:
    return Found((args[0],), reshaped(args[0]))


def _average(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Found:
    x, *others = args

    def function(value: Tensor) -> Tensor:
        return (getattr(Tensor, target) if isinstance(target, str) else target)(value, *others, **kwargs)

    return Found((x,), Averages(function, x), alone=function)


def _functional_linear(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Found | None:
    named = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
    weight, bias = named.get("weight"), named.get("bias")
    if not isinstance(weight, Value) or not (bias is None or isinstance(bias, Value)):
        return None
    return linear(args[0], weight.bounds, None if bias is None else bias.bounds)


_DIFFERENCES = (operator.sub, operator.isub, torch.sub, "sub", "sub_")
_FUNCTIONS: Mapping[Any, Callable[[Any, tuple[Any, ...], dict[str, Any]], Found | None]] = {
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_", *_DIFFERENCES), _sum),
    **dict.fromkeys((F.relu, torch.relu, torch.relu_, "relu", "relu_"), _relu),
    **dict.fromkeys((torch.flatten, torch.reshape, "flatten", "view", "reshape", "unflatten", "unsqueeze"), _reshape),
    **dict.fromkeys((F.avg_pool2d, F.adaptive_avg_pool2d, torch.mean, "mean", torch.sum, "sum"), _average),
    F.linear: _functional_linear,
}
"""Rules by function, or by the name of the tensor's method."""
