"""Rules for the bounds of layers, most of them taken from the rules of functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from methods.intervals import ops, rules, shapes
from methods.intervals.arithmetic import Arithmetic, Unbounded, Value, require
from methods.intervals.interval import Interval
from methods.intervals.rules import Rule

Own = Callable[[str], "Interval | None"]
"""Function from the name of a layer's parameter or buffer to its bounds."""
LayerRule = Callable[[Arithmetic, Any, Own, Value], Value]


def _linear_layer(a: Arithmetic, module: nn.Linear, own: Own, x: Value) -> Value:
    return rules.linear(a, x, *_weights(own))


def _weights(own: Own) -> tuple[Value | None, Value | None]:
    weight, bias = own("weight"), own("bias")
    return None if weight is None else Value(weight), None if bias is None else Value(bias)


def _convolution(a: Arithmetic, module: nn.Conv2d, own: Own, x: Value) -> Value:
    require(module.padding_mode == "zeros", f"padding_mode = {module.padding_mode!r}")
    weight, bias = _weights(own)
    return rules.conv2d(a, x, weight, bias, module.stride, module.padding, module.dilation, module.groups)


def _batch_norm(a: Arithmetic, module: nn.BatchNorm1d | nn.BatchNorm2d, own: Own, x: Value) -> Value:
    mean, variance = own("running_mean"), own("running_var")
    if mean is None or variance is None:
        raise Unbounded("the statistics of the batch (track_running_stats = False)")
    parts = mean.lower, variance.lower, own("weight"), own("bias")
    return Value(ops.batch_norm(x.bounds, *parts, module.eps, rounded=a.rounded))


def _dropout_layer(a: Arithmetic, module: nn.Module, own: Own, x: Value) -> Value:
    """Apply one mask to both bounds, as the official interval networks do; identity in evaluation mode."""
    if not module.training:
        return x
    mask = module(torch.ones_like(x.bounds.lower))
    return a.smooth(lambda value: value * mask, x, x.nonnegative)


def _like(rule: Rule, *attributes: str) -> LayerRule:
    """Rule of a layer that is a function of its input and of these attributes, under the function's names."""
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
    nn.Identity: _like(shapes.clone),
    nn.Flatten: _shape_layer,
    nn.Unflatten: _shape_layer,
    nn.ZeroPad2d: _shape_layer,
    nn.MaxPool1d: _like(shapes.max_pool1d, *_MAX_POOL),
    nn.MaxPool2d: _like(shapes.max_pool2d, *_MAX_POOL),
    nn.AvgPool1d: _like(shapes.avg_pool1d, *_POOL, "count_include_pad"),
    nn.AvgPool2d: _like(shapes.avg_pool2d, *_POOL, "count_include_pad", "divisor_override"),
    nn.AdaptiveAvgPool1d: _like(shapes.adaptive_avg_pool1d, "output_size"),
    nn.AdaptiveAvgPool2d: _like(shapes.adaptive_avg_pool2d, "output_size"),
    nn.AdaptiveMaxPool1d: _like(shapes.adaptive_max_pool1d, "output_size", "return_indices"),
    nn.AdaptiveMaxPool2d: _like(shapes.adaptive_max_pool2d, "output_size", "return_indices"),
    nn.ReLU: _like(rules.relu),
    nn.ReLU6: _like(rules.relu6),
    nn.Hardtanh: _like(rules.hardtanh, "min_val", "max_val"),
    nn.LeakyReLU: _like(rules.leaky_relu, "negative_slope"),
    nn.ELU: _like(rules.elu, "alpha"),
    nn.CELU: _like(rules.celu, "alpha"),
    nn.SELU: _like(rules.selu),
    nn.Tanh: _like(rules.tanh),
    nn.Sigmoid: _like(rules.sigmoid),
    nn.Hardsigmoid: _like(rules.hardsigmoid),
    nn.Softsign: _like(rules.softsign),
    nn.Softplus: _like(rules.softplus, "beta", "threshold"),
}
"""Rules by exact class, because a subclass may compute something else."""
RETURN_INPUT = (nn.Identity, nn.Flatten, nn.Unflatten, nn.Dropout, nn.Dropout1d, nn.Dropout2d)
"""Layers that may return their input, like `VIEWS`."""
