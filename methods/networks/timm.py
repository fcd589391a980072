"""Image networks of timm by name, trained as a whole or as a frozen backbone below a linear head.

`timm:resnet18` has random weights; `timm:resnet18+pretrained` those that timm's authors trained (fetched by timm, or
from its cache). With `+frozen` the weights below the last layer are constants: no method trains, generates, masks
or bounds them, so a hypernetwork generates only the head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.types import UserError, suggestion


class Frozen(nn.Module):
    """Network as a constant function: its weights are no parameters, and it stays in evaluation mode.

    They are hidden from `parameters`, `buffers`, `to` and `state_dict`, and follow the device of the inputs.
    """

    constant = True
    """Flag for interval bounds: the module is evaluated as a whole, from a point to a point."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._hidden = [network.eval().requires_grad_(False)]

    def forward(self, x: Tensor) -> Tensor:
        (network,) = self._hidden
        if next(network.parameters()).device != x.device:
            network.to(x.device)
        with torch.no_grad():
            return network(x)

    def __deepcopy__(self, _: dict[int, Any]) -> Frozen:
        return self  # a constant may be shared


class FrozenNetwork(nn.Module):
    """Frozen backbone and linear head: (b, *input_shape) -> (b, n_outputs)."""

    def __init__(self, backbone: nn.Module, n_features: int, n_outputs: int) -> None:
        super().__init__()
        self.backbone = Frozen(backbone)
        self.head = nn.Linear(n_features, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


def build(name: str, input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Build `timm:NAME`, with `+pretrained`, `+frozen`, or both. Raises UserError if timm cannot make it."""
    model, *options = name.removeprefix("timm:").split("+")
    frozen = "frozen" in options
    network = _create(name, model, "pretrained" in options, input_shape, 0 if frozen else n_outputs)
    with torch.no_grad():
        network.eval()
        try:
            outputs = network(torch.zeros(1, *input_shape))
        except Exception as error:
            shape = " x ".join(map(str, input_shape))
            raise UserError(f"network {name} cannot take inputs of {shape}: {' '.join(str(error).split())}") from error
    return FrozenNetwork(network, outputs.shape[1], n_outputs) if frozen else network


def _create(name: str, model: str, pretrained: bool, input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    import timm

    if model.split(".")[0] not in timm.list_models():
        raise UserError(f"network {name}: timm has no model {model!r}.{suggestion(model, timm.list_models())}")
    try:
        return timm.create_model(model, pretrained=pretrained, num_classes=n_outputs, in_chans=input_shape[0])
    except Exception as error:
        what = "the pretrained weights could not be had" if pretrained else "timm cannot make it"
        raise UserError(f"network {name}: {what}: {' '.join(str(error).split())[:300]}") from error
