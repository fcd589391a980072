"""A method's state as plain data: tensors, numbers, strings, lists and dicts, never pickled objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from methods.base import Method

_NOT_STATE = {
    "spec", "config", "device", "seed", "step", "progress", "curve", "stepped", "step_by_step", "memory_samples"
}  # fmt: skip


def collect(method: Method) -> dict[str, Any]:
    """Every attribute of the method that may have changed. Raises TypeError for one it cannot keep.

    Objects that say `stateless = True` hold nothing that changes and are left out.
    """
    kept = {key: value for key, value in vars(method).items() if key not in _NOT_STATE}
    return {key: _plain(key, value) for key, value in kept.items() if not getattr(value, "stateless", False)}


def restore(method: Method, saved: dict[str, Any]) -> None:
    """Put saved attributes back: modules in place, tensors moved to the method's device."""
    for key, value in saved.items():
        current = getattr(method, key, None)
        if isinstance(current, nn.Module):
            current.load_state_dict(value)
        elif isinstance(current, nn.Parameter):
            current.data = value.to(method.device)
        else:
            setattr(method, key, _moved(value, method.device))


def count(value: Any) -> int:
    """Scalars held by all tensors of a state."""
    if isinstance(value, Tensor):
        return value.numel()
    if isinstance(value, dict):
        return sum(map(count, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(count, value))
    return 0


def _plain(key: str, value: Any) -> Any:
    if isinstance(value, nn.Module):
        return {name: tensor.detach().clone() for name, tensor in value.state_dict().items()}
    if isinstance(value, Tensor):
        return value.detach().clone()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return type(value)([_plain(key, part) for part in value])
    if isinstance(value, dict):
        return {name: _plain(key, part) for name, part in value.items()}
    raise TypeError(
        f"the attribute {key!r} holds a {type(value).__name__}, which a checkpoint cannot keep; "
        "make it local to learn(), or write state_dict and load_state_dict"
    )


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, list | tuple):
        return type(value)([_moved(part, device) for part in value])
    if isinstance(value, dict):
        return {key: _moved(part, device) for key, part in value.items()}
    return value
