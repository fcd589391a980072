"""Target networks by name. Any `nn.Module` will do: methods call them through functional_call."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor, nn

from benchmarks.types import UserError
from methods.nets.convolutional import AlexNet, ResNet


class MLP(nn.Module):
    """Fully connected ReLU network: inputs (b, *shape) flattened -> hidden layers -> logits (b, n_outputs).

    Parameter order: weight and bias, layer by layer.
    """

    def __init__(self, n_inputs: int, hidden: tuple[int, ...], n_outputs: int) -> None:
        super().__init__()
        sizes = (n_inputs, *hidden, n_outputs)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


def build(name: str, input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """The network called `name`: `mlp-400-400` (hidden widths; `mlp` alone is linear), `alexnet`, `resnet-18`.

    Raises UserError for a name that is not understood, and for images that the network cannot take.
    """
    kind, *widths = name.split("-")
    if kind == "mlp" and all(w.isdigit() and int(w) > 0 for w in widths):
        return MLP(math.prod(input_shape), tuple(map(int, widths)), n_outputs)
    if name in ("alexnet", "resnet-18"):
        return _convolutional(name, input_shape, n_outputs)
    raise UserError(f"unknown network {name!r}: write mlp-WIDTH-WIDTH (for example mlp-400-400), alexnet or resnet-18")


def _convolutional(name: str, input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    channels, *sides = (*input_shape, 0, 0, 0)[:3] if len(input_shape) == 3 else (0, 0, 0)
    if channels != 3 or sides[0] != sides[1] or (name == "alexnet" and sides[0] != 32) or sides[0] % 16:
        wanted = "3 x 32 x 32" if name == "alexnet" else "3 x S x S, S a multiple of 16"
        raise UserError(f"network {name}: inputs must be {wanted}, not {' x '.join(map(str, input_shape))}")
    if name == "alexnet":
        return AlexNet(n_outputs)
    return ResNet((16, 16, 32, 64, 128), (2, 2, 2, 2), n_outputs, sides[0])
