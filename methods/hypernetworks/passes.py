"""Data exchanged by the two passes over an output layer's weight, the same for all backends."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor


class Memory:
    """Memory of a forward pass's outputs, which the next pass overwrites.

    Blocks of this size, freed and requested in every step, would not fit again into holes from which something small
    was cut meanwhile.
    """

    def __init__(self) -> None:
        self._tensors: list[Tensor] = []

    def outputs(self, centre: Tensor, radius: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """Uninitialised outputs (k, N) and (m, N) for centres (k, h) and radii (m, h)."""
        if [len(tensor) for tensor in self._tensors] != [len(centre), len(radius)]:
            self._tensors = [centre.new_empty(len(centre), n), radius.new_empty(len(radius), n)]
        theta, rho = self._tensors
        return theta.detach(), rho.detach()


class Targets(NamedTuple):
    """Target outputs for the t old boxes: centres (t, N) and radii (t, N), or (0, N) if radii are free."""

    theta: Tensor
    rho: Tensor
    radius_weight: float = 1.0
    """Weight of a squared radius residual relative to a squared centre residual."""
    memory: Memory | None = None
    """Memory of the outputs where each forward pass follows the backward pass of the one before; None: new memory."""


def outputs(centre: Tensor, radius: Tensor, n: int, held: Targets | None) -> tuple[Tensor, Tensor]:
    """Uninitialised outputs (k + t, N) and (m + s, N), in the targets' memory if they have some."""
    return (held.memory if held and held.memory else Memory()).outputs(centre, radius, n)


class Images(NamedTuple):
    """Outputs of the forward pass: centres (k + t, N) and radii (m + s, N); the last t and s minus their targets."""

    theta: Tensor
    rho: Tensor
    drift: Tensor
    """Weighted sum of the squared residuals, 0-d."""


class Cotangents(NamedTuple):
    """Gradients by the outputs: centres (k, N), radii (m, N); for held outputs they are the scaled residuals."""

    theta: Tensor
    rho: Tensor
    theta_scale: Tensor
    """Factor of a centre's residual, 0-d."""
    rho_scale: Tensor
    """Factor of a radius's residual, 0-d."""


class Step(Protocol):
    """Interface of Adam's step, taken row by row while the gradient of these rows is in the cache."""

    lr: float
    betas: tuple[float, float]
    eps: float
    steps: Tensor
    """Number of steps including the current one, 0-d on the device."""

    @property
    def moments(self) -> list[Tensor]:
        """Both moments of Adam, each (N, h)."""
        ...

    def rule(self) -> tuple[float, float, float, float, float]:
        """beta1, beta2, eps, lr / (1 - beta1^i), 1 / sqrt(1 - beta2^i) of the current step i, on the host."""
        ...

    def step_rows(self, rows: slice, grad: Tensor) -> None:
        """Take the step for W[rows], given their gradient."""
        ...
