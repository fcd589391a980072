"""Fully connected target networks."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor, nn


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


def build(name: str, input_shape: tuple[int, ...], n_outputs: int) -> MLP:
    """Build an MLP: `mlp-400-400` names the hidden widths; `mlp` alone is linear."""
    _, *widths = name.split("-")
    return MLP(math.prod(input_shape), tuple(map(int, widths)), n_outputs)
