"""Ownership of weights by tasks: an owner map, masks as packed bits, and the comparison of numbers bit by bit.

An owner map (n,) int16 has 0 for a free weight, and task + 1 for a weight that the task took and that is frozen since.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

FREE = 0
"""Owner of a weight that no task has taken."""
WORD = 32
"""Mask entries in one word, so that a stored mask of n entries counts as n / 32 scalars."""


def owned_up_to(owners: Tensor, task: int) -> Tensor:
    """Mask (n,) of the weights that the first `task` + 1 tasks own."""
    return (owners != FREE) & (owners <= task + 1)


def pack(mask: Tensor) -> Tensor:
    """Mask (n,) bool -> words (ceil(n / 32),) int32; bit i of word w is entry 32 w + i."""
    padded = torch.nn.functional.pad(mask, (0, -len(mask) % WORD)).view(-1, WORD)
    # int64, because the highest bit is the sign of an int32; the conversion keeps the lower 32 bits
    return (padded.to(torch.int64) << _places(mask.device)).sum(1).to(torch.int32)


def unpack(words: Tensor, n: int) -> Tensor:
    """Words from `pack` -> mask (n,) bool."""
    return (words[:, None] >> _places(words.device).to(torch.int32) & 1).view(-1)[:n].to(torch.bool)


def _places(device: torch.device) -> Tensor:
    return torch.arange(WORD, device=device)


def moved(now: Tensor, then: Tensor) -> Tensor:
    """Mask of the entries whose bits differ, so that -0 differs from 0, and NaN does not from itself."""
    return _as_bits(now) != _as_bits(then)


def _as_bits(values: Tensor) -> Tensor:
    """The same memory as integers."""
    return values.view({1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[values.element_size()])


def holding(parameter: Tensor, trainable: Tensor) -> Callable[[], None]:
    """Function to call after a step, which sets all entries of `parameter` (n,) but the trainable ones back.

    They get their values of now, bit by bit, whatever the optimiser does: weight decay, momentum and a rounded zero
    step move none. Entries of an elementwise optimiser do not depend on one another, so trainable ones are trained as
    if the others had no gradient.
    """
    bits = _as_bits(parameter.detach())
    # ones for a trainable entry; a choice by bits takes a twentieth of the time of torch.where on a CPU
    chosen = -trainable.to(bits.dtype)
    held = bits & ~chosen

    def hold() -> None:
        bits.bitwise_and_(chosen).bitwise_or_(held)

    return hold
