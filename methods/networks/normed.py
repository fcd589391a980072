"""AlexNet of WSN's code (Kang et al. 2022, ICML) for Split CIFAR-100: batch norm before each ReLU, `alexnet-hat-norm`.

The norms have no scale and shift, and no layer has a bias. GPM's code (Saha et al. 2021, ICLR) has scales and shifts in
addition. There the statistics are those of the batch, in testing too; here methods keep running ones.
"""

from __future__ import annotations

from torch import nn

from methods.networks import wsn

SUFFIX = "-norm"


def build(name: str, input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Build `alexnet-hat-norm` for square images of any number of channels. Raises UserError for other inputs."""
    network = wsn.build(name.removesuffix(SUFFIX), input_shape, n_outputs)
    network.features, network.hidden = _normed(network.features), _normed(network.hidden)
    return network


def _normed(layers: nn.Sequential) -> nn.Sequential:
    """The layers with a norm after each convolution and linear layer."""
    found: list[nn.Module] = []
    for layer in layers:
        found.append(layer)
        if isinstance(layer, nn.Conv2d):
            found.append(nn.BatchNorm2d(layer.out_channels, affine=False))
        elif isinstance(layer, nn.Linear):
            found.append(nn.BatchNorm1d(layer.out_features, affine=False))
    return nn.Sequential(*found)
