"""Convolutional target networks of the HyperInterval and InterContiNet papers, for 3-channel images.

Parameters are registered in the order in which the official hypernetwork generates them, so that
their flat weights and ours are interchangeable.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d

from benchmarks.types import UserError


class AlexNet(nn.Module):
    """AlexNet for 32 x 32 images: five 3 x 3 convolutions, three linear layers, each but the last with ReLU and norm.

    (b, 3, 32, 32) -> (b, n_outputs). The first convolution has stride 2; pooling follows the first,
    second and fifth, before the ReLU. Order: convolutions, linear layers, then the norms.
    """

    def __init__(self, n_outputs: int, norm: bool = True) -> None:
        super().__init__()
        maps = (3, 64, 192, 384, 256, 256)
        strides = (2, 1, 1, 1, 1)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride, 1) for (a, b), stride in zip(pairwise(maps), strides, strict=True)
        )
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise((1024, 4096, 4096, n_outputs)))
        norms: list[nn.Module] = [nn.BatchNorm2d(width) for width in maps[1:]]
        norms += [nn.BatchNorm1d(4096), nn.BatchNorm1d(4096)]
        self.norms = nn.ModuleList(norms if norm else [nn.Identity() for _ in norms])

    def forward(self, x: Tensor) -> Tensor:
        pooled = (True, True, False, False, True)
        for convolution, pool, norm in zip(self.convolutions, pooled, self.norms, strict=False):
            x = convolution(x)
            x = norm((max_pool2d(x, 2) if pool else x).relu())
        x = x.flatten(1)
        for i in range(2):
            x = self.norms[5 + i](self.linears[i](x).relu())
        return self.linears[2](x)


class ResNet(nn.Module):
    """Residual network with batch norm after every convolution and a 1 x 1 projection wherever a group begins.

    (b, 3, s, s) -> (b, n_outputs). maps: of the stem and of four groups; blocks: in each group.
    Groups 2 to 4 halve the resolution. Average pooling 2 x 2 before the linear layer, whose input
    size depends on `size` s. Order: norms, norms of projections, projections, stem and blocks, linear.
    """

    def __init__(self, maps: tuple[int, ...], blocks: tuple[int, ...], n_outputs: int, size: int = 32) -> None:
        super().__init__()
        widths = [maps[0]]
        plan: list[tuple[int, bool]] = []
        """Stride of each block, and True if its shortcut is a projection."""
        projections: list[tuple[int, int, int]] = []
        for group, count in enumerate(blocks):
            for block in range(count):
                stride = 2 if group and not block else 1
                projected = stride == 2 or widths[-1] != maps[group + 1]
                if projected:
                    projections.append((widths[-1], maps[group + 1], stride))
                plan.append((stride, projected))
                widths += [maps[group + 1], maps[group + 1]]
        self.plan = plan
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.projection_norms = nn.ModuleList(nn.BatchNorm2d(out) for _, out, _ in projections)
        self.projections = nn.ModuleList(nn.Conv2d(a, b, 1, stride, bias=False) for a, b, stride in projections)
        strides = [1, *(s for stride, _ in plan for s in (stride, 1))]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride, 1, bias=False)
            for (a, b), stride in zip(pairwise([3, *widths]), strides, strict=True)
        )
        self.head = nn.Linear(maps[-1] * (size // 16) ** 2, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norms[0](self.convolutions[0](x)).relu()
        k = 0
        for i, (_, projected) in enumerate(self.plan):
            inner = self.norms[2 * i + 1](self.convolutions[2 * i + 1](x)).relu()
            inner = self.norms[2 * i + 2](self.convolutions[2 * i + 2](inner))
            if projected:
                x = self.projection_norms[k](self.projections[k](x))
                k += 1
            x = (inner + x).relu()
        return self.head(avg_pool2d(x, 2).flatten(1))


def build(name: str, input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Build `alexnet` (3 x 32 x 32) or `resnet-18` (3 x S x S). Raises UserError for images of another shape."""
    channels, *sides = (*input_shape, 0, 0, 0)[:3] if len(input_shape) == 3 else (0, 0, 0)
    if channels != 3 or sides[0] != sides[1] or (name == "alexnet" and sides[0] != 32) or sides[0] % 16:
        wanted = "3 x 32 x 32" if name == "alexnet" else "3 x S x S, S a multiple of 16"
        raise UserError(f"network {name}: inputs must be {wanted}, not {' x '.join(map(str, input_shape))}")
    if name == "alexnet":
        return AlexNet(n_outputs)
    return ResNet((16, 16, 32, 64, 128), (2, 2, 2, 2), n_outputs, sides[0])
