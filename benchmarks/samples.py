"""Samples: a lazy view of device-resident images, turned into float batches on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks import tally

Transform = Callable[[Tensor, "int | Tensor"], Tensor]
"""(float images in [0, 1] (b, *stored shape), task index: int or (b,)) -> inputs (b, *input_shape)."""
Augment = Callable[[Tensor, "int | Tensor"], Tensor]
"""(stored images (b, *stored shape), step: number or 0-d tensor) -> images of that shape and dtype."""


class Batch(NamedTuple):
    """Inputs (b, *input_shape) float32, labels (b,) int64, task index: int, or (b,) where tasks mix."""

    x: Tensor
    y: Tensor
    task: int | Tensor


@dataclass(frozen=True)
class Samples:
    """Lazy view of `rows` of an image tensor with their labels; batches are made on demand.

    pixels: (N, *stored shape) uint8 or float32 (uint8 is scaled to [0, 1]), the task's own images, or shared by tasks
    that have the same images;
    rows: (n,) int64 or int32 into pixels; labels: (n,) int64; task: the task's index, or (n,) where mixed.
    transform, then normalise, make inputs of images in [0, 1]. augment: applied to training batches first.
    """

    pixels: Tensor
    rows: Tensor
    labels: Tensor
    task: int | Tensor
    transform: Transform | None = None
    normalise: Callable[[Tensor], Tensor] | None = None
    augment: Augment | None = None

    def __len__(self) -> int:
        return self.rows.shape[0]

    @property
    def device(self) -> torch.device:
        return self.pixels.device

    def batch(self, indices: Tensor | slice) -> Batch:
        """The samples at `indices` (b,), as a `Batch`; no host synchronisation."""
        return self._batch(indices, self.pixels.index_select(0, _taken(self.rows, indices)))

    def training_batch(self, indices: Tensor | slice, step: Tensor | int) -> Batch:
        """`batch`, augmented where the benchmark says so; the same for the same step, a number or 0-d tensor."""
        images = self.pixels.index_select(0, _taken(self.rows, indices))
        return self._batch(indices, images if self.augment is None else self.augment(images, step))

    def images(self, indices: Tensor | slice) -> Tensor:
        """The samples at `indices` as they may be shown: inputs before normalisation, in [0, 1]."""
        return replace(self, normalise=None).batch(indices).x

    def copied(self, indices: Tensor | slice = slice(None)) -> Samples:
        """The samples at `indices` with copies of their images and labels, so that no other sample is reachable."""
        rows = _taken(self.rows, indices)
        return replace(
            self,
            pixels=self.pixels.index_select(0, rows),
            rows=torch.arange(len(rows), device=rows.device),
            labels=_taken(self.labels, indices).clone(),
            task=self.task if isinstance(self.task, int) else _taken(self.task, indices).clone(),
        )

    def _batch(self, indices: Tensor | slice, x: Tensor) -> Batch:
        if torch.is_grad_enabled():
            tally.handed_out(x.shape[0], self.rows)
        task = self.task if isinstance(self.task, int) else _taken(self.task, indices).to(torch.int64)
        if x.dtype == torch.uint8:
            x = x.div(255.0)
        if self.transform is not None:
            x = self.transform(x, task)
        if self.normalise is not None:
            x = self.normalise(x)
        return Batch(x, _taken(self.labels, indices), task)

    def batches(self, size: int) -> Iterator[Batch]:
        """All samples in order, `size` at a time (the last batch may be smaller)."""
        for start in range(0, len(self), size):
            yield self.batch(slice(start, start + size))

    @property
    def x(self) -> Tensor:
        """All inputs at once, float32 (n, *input_shape)."""
        return self.batch(slice(None)).x

    def task_ids(self) -> Tensor:
        """Task index of every sample, (n,) int64."""
        if isinstance(self.task, int):
            return torch.full_like(self.labels, self.task)
        return self.task.to(torch.int64)

    @staticmethod
    def concatenate(parts: Sequence[Samples]) -> Samples:
        """The samples of several tasks of one stream, in narrow integers; images that are not shared are copied.

        Augmented like the last part, which is the current task. Raises ValueError for samples of several streams.
        """
        first = parts[0]
        if len(parts) == 1:
            return first
        kinds = {(p.pixels.shape[1:], p.pixels.dtype, p.pixels.device, p.transform, p.normalise) for p in parts}
        if len(kinds) > 1:
            raise ValueError("only samples of one stream can be concatenated")
        pixels, rows = _joined(parts)
        return Samples(
            pixels,
            rows,
            torch.cat([part.labels for part in parts]),
            torch.cat([part.task_ids().to(torch.int16) for part in parts]),
            first.transform,
            first.normalise,
            parts[-1].augment,
        )


def _joined(parts: Sequence[Samples]) -> tuple[Tensor, Tensor]:
    """Concatenated images of all parts, and the row numbers (int32) into them."""
    shared = parts[0].pixels
    if all(part.pixels is shared for part in parts):
        return shared, torch.cat([part.rows.to(torch.int32) for part in parts])
    total = sum(map(len, parts))
    pixels = shared.new_empty((total, *shared.shape[1:]))
    for part, place in zip(parts, pixels.split([len(part) for part in parts]), strict=True):
        torch.index_select(part.pixels, 0, part.rows, out=place)  # no second copy, as `cat` would need
    return pixels, torch.arange(total, dtype=torch.int32, device=pixels.device)


def _taken(values: Tensor, indices: Tensor | slice) -> Tensor:
    return values[indices] if isinstance(indices, slice) else values.index_select(0, indices)
