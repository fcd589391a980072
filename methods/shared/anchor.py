"""Quadratic anchors: the pull towards earlier solutions that EWC, SI, MAS and L2 share.

Whatever their number, penalties sum_k F_k (theta - theta_k)^2 are one quadratic: with A = sum_k F_k and the
F-weighted mean m of the anchors theta_k, they equal A (theta - m)^2 + constant. So the cost of a step
and the memory do not grow with the tasks, and nothing is approximated.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def trainable(network: nn.Module) -> list[nn.Parameter]:
    """Trainable parameters in the network's order."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def flatten(tensors: Iterable[Tensor]) -> Tensor:
    """Concatenate all scalars of the tensors to one vector (P,)."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def flat_gradient(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Concatenate the parameters' gradients to one vector (P,); a missing gradient counts as zero."""
    return flatten(torch.zeros_like(p) if p.grad is None else p.grad for p in parameters)


class Anchor(nn.Module):
    """Quadratic over all trainable parameters of a network, P scalars in the network's order.

    importance (P,): curvature, zero for free parameters; centre (P,): minimum of the quadratic;
    offset (): sum of penalties at the centre. All are buffers, so that a checkpoint keeps them.
    """

    importance: Tensor
    centre: Tensor
    offset: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.protected = trainable(network)
        self.register_buffer("importance", torch.zeros_like(self.theta()))
        self.register_buffer("centre", torch.zeros_like(self.importance))
        self.register_buffer("offset", torch.zeros_like(self.importance[0]))

    def theta(self) -> Tensor:
        """Copy of the network's current parameters, (P,)."""
        return flatten(self.protected).detach()

    def penalty(self) -> Tensor:
        """Penalty sum_k sum_i F_ki (theta_i - theta_ki)^2 with its gradient, 0-d, without the strength."""
        return _Quadratic.apply(self.importance, self.centre, *self.protected) + self.offset

    @torch.no_grad()
    def add(self, importance: Tensor) -> None:
        """Add a term: `importance` (P,), non-negative, anchored at the current parameters."""
        total = self.importance + importance
        # A parameter that is free in all terms has total 0, and 0 / 0 is NaN.
        share = torch.where(total > 0, importance / total, 0.0)
        distance = self.theta() - self.centre
        self.offset += (self.importance * share * distance.square()).sum()
        self.centre += share * distance
        self.importance.copy_(total)

    @torch.no_grad()
    def move(self, importance: Tensor, decay: float = 0.0) -> None:
        """Replace all terms by one at the current parameters, with `decay` * old importance + `importance` (P,)."""
        self.importance.mul_(decay).add_(importance)
        self.centre.copy_(self.theta())
        self.offset.zero_()


class _Quadratic(torch.autograd.Function):
    """Function sum(A (theta - m)^2), by hand because autograd's own pass reads P scalars twice as often."""

    @staticmethod
    def forward(ctx: Any, importance: Tensor, centre: Tensor, *parameters: Tensor) -> Tensor:
        distance = flatten(parameters).sub_(centre)
        half_gradient = importance * distance
        ctx.save_for_backward(half_gradient)
        ctx.shapes = [parameter.shape for parameter in parameters]
        return torch.dot(half_gradient, distance)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        (half_gradient,) = ctx.saved_tensors
        parts = (half_gradient * (2 * cotangents[0])).split([shape.numel() for shape in ctx.shapes])
        return (None, None, *(part.view(shape) for part, shape in zip(parts, ctx.shapes, strict=True)))
