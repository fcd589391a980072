"""Image networks of HAT, GPM and WSN: convolutions with pooling, two hidden linear layers and a head, without norm.

`alexnet-hat-bias` is the network of HAT (Serra et al. 2018, ICML) for CIFAR, `alexnet-hat` the same without biases.
WSN's code (Kang et al. 2022, ICML) has norms in addition (`alexnet-hat-norm` of methods/networks). `lenet-20-50`
serves the superclasses of CIFAR-100, `tinynet` Tiny ImageNet (both without biases). GPM's LeNet has local response
normalisation after each ReLU, WSN's has none; neither has this one.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from torch import Tensor, nn

from benchmarks.types import UserError

BIAS_SUFFIX = "-bias"


class Pool(NamedTuple):
    """Max-pooling of kernel x kernel pixels."""

    kernel: int
    stride: int
    padding: int = 0


class Convolution(NamedTuple):
    """A convolution with kernel x kernel pixels, then ReLU, dropout and pooling."""

    maps: int
    kernel: int
    stride: int = 1
    padding: int = 0
    dropout: float = 0.0
    pool: Pool | None = None


class Plan(NamedTuple):
    """Layers of a network; `dropout` follows each hidden linear layer."""

    convolutions: tuple[Convolution, ...]
    hidden: tuple[int, ...]
    dropout: float = 0.0


_HALVED, _OVERLAPPING = Pool(2, 2), Pool(3, 2, 1)
PLANS = {
    "alexnet-hat": Plan(
        (
            Convolution(64, 4, dropout=0.2, pool=_HALVED),
            Convolution(128, 3, dropout=0.2, pool=_HALVED),
            Convolution(256, 2, dropout=0.5, pool=_HALVED),
        ),
        (2048, 2048),
        dropout=0.5,
    ),
    "lenet-20-50": Plan(
        (Convolution(20, 5, padding=2, pool=_OVERLAPPING), Convolution(50, 5, padding=2, pool=_OVERLAPPING)),
        (800, 500),
    ),
    "tinynet": Plan((Convolution(160, 3, stride=2, padding=1),) * 4, (640, 640)),
}


class ImageNetwork(nn.Module):
    """Network of a plan: (b, channels, s, s) -> (b, n_outputs). Parameter order: layer by layer, as they are applied.

    Raises ValueError for images from which a layer would leave no pixel.
    """

    def __init__(self, plan: Plan, channels: int, side: int, n_outputs: int, bias: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for each in plan.convolutions:
            layers.append(nn.Conv2d(channels, each.maps, each.kernel, each.stride, each.padding, bias=bias))
            layers += [nn.ReLU(), *_dropout(each.dropout)]
            channels, side = each.maps, _side(side, Pool(each.kernel, each.stride, each.padding))
            if each.pool is not None:
                layers.append(nn.MaxPool2d(*each.pool))
                side = _side(side, each.pool)
        self.features = nn.Sequential(*layers)
        widths = (channels * side * side, *plan.hidden)
        hidden = [[nn.Linear(a, b, bias=bias), nn.ReLU(), *_dropout(plan.dropout)] for a, b in pairwise(widths)]
        self.hidden = nn.Sequential(*(layer for part in hidden for layer in part))
        self.head = nn.Linear(widths[-1], n_outputs, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(self.features(x).flatten(1)))


def _dropout(share: float) -> list[nn.Module]:
    return [nn.Dropout(share)] if share else []


def _side(side: int, window: Pool) -> int:
    """Side of the result of a window that is moved over a square image."""
    after = (side + 2 * window.padding - window.kernel) // window.stride + 1
    if after < 1:
        raise ValueError(f"no pixel is left of a side of {side}")
    return after


def build(name: str, input_shape: tuple[int, ...], n_outputs: int) -> ImageNetwork:
    """Build `alexnet-hat`, `alexnet-hat-bias`, `lenet-20-50` or `tinynet` for square images of any number of channels.

    Raises UserError for other inputs, and for images too small for the layers.
    """
    plan = PLANS[name.removesuffix(BIAS_SUFFIX)]
    channels, *sides = input_shape if len(input_shape) == 3 else (0, 0, 1)
    try:
        if sides[0] != sides[1]:
            raise ValueError
        return ImageNetwork(plan, channels, sides[0], n_outputs, bias=name.endswith(BIAS_SUFFIX))
    except ValueError:
        shape = " x ".join(map(str, input_shape))
        raise UserError(f"network {name}: inputs must be square images, large enough for it, not {shape}") from None
