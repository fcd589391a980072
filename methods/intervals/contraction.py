"""Criteria for the end of a contraction."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

SMALLEST_EXPONENT = -40.0
BISECTIONS = 12


class Gate:
    """Gate, open while the mean worst-case accuracy of recent batches is below `threshold` times their mean accuracy.

    lookback: number of batches in the means, including the current one; zero_is_open: True to open the gate
    at zero accuracy (the official code: closed). Stays on the device.
    """

    def __init__(self, threshold: float, lookback: int, zero_is_open: bool, device: torch.device) -> None:
        self.threshold, self.zero_is_open = threshold, zero_is_open
        self.window = torch.full((2, lookback), float("nan"), device=device)

    def observe(self, right: Tensor, certain: Tensor) -> None:
        """Add a batch: accuracy (0-d) of the middle and of the worst network."""
        latest = torch.stack([right, certain])[:, None].to(self.window)
        self.window.copy_(
            torch.cat([self.window[:, 1:], latest], dim=1)
        )  # in place: a CUDA graph replays on the same memory

    def means(self) -> Tensor:
        """Mean accuracy and mean worst-case accuracy, (2,)."""
        return self.window.nanmean(dim=1)

    def open(self) -> Tensor:
        """State of the gate, 0-d bool on the device."""
        right, certain = self.means().unbind()
        falls_short = certain < self.threshold * right
        return falls_short | (right == 0) if self.zero_is_open else falls_short


def largest_factor(meets: Callable[[float], bool]) -> float:
    """Largest factor in [0, 1] that `meets` the target, for a condition that all smaller factors meet too.

    Bisection of its logarithm; 0 if even the smallest tested factor does not meet it.
    """
    if meets(1.0):
        return 1.0
    low, high = SMALLEST_EXPONENT, 0.0
    if not meets(2.0**low):
        return 0.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if meets(2.0**middle) else (low, middle)
    return 2.0**low


def easiest_loss(worst: Tensor, y: Tensor, share: float) -> Tensor:
    """Mean cross-entropy of the `share` of samples with the smallest, 0-d: logits (b, classes), labels (b,).

    A box need not certify more samples than required, and the remaining ones would cost it the most room.
    """
    losses = cross_entropy(worst, y, reduction="none")
    return losses.topk(max(1, round(share * len(y))), largest=False).values.mean()


def evenly(n_samples: int, wanted: int, device: torch.device) -> Tensor:
    """Indices of at most `wanted` samples, evenly spaced over `n_samples`."""
    return torch.linspace(0, n_samples - 1, min(wanted, n_samples), device=device).long()
