"""Residual networks for CIFAR, ResNet-8, -14, -20, ...: He, Zhang, Ren & Sun (2016), CVPR, section 4.2; also wider.

HNET uses ResNet-32, HyperMask ResNet-20 with twice the maps (`resnet-20x2`). Shortcuts have no parameters (their
option A): where the maps double, every second pixel is kept and the new maps start at zero. Convolutions have no
biases, as in He et al.; those of HNET's and HyperMask's code have (0.2 % more numbers).
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import pad

from benchmarks.types import UserError

STEM = 16


class Block(nn.Module):
    """Residual block: two 3 x 3 convolutions with batch norm, plus the input."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(n_out)
        self.second = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(n_out)
        self.stride, self.new_maps = stride, n_out - n_in

    def forward(self, x: Tensor) -> Tensor:
        inner = self.first_norm(self.first(x)).relu()
        inner = self.second_norm(self.second(inner))
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.new_maps:
            x = pad(x, (0, 0, 0, 0, 0, self.new_maps))
        return (inner + x).relu()


class CifarResNet(nn.Module):
    """ResNet (b, channels, s, s) -> (b, n_outputs): a stem, three groups of `blocks` blocks, global average pooling.

    depth = 6 blocks + 2; the groups have 16, 32 and 64 maps, times `width`; the last two halve the resolution.
    """

    def __init__(self, blocks: int, width: int, channels: int, n_outputs: int) -> None:
        super().__init__()
        maps = [STEM, STEM * width, 2 * STEM * width, 4 * STEM * width]
        self.stem = nn.Conv2d(channels, STEM, 3, 1, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(STEM)
        self.blocks = nn.ModuleList(
            Block(n_in if i == 0 else n_out, n_out, 2 if group and i == 0 else 1)
            for group, (n_in, n_out) in enumerate(pairwise(maps))
            for i in range(blocks)
        )
        self.head = nn.Linear(maps[-1], n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_norm(self.stem(x)).relu()
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


def build(name: str, input_shape: tuple[int, ...], n_outputs: int) -> CifarResNet:
    """Build `resnet-20`, ..., or `resnet-20x2` with twice the maps. Raises UserError for inputs of another shape."""
    depth, _, width = name.removeprefix("resnet-").partition("x")
    if len(input_shape) != 3 or min(input_shape[1:]) < 4:
        shape = " x ".join(map(str, input_shape))
        raise UserError(f"network {name}: inputs must be images of at least 4 x 4, not {shape}")
    return CifarResNet((int(depth) - 2) // 6, int(width or 1), input_shape[0], n_outputs)
