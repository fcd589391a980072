"""Bound on the float32 rounding error of an answer, relative to the same network in exact arithmetic."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from runners.process.dispatch import DispatchMode

UNITS = 84
"""Units in the last place of float32 (1.2e-7 of a value) that the layers of a small network may lose together."""
_PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "convolution"}


class Magnitude(DispatchMode):
    """Largest sum of absolute products of any layer, measured while answers are computed.

    A sum of products loses units in the last place of sum |w| |x|, however small the sum itself is after cancellation
    (Higham 2002, Accuracy and Stability of Numerical Algorithms, section 3.1).
    """

    def __init__(self) -> None:
        super().__init__()
        self.largest = 1.0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func.overloadpacket.__name__ in _PRODUCTS:
            absolute = (part.abs() if isinstance(part, Tensor) else part for part in args)
            total = func(*absolute, **(kwargs or {}))
            self.largest = max(self.largest, float(total.amax())) if total.numel() else self.largest
        return func(*args, **(kwargs or {}))

    def slack(self, answers: Tensor) -> Tensor:
        """Bound on the rounding error of each of the answers, of any shape.

        It depends on the answer's own size, not on that of the others: log-probabilities of -1e4 are exact to 5e-4,
        neighbours of about -1 to 6e-8.
        """
        return UNITS * torch.finfo(torch.float32).eps * answers.abs().double().clamp(min=self.largest)
