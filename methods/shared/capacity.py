"""Capacity that masks take: the share of weights in use, and the size of the stored masks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from methods.shared.ownership import WORD

HUFFMAN = 1 - 0.78
"""Length of a mask in 7-bit Huffman code, in units of its entries (Kang et al. 2022)."""


def capacity(masks: Sequence[Tensor]) -> dict[str, list[float]]:
    """Capacity taken after each task, in units of the shared weights at 32 bits, from masks (n,) bool.

    Columns: task; `open`, the share of weights in the task's mask; `union`, the share in any mask so far; `bits`, the
    masks so far at one bit an entry; `cap` = union + bits; `entropy`, the masks so far in an ideal code of their
    entries; `published`, the CAP of Kang et al. (2022): union + 0.22 bits, by their estimate of a 7-bit Huffman code.
    """
    columns = ("task", "open", "union", "bits", "cap", "entropy", "published")
    table: dict[str, list[float]] = {column: [] for column in columns}
    union, coded = torch.zeros_like(masks[0]), 0.0
    for task, mask in enumerate(masks):
        union = union | mask
        share, taken = torch.stack([mask.float().mean(), union.float().mean()]).tolist()
        bits = (task + 1) / WORD
        coded += _entropy(share) / WORD
        row = (task, share, taken, bits, taken + bits, coded, taken + HUFFMAN * bits)
        for column, value in zip(table.values(), row, strict=True):
            column.append(value)
    return table


def _entropy(share: float) -> float:
    """Entropy of a bit that is 1 with probability `share`, in bits."""
    return -sum(p * math.log2(p) for p in (share, 1 - share) if p > 0)
