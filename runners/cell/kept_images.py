"""Search of a method's state for training images: noisy, shifted, scaled, transposed or cast copies."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.stream import Stream
from runners.cell.reach import tensors

ALIKE = 0.9
"""Cosine of two centred images from which one is a copy of the other, also one with noise, scaled or rounded."""
LOOKED_AT, COMPARED = 64, 4096
"""Rows looked at in one tensor (evenly spread), and training images compared at once. A tensor counts where half of
these rows are copies: one of which 66 % of the rows, anywhere, are copies is missed in fewer than one of 200 cases."""
SCREENED, SIMILAR = 16, 0.3
"""Every 16th image is compared first; rows that are less like all of these are not looked at further. Of 1,377 images
of MNIST with noise of 0.1, all were more like one of them than 0.4; of 400 rows of noise, the nearest had 0.18."""
NEIGHBOURS = 16
"""Images whose average is a rival of the nearest one: an average of many images is nearer to it, a copy is not."""
DIMENSION_AT_LEAST = 16
"""Shorter rows resemble each other by chance."""


FORMS, BLOCK = 3, 128
"""Forms of an image that are compared (see `_forms`), and rows whose nearest images are gathered at once."""


@torch.no_grad()
def images_kept(root: object, stream: Stream) -> int:
    """Training images of the stream in tensors below `root`, estimated from a sample of every tensor of their size.

    Rows are compared with the inputs, their transposes and their differences from the mean, centred and normalised.
    Averages of many images (class means, centroids), features of images, and other orders of pixels do not count.
    """
    size = math.prod(stream.spec.input_shape)
    if size < DIMENSION_AT_LEAST:
        return 0
    candidates = [rows for _, value in tensors(root) for rows in _rows(value, size)]
    if not candidates:
        return 0
    picked = [rows[torch.linspace(0, len(rows) - 1, min(LOOKED_AT, len(rows))).long()] for rows in candidates]
    copies = _copies(torch.cat([rows.float().cpu() for rows in picked]), stream)
    found, start = 0, 0
    for rows, part in zip(candidates, picked, strict=True):
        hits = int(copies[start : start + len(part)].sum())
        start += len(part)
        if hits and 2 * hits >= int(part.any(1).sum()):  # single rows of weights resemble an image by chance
            found += round(hits * len(rows) / len(part))
    return found


def _copies(rows: Tensor, stream: Stream) -> Tensor:
    """Mask of the rows (n, size) that are copies of one training image, (n,) bool."""
    looked, copied = _centred(rows), torch.zeros(len(rows), dtype=torch.bool)
    where = (_best(looked, stream, SCREENED) > SIMILAR).nonzero().squeeze(1)
    where = where[_best(looked[where], stream) > ALIKE]
    for block in where.split(BLOCK) if len(where) else ():
        copied[block] = _nearer_to_one(looked[block], stream)
    return copied


def _best(looked: Tensor, stream: Stream, every: int = 1) -> Tensor:
    """The cosine of each row (n, size) with the nearest of every so many images, (n,)."""
    best = torch.zeros(len(looked))
    for images in _images(stream, every) if len(looked) else ():
        for cosines in _cosines(looked, images):
            best = torch.maximum(best, cosines.amax(1))
    return best


def _nearer_to_one(looked: Tensor, stream: Stream) -> Tensor:
    """Mask of the rows (n, size) that are nearer to one image than to the average of the nearest ones, (n,) bool."""
    n, size = looked.shape
    alike = [torch.empty(n, 0)] * FORMS
    nearest = [torch.empty(n, 0, size)] * FORMS
    for images in _images(stream):
        forms = _forms(images)
        for form, cosines in enumerate(_cosines(looked, images)):
            values, places = cosines.topk(min(NEIGHBOURS, len(images)), dim=1)
            values = torch.cat([alike[form], values], 1)
            found = torch.cat([nearest[form], _centred(forms[form][places].flatten(0, 1)).unflatten(0, (n, -1))], 1)
            alike[form], order = values.topk(min(NEIGHBOURS, values.shape[1]), dim=1)
            nearest[form] = found.gather(1, order[:, :, None].expand(-1, -1, size))
    copied = torch.zeros(n, dtype=torch.bool)
    for values, found in zip(alike, nearest, strict=True):
        to_average = (looked * normalize(found.sum(1), dim=1)).sum(1)
        copied |= (values[:, 0] > ALIKE) & (values[:, 0] >= to_average)
    return copied


def _images(stream: Stream, every: int = 1) -> Iterator[Tensor]:
    """Every so many of the stream's training images, (b, *input shape), on the host."""
    for j in range(len(stream)):
        train = stream.task(j).train
        for start in range(0, len(train), COMPARED * every):
            yield train.batch(slice(start, start + COMPARED * every, every)).x.cpu()


def _forms(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Images (b, *input shape) in the forms in which they may be kept, (b, size): plain, transposed, less the mean."""
    flat = images.flatten(1)
    return flat, _turned(images), flat - flat.mean(0)


def _cosines(looked: Tensor, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cosines of rows (n, size), centred and normalised, with each form of the images, once centred: (n, b) each.

    A product with a centred row needs no centring of the images, and transposing the rows spares that of the images.
    """
    flat, shape = images.flatten(1), _square(images).shape[1:]
    size, middle, means, squares = flat.shape[1], flat.mean(0), flat.mean(1), flat.square().sum(1)
    length = _root(squares - size * means.square())
    off = squares - 2 * flat @ middle + middle.square().sum()
    length_off = _root(off - size * (means - middle.mean()).square())
    back = looked.unflatten(1, (*shape[:-2], shape[-1], shape[-2])).transpose(-1, -2).flatten(1)
    straight = looked @ flat.T
    return straight / length, back @ flat.T / length, (straight - (looked @ middle)[:, None]) / length_off


def _root(squares: Tensor) -> Tensor:
    return squares.clamp(min=1e-6).sqrt()


def _turned(images: Tensor) -> Tensor:
    return _square(images).transpose(-1, -2).flatten(1)


def _square(images: Tensor) -> Tensor:
    """Images with their rows and columns, (b, ..., h, w); flat ones are taken as square, or as one column."""
    if images.dim() > 2:
        return images
    side = math.isqrt(images.shape[1])
    return images.unflatten(1, (side, side) if side * side == images.shape[1] else (-1, 1))


def _rows(value: Tensor, size: int) -> list[Tensor]:
    """The tensor's rows (n, size) where its last, or its first, dimensions may be those of one input."""
    if value.is_meta or value.is_complex() or value.dtype is torch.bool or value.numel() < size:
        return []
    for lead in range(value.dim()):
        if math.prod(value.shape[lead:]) == size:
            return [value.reshape(-1, size)]
    return [value.T] if value.dim() == 2 and len(value) == size else []


def _centred(rows: Tensor) -> Tensor:
    return normalize(rows - rows.mean(1, keepdim=True), dim=1)
