"""Inputs of a network's layers, and orthonormal bases of the space that they span.

Gradient projection memory and null-space methods keep, for each linear or convolutional layer, a basis M (d, r) of the
inputs of earlier tasks. d is the length of a row of the weight seen as a matrix: the inputs of a linear layer, the
patch of a convolution (zeros included, as the layer pads), and one more for the constant 1 of a bias. All
decompositions are in float64, of the inputs or of their second moments, whichever is smaller.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, unfold

from benchmarks.samples import Samples
from methods.shared.linear import linear_in_weight

SCALARS_AT_ONCE = 1 << 24
"""Bound on the scalars of a convolution's patches that exist at once: 128 MiB of float64."""
NEGLIGIBLE = 1e-14
"""Share of the energy below which a direction is rounding of the decomposition."""


@dataclass(frozen=True)
class Layer:
    """Linear or convolutional layer whose weight is a matrix (o, d), with its bias as the last column if `constant`."""

    name: str
    module: nn.Linear | nn.Conv2d
    constant: bool

    @property
    def size(self) -> int:
        """Length d of an input, the constant included."""
        return self.module.weight[0].numel() + self.constant

    def matrix(self) -> Tensor:
        """Copy of the weight (o, d), the bias included if `constant`."""
        weight, bias = self.module.weight.detach().flatten(1), self.module.bias
        return torch.cat([weight, bias.detach()[:, None]], 1) if self.constant and bias is not None else weight.clone()

    def inputs(self, x: Tensor) -> Iterator[Tensor]:
        """Inputs (n, d) float64 of the layer called with x, some samples at a time."""
        if isinstance(self.module, nn.Linear):
            yield self._completed(x.reshape(-1, x.shape[-1]))
            return
        scalars = self.module.weight[0, 0].numel() * x[0].numel() // (self.module.stride[0] * self.module.stride[1])
        for part in x.split(max(1, SCALARS_AT_ONCE // max(1, scalars))):
            yield self._completed(_patches(self.module, part))

    def _completed(self, rows: Tensor) -> Tensor:
        rows = rows.to(torch.float64)
        return pad(rows, (0, 1), value=1.0) if self.constant else rows


def _patches(module: nn.Conv2d, x: Tensor) -> Tensor:
    """Patches (n, d) that a convolution multiplies with its weight; those of all groups alike."""
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = pad(x, module._reversed_padding_repeated_twice, mode=mode)
    columns = unfold(padded, module.kernel_size, module.dilation, stride=module.stride)  # type: ignore[arg-type]
    return columns.unflatten(1, (module.groups, -1)).transpose(2, 3).flatten(0, 2)


def layers_of(network: nn.Module, constant: bool) -> list[Layer]:
    """Linear and convolutional layers in the network's order; biases are columns if `constant`.

    A layer whose weight has a second owner is left out, since its inputs are those of both, and so is a subclass, whose
    outputs may not be linear in its weight.
    """
    owners = [id(p) for m in network.modules() for p in m._parameters.values() if p is not None]
    return [
        Layer(name, module, constant and module.bias is not None)
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        and linear_in_weight(module)
        and owners.count(id(module.weight)) == 1
    ]


class Inputs:
    """Inputs of one layer, as rows (n, d) while there are fewer than d of them, then as second moments (d, d)."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.size, self.device, self.count = size, device, 0
        self.rows: list[Tensor] = []
        self.moments: Tensor | None = None

    def add(self, rows: Tensor) -> None:
        """Add inputs (n, d) in float64."""
        self.count += len(rows)
        if self.count < self.size:
            self.rows.append(rows)
            return
        if self.moments is None:
            self.moments = rows.new_zeros(self.size, self.size)
        for some in (*self.rows, rows):
            self.moments.addmm_(some.t(), some)
        self.rows = []

    def second_moments(self) -> Tensor:
        """Sum over inputs of x x' (d, d) float64."""
        if self.moments is not None:
            return self.moments
        rows = torch.cat([torch.zeros(0, self.size, dtype=torch.float64, device=self.device), *self.rows])
        return rows.t() @ rows


@torch.no_grad()
def gather(
    network: nn.Module,
    layers: Sequence[Layer],
    samples: Samples,
    limits: Sequence[int],
    batch_size: int = 1000,
    means: bool = False,
) -> list[Inputs]:
    """Inputs of each layer, for the first `limits[l]` samples, in the network's present mode.

    means: the mean over a batch stands for its samples.
    """
    found = [Inputs(layer.size, layer.module.weight.device) for layer in layers]
    done, current = 0, 0
    handles = []
    for layer, limit, inputs in zip(layers, limits, found, strict=True):

        def look(
            _: nn.Module, arguments: tuple[Tensor, ...], layer: Layer = layer, limit: int = limit, to: Inputs = inputs
        ) -> None:
            # A sample may enter as several rows, e.g. tokens, but samples come first.
            x = arguments[0][: max(0, limit - done)] if len(arguments[0]) == current else arguments[0]
            if len(x):
                for rows in layer.inputs(x.mean(0, keepdim=True) if means else x):
                    to.add(rows)

        handles.append(layer.module.register_forward_pre_hook(look))
    try:
        for batch in samples.batches(batch_size):
            current = len(batch.x)
            network(batch.x)
            done += current
    finally:
        for handle in handles:
            handle.remove()
    return found


class Directions(NamedTuple):
    """Candidates for a basis: directions (d, k) by falling energy, and the number of them to take, 0-d int64."""

    columns: Tensor
    take: Tensor


def reaching(inputs: Inputs, basis: Tensor, threshold: float) -> Directions:
    """Directions outside of the basis (d, r) that make it hold at least the share `threshold` of the energy."""
    energies, columns, total = _outside(inputs, basis)
    held = (total - energies.sum()) / total
    before = held + (energies.cumsum(0) - energies) / total
    return Directions(columns, ((before < threshold) & (energies > NEGLIGIBLE * total)).sum())


def staying_below(inputs: Inputs, basis: Tensor, threshold: float) -> Directions:
    """Directions whose share of the energy together stays below `threshold`; possibly none."""
    energies, columns, total = _outside(inputs, basis)
    return Directions(columns, (energies.cumsum(0) / total < threshold).sum())


def above_smallest(moments: Tensor, factor: float, floor: float) -> Directions:
    """Eigenvectors of second moments (d, d) with eigenvalues above factor * the smallest one and floor * the largest.

    The others span the approximate null space (Wang et al. 2021, arXiv 2103.07113).
    """
    values, columns = _eigen(moments)
    limit = torch.maximum(factor * values[-1], floor * values[0])
    return Directions(columns, (values > limit).sum())


def joined(basis: Tensor, columns: Tensor) -> Tensor:
    """Orthonormal basis (d, r + k) of a basis (d, r) and further directions (d, k), in the basis's type."""
    both = torch.cat([basis.to(columns.dtype), columns], 1)[:, : len(basis)]
    # Blocks that are each orthonormal drift apart over many tasks, and in float32 from the first one on.
    return torch.linalg.qr(both).Q.to(basis.dtype)


def _outside(inputs: Inputs, basis: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Energies (k,) and directions (d, k) of the inputs outside of the basis, and the energy of all of them, 0-d."""
    basis = basis.to(torch.float64)
    if inputs.rows:
        rows = torch.cat(inputs.rows)
        rest = rows - rows @ basis @ basis.t()
        _, roots, across = torch.linalg.svd(rest, full_matrices=False)
        return roots.square(), across.t(), rows.square().sum()
    moments = inputs.second_moments()
    rest = moments - basis @ (basis.t() @ moments)
    rest = rest - rest @ basis @ basis.t()
    values, columns = _eigen(rest)
    return values, columns, moments.trace()


def _eigen(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (d,), not negative and falling, and eigenvectors (d, d) of a symmetric matrix."""
    values, columns = torch.linalg.eigh((moments + moments.t()) / 2)
    return values.flip(0).clamp_min(0), columns.flip(1)
