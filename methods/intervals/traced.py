"""Traced graph of a network for its interval bounds: data flow and in-place changes."""

from __future__ import annotations

import inspect
import operator
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import fx, nn

from benchmarks.types import UserError
from methods.intervals.layers import RETURN_INPUT
from methods.intervals.rules import FUNCTIONS
from methods.intervals.shapes import IN_PLACE, VIEWS


@dataclass(frozen=True)
class Plan:
    """Traced network."""

    graph: fx.Graph
    writes: dict[fx.Node, fx.Node] = field(default_factory=dict)
    """Node -> the earlier node whose tensor it changes; later reads of that node see the change."""
    spent: dict[fx.Node, list[fx.Node]] = field(default_factory=dict)
    """Node -> the nodes, itself if it has no users, whose values no later node reads."""


_PLANS: WeakKeyDictionary[nn.Module, dict[tuple[bool, ...], Plan]] = WeakKeyDictionary()


def plan_of(network: nn.Module) -> Plan:
    """Plan of a network in the current mode of its modules, made once.

    Raises UserError for a network that cannot be traced, or whose graph does not capture all that it computes.
    """
    plans = _PLANS.setdefault(network, {})
    mode = tuple(module.training for module in network.modules())
    if mode not in plans:
        plans[mode] = _planned(network)
    return plans[mode]


def has_hooks(module: nn.Module) -> bool:
    """Check whether calling the module runs more than its `forward`."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


class _Proxy(fx.Proxy):
    """Proxy that distinguishes `x += y`, which changes x for all its holders, from `x = x + y`; plain `fx` does not."""

    def __iadd__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __isub__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.isub, (self, other), {})

    def __imul__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})

    def __itruediv__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.itruediv, (self, other), {})


class _Tracer(fx.Tracer):
    """Tracer that treats modules that are constant functions as leaves, like torch's own."""

    proxy_buffer_attributes = True
    """Buffers are read at each pass. A number computed from one while tracing would stay in the plan."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return getattr(m, "constant", False) or super().is_leaf_module(m, module_qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)


def _planned(network: nn.Module) -> Plan:
    name = type(network).__name__
    if has_hooks(network):
        raise UserError(f"interval bounds: {name} has hooks, which may change what it computes")
    random = torch.get_rng_state()
    try:
        graph = _Tracer().trace(network)
    except Exception as error:
        text = " ".join(str(error).split())
        raise UserError(f"interval bounds: {name} cannot be traced: {text}") from error
    if not torch.equal(random, torch.get_rng_state()):
        raise UserError(f"interval bounds: {name} draws random numbers")
    _, *others = [node for node in graph.nodes if node.op == "placeholder"]
    if any(node.users for node in others):
        raise UserError(f"interval bounds: {name} takes more than one input")
    plan = Plan(graph)
    _find_writes(plan, network)
    plan.spent.update({node: [] for node in graph.nodes})
    last_reads = {read: node for node in graph.nodes for read in (node, *node.all_input_nodes)}
    for read, node in last_reads.items():
        plan.spent[node].append(read)
    return plan


def _arguments(node: fx.Node) -> dict[str, Any]:
    """Arguments of a function by their names in its rule; empty if the rule does not take such arguments."""
    rule = FUNCTIONS.get(node.target)
    if rule is None:
        return {}
    try:
        return inspect.signature(rule).bind(None, *node.args, **node.kwargs).arguments
    except TypeError:
        return {}


def _nodes(part: Any) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.map_arg(part, lambda node: found.append(node) or node)
    return found


def _find_writes(plan: Plan, network: nn.Module) -> None:
    """Link in-place changes to later reads of the changed tensor under its own name.

    Raises UserError if it is read under another name: a view of it, or the tensor that it is a view of.
    """
    tensor: dict[fx.Node, fx.Node] = {}
    """Node -> the node that allocated its memory."""
    position = {node: place for place, node in enumerate(plan.graph.nodes)}
    for node in plan.graph.nodes:
        target = next(iter(_nodes((node.args, node.kwargs))), None)
        view, write = _kind(node, network)
        tensor[node] = tensor[target] if target is not None and (view or write) else node
        if not write or target is None:
            continue
        plan.writes[node] = target
        others = [other for other, made in tensor.items() if made is tensor[node] and other not in (node, target)]
        read = any(position[user] > position[node] for other in others for user in other.users)
        if read or tensor[node].op == "get_attr":
            name = type(network).__name__
            raise UserError(
                f"interval bounds: {name} changes a tensor in place ({node.name}) that it reads by another name"
            )


def _kind(node: fx.Node, network: nn.Module) -> tuple[bool, bool]:
    """Flags of a node: may return its input or a part of it; changes it in place."""
    if node.op == "call_module":
        module = network.get_submodule(str(node.target))
        return isinstance(module, RETURN_INPUT), bool(getattr(module, "inplace", False))
    if node.op not in ("call_function", "call_method"):
        return False, False
    named = isinstance(node.target, str) and node.target.endswith("_")
    inplace = named or node.target in IN_PLACE or bool(_arguments(node).get("inplace"))
    return FUNCTIONS.get(node.target) in VIEWS, inplace
