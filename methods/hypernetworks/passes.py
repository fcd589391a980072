"""What the two passes over an output layer's weight exchange, whoever computes them."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor


class Targets(NamedTuple):
    """What the layer's outputs for t old boxes shall stay: centres (t, N) and radii (t, N), or (0, N) if free."""

    theta: Tensor
    rho: Tensor
    radius_weight: float = 1.0
    """Weight of a squared radius residual beside a squared centre residual."""


class Images(NamedTuple):
    """Outputs of the forward pass: centres (k + t, N) and radii (m + s, N), the last t and s less their targets."""

    theta: Tensor
    rho: Tensor
    drift: Tensor
    """Weighted sum of the squared residuals, 0-d."""


class Cotangents(NamedTuple):
    """Gradients by the outputs: centres (k, N), radii (m, N); those by held outputs are their residuals, scaled."""

    theta: Tensor
    rho: Tensor
    theta_scale: Tensor
    """What a residual of a centre is multiplied by, 0-d."""
    rho_scale: Tensor
    """What a residual of a radius is multiplied by, 0-d."""


class Step(Protocol):
    """Adam's step, taken row by row while the gradient of these rows is at hand."""

    lr: float
    betas: tuple[float, float]
    eps: float
    steps: Tensor
    """How many steps there were, the one under way included, 0-d on the device."""

    @property
    def moments(self) -> list[Tensor]:
        """Adam's two moments, each (N, h)."""
        ...

    def rule(self) -> tuple[float, float, float, float, float]:
        """beta1, beta2, eps, lr / (1 - beta1^i), 1 / sqrt(1 - beta2^i) of the step i under way, on the host."""
        ...

    def step_rows(self, rows: slice, grad: Tensor) -> None:
        """The step for W[rows], given their gradient."""
        ...
