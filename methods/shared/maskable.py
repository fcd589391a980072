"""Stateless target network with two flat weight vectors: those that masks multiply, and batch norm's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from methods.networks.tied import to_meta
from methods.shared.features import inputs_of

Statistics = dict[str, Tensor]
"""Buffers of the target network by name, e.g. batch norm's running mean."""

CACHED_SCALARS = 1 << 28
"""Largest number of cached scalars of masked weights: 1 GiB of float32."""


class MaskableNetwork:
    """Stateless network; batch norm's weights are separate, because they are never masked.

    Flat weights (N,) are all parameters but batch norm's, in the network's order, row-major; flat affine
    weights (Q,) are batch norm's.
    """

    stateless = True

    def __init__(self, network: nn.Module) -> None:
        norms = [name for name, module in network.named_modules() if isinstance(module, _BatchNorm)]
        parameters = dict(network.named_parameters())
        affine = {name: p for name, p in parameters.items() if name.rpartition(".")[0] in norms}
        weights = {name: p for name, p in parameters.items() if name not in affine}
        self.weight_shapes = {name: p.shape for name, p in weights.items()}
        self.affine_shapes = {name: p.shape for name, p in affine.items()}
        self.sizes = [p.numel() for p in weights.values()]
        self.first_weights, self.first_affine = _flat(weights), _flat(affine)
        self.first_statistics = {name: b.clone() for name, b in network.named_buffers()}
        self.network = to_meta(network)

    @property
    def last_layer(self) -> str:
        """Name of the module that owns the last parameter: the output layer."""
        return list(self.weight_shapes)[-1].rpartition(".")[0]

    def tensors_of_last_layer(self) -> int:
        """Number of tensors (weight, bias) of the output layer."""
        return sum(name.rpartition(".")[0] == self.last_layer for name in self.weight_shapes)

    def __call__(self, weights: Tensor, affine: Tensor, statistics: Statistics, x: Tensor, training: bool) -> Tensor:
        """Logits (b, C). In training, running `statistics` are updated in place."""
        if self.network.training != training:
            self.network.train(training)
        named = {**_named(weights, self.weight_shapes), **_named(affine, self.affine_shapes), **statistics}
        return functional_call(self.network, named, (x,))

    def features(self, weights: Tensor, affine: Tensor, statistics: Statistics, x: Tensor) -> Tensor:
        """Inputs of the output layer, flattened (b, d), in evaluation mode."""
        layer = self.network.get_submodule(self.last_layer)
        return inputs_of(layer, lambda: self(weights, affine, statistics, x, training=False))


class WeightCache:
    """Cache of the tasks' masked weights, valid until a parameter changes; a test set needs each mask once.

    PyTorch's version counters detect changes. Code that bypasses them (a CUDA graph, `.data`) must call
    `clear`.
    """

    stateless = True

    def __init__(self) -> None:
        self.rows: dict[int, Tensor] = {}
        self.version: tuple[tuple[int, int], ...] = ()

    def get(self, task: int, parameters: Sequence[Tensor], compute: Callable[[], Tensor]) -> Tensor:
        """Masked weights of a task (N,), computed unless cached for the current parameters."""
        version = tuple((p.data_ptr(), p._version) for p in parameters)
        if version != self.version:
            self.clear()
            self.version = version
        if task in self.rows:
            return self.rows[task]
        row = compute()
        if (len(self.rows) + 1) * row.numel() <= CACHED_SCALARS:
            self.rows[task] = row
        return row

    def clear(self) -> None:
        """Empty the cache."""
        self.rows.clear()


def _flat(parameters: Mapping[str, Tensor]) -> Tensor:
    parts = [p.detach().flatten() for p in parameters.values()]
    return torch.cat(parts) if parts else torch.empty(0)


def _named(flat: Tensor, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    parts = flat.split([shape.numel() for shape in shapes.values()])
    return {name: part.view(shape) for part, (name, shape) in zip(parts, shapes.items(), strict=True)}
