"""Divergence that a method does not raise itself: losses that it reported, and weights that it trained."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from methods.base import Diverged, Method
from methods.shared import parts


class NotFinite(Exception):
    """A prediction or a weight is infinite or not a number."""


def assure(method: Method, task: int, curve: Sequence[tuple[int, int, float]]) -> None:
    """Raise Diverged for a loss (task, step, loss), NotFinite for a parameter, that is not finite after a task.

    A loop of the method's own need not look at either; its answers may hide both.
    """
    for _, step, loss in curve:
        if not math.isfinite(loss):
            raise Diverged(task, step, loss)
    if named := list(_trained(method)):
        finite = torch.stack([torch.isfinite(value).all() for _, value in named])
        if bad := [path for (path, _), good in zip(named, finite.tolist(), strict=True) if not good]:
            raise NotFinite(f"after task {task} the weights {bad[0]} are not finite")


def _trained(method: Method) -> Iterator[tuple[str, Tensor]]:
    """Parameters of networks, free-standing ones and other tensors with gradients, each once, with their paths."""
    seen: set[int] = set()
    for name, attribute in parts.attributes(method).items():
        for path, part in parts.walk(name, attribute):
            inside = part.named_parameters(prefix=path) if isinstance(part, nn.Module) else [(path, part)]
            for place, value in inside:
                trained = isinstance(value, nn.Parameter) or (isinstance(value, Tensor) and value.requires_grad)
                if trained and not value.is_meta and id(value) not in seen:
                    seen.add(id(value))
                    yield place, value.detach()
