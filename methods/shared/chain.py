"""Chains of layers, and gates of their units as factors of the flat weights.

A gate a >= 0 of a unit (a feature map in a convolution) multiplies the unit's output. Between two layers of a chain lie
only functions that scale with their input, f(a x) = a f(x) unit by unit: ReLU, pooling, dropout, flattening. So the
gate may as well scale the row of weights and the bias that make the unit, or the columns that read it, or both in part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from benchmarks.types import UserError
from methods.networks import targets

Linear = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
POOLS = (
    nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, functional.max_pool2d, functional.avg_pool2d,
    functional.adaptive_avg_pool2d,
)  # fmt: skip
"""Functions of a map, which would mix the units of a linear layer."""
MODULES = (nn.ReLU, nn.LeakyReLU, nn.Identity, nn.Flatten, nn.Dropout, nn.Dropout1d, nn.Dropout2d)
FUNCTIONS = (torch.relu, torch.flatten, functional.relu, functional.leaky_relu, functional.dropout)
METHODS = ("relu", "flatten")


class NotAChain(UserError):
    """Network whose units cannot be gated by scaling weights; the text says why."""


class Layer(NamedTuple):
    """Linear layer or convolution of a chain."""

    name: str
    """Name of its module."""
    units: int
    """Outputs, or feature maps."""
    repeat: int
    """Inputs that come from each unit of the layer before: the pixels of a map that is flattened; else 1."""


def chain_of(network: nn.Module) -> list[Layer]:
    """Layers of a network in the order in which they are applied, the output layer last.

    Raises NotAChain for branches and residual streams, layers that are used twice, norm layers and other functions
    that do not scale with their input, and for a network without a unit below the output layer.
    """
    try:
        graph = fx.Tracer().trace(network)
    except Exception as error:
        raise NotAChain(f"it cannot be traced ({' '.join(str(error).split())})") from error
    layers: list[Layer] = []
    modules = dict(network.named_modules())
    after_map, flat = True, False
    last, *nodes = graph.nodes
    for node in nodes:
        if node.all_input_nodes != [last]:
            raise NotAChain(f"{node.name} has another input than the output of {last.name}")
        module = modules[str(node.target)] if node.op == "call_module" else None
        if isinstance(module, LAYERS) and type(module) in LAYERS:
            layers.append(_layer(str(node.target), module, layers, after_map, flat))
            after_map, flat = not isinstance(module, nn.Linear), False
        elif node.op != "output":
            if not _scales(node, module, in_map=after_map and not flat):
                name = type(module).__name__ if module else node.name
                raise NotAChain(f"{name} does not scale with its input, unit by unit")
            flat |= _flattens(node, module)
        last = node
    _check(network, layers)
    return layers


@lru_cache(maxsize=64)
def no_chain(method: str, network: str, input_shape: tuple[int, ...]) -> str | None:
    """Reason why a method that needs a chain of layers skips a network, by name; None for a chain."""
    try:
        chain_of(targets.on_meta(network.replace("+pretrained", ""), input_shape, 2))
    except NotAChain as error:
        return f"{method} needs a chain of layers; {network} is none: {error}"
    return None


def _layer(name: str, module: Linear, before: Sequence[Layer], after_map: bool, flat: bool) -> Layer:
    """Layer whose inputs come from those before; after_map: the last one is a convolution; flat: flattened since."""
    if any(layer.name == name for layer in before):
        raise NotAChain(f"{name} is used twice")
    if isinstance(module, nn.Linear):
        inputs, units, fits = module.in_features, module.out_features, flat or not after_map
    else:
        inputs, units, fits = module.in_channels, module.out_channels, after_map and not flat
        if module.groups != 1:
            raise NotAChain(f"the convolution {name} has groups")
    if not before:
        return Layer(name, units, 1)
    repeat, rest = divmod(inputs, before[-1].units)
    if not fits or rest or (repeat != 1 and not after_map):
        raise NotAChain(f"the inputs of {name} are not the units of {before[-1].name}")
    return Layer(name, units, repeat)


def _scales(node: fx.Node, module: nn.Module | None, in_map: bool) -> bool:
    """Check that a function scales with its input unit by unit; in_map: units are maps of pixels."""
    kind = type(module) if module is not None else node.target
    if node.op == "call_method":
        return kind in METHODS
    return kind in MODULES or kind in FUNCTIONS or (in_map and kind in POOLS)


def _flattens(node: fx.Node, module: nn.Module | None) -> bool:
    """Check for flattening of all but the samples, after which the inputs from one map lie side by side."""
    if module is not None:
        return isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1)
    return node.target in ("flatten", torch.flatten) and node.args[1:] == (1,) and not node.kwargs


def _check(network: nn.Module, layers: Sequence[Layer]) -> None:
    """Raise NotAChain unless the layers have all parameters, each its own, and some units lie below the last one."""
    names = [layer.name for layer in layers]
    strange = [name for name, _ in network.named_parameters() if name.rpartition(".")[0] not in names]
    if strange:
        raise NotAChain(f"{strange[0]} is no weight of a linear layer or convolution")
    if len(dict(network.named_parameters())) != len(dict(network.named_parameters(remove_duplicate=False))):
        raise NotAChain("some layers share a weight")
    if list(dict(network.named_parameters()))[-1].rpartition(".")[0] != names[-1]:
        raise NotAChain("its last parameter is not that of the layer that is applied last")
    if len(layers) < 2:
        raise NotAChain("no unit lies below the output layer")


class Gating:
    """Gates (u,) of the units of all layers but the last, layer by layer, as factors of the weights of these layers.

    shapes: parameters of these layers by name, in the order in which their entries lie in a flat vector (n,).
    """

    stateless = True

    def __init__(self, layers: Sequence[Layer], shapes: Mapping[str, torch.Size]) -> None:
        self.layers, self.shapes = layers[:-1], dict(shapes)
        self.units = [layer.units for layer in self.layers]
        self.place = {layer.name: i for i, layer in enumerate(self.layers)}

    def scaled(self, weights: Mapping[str, Tensor], gates: Tensor) -> dict[str, Tensor]:
        """Weights by name with each unit's row and bias scaled by its gate (u,)."""
        return {name: weights[name] * own for name, own, _ in self._ends(gates, gates)}

    def split(self, weights: Mapping[str, Tensor], gates: Tensor) -> Tensor:
        """Weights (n,) of the same network, with each gate (u,) shared by the row that it scales and by its readers.

        An entry is as small as the least of the gates at its ends makes it: 0 where one is closed. Gates of the last
        layer's units stay with their rows, since their readers are an output layer.
        """
        roots = gates.sqrt()
        own = torch.cat([roots[: len(gates) - self.units[-1]], gates[len(gates) - self.units[-1] :]])
        parts = ((weights[name] * row, column) for name, row, column in self._ends(own, roots))
        return torch.cat([(part if column is None else part * column).flatten() for part, column in parts])

    def least(self, gates: Tensor) -> Tensor:
        """The least of the gates (u,) at the ends of each weight (n,); those of inputs are open."""
        least = (
            (n, row if column is None else torch.minimum(row, column)) for n, row, column in self._ends(gates, gates)
        )
        return torch.cat([part.expand(self.shapes[name]).flatten() for name, part in least])

    def _ends(self, own: Tensor, read: Tensor) -> Iterator[tuple[str, Tensor, Tensor | None]]:
        """Name of each parameter, and factors for its rows and columns of (u,) each, with as many dimensions.

        Biases, and the first layer's weights, have no gate to read.
        """
        rows, columns = own.split(self.units), read.split(self.units)
        for name, shape in self.shapes.items():
            i, ones = self.place[name.rpartition(".")[0]], [1] * (len(shape) - 1)
            column = None
            if i and ones:
                column = columns[i - 1][:, None].expand(-1, self.layers[i].repeat).reshape(1, -1, *ones[1:])
            yield name, rows[i].view(-1, *ones), column
