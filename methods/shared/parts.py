"""Parts reachable from a method's attributes: networks, parameters and tensors, in containers and dataclasses too."""

from __future__ import annotations

import dataclasses
import enum
from collections import deque
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

_NOT_STATE = {
    "spec", "config", "device", "seed", "step", "progress", "curve", "stepped", "step_by_step", "memory_samples",
    "_built", "_given",
}  # fmt: skip

PLAIN = (list, tuple, dict, set, frozenset, deque)
"""Containers that a checkpoint recreates."""
PARTS_AT_MOST = 1_000_000
"""Largest length of a container that is searched."""


def attributes(method: Any) -> dict[str, Any]:
    """Attributes that may change. Objects with `stateless = True` are excluded."""
    kept = {key: value for key, value in vars(method).items() if key not in _NOT_STATE}
    return {key: value for key, value in kept.items() if not getattr(value, "stateless", False)}


def children(value: Any) -> dict[Any, Any] | None:
    """Contents of a container by index, key or field name; None for anything else."""
    if isinstance(value, dict):
        return value
    if isinstance(value, list | tuple | set | frozenset | deque):
        return dict(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return None


def below(path: str, key: Any) -> str:
    """Path of a part in Python's notation."""
    return f"{path}.{key}" if isinstance(key, str) and key.isidentifier() else f"{path}[{key!r}]"


def walk(path: str, value: Any, above: frozenset[int] = frozenset()) -> Iterator[tuple[str, Any]]:
    """Yield the value and all contents of its containers, each with its path; cycles are skipped."""
    if id(value) in above:
        return
    yield path, value
    if isinstance(value, list | tuple | dict | set | frozenset | deque) and len(value) > PARTS_AT_MOST:
        return
    for key, part in (children(value) or {}).items():
        yield from walk(below(path, key), part, above | {id(value)})


def networks(method: Any) -> dict[str, nn.Module]:
    """Map each network's first path to the network, each once."""
    found: dict[int, tuple[str, nn.Module]] = {}
    for key, value in vars(method).items():
        for path, part in walk(key, value):
            if isinstance(part, nn.Module):
                found.setdefault(id(part), (path, part))
    return dict(found.values())


def parameters(method: Any) -> list[nn.Parameter]:
    """List all parameters, of networks and free-standing, each once."""
    found: dict[int, nn.Parameter] = {}
    for key, value in vars(method).items():
        for _, part in walk(key, value):
            some = part.parameters() if isinstance(part, nn.Module) else [part]
            found |= {id(p): p for p in some if isinstance(p, nn.Parameter)}
    return list(found.values())


def fixed(method: Any) -> dict[str, object]:
    """Parts that a checkpoint is loaded into, by path, each with its structure, which must be the same after `build`.

    Networks, parameters and objects of unknown classes are loaded in place. The structure of a network names the first
    place of each tensor, so that a tensor shared by two networks must be shared after `build` too.
    """
    found: dict[str, object] = {}
    first: dict[int, str] = {}
    for path, tensor in anchors(method).items():
        found[path] = first.setdefault(id(tensor), path), tuple(tensor.shape)
    for key, value in attributes(method).items():
        for path, part in walk(key, value):
            if isinstance(part, enum.Enum) or (children(part) is not None and type(part) not in PLAIN):
                found[path] = f"{type(part).__module__}.{type(part).__qualname__}"
    return found


def flags(method: Any) -> dict[str, bool]:
    """Training mode of each part of a network, and trainability of each parameter, by path."""
    found: dict[str, bool] = {}
    for path, network in networks(method).items():
        found |= {f"{path}:{name}": part.training for name, part in network.named_modules()}
        found |= {f"{path}:{name}": p.requires_grad for name, p in network.named_parameters()}
    return found


def set_flags(method: Any, wanted: dict[str, bool]) -> None:
    """Set the given flags and leave all others."""
    for path, network in networks(method).items():
        for name, part in network.named_modules():
            part.training = wanted.get(f"{path}:{name}", part.training)
        for name, parameter in network.named_parameters():
            parameter.requires_grad = wanted.get(f"{path}:{name}", parameter.requires_grad)


def anchors(method: Any) -> dict[str, Tensor]:
    """Tensors that are loaded in place, by path: those of networks, and free-standing parameters."""
    found: dict[str, Tensor] = {}
    alone: dict[str, nn.Parameter] = {}
    for key, value in attributes(method).items():
        for path, part in walk(key, value):
            if isinstance(part, nn.Module):
                found |= {f"{path}:{name}": tensor for name, tensor in _tensors(part).items()}
            elif isinstance(part, nn.Parameter):
                alone[path] = part
    owned = {id(tensor) for tensor in found.values()}
    return found | {path: part for path, part in alone.items() if id(part) not in owned}


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """Tensors of the network's state by name, not copies."""
    kept = network.state_dict(keep_vars=True)
    return {name: value for name, value in kept.items() if isinstance(value, Tensor)}
