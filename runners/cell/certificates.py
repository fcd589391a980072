"""Certified accuracy after the last task in more ways: by affine propagation, and for inputs within a radius."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks import strata
from benchmarks.samples import Samples
from benchmarks.stream import Stream
from benchmarks.types import TIL, UserError
from methods.base import Method
from methods.intervals.affine import propagation
from methods.intervals.interval import Interval, outward
from reports.schema import CertificateRow
from runners.cell.evaluation import holds
from runners.process.precision import ieee_float32

SAMPLES = 2500
"""At most so many test samples are certified, equally many of each task, drawn from the seed with the classes in
proportion: the cost does not grow with the number of tasks."""
RADII = (0.0, 1 / 255)
"""Input radii in pixel units; see `ball`."""
AT_ONCE = 250
"""Samples bounded together at most."""


class _Part(NamedTuple):
    """Certified samples of a batch by interval and by affine propagation, None if not measured, with both seconds."""

    interval: int | None
    affine: int | None
    seconds: float
    affine_seconds: float


@torch.no_grad()
@ieee_float32()
def measure(method: Method, stream: Stream, batch_size: int = AT_ONCE) -> list[CertificateRow]:
    """Rows of all tasks, radii and propagations; empty for a method that certifies nothing in this scenario.

    batch_size: of evaluation; no more samples are bounded together.
    """
    at_once = min(AT_ONCE, batch_size)
    rows: list[CertificateRow] = []
    for j in range(len(stream)):
        samples = drawn(stream, j)
        for radius in RADII if stream.benchmark.holds_images else RADII[:1]:  # a table has no unit of its pixels
            try:
                parts = [
                    _certified(method, stream, samples, slice(i, i + at_once), j, radius)
                    for i in range(0, len(samples), at_once)
                ]
            except NotImplementedError:
                return []
            interval = [p.interval for p in parts], sum(p.seconds for p in parts)
            affine = [p.affine for p in parts], sum(p.affine_seconds for p in parts)
            for how, (counts, seconds) in (("interval", interval), ("affine", affine)):
                certified = sum(count or 0 for count in counts)
                share = None if None in counts else certified / len(samples)
                rows.append(CertificateRow(j, len(samples), radius, how, share, round(seconds, 4)))
    return rows


def ball(samples: Samples, indices: slice, radius: float) -> Tensor | Interval:
    """Inputs within `radius` of the samples in every pixel, float64; for radius 0 the inputs themselves, as they are.

    Pixels have the range [0, 1], to which the ball is clipped; 1/255 is a step of 8-bit images. They are those of the
    network's input: after the task's permutation or rotation, whose border of zeros counts, and before normalisation,
    which scales radius and range. Raises UserError for a radius that is no number from 0.
    """
    if not 0 <= radius < math.inf:
        raise UserError(f"certificates: the input radius is {radius}; give a number from 0, in pixel units")
    x = samples.batch(indices).x
    if radius == 0:
        return x
    pixels = samples.images(indices).double()
    around = outward(Interval.around(pixels, torch.full_like(pixels, radius)))
    lower, upper = (side.clamp(0, 1) for side in around)
    if samples.normalise is not None:
        lower, upper = outward(Interval(samples.normalise(lower), samples.normalise(upper)))
    # The inputs are rounded to float32, beyond the range's ends too.
    return Interval(torch.minimum(lower, x.double()), torch.maximum(upper, x.double()))


def drawn(stream: Stream, j: int) -> Samples:
    """Test samples of task j that are certified, the same for all methods."""
    samples, n = stream.test(j), max(1, SAMPLES // len(stream))
    if len(samples) <= n:
        return samples
    chosen = strata.drawn(samples.labels, n, stream.seed, stream.benchmark.name, "certificates", j)
    return replace(samples, rows=samples.rows[chosen], labels=samples.labels[chosen])


def _certified(method: Any, stream: Stream, samples: Samples, indices: slice, j: int, radius: float) -> _Part:
    x, y = ball(samples, indices, radius), samples.labels[indices]
    begun = time.perf_counter()
    try:
        with propagation("interval") as recording:
            lower, upper = method.bounds(x, j)
    except (TypeError, AttributeError, UserError):
        # It does more with the inputs than to propagate them, as an inference of the task or a frozen backbone.
        if radius:
            return _Part(None, None, 0.0, 0.0)
        raise
    known = bool(recording.calls) and len(lower) == len(y)
    if radius and not known:  # bounds of the method's own take an interval for a tensor of samples
        return _Part(None, None, 0.0, 0.0)
    certified = holds(lower, upper, y)
    first = int(certified.sum())  # waits for the device
    seconds = time.perf_counter() - begun
    if not known or recording.latest is None:
        return _Part(first, None, seconds, 0.0)
    if first < len(y):
        left = (~certified).nonzero().squeeze(1)
        one = recording.latest if recording.calls == 1 else None
        found = columns(one.logits, lower, upper, _starts(stream, j)) if one else None
        if one and found:
            rivals = torch.tensor(list(found.rivals), device=y.device)
            certified[left] = one.exceeds(y[left] + found.start, rivals, left)
        else:
            with propagation("affine"):
                lower, upper = method.bounds(_rows(x, left), j)
            certified[left] = holds(lower, upper, y[left])
    return _Part(first, int(certified.sum()), seconds, time.perf_counter() - begun)


class Columns(NamedTuple):
    """Place of a method's answers among the logits of a network."""

    start: int
    """Column of the first answer."""
    rivals: range
    """Columns that a certified logit must exceed."""


def columns(logits: Interval, lower: Tensor, upper: Tensor, starts: tuple[int, ...]) -> Columns | None:
    """Place of the answers with bounds `lower`, `upper` (b, c) among the logits (b, C) of the only network.

    The answers are those logits, or classes to come compete too: each upper bound is raised to the highest of theirs.
    None if the bounds are no such selection. Differences of logits then say nothing about differences of answers.
    """
    n, every = lower.shape[1], logits.lower.shape[1]
    for start in starts:
        own = slice(start, start + n)
        if not torch.equal(lower, logits.lower[:, own]):
            continue
        if torch.equal(upper, logits.upper[:, own]):
            return Columns(start, range(start, start + n))
        others = torch.cat([logits.upper[:, :start], logits.upper[:, start + n :]], 1)
        if others.shape[1] and torch.equal(upper, torch.maximum(logits.upper[:, own], others.amax(1, keepdim=True))):
            return Columns(start, range(every))
    return None


def _starts(stream: Stream, j: int) -> tuple[int, ...]:
    return (0, stream.spec.outputs_before(j)) if stream.spec.scenario is TIL else (0,)


def _rows(x: Tensor | Interval, rows: Tensor) -> Tensor | Interval:
    return Interval(x.lower[rows], x.upper[rows]) if isinstance(x, Interval) else x[rows]
