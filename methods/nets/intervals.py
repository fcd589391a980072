"""Bounds of a whole network over a box of weights: an interpreter of its traced graph."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch.fx.proxy import TraceError
from torch.nn import functional as F

from benchmarks.types import UserError
from methods.nets.interval_ops import (
    Interval,
    add,
    batch_norm,
    certified,
    contains,
    conv2d,
    intersect,
    linear,
    monotone,
    multiply,
    negate,
    outward,
    relu,
    worst_case,
)

__all__ = [
    "Interval",
    "add",
    "batch_norm",
    "certified",
    "contains",
    "conv2d",
    "intersect",
    "linear",
    "monotone",
    "multiply",
    "negate",
    "outward",
    "propagate",
    "relu",
    "worst_case",
]


class _Value(NamedTuple):
    """An interval on its way through the network, and whether it is known to hold no negative number."""

    bounds: Interval
    nonnegative: bool


_NONNEGATIVE = (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Softplus, nn.Hardsigmoid)
_MONOTONE = (*_NONNEGATIVE, nn.Tanh, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.Hardtanh, nn.Softsign)
_KEEPS_SIGN = (
    nn.Identity,
    nn.Flatten,
    nn.Unflatten,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.ZeroPad2d,
)
_NONNEGATIVE_FUNCTIONS = {"relu", "relu_", "relu6", "sigmoid", "softplus", "hardsigmoid"}
_MONOTONE_FUNCTIONS = _NONNEGATIVE_FUNCTIONS | {"tanh", "leaky_relu", "elu", "celu", "selu", "hardtanh", "softsign"}
_KEEPS_SIGN_FUNCTIONS = {
    "flatten",
    "view",
    "reshape",
    "permute",
    "transpose",
    "squeeze",
    "unsqueeze",
    "contiguous",
    "unflatten",
    "mean",
    "sum",
    "amax",
    "max_pool1d",
    "max_pool2d",
    "avg_pool1d",
    "avg_pool2d",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "boolean_dispatch",
    "getitem",
    "to",
    "float",
}
_ADDITIONS = (operator.add, operator.iadd, torch.add)
_PRODUCTS = (operator.mul, operator.imul, torch.mul)
_IN_PLACE = (operator.iadd, operator.imul, F.relu_)


def propagate(
    network: nn.Module,
    weights: Mapping[str, Interval],
    x: Tensor | Interval,
    *,
    nonnegative_inputs: bool = False,
    buffers: Mapping[str, Tensor] | None = None,
    rounded: bool = False,
) -> Interval:
    """Bounds of network(x) over all parameters inside `weights`, by name as in `named_parameters`.

    Parameters that `weights` does not name are taken as they are, and so are buffers (batch-norm
    statistics) that `buffers` does not name: batch norm always uses its stored statistics.
    nonnegative_inputs: x >= 0 is known, which halves the cost of the first layer.
    rounded: widen every linear layer by its rounding error, so that the bounds also hold for the network
    as evaluated in floating point at any point of the box: for certificates.
    Raises UserError for a network that cannot be traced or an operation without a known bound.
    """
    start = _Value(x if isinstance(x, Interval) else Interval.point(x), nonnegative_inputs)
    return _Propagation(network, weights, buffers or {}, rounded).run(start)


class _Propagation:
    def __init__(
        self, network: nn.Module, weights: Mapping[str, Interval], buffers: Mapping[str, Tensor], rounded: bool
    ) -> None:
        self.network, self.weights, self.buffers, self.rounded = network, weights, buffers, rounded

    def run(self, start: _Value) -> Interval:
        known: dict[fx.Node, Any] = {}
        for node in _traced(self.network).nodes:
            args, kwargs = fx.map_arg((node.args, node.kwargs), known.__getitem__)
            match node.op:
                case "placeholder":
                    known[node] = start
                case "get_attr":
                    known[node] = self._attribute(node.target)
                case "call_module":
                    known[node] = self._module(node.target, *args)
                case "call_function" | "call_method":
                    known[node] = self._function(node.target, args, kwargs)
                case "output":
                    return args[0].bounds
            if self._writes_in_place(node):
                known[node.args[0]] = known[node]
        raise AssertionError("a traced graph ends in an output")

    def _writes_in_place(self, node: fx.Node) -> bool:
        """Whether the node also changes its first argument, for whoever reads that afterwards."""
        if not node.args or not isinstance(node.args[0], fx.Node):
            return False
        if node.op == "call_module":
            return bool(getattr(self.network.get_submodule(str(node.target)), "inplace", False))
        if node.op == "call_method":
            return str(node.target).endswith("_")
        return bool(node.kwargs.get("inplace")) or node.target in _IN_PLACE

    def _parameter(self, name: str) -> Interval | None:
        if name in self.weights:
            return self.weights[name]
        path, _, last = name.rpartition(".")
        value = getattr(self.network.get_submodule(path), last)
        return None if value is None else Interval.point(value)

    def _buffer(self, name: str) -> Tensor:
        return self.buffers[name] if name in self.buffers else self.network.get_buffer(name)

    def _attribute(self, name: str) -> Any:
        bounds = self._parameter(name)
        return None if bounds is None else _Value(bounds, False)

    def _module(self, name: str, x: _Value) -> _Value:
        module = self.network.get_submodule(name)
        if getattr(module, "constant", False) and x.bounds.is_point:
            return _Value(Interval.point(module(x.bounds.lower)), False)
        match module:
            case nn.Linear():
                weight, bias = self._weight(name), self._parameter(f"{name}.bias")
                return _Value(linear(x.bounds, weight, bias, nonnegative=x.nonnegative, rounded=self.rounded), False)
            case nn.Conv2d(padding_mode="zeros"):
                return self._convolve(module, x, self._weight(name), self._parameter(f"{name}.bias"))
            case nn.BatchNorm1d() | nn.BatchNorm2d():
                return self._normalise(module, name, x)
            case nn.Dropout() | nn.Dropout1d() | nn.Dropout2d():
                return _dropped(module, x)
        if isinstance(module, _KEEPS_SIGN):
            return _Value(monotone(module, x.bounds), x.nonnegative)
        if isinstance(module, _MONOTONE) and getattr(module, "negative_slope", 0) >= 0:
            return _Value(monotone(_without_inplace(module), x.bounds), isinstance(module, _NONNEGATIVE))
        raise UserError(f"interval bounds: no bound is known for the module {name!r}, {type(module).__name__}")

    def _weight(self, name: str) -> Interval:
        weight = self._parameter(f"{name}.weight")
        assert weight is not None
        return weight

    def _convolve(self, module: nn.Conv2d, x: _Value, weight: Interval, bias: Interval | None) -> _Value:
        bounds = conv2d(
            x.bounds,
            weight,
            bias,
            stride=module.stride,  # type: ignore[arg-type]
            padding=module.padding,  # type: ignore[arg-type]
            dilation=module.dilation,  # type: ignore[arg-type]
            groups=module.groups,
            nonnegative=x.nonnegative,
            rounded=self.rounded,
        )
        return _Value(bounds, False)

    def _normalise(self, module: nn.BatchNorm1d | nn.BatchNorm2d, name: str, x: _Value) -> _Value:
        mean, variance = self._buffer(f"{name}.running_mean"), self._buffer(f"{name}.running_var")
        weight, bias = self._parameter(f"{name}.weight"), self._parameter(f"{name}.bias")
        bounds = batch_norm(x.bounds, mean, variance, weight, bias, module.eps)
        return _Value(outward(bounds, 16) if self.rounded else bounds, False)

    def _function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = target if isinstance(target, str) else target.__name__
        values = [arg for arg in args if isinstance(arg, _Value)]
        first: Any = args[0] if args else None
        call = _method(target) if isinstance(target, str) else target
        if not values:
            parts = [arg for arg in args[:1] if isinstance(arg, list | tuple)]
            if name in ("cat", "concat") and parts and all(isinstance(part, _Value) for part in parts[0]):
                return _joined(parts[0], *args[1:], **kwargs)
            return call(*args, **kwargs)
        if name in ("size", "dim", "getattr"):
            return call(values[0].bounds.lower, *args[1:], **kwargs)
        if target in _ADDITIONS or name in ("add", "add_"):
            return _sum(args[0], args[1])
        if target in _PRODUCTS:
            return _product(args[0], args[1])
        if target is operator.sub:
            return _sum(args[0], _product(args[1], -1))
        if target is F.linear:
            return self._functional_linear(*args, **kwargs)
        if name == "pad" and isinstance(first, _Value) and kwargs.get("mode", "constant") == "constant":
            filled = kwargs.get("value", args[3] if len(args) > 3 else None) or 0
            bounds = monotone(lambda value: call(value, *args[1:], **kwargs), first.bounds)
            return _Value(bounds, first.nonnegative and filled >= 0)
        if target is F.dropout and not kwargs.get("training", args[2] if len(args) > 2 else True):
            return values[0]
        if len(values) == 1 and isinstance(first, _Value) and name in _MONOTONE_FUNCTIONS | _KEEPS_SIGN_FUNCTIONS:
            kwargs = {key: value for key, value in kwargs.items() if key != "inplace"}
            call = _method(target.rstrip("_")) if isinstance(target, str) else call
            bounds = monotone(lambda value: call(value, *args[1:], **kwargs), first.bounds)
            keeps = first.nonnegative and name not in _MONOTONE_FUNCTIONS
            return _Value(bounds, keeps or name in _NONNEGATIVE_FUNCTIONS)
        raise UserError(f"interval bounds: no bound is known for the operation {name!r}")

    def _functional_linear(self, x: _Value, weight: _Value, bias: _Value | None = None) -> _Value:
        b = None if bias is None else bias.bounds
        return _Value(linear(x.bounds, weight.bounds, b, nonnegative=x.nonnegative, rounded=self.rounded), False)


class _Tracer(fx.Tracer):
    """Takes modules that are constant functions as a whole, as it does torch's own."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return getattr(m, "constant", False) or super().is_leaf_module(m, module_qualified_name)


