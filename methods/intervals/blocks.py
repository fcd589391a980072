"""Blocks of samples whose temporary tensors stay in a processor's cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice, repeat

import torch

from methods.intervals.interval import Interval

AT_ONCE = 1 << 15
"""Numbers of an elementwise operation that a thread computes at once: 256 KiB in float64."""


def elementwise(function: Callable[..., Interval], x: Interval, *others: Interval) -> Interval:
    """Apply an elementwise function(x, *others) block by block, with the same numbers; x has the result's samples."""
    a_sample = x.lower[:1].numel() if x.lower.dim() else 0
    if not a_sample:
        return function(x, *others)
    return in_blocks(function, max(1, AT_ONCE * torch.get_num_threads() // a_sample), x, *others)


def in_blocks(function: Callable[..., Interval], at_once: int, x: Interval, *others: Interval) -> Interval:
    """Apply function(x, *others) to `at_once` samples at a time on a CPU, and to all of them elsewhere.

    The function treats samples, the first dimension, independently. Of `others`, those as large in it are split too,
    and those with fewer dimensions or one sample are shared.
    """
    n = x.lower.shape[0]
    if n <= at_once or x.lower.device.type != "cpu":
        return function(x, *others)
    whole = [part.lower.dim() < x.lower.dim() or part.lower.shape[0] != n for part in others]
    sides = [repeat(part) if shared else _split(part, at_once) for part, shared in zip(others, whole, strict=True)]
    found = [function(*parts) for parts in zip(_split(x, at_once), *sides, strict=False)]
    lower = torch.cat([part.lower for part in found])
    return Interval.point(lower) if found[0].is_point else Interval(lower, torch.cat([part.upper for part in found]))


def filled(function: Callable[..., Interval], at_once: int, x: Interval) -> Interval:
    """The same as `in_blocks`, without gradients: function(x, out) writes all blocks but the first into the result."""
    n = x.lower.shape[0]
    if n <= at_once or x.lower.device.type != "cpu":
        return function(x)
    blocks = _split(x, at_once)
    first = function(next(blocks))
    whole = Interval(*(side.new_empty((n, *side.shape[1:])) for side in first))
    for side, part in zip(whole, first, strict=True):
        side[:at_once] = part
    for block, out in zip(blocks, islice(_split(whole, at_once), 1, None), strict=True):
        function(block, out)
    return whole


def _split(x: Interval, at_once: int) -> Iterator[Interval]:
    for i in range(0, len(x.lower), at_once):
        lower = x.lower[i : i + at_once]
        yield Interval.point(lower) if x.is_point else Interval(lower, x.upper[i : i + at_once])
