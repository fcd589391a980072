"""Stateless target network whose parameters lie in flat groups: masked, fixed, and a task's own."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from methods.networks.tied import to_meta
from methods.shared.features import inputs_of
from methods.shared.maskable import Statistics


class Group(IntEnum):
    """Use of a parameter by the tasks' networks."""

    MASKED = 0
    """Shared by all tasks, each of which uses some of its entries."""
    FIXED = 1
    """Shared by all tasks as a whole."""
    OWN = 2
    """Private to a task, which keeps a copy."""
    ABSENT = 3
    """Zero."""


class Point(NamedTuple):
    """Parameters and statistics of one network: a flat vector for each group, and batch norm's buffers by name."""

    masked: Tensor
    fixed: Tensor
    own: Tensor
    statistics: Statistics


Named = dict[str, Tensor]
"""Parameters by name."""
GroupOf = Callable[[str, Tensor], Group]
"""(parameter's name, parameter) -> group, for all parameters but those of an output layer of each task."""


def layer_of(name: str) -> str:
    """Name of the module that holds a parameter."""
    return name.rpartition(".")[0]


class GroupedNetwork:
    """Stateless network. A flat vector holds its group's parameters in the network's order, each row-major.

    The output layer, that of the last parameter, is a task's own; its parameters are the last ones of the group. With
    `own_head` = False it is grouped like all others.
    """

    stateless = True

    def __init__(self, network: nn.Module, group_of: GroupOf, own_head: bool = True) -> None:
        parameters = dict(network.named_parameters())
        self.last_layer = layer_of(list(parameters)[-1])
        heads = [name for name in parameters if own_head and self.in_head(name)]
        named = {name: group_of(name, p) for name, p in parameters.items() if name not in heads}
        named |= dict.fromkeys(heads, Group.OWN)
        self.shapes = {g: {n: parameters[n].shape for n, of in named.items() if of is g} for g in Group}
        self.n_head = sum(parameters[name].numel() for name in heads)
        self.first = self.values(network)
        self.zeros = {name: torch.zeros_like(parameters[name]) for name in self.shapes[Group.ABSENT]}
        self.norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
        self.network = to_meta(network)
        self.mode: tuple[bool, bool] | None = None
        """Training of the network, and of its batch norm, as set last."""

    def in_head(self, name: str) -> bool:
        """True for a parameter of the output layer."""
        return layer_of(name) == self.last_layer

    def sizes(self, group: Group) -> list[int]:
        """Entries of each of a group's parameters, in order."""
        return [shape.numel() for shape in self.shapes[group].values()]

    def values(self, network: nn.Module) -> Point:
        """Copies of the parameters and buffers of a network of the same shape."""
        found = dict(network.named_parameters())

        def flat(group: Group) -> Tensor:
            parts = [found[name].detach().flatten() for name in self.shapes[group]]
            return torch.cat(parts) if parts else torch.empty(0, device=next(iter(found.values())).device)

        buffers = {name: b.detach().clone() for name, b in network.named_buffers()}
        return Point(flat(Group.MASKED), flat(Group.FIXED), flat(Group.OWN), buffers)

    def views(self, flat: Tensor, group: Group) -> dict[str, Tensor]:
        """Views into a flat vector of a group by name."""
        parts = zip(flat.split(self.sizes(group)), self.shapes[group].items(), strict=True)
        return {name: part.view(shape) for part, (name, shape) in parts}

    def named(self, point: Point) -> dict[str, Tensor]:
        """Views of all parameters of a point by name."""
        found = dict(self.zeros)
        for group, flat in zip(Group, point[:3], strict=False):
            found |= self.views(flat, group)
        return found

    def enter(self, training: bool = False, norms_training: bool = True) -> None:
        """Put the modules in training or evaluation mode."""
        mode = training, training and norms_training
        if mode != self.mode:
            self.network.train(training)
            for module in self.norms:
                module.train(mode[1])
            self.mode = mode

    def __call__(self, point: Point, x: Tensor) -> Tensor:
        """Logits (b, C), in evaluation mode."""
        self.enter(training=False)
        return functional_call(self.network, {**self.named(point), **point.statistics}, (x,))

    def trained(self, named: Named, statistics: Statistics, x: Tensor, norms_training: bool = True) -> Tensor:
        """Logits (b, C) in training mode, with parameters by name, except absent ones.

        Batch norm updates the statistics in place, or is in evaluation mode.
        """
        self.enter(True, norms_training)
        return functional_call(self.network, {**self.zeros, **named, **statistics}, (x,))

    def features(self, point: Point, x: Tensor) -> Tensor:
        """Inputs of the output layer, flattened (b, d), in evaluation mode."""
        return inputs_of(self.network.get_submodule(self.last_layer), lambda: self(point, x))
