"""Layers that are linear in their weight, on which projected steps and mixtures of masks rely."""

from __future__ import annotations

from torch import nn

LINEAR_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORM_LAYERS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
"""Layers whose `weight` is a scale and whose `bias` is a shift."""


def linear_in_weight(module: nn.Module) -> bool:
    """True for one of `LINEAR_LAYERS` itself. A subclass may compute its weight, e.g. standardise it (timm)."""
    return type(module) in LINEAR_LAYERS
