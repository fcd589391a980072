"""Sheet of sample images of a benchmark, stored next to its records for the report."""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.nn.functional import pad

from benchmarks.stream import Stream
from runners.records.folder import Store

SHEET = "samples.png"
SEED = 0
"""The sheet shows the stream of this seed."""
TASKS_AT_MOST, COLUMNS_AT_MOST = 10, 10


def leave(stream: Stream, folder: Store) -> None:
    """Write samples.png next to the benchmark's records, unless it is there or the inputs are no images.

    Raises StorageError.
    """
    if stream.seed == SEED and not folder.has_shared(SHEET):
        content = sheet(stream)
        if content is not None:
            folder.share(SHEET, content)


def sheet(stream: Stream) -> bytes | None:
    """A PNG: one row for each of at most ten tasks, the first training samples of each class side by side.

    Its text fields describe the content: `tasks` (numbers from 0), `names` (of those tasks, one a line), `tile` (pixels
    a side), `columns`, `seed`. None where a sample is no square image of one or three channels.
    """
    if not stream.benchmark.holds_images:
        return None
    last = len(stream) - 1
    shown = np.unique(np.linspace(0, last, min(TASKS_AT_MOST, len(stream))).round().astype(int)).tolist()
    rows = []
    for j in shown:
        train = stream.task(j).train
        images = as_images(train.images(_first_of_each_class(train.labels)).cpu())
        if images is None:
            return None
        rows.append(torch.cat(list(images), dim=1))
    widest = max(row.shape[1] for row in rows)
    pixels = torch.cat([pad(row, (0, 0, 0, widest - row.shape[1]), value=1.0) for row in rows])
    tile, names = rows[0].shape[0], stream.task_names
    fields = {
        "tasks": " ".join(map(str, shown)),
        "names": "\n".join(names[j] for j in shown),
        "tile": tile,
        "columns": pixels.shape[1] // tile,
        "seed": stream.seed,
    }
    return _png(pixels, fields)


def _first_of_each_class(labels: Tensor) -> Tensor:
    """Indices of the first samples of each class, as many as fit in a row, class by class."""
    classes = labels.unique()
    each = max(1, COLUMNS_AT_MOST // len(classes))
    return torch.cat([(labels == c).nonzero().squeeze(1)[:each] for c in classes[:COLUMNS_AT_MOST]])


def as_images(x: Tensor) -> Tensor | None:
    """Inputs (n, *shape) as (n, side, side, channels), None where they are no images; vectors are channels first."""
    if x.ndim == 2:
        sides = {channels: math.isqrt(x.shape[1] // channels) for channels in (1, 3)}
        fitting = [channels for channels, side in sides.items() if channels * side * side == x.shape[1]]
        if not fitting:
            return None
        x = x.view(len(x), fitting[0], sides[fitting[0]], sides[fitting[0]])
    if x.ndim != 4 or x.shape[1] not in (1, 3) or x.shape[2] != x.shape[3]:
        return None
    return x.permute(0, 2, 3, 1)


def _png(pixels: Tensor, fields: dict[str, str | int]) -> bytes:
    """Pixels (h, w, channels), scaled to the range of bytes where they leave [0, 1], with text fields."""
    low, high = min(0.0, float(pixels.min())), max(1.0, float(pixels.max()))
    scaled = ((pixels - low) / (high - low) * 255).round().to(torch.uint8).numpy()
    info, buffer = PngInfo(), io.BytesIO()
    for key, value in fields.items():
        info.add_itxt(key, str(value))
    Image.fromarray(scaled.squeeze(2) if scaled.shape[2] == 1 else scaled).save(buffer, "png", pnginfo=info)
    return buffer.getvalue()
