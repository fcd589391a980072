"""Tables of embeddings and of masks for `Method.exhibits`."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

WEIGHTS_AT_MOST = 100_000
"""Largest number of mask entries compared; larger masks are subsampled evenly."""


def embeddings(centres: Tensor, radii: Tensor) -> dict[str, list[float]]:
    """Table of boxes: centres, radii (tasks, dimensions) -> columns task, dimension, lower, middle, upper."""
    tasks, dimensions = centres.shape
    return {
        "task": torch.arange(tasks).repeat_interleave(dimensions).tolist(),
        "dimension": torch.arange(dimensions).repeat(tasks).tolist(),
        "lower": (centres - radii).flatten().tolist(),
        "middle": centres.flatten().tolist(),
        "upper": (centres + radii).flatten().tolist(),
    }


def mask_overlap(masks: Iterable[Tensor]) -> dict[str, list[float]]:
    """Table of mask overlaps: non-negative masks (N,) of the tasks -> columns task, other, overlap.

    The overlap of m and m' is sum min(m, m') / sum max(m, m') (Ruzicka). For 0-1 masks it is the number of weights
    open in both over the number open in either. It is defined for soft masks too, and 0 if both are zero everywhere.
    """
    rows = torch.stack([mask[:: -(-mask.shape[0] // WEIGHTS_AT_MOST)] for mask in masks])
    overlap = torch.stack(
        [torch.minimum(rows, row).sum(1) / torch.maximum(rows, row).sum(1).clamp_min(1e-30) for row in rows]
    )
    first = torch.arange(len(rows))
    return {
        "task": first.repeat_interleave(len(rows)).tolist(),
        "other": first.repeat(len(rows)).tolist(),
        "overlap": overlap.flatten().tolist(),
    }
