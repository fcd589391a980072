"""Fixed features of analytic learning: a random matrix, and Gaussian kernels around samples."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

CentreRule = Literal["drawn", "official"]
"""Choice of the samples that become centres."""


class RandomMatrix:
    """Matrix B (M, d) with entries U(+-1/sqrt d), which its seed gives again, so that it is no state."""

    stateless: ClassVar[bool] = True

    def __init__(self, rows: int, columns: int, seed: int, device: torch.device) -> None:
        with torch.random.fork_rng(devices=[]):
            # only the CPU's generator, so that the numbers are those of all devices
            torch.default_generator.manual_seed(seed)
            uniform = torch.rand(rows, columns, dtype=torch.float64)
        self.values = ((2 * uniform - 1) / math.sqrt(columns)).to(device)


def chosen_samples(n: int, wanted: int, rule: CentreRule) -> Tensor:
    """Indices (min(n, wanted),) of the samples that become centres, of n.

    "drawn": without replacement from all. "official": the first `wanted` of them, which are samples of the first
    classes only where data are sorted. All in their order if there are not more than wanted.
    """
    if wanted >= n:
        return torch.arange(n)
    return torch.randperm(n)[:wanted] if rule == "drawn" else torch.randperm(wanted)


def completed(samples: Tensor, wanted: int, rule: CentreRule) -> Tensor:
    """Centres (wanted, d): the samples (n, d), and mixtures of them if they are too few.

    The weights of a mixture are normal over their sum ("drawn"). The official code divides by the sums over mixtures,
    which does not make the weights of a mixture sum to 1. Under either rule a sum near 0 puts a mixture far away.
    """
    missing = wanted - len(samples)
    if missing <= 0:
        return samples
    weights = torch.randn(missing, len(samples)).to(samples)
    return torch.cat([samples, weights / weights.sum(1 if rule == "drawn" else 0, keepdim=True) @ samples])


def gaussian(x: Tensor, centres: Tensor, sigma: float) -> Tensor:
    """Features (b, K): exp(-|x - m_k|^2 / (2 sigma^2)), from inputs (b, d) and centres (K, d)."""
    squares = x.square().sum(1, keepdim=True) - 2 * x @ centres.t() + centres.square().sum(1)
    return torch.exp(squares.clamp_min(0) * -(1 / (2 * sigma**2)))
