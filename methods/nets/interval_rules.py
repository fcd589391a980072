"""What bounds are known: one rule for every layer and function, which honours or refuses each of its arguments.

A rule has the signature of what it bounds, so that an argument it does not name is refused, never dropped.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.nets import interval_ops as ops
from methods.nets.interval_ops import Interval

# Rules take their arguments by the names of torch, which call one `input`.


class Value(NamedTuple):
    """An interval on its way through the network, and whether it is known to hold no negative number."""

    bounds: Interval
    nonnegative: bool = False


class Unbounded(Exception):
    """No bound is known; the text says with what."""


@dataclass(frozen=True)
class Arithmetic:
    """How bounds are computed: as they are for training, or in float64 and rounded outwards for certificates."""

    rounded: bool
    dtype: torch.dtype
    """Of the inputs, in which a number written into the network counts where nothing is rounded."""

    def held(self, x: Interval) -> Interval:
        """What the network is given, in the arithmetic in which it is computed."""
        return ops.exactly(x) if self.rounded and x.lower.is_floating_point() else x

    def lifted(self, x: Any) -> Value:
        """A value as it is; a number or a constant tensor as a point."""
        if isinstance(x, Value):
            return x
        if isinstance(x, Tensor):
            return Value(self.held(Interval.point(x)))
        number = torch.as_tensor(x, dtype=torch.float64 if self.rounded else self.dtype)
        return Value(Interval.point(number), x >= 0)

    def known(self, bounds: Interval, nonnegative: bool) -> Value:
        """A value whose sign is known, also where rounding has widened its bounds."""
        if nonnegative and self.rounded and not bounds.is_point:
            bounds = Interval(bounds.lower.clamp(min=0), bounds.upper)
        return Value(bounds, nonnegative)

    def sum(self, a: Any, b: Any) -> Value:
        """a + b."""
        a, b = self.lifted(a), self.lifted(b)
        return self.known(ops.add(a.bounds, b.bounds, rounded=self.rounded), a.nonnegative and b.nonnegative)

    def product(self, a: Any, b: Any) -> Value:
        """a * b."""
        a, b = self.lifted(a), self.lifted(b)
        return self.known(ops.multiply(a.bounds, b.bounds, rounded=self.rounded), a.nonnegative and b.nonnegative)

    def exact(self, function: Callable[[Tensor], Tensor], x: Value, nonnegative: bool | None = None) -> Value:
        """The image under an increasing function that only chooses and moves numbers; None: it keeps their sign."""
        return Value(ops.monotone(function, x.bounds), x.nonnegative if nonnegative is None else nonnegative)

    def smooth(self, function: Callable[[Tensor], Tensor], x: Value, nonnegative: bool = False) -> Value:
        """The image under an increasing elementwise function."""
        return self.known(ops.smooth(function, x.bounds, rounded=self.rounded), nonnegative)

    def averaged(self, function: Callable[[Tensor], Tensor], x: Value) -> Value:
        """The image under a sum or mean."""
        return self.known(ops.averaged(function, x.bounds, rounded=self.rounded), x.nonnegative)


def _require(condition: Any, what: str) -> None:
    if not condition:
        raise Unbounded(what)


Rule = Callable[..., Any]
"""(arithmetic, *arguments) -> Value, or a plain number or shape."""

FUNCTIONS: dict[Any, Rule] = {}
"""By the function, or by the name of the tensor's method."""
MAY_BE_VALUES = {"input", "other", "weight", "bias", "tensors"}
"""The arguments that may depend on inputs and weights; all others are numbers, shapes and flags."""


def _rule(*targets: Any) -> Callable[[Rule], Rule]:
    def registered(rule: Rule) -> Rule:
        FUNCTIONS.update(dict.fromkeys(targets, rule))
        return rule

    return registered


# -- sums and products ---------------------------------------------------------------------------------


