"""ZenkeNet: the convolutional network of Zenke, Poole & Ganguli (2017), ICML, for CIFAR; used by HNET and HyperMask.

`zenkenet-tiny` is the form of HyperMask and HINT for Tiny ImageNet: 64 maps in each convolution, no hidden layer.
"""

from __future__ import annotations

from torch import Tensor, nn

from benchmarks.types import UserError


class ZenkeNet(nn.Module):
    """Four 3 x 3 convolutions (the second and fourth without padding) and two linear layers, without norm.

    (b, channels, s, s) -> (b, n_outputs). Pooling, and dropout of a quarter of the maps, after two convolutions each;
    dropout of 0.5 before the end. tiny: 64 maps everywhere and one linear layer, without the dropout of 0.5.
    """

    def __init__(self, channels: int, side: int, n_outputs: int, tiny: bool = False) -> None:
        super().__init__()
        after, first = ((side - 2) // 2 - 2) // 2, 64 if tiny else 32
        self.features = nn.Sequential(
            nn.Conv2d(channels, first, 3, padding=1), nn.ReLU(), nn.Conv2d(first, first, 3), nn.ReLU(),
            nn.MaxPool2d(2), nn.Dropout2d(0.25),
            nn.Conv2d(first, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(),
            nn.MaxPool2d(2), nn.Dropout2d(0.25),
        )  # fmt: skip
        self.hidden = None if tiny else nn.Linear(64 * after * after, 512)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(64 * after * after if tiny else 512, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x).flatten(1)
        return self.head(features if self.hidden is None else self.dropout(self.hidden(features).relu()))


def build(name: str, input_shape: tuple[int, ...], n_outputs: int) -> ZenkeNet:
    """Build `zenkenet` or `zenkenet-tiny` for square images of at least 10 x 10. Raises UserError for others."""
    channels, *sides = input_shape if len(input_shape) == 3 else (0, 0, 0)
    if sides[0] != sides[1] or sides[0] < 10:
        shape = " x ".join(map(str, input_shape))
        raise UserError(f"network {name}: inputs must be square images of at least 10 x 10, not {shape}")
    return ZenkeNet(channels, sides[0], n_outputs, tiny=name.endswith("-tiny"))