_GRAPHS: WeakKeyDictionary[nn.Module, fx.Graph] = WeakKeyDictionary()


def _traced(network: nn.Module) -> fx.Graph:
    graph = _GRAPHS.get(network)
    if graph is None:
        try:
            graph = _Tracer().trace(network)
        except (TraceError, TypeError) as error:
            raise UserError(f"interval bounds: {type(network).__name__} cannot be traced: {error}") from error
        _GRAPHS[network] = graph
    return graph


def _method(name: str) -> Callable[..., Any]:
    return lambda value, *args, **kwargs: getattr(value, name)(*args, **kwargs)


def _without_inplace(module: nn.Module) -> Callable[[Tensor], Tensor]:
    if not getattr(module, "inplace", False):
        return module
    return lambda value: module(value.clone())


def _dropped(module: nn.Module, x: _Value) -> _Value:
    """One mask for both bounds, as the official interval networks draw it; nothing in evaluation mode."""
    if not module.training:
        return x
    mask = module(torch.ones_like(x.bounds.lower))
    return _Value(monotone(lambda value: value * mask, x.bounds), x.nonnegative)


def _joined(parts: Sequence[_Value], dim: int = 0) -> _Value:
    bounds = [part.bounds for part in parts]
    lower, upper = (torch.cat(side, dim) for side in zip(*bounds, strict=True))
    return _Value(Interval(lower, upper), all(part.nonnegative for part in parts))


def _lifted(value: Any) -> _Value:
    if isinstance(value, _Value):
        return value
    number = torch.as_tensor(value)
    return _Value(Interval.point(number), not isinstance(value, Tensor) and value >= 0)


def _sum(a: Any, b: Any) -> _Value:
    a, b = _lifted(a), _lifted(b)
    return _Value(add(a.bounds, b.bounds), a.nonnegative and b.nonnegative)


def _product(a: Any, b: Any) -> _Value:
    a, b = _lifted(a), _lifted(b)
    return _Value(multiply(a.bounds, b.bounds), a.nonnegative and b.nonnegative)
