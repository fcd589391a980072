"""Bounds of a whole network over a box of weights, by interpretation of its traced graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

from benchmarks.types import UserError
from methods.intervals.arithmetic import Arithmetic, Unbounded, Value
from methods.intervals.interval import Interval, contains, exactly, intersect, outward
from methods.intervals.layers import LAYERS
from methods.intervals.ops import (
    add,
    batch_norm,
    certified,
    conv2d,
    linear,
    monotone,
    multiply,
    negate,
    relu,
    worst_case,
)
from methods.intervals.rules import FUNCTIONS
from methods.intervals.traced import has_hooks, plan_of
from methods.networks.tied import first_names

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

    A parameter with several names has one interval. Parameters not in `weights`, and buffers (batch-norm statistics)
    not in `buffers`, keep their values: batch norm always uses its stored statistics.
    nonnegative_inputs: x >= 0 is known, which halves the cost of the first layer.
    rounded: for certificates. The bounds are float64 and hold without exception for network.double() computed without
    rounding at any point of the box: all numbers are converted exactly, and every operation is widened by its largest
    possible rounding error. The rounding of a float32 network's answers is not covered; see docs/metrics.md.
    Raises UserError for a network that cannot be traced or an operation without a known bound.
    """
    x = x if isinstance(x, Interval) else Interval.point(x)
    dtype = x.lower.dtype if x.lower.is_floating_point() else torch.get_default_dtype()
    traversal = TRAVERSAL.get()(network, weights, buffers or {}, Arithmetic(rounded, dtype))
    return traversal.run(x, nonnegative_inputs)


class Traversal:
    """Pass through a network."""

    def __init__(
        self,
        network: nn.Module,
        weights: Mapping[str, Interval],
        buffers: Mapping[str, Tensor],
        arithmetic: Arithmetic,
    ) -> None:
        self.network, self.arithmetic = network, arithmetic
        self.given = {**{name: Interval.point(buffer) for name, buffer in buffers.items()}, **weights}

    def run(self, x: Interval, nonnegative: bool) -> Interval:
        known: dict[fx.Node, Any] = {}
        plan = plan_of(self.network)
        for node in plan.graph.nodes:
            args, kwargs = fx.map_arg((node.args, node.kwargs), known.__getitem__)
            match node.op:
                case "placeholder":
                    known[node] = Value(x, nonnegative)
                case "get_attr":
                    bounds = self._tensor(str(node.target))
                    known[node] = None if bounds is None else Value(bounds)
                case "call_module":
                    known[node] = self._layer(str(node.target), [*args, *kwargs.values()])
                case "call_function" | "call_method":
                    known[node] = self._function(node.target, args, kwargs)
                case "output":
                    return self._answer(args[0])
            if node in plan.writes and isinstance(known[node], Value):
                known[plan.writes[node]] = known[node]
            for spent in plan.spent[node]:  # all values of a convolutional network together take gigabytes
                del known[spent]
        raise AssertionError("a traced graph ends in an output")

    def _answer(self, result: Any) -> Interval:
        if not isinstance(result, Value):
            raise UserError(f"interval bounds: {type(self.network).__name__} does not return one tensor of logits")
        return exactly(result.bounds) if self.arithmetic.rounded else result.bounds

    def _tensor(self, name: str) -> Interval | None:
        """Bounds of a parameter or buffer given under any of its names, else a point; None if the layer has none."""
        if name in self.given:
            return self.given[name]
        path, _, last = name.rpartition(".")
        value = getattr(self.network.get_submodule(path), last)
        if value is None:
            return None
        first = self._first_names.get(name)
        twin = next((other for other in self.given if self._first_names.get(other, "") == first), None)
        return Interval.point(value) if twin is None else self.given[twin]

    @cached_property
    def _first_names(self) -> dict[str, str]:
        return first_names(self.network)

    def _layer(self, name: str, arguments: list[Any]) -> Value:
        module = self.network.get_submodule(name)
        what = f"the module {name!r}, {type(module).__name__}"
        if len(arguments) != 1 or has_hooks(module):
            raise UserError(f"interval bounds: no bound is known for {what}")
        x = self.arithmetic.lifted(arguments[0])
        if getattr(module, "constant", False) and x.bounds.is_point:
            return Value(Interval.point(module(x.bounds.lower)))
        rule = LAYERS.get(type(module))
        if rule is None:
            raise UserError(f"interval bounds: no bound is known for {what}")
        try:
            return rule(self.arithmetic, module, lambda own: self._tensor(f"{name}.{own}"), x)
        except Unbounded as reason:
            raise UserError(f"interval bounds: no bound is known for {what}, with {reason}") from None

    def _function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        rule, name = FUNCTIONS.get(target), target if isinstance(target, str) else target.__name__
        if not _holds_value((args, kwargs)):
            return getattr(args[0], target)(*args[1:], **kwargs) if isinstance(target, str) else target(*args, **kwargs)
        if rule is None:
            raise UserError(f"interval bounds: no bound is known for the operation {name!r}")
        try:  # TypeError: the rule does not name an argument, or needs a number instead of an interval
            return rule(self.arithmetic, *args, **kwargs)
        except (Unbounded, TypeError) as reason:
            raise UserError(f"interval bounds: no bound is known for the operation {name!r}, with {reason}") from None


def _holds_value(part: Any) -> bool:
    """Check whether the arguments of a function contain an interval."""
    if isinstance(part, Value):
        return True
    if isinstance(part, dict):
        return any(map(_holds_value, part.values()))
    if isinstance(part, slice):
        return _holds_value((part.start, part.stop, part.step))
    return isinstance(part, list | tuple) and any(map(_holds_value, part))


TRAVERSAL: ContextVar[Callable[..., Traversal]] = ContextVar("traversal", default=Traversal)
"""Maker of the passes of `propagate`; `affine.propagation` sets another, which tightens certificates."""
