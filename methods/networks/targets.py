"""Target networks by name. Any `nn.Module` works, because methods call networks through functional_call.

Each family is a module with a function `build(name, input_shape, n_outputs)`. A cell's key holds the hash of its
network's module (`module_of`), so that a new family leaves the records of all others valid. This file only finds the
family and affects no number.
"""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.types import UserError

if TYPE_CHECKING:
    from torch import nn


class Family(NamedTuple):
    """Networks of one module: the pattern of their names, and its wording in messages."""

    pattern: str
    module: str
    """Module name below methods.networks."""
    usage: str


FAMILIES = (
    Family(r"mlp(-[1-9]\d*)*", "mlp", "mlp-WIDTH-WIDTH (for example mlp-400-400)"),
    Family(r"mlp(-[1-9]\d*)*-nobias", "unbiased", "mlp-WIDTH-WIDTH-nobias (without biases)"),
    Family(r"alexnet|resnet-18", "convolutional", "alexnet, resnet-18"),
    Family(
        r"resnet-(8|14|20|32|44|56|110)(x[1-9])?",
        "residual",
        "resnet-8, -14, -20, -32, ..., resnet-20x2 (twice the maps)",
    ),
    Family(r"zenkenet(-tiny)?", "zenke", "zenkenet, zenkenet-tiny (for Tiny ImageNet)"),
    Family(r"alexnet-hat(-bias)?|lenet-20-50|tinynet", "wsn", "alexnet-hat, alexnet-hat-bias, lenet-20-50, tinynet"),
    Family("alexnet-hat-norm", "normed", "alexnet-hat-norm"),
    Family("alexnet-dropout", "dropped", "alexnet-dropout (InterContiNet's)"),
    Family(r"timm:[\w.]+(\+pretrained|\+frozen)*", "timm", "timm:NAME, timm:NAME+pretrained, timm:NAME+frozen"),
)


def module_of(name: str) -> str:
    """Dotted module that defines the network `name`. Raises UserError for an unknown name."""
    for family in FAMILIES:
        if re.fullmatch(family.pattern, name):
            return f"methods.networks.{family.module}"
    known = ", ".join(family.usage for family in FAMILIES)
    raise UserError(f"unknown network {name!r}: write one of {known}")


def build(name: str, input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Build the network `name` for inputs (b, *input_shape) and logits (b, n_outputs).

    Raises UserError for an unknown name, and for images of a shape that the network does not support.
    """
    return importlib.import_module(module_of(name)).build(name, input_shape, n_outputs)


def on_meta(name: str, input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Build the network on the meta device: shapes only, without memory or draws from torch's generator."""
    import torch

    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return build(name, input_shape, n_outputs)