@_rule(operator.add, operator.iadd, torch.add, "add", "add_")
def _add(a: Arithmetic, input: Any, other: Any, *, alpha: float = 1) -> Value:
    return a.sum(input, other if alpha == 1 else a.product(other, alpha))


@_rule(operator.sub, operator.isub, torch.sub, torch.subtract, "sub", "sub_")
def _sub(a: Arithmetic, input: Any, other: Any, *, alpha: float = 1) -> Value:
    return a.sum(input, _neg(a, other if alpha == 1 else a.product(other, alpha)))


@_rule(operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_")
def _mul(a: Arithmetic, input: Any, other: Any) -> Value:
    return a.product(input, other)


@_rule(operator.neg, torch.neg, "neg")
def _neg(a: Arithmetic, input: Any) -> Value:
    return Value(ops.negate(a.lifted(input).bounds))


@_rule(F.linear)
def _linear(a: Arithmetic, input: Any, weight: Any, bias: Any = None) -> Value:
    x, w, b = a.lifted(input), a.lifted(weight).bounds, None if bias is None else a.lifted(bias).bounds
    return Value(ops.linear(x.bounds, w, b, nonnegative=x.nonnegative, rounded=a.rounded))


@_rule(torch.conv2d)
def _conv2d(
    a: Arithmetic, input: Any, weight: Any, bias: Any = None,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Value:  # fmt: skip
    x, w, b = a.lifted(input), a.lifted(weight).bounds, None if bias is None else a.lifted(bias).bounds
    geometry: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return Value(ops.conv2d(x.bounds, w, b, **geometry, nonnegative=x.nonnegative, rounded=a.rounded))


# -- increasing functions ------------------------------------------------------------------------------


@_rule(F.relu, torch.relu, torch.relu_, "relu", "relu_")
def _relu(a: Arithmetic, input: Value, inplace: bool = False) -> Value:
    return a.exact(torch.relu, input, nonnegative=True)


@_rule(F.relu6)
def _relu6(a: Arithmetic, input: Value, inplace: bool = False) -> Value:
    return a.exact(F.relu6, input, nonnegative=True)


@_rule(F.hardtanh)
def _hardtanh(a: Arithmetic, input: Value, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Value:
    return a.exact(lambda x: F.hardtanh(x, min_val, max_val), input, nonnegative=min_val >= 0)


@_rule(F.leaky_relu)
def _leaky_relu(a: Arithmetic, input: Value, negative_slope: float = 0.01, inplace: bool = False) -> Value:
    _require(negative_slope >= 0, f"negative_slope = {negative_slope}")
    return a.smooth(lambda x: F.leaky_relu(x, negative_slope), input)


@_rule(F.elu)
def _elu(a: Arithmetic, input: Value, alpha: float = 1.0, inplace: bool = False) -> Value:
    _require(alpha >= 0, f"alpha = {alpha}")
    return a.smooth(lambda x: F.elu(x, alpha), input)


@_rule(F.celu, torch.celu)
def _celu(a: Arithmetic, input: Value, alpha: float = 1.0, inplace: bool = False) -> Value:
    _require(alpha > 0, f"alpha = {alpha}")
    return a.smooth(lambda x: F.celu(x, alpha), input)


@_rule(F.selu, torch.selu)
def _selu(a: Arithmetic, input: Value, inplace: bool = False) -> Value:
    return a.smooth(F.selu, input)


@_rule(torch.tanh, "tanh", "tanh_")
def _tanh(a: Arithmetic, input: Value) -> Value:
    return a.smooth(torch.tanh, input)


@_rule(torch.sigmoid, "sigmoid", "sigmoid_")
def _sigmoid(a: Arithmetic, input: Value) -> Value:
    return a.smooth(torch.sigmoid, input, nonnegative=True)


@_rule(F.hardsigmoid)
def _hardsigmoid(a: Arithmetic, input: Value, inplace: bool = False) -> Value:
    return a.smooth(F.hardsigmoid, input, nonnegative=True)


@_rule(F.softsign)
def _softsign(a: Arithmetic, input: Value) -> Value:
    return a.smooth(F.softsign, input)


@_rule(F.softplus)
def _softplus(a: Arithmetic, input: Value, beta: float = 1.0, threshold: float = 20.0) -> Value:
    """Not quite increasing: where beta x exceeds the threshold it is x, and so falls by `jump` there."""
    _require(beta > 0, f"beta = {beta}")
    image = a.smooth(lambda x: F.softplus(x, beta, threshold), input, nonnegative=threshold >= 0)
    if image.bounds.is_point:
        return image
    jump = 1.001 * (max(-threshold, 0.0) + math.log1p(math.exp(-abs(threshold)))) / beta
    lower = (image.bounds.lower - jump).clamp(min=min(threshold / beta, 0.0))
    return Value(Interval(lower, image.bounds.upper + jump), image.nonnegative)


# -- pooling and means ---------------------------------------------------------------------------------


def _max_pool(function: Callable[..., Any]) -> Rule:
    def pool(
        a: Arithmetic, input: Value, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        ceil_mode: bool = False, return_indices: bool = False,
    ) -> Value:  # fmt: skip
        _require(not return_indices, "return_indices")
        return a.exact(lambda x: function(x, kernel_size, stride, padding, dilation, ceil_mode), input)

    return pool


_max_pool1d, _max_pool2d = _max_pool(F.max_pool1d), _max_pool(F.max_pool2d)
FUNCTIONS |= {F.max_pool1d: _max_pool1d, F.max_pool2d: _max_pool2d}


@_rule(F.avg_pool1d)
def _avg_pool1d(
    a: Arithmetic, input: Value, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Value:  # fmt: skip
    stride = kernel_size if stride is None else stride
    return a.averaged(lambda x: F.avg_pool1d(x, kernel_size, stride, padding, ceil_mode, count_include_pad), input)


@_rule(F.avg_pool2d)
def _avg_pool2d(
    a: Arithmetic, input: Value, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Value:  # fmt: skip
    _require(divisor_override is None or divisor_override > 0, f"divisor_override = {divisor_override}")

    def pool(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)

    return a.averaged(pool, input)


def _adaptive_pool(function: Callable[..., Any], maximum: bool) -> Rule:
    def pool(a: Arithmetic, input: Value, output_size: Any, return_indices: bool = False) -> Value:
        _require(not return_indices, "return_indices")
        how = a.exact if maximum else a.averaged
        return how(lambda x: function(x, output_size), input)

    return pool


_adaptive_avg_pool1d = _adaptive_pool(F.adaptive_avg_pool1d, maximum=False)
_adaptive_avg_pool2d = _adaptive_pool(F.adaptive_avg_pool2d, maximum=False)
_adaptive_max_pool1d = _adaptive_pool(F.adaptive_max_pool1d, maximum=True)
_adaptive_max_pool2d = _adaptive_pool(F.adaptive_max_pool2d, maximum=True)
FUNCTIONS |= {
    F.adaptive_avg_pool1d: _adaptive_avg_pool1d,
    F.adaptive_avg_pool2d: _adaptive_avg_pool2d,
    F.adaptive_max_pool1d: _adaptive_max_pool1d,
    F.adaptive_max_pool2d: _adaptive_max_pool2d,
}


def _along(dim: Any, keepdim: bool) -> tuple[Any, ...]:
    return () if dim is None else (dim, keepdim)


@_rule(torch.mean, "mean")
def _mean(a: Arithmetic, input: Value, dim: Any = None, keepdim: bool = False) -> Value:
    return a.averaged(lambda x: x.mean(*_along(dim, keepdim)), input)


@_rule(torch.sum, "sum")
def _total(a: Arithmetic, input: Value, dim: Any = None, keepdim: bool = False) -> Value:
    return a.averaged(lambda x: x.sum(*_along(dim, keepdim)), input)


@_rule(torch.amax, "amax")
def _amax(a: Arithmetic, input: Value, dim: Any = (), keepdim: bool = False) -> Value:
    return a.exact(lambda x: x.amax(dim, keepdim), input)


# -- shapes --------------------------------------------------------------------------------------------


def _reshaping(method: str) -> Rule:
    def reshape(a: Arithmetic, input: Value, *arguments: Any, **options: Any) -> Value:
        _require(not any(isinstance(part, torch.dtype) for part in [*arguments, *options.values()]), "a dtype")
        return a.exact(lambda x: getattr(x, method)(*arguments, **options), input)

    return reshape


_RESHAPING = ("flatten", "view", "reshape", "permute", "transpose", "t", "squeeze", "unsqueeze", "unflatten")
for _name in (*_RESHAPING, "contiguous"):
    FUNCTIONS |= dict.fromkeys([_name, getattr(torch, _name, _name)], _reshaping(_name))


@_rule(operator.getitem)
def _getitem(a: Arithmetic, input: Value, index: Any) -> Value:
    return a.exact(lambda x: x[index], input)


@_rule(torch.clone, "clone")
def _clone(a: Arithmetic, input: Value) -> Value:
    return input


@_rule("to", "float", "double")
def _to(a: Arithmetic, input: Value, *arguments: Any, **options: Any) -> Value:
    """In exact arithmetic a conversion changes nothing; one to fewer digits is more than rounding."""
    kinds = [part for part in [*arguments, *options.values()] if isinstance(part, torch.dtype)]
    _require(all(kind in (torch.float32, torch.float64) for kind in kinds), " ".join(map(str, kinds)))
    return input


@_rule(torch.cat, torch.concat, torch.concatenate)
def _cat(a: Arithmetic, tensors: Sequence[Any], dim: int = 0) -> Value:
    _require(not isinstance(tensors, Value), "one tensor")
    parts = [a.lifted(part) for part in tensors]
    lower, upper = (torch.cat(side, dim) for side in zip(*(part.bounds for part in parts), strict=True))
    return Value(Interval(lower, upper), all(part.nonnegative for part in parts))


@_rule(F.pad)
def _pad(a: Arithmetic, input: Value, pad: Any, mode: str = "constant", value: float | None = None) -> Value:
    return a.exact(lambda x: F.pad(x, pad, mode, value), input, nonnegative=input.nonnegative and (value or 0) >= 0)


@_rule(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d)
def _dropout(a: Arithmetic, input: Value, p: float = 0.5, training: bool = True, inplace: bool = False) -> Value:
    _require(not training, "training = True")
    return input


@_rule("size")
def _size(a: Arithmetic, input: Value, dim: int | None = None) -> Any:
    return input.bounds.lower.size(dim)


@_rule("dim")
def _dim(a: Arithmetic, input: Value) -> int:
    return input.bounds.lower.dim()


@_rule(getattr)
def _getattr(a: Arithmetic, input: Value, name: str) -> Any:
    _require(name in ("shape", "ndim", "device", "dtype"), name)
    return getattr(input.bounds.lower, name)


IN_PLACE = {torch.relu_, operator.iadd, operator.isub, operator.imul, operator.itruediv}
"""Beside methods whose name ends in an underscore, and whatever has `inplace` set."""
VIEWS = {FUNCTIONS[name] for name in (*_RESHAPING, "contiguous", operator.getitem, "to", F.dropout)}
"""Rules of what may return its input, or a part of it: what changes the one in place changes the other."""

# -- layers --------------------------------------------------------------------------------------------

Own = Callable[[str], "Interval | None"]
"""Bounds of a parameter or buffer of the layer, by its name there."""
LayerRule = Callable[[Arithmetic, Any, Own, Value], Value]


def _linear_layer(a: Arithmetic, module: nn.Linear, own: Own, x: Value) -> Value:
    return _linear(a, x, *_weights(own))


def _weights(own: Own) -> tuple[Value | None, Value | None]:
    weight, bias = own("weight"), own("bias")
    return None if weight is None else Value(weight), None if bias is None else Value(bias)


def _convolution(a: Arithmetic, module: nn.Conv2d, own: Own, x: Value) -> Value:
    _require(module.padding_mode == "zeros", f"padding_mode = {module.padding_mode!r}")
    weight, bias = _weights(own)
    return _conv2d(a, x, weight, bias, module.stride, module.padding, module.dilation, module.groups)


def _batch_norm(a: Arithmetic, module: nn.BatchNorm1d | nn.BatchNorm2d, own: Own, x: Value) -> Value:
    mean, variance = own("running_mean"), own("running_var")
    if mean is None or variance is None:
        raise Unbounded("the statistics of the batch (track_running_stats = False)")
    parts = mean.lower, variance.lower, own("weight"), own("bias")
    return Value(ops.batch_norm(x.bounds, *parts, module.eps, rounded=a.rounded))


def _dropout_layer(a: Arithmetic, module: nn.Module, own: Own, x: Value) -> Value:
    """One mask for both bounds, as the official interval networks draw it; nothing in evaluation mode."""
    if not module.training:
        return x
    mask = module(torch.ones_like(x.bounds.lower))
    return a.smooth(lambda value: value * mask, x, x.nonnegative)


def _like(rule: Rule, *attributes: str) -> LayerRule:
    """A layer that is a function of its input and of these attributes, which are called there as here."""
    return lambda a, module, own, x: rule(a, x, **{name: getattr(module, name) for name in attributes})


def _shape_layer(a: Arithmetic, module: nn.Module, own: Own, x: Value) -> Value:
    return a.exact(module, x)


_POOL = ("kernel_size", "stride", "padding", "ceil_mode")
_MAX_POOL = (*_POOL, "dilation", "return_indices")
LAYERS: Mapping[type[nn.Module], LayerRule] = {
    nn.Linear: _linear_layer,
    nn.Conv2d: _convolution,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.Dropout: _dropout_layer,
    nn.Dropout1d: _dropout_layer,
    nn.Dropout2d: _dropout_layer,
    nn.Identity: _like(_clone),
    nn.Flatten: _shape_layer,
    nn.Unflatten: _shape_layer,
    nn.ZeroPad2d: _shape_layer,
    nn.MaxPool1d: _like(_max_pool1d, *_MAX_POOL),
    nn.MaxPool2d: _like(_max_pool2d, *_MAX_POOL),
    nn.AvgPool1d: _like(_avg_pool1d, *_POOL, "count_include_pad"),
    nn.AvgPool2d: _like(_avg_pool2d, *_POOL, "count_include_pad", "divisor_override"),
    nn.AdaptiveAvgPool1d: _like(_adaptive_avg_pool1d, "output_size"),
    nn.AdaptiveAvgPool2d: _like(_adaptive_avg_pool2d, "output_size"),
    nn.AdaptiveMaxPool1d: _like(_adaptive_max_pool1d, "output_size", "return_indices"),
    nn.AdaptiveMaxPool2d: _like(_adaptive_max_pool2d, "output_size", "return_indices"),
    nn.ReLU: _like(_relu),
    nn.ReLU6: _like(_relu6),
    nn.Hardtanh: _like(_hardtanh, "min_val", "max_val"),
    nn.LeakyReLU: _like(_leaky_relu, "negative_slope"),
    nn.ELU: _like(_elu, "alpha"),
    nn.CELU: _like(_celu, "alpha"),
    nn.SELU: _like(_selu),
    nn.Tanh: _like(_tanh),
    nn.Sigmoid: _like(_sigmoid),
    nn.Hardsigmoid: _like(_hardsigmoid),
    nn.Softsign: _like(_softsign),
    nn.Softplus: _like(_softplus, "beta", "threshold"),
}
"""By the very class: a subclass may compute something else."""
RETURN_INPUT = (nn.Identity, nn.Flatten, nn.Unflatten, nn.Dropout, nn.Dropout1d, nn.Dropout2d)
"""Layers as `VIEWS`."""
