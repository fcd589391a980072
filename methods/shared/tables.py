"""Tables of embeddings and of masks, as `Method.exhibits` gives them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

WEIGHTS_AT_MOST = 100_000
"""Masks of more weights are compared on evenly spaced ones."""


def embeddings(centres: Tensor, radii: Tensor) -> dict[str, list[float]]:
    """Boxes with centres and radii (tasks, dimensions) -> columns task, dimension, lower, middle, upper."""
    tasks, dimensions = centres.shape
    return {
        "task": torch.arange(tasks).repeat_interleave(dimensions).tolist(),
        "dimension": torch.arange(dimensions).repeat(tasks).tolist(),
        "lower": (centres - radii).flatten().tolist(),
        "middle": centres.flatten().tolist(),
        "upper": (centres + radii).flatten().tolist(),
    }


def mask_overlap(masks: Iterable[Tensor]) -> dict[str, list[float]]:
    """Non-negative masks (N,) of the tasks -> columns task, other, overlap.

    The overlap of m and m' is sum min(m, m') / sum max(m, m') (Ruzicka): of 0-1 masks the share of the weights
    open in either that are open in both, and defined for soft masks too; 0 where both are closed everywhere.
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
