"""AlexNet of InterContiNet's code (Wołczyk et al. 2022) for CIFAR: no norm, dropout before both hidden layers.

Convolutions as those of `alexnet`; a dropout of 0.5 precedes each linear layer of 4096 units.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from benchmarks.types import UserError

MAPS = (3, 64, 192, 384, 256, 256)
UNITS = 4096
RATE = 0.5


class AlexNet(nn.Module):
    """AlexNet for 32 x 32 images, (b, 3, 32, 32) -> (b, n_outputs)."""

    def __init__(self, n_outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(pairwise(MAPS)):
            layers += [nn.Conv2d(a, b, 3, 1 if i else 2, 1), nn.ReLU()]
            if i in (0, 1, 4):
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers, nn.Flatten())
        hidden: list[nn.Module] = []
        for a, b in ((MAPS[-1] * 2 * 2, UNITS), (UNITS, UNITS)):
            hidden += [nn.Dropout(RATE), nn.Linear(a, b), nn.ReLU()]
        self.hidden = nn.Sequential(*hidden)
        self.output = nn.Linear(UNITS, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.hidden(self.features(x)))


def build(name: str, input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Build `alexnet-dropout` for images of 3 x 32 x 32. Raises UserError for other inputs."""
    if input_shape != (3, 32, 32):
        raise UserError(f"network {name}: inputs must be 3 x 32 x 32, not {' x '.join(map(str, input_shape))}")
    return AlexNet(n_outputs)
