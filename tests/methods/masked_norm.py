"""HyperMask over a small network with batch norm and dropout, which has no recorded counterpart."""

from __future__ import annotations

from torch import nn

from benchmarks.types import TIL, StreamSpec
from methods.hypermask import HyperMask


class WithNorm(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 3)
        )


class HyperMaskWithNorm(HyperMask):
    def network(self, n_outputs: int | None = None) -> nn.Module:
        return WithNorm()


def with_norm(**config: object) -> HyperMask:
    settings = HyperMask.Config(embedding=4, hidden=(6,), **config)
    return HyperMaskWithNorm(StreamSpec("norm", TIL, 2, 3, (5,), "mlp"), settings)
