"""Augmentation of training batches on the device: independent for each image, reproducible between runs.

torchvision's transforms draw one crop for a whole batch; here every image has its own, at the cost of one
gather. The random numbers are a function of (seed, step, place in the batch), so they do not depend on the
device, the number of workers or on where a run was resumed, and nothing has to be kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

CROP_PADDING = 4
"""Black pixels on every side before a crop of the old size, as for CIFAR in He et al. (2016)."""


@dataclass(frozen=True)
class FlipCrop:
    """Random crop after padding with black, then a horizontal flip of every second image on average."""

    seed: int
    padding: int = CROP_PADDING

    def __call__(self, images: Tensor, step: Tensor | int) -> Tensor:
        """(b, c, h, w) of any dtype, the step as a number or 0-d tensor -> the same shape; no host synchronisation."""
        b, _, height, width = images.shape
        bits = random_bits(self.seed, step, b, images.device)
        offsets = 2 * self.padding + 1
        top, left, flip = (bits >> 1) % offsets, (bits >> 21) % offsets, (bits & 1).bool()
        y = top[:, None] + torch.arange(height, device=images.device)
        x = left[:, None] + torch.arange(width, device=images.device)
        x = torch.where(flip[:, None], x.flip(1), x)
        padded = pad(images, (self.padding,) * 4)
        image = torch.arange(b, device=images.device)[:, None, None]
        return padded[image, :, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2).contiguous()


def random_bits(seed: int, step: Tensor | int, n: int, device: torch.device) -> Tensor:
    """Random numbers of 63 bits, int64 (n,), from the SplitMix64 generator (Steele et al. 2014) at a counter."""
    counter = torch.as_tensor(step, device=device).to(torch.int64) * (1 << 20) + torch.arange(n, device=device)
    z = counter * _signed(0x9E3779B97F4A7C15) + _signed(seed)
    z = (z ^ _shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _signed(0x94D049BB133111EB)
    return _shifted(z ^ _shifted(z, 31), 1)


def _signed(bits: int) -> int:
    """The int64 with these 64 bits; products of int64 tensors wrap around."""
    return (bits + (1 << 63)) % (1 << 64) - (1 << 63)


def _shifted(z: Tensor, places: int) -> Tensor:
    """Logical shift to the right of int64 (torch's own keeps the sign)."""
    return (z >> places) & ((1 << (64 - places)) - 1)
