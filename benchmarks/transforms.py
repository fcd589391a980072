"""Transforms of a data set's images into a task's inputs, batch by batch, on the device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample, pad

from benchmarks.types import derived_seed


def random_order(n: int, *names: str | int) -> np.ndarray:
    """A random order of 0..n-1, int64 (n,), from named axes.

    Sorts raw PCG64 output, which numpy guarantees to stay the same, unlike `Generator.permutation`.
    """
    keys = np.random.PCG64(derived_seed(*names)).random_raw(n)
    return np.argsort(keys, kind="stable").astype(np.int64)


class Permute:
    """Permutation of pixels: images are padded with zeros, then reordered in the task's order.

    (b, channels, height, width), task -> (b, n_pixels), with output[p] = padded.flatten()[order[task, p]].
    Holds n_tasks x n_pixels indices, and no image.
    """

    def __init__(self, orders: np.ndarray, shape: tuple[int, int, int], padding: int, device: torch.device) -> None:
        channels, height, width = shape
        inside = np.arange(channels * height * width).reshape(shape)
        # All padded pixels read one zero that is appended to the image.
        source = np.pad(inside, ((0, 0), (padding, padding), (padding, padding)), constant_values=inside.size)
        self.padding = padding
        self.source = torch.from_numpy(source.reshape(-1)[orders]).to(device)
        """(n_tasks, n_pixels) int64: which pixel of the image, or the appended zero."""

    def __call__(self, images: Tensor, task: int | Tensor) -> Tensor:
        flat = images.flatten(1)
        if self.padding:
            flat = pad(flat, (0, 1))
        if isinstance(task, int):
            return flat.index_select(1, self.source[task])
        return flat.gather(1, self.source[task])


class Rotate:
    """Rotation of images counter-clockwise by the task's angle: bilinear, zeros outside, shape kept."""

    def __init__(self, degrees: Sequence[float], shape: tuple[int, int, int], device: torch.device) -> None:
        self.grids = torch.stack([_rotation_grid(angle, *shape[1:]) for angle in degrees]).to(device)
        """(n_tasks, height, width, 2) float32: where each output pixel is read, in [-1, 1]."""

    def __call__(self, images: Tensor, task: int | Tensor) -> Tensor:
        grid = self.grids[task]
        if isinstance(task, int):
            grid = grid.expand(images.shape[0], -1, -1, -1)
        return grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


class Normalise:
    """(x - mean) / std for each channel: (b, channels, height, width), of one channel any shape; inputs of any sign."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device) -> None:
        shape = (-1, 1, 1) if len(mean) > 1 else ()
        self.mean = torch.tensor(mean, device=device).view(shape)
        self.scale = 1 / torch.tensor(std, device=device).view(shape)

    def __call__(self, x: Tensor) -> Tensor:
        return (x - self.mean) * self.scale

    def keeps_sign(self, least: Sequence[float]) -> bool:
        """Check that no input is negative, given `least`, the channels' minima before normalisation."""
        return bool((self(torch.tensor(least, device=self.mean.device).view(-1, 1, 1)) >= 0).all())


def _rotation_grid(degrees: float, height: int, width: int) -> Tensor:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    rows = torch.arange(height, dtype=torch.float64) - (height - 1) / 2
    columns = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    # Rows count downwards: reading at the clockwise turned place turns the image counter-clockwise.
    source_x, source_y = cos * x - sin * y, sin * x + cos * y
    return torch.stack([2 * source_x / width, 2 * source_y / height], dim=-1).float()
