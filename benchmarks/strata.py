"""Stratified draw of samples: each class in proportion to its frequency."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.numbers import is_whole
from benchmarks.transforms import random_order


def drawn(labels: Tensor, n: int, *names: str | int) -> Tensor:
    """Indices (n,) int64, ascending, of n samples with the labels (N,), drawn without replacement from named axes."""
    values = labels.cpu().numpy()
    order = random_order(len(values), *names)
    classes, counts = np.unique(values, return_counts=True)
    taken = [order[values[order] == c][:k] for c, k in zip(classes, shares(counts.tolist(), n), strict=True)]
    return torch.from_numpy(np.sort(np.concatenate(taken))).to(labels.device)


def shares(counts: Sequence[int], n: int) -> list[int]:
    """Numbers of samples drawn per class, n in total: proportional to `counts`, by largest remainders.

    Each class gives one at least and keeps one, as far as n permits; where both cannot be, it keeps one.
    Raises ValueError unless n is a whole number from 0 to all samples.
    """
    total, n_classes = sum(counts), len(counts)
    if not is_whole(n, 0) or n > total:
        raise ValueError(f"{n} of {total} samples cannot be drawn")
    most = [count - (n <= total - n_classes) for count in counts]
    least = [min(int(n >= n_classes), upper) for upper in most]
    given = [min(max(n * count // total, low), high) for count, low, high in zip(counts, least, most, strict=True)]
    while (missing := n - sum(given)) != 0:
        step = 1 if missing > 0 else -1
        movable = [k for k in range(n_classes) if least[k] <= given[k] + step <= most[k]]
        nearest = max(movable, key=lambda k: step * (n * counts[k] - given[k] * total))
        given[nearest] += step
    return given
