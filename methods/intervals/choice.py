"""Projection of weights into one of several boxes: LID's step after each optimiser step (arXiv 2512.01899)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from methods.intervals.interval import Interval

Choice = Literal["closest", "best_loss", "sample_largest_closest", "last"]


def stacked(boxes: list[Interval]) -> Interval:
    """Bounds of K boxes of N weights, (K, N) each."""
    return Interval(torch.stack([box.lower for box in boxes]), torch.stack([box.upper for box in boxes]))


def project(
    theta: Tensor,
    boxes: Interval,
    choice: Choice,
    tolerance: float = 0.0,
    losses: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Weights (N,) in one of the boxes (K, N), and the number of the box, 0-d; no wait for the device.

    The first box that holds theta, or is within `tolerance` of it in squared distance, is taken without clipping.
    Otherwise `choice` selects the box that theta is clipped into: the closest; the one with the least of
    `losses(clipped (K, N)) -> (K,)`; or one drawn with chances softmax(sum of widths / squared distance).
    """
    clipped = theta.clamp(boxes.lower, boxes.upper)
    distance = (clipped - theta).square().sum(1)
    inside = (clipped == theta).all(1)
    if tolerance:
        inside = inside | (distance <= tolerance)
    if choice == "best_loss" and losses is not None:
        index = losses(clipped).argmin()
    elif choice == "sample_largest_closest":
        score = boxes.width.sum(1) / distance
        index = (score - torch.empty_like(score).exponential_().log()).argmax()  # a draw from softmax(score)
    else:
        index = distance.argmin()
    stays = inside.any()
    index = torch.where(stays, inside.int().argmax(), index)
    return torch.where(stays, theta, clipped.index_select(0, index.reshape(1))[0]), index
