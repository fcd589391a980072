"""Search of the objects reachable from a root through attributes, and of the samples among them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor

_CLOSED = (str, bytes, int, float, complex, bool, type(None), ModuleType, type, torch.dtype, torch.device)


def tensors(root: Any) -> Iterator[tuple[str, Tensor]]:
    """Every tensor reachable through attributes, containers and closures below `root`, with its path."""
    for path, value in _objects(root):
        if isinstance(value, Tensor):
            yield path, value


def rows_of(images: Tensor) -> set[bytes]:
    """The images as bytes, one entry for each different one."""
    flat = images.detach().to("cpu", torch.float32).flatten(1).contiguous().numpy()
    return {row.tobytes() for row in flat}


def kept(tensor: Tensor, known: set[bytes], size: int) -> set[bytes]:
    """Those of the `known` images, of `size` numbers each, that are rows of a tensor."""
    if tensor.numel() < size or tensor.numel() % size or tensor.is_complex() or tensor.device.type == "meta":
        return set()
    rows = tensor.detach().to("cpu", torch.float32)
    rows = rows / 255 if tensor.dtype == torch.uint8 else rows
    return known & rows_of(rows.reshape(-1, size))


def _objects(root: Any) -> Iterator[tuple[str, Any]]:
    seen: set[int] = set()
    waiting: list[tuple[str, Any]] = [("", root)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, _CLOSED) or id(value) in seen:
            continue
        seen.add(id(value))
        yield path, value
        if not isinstance(value, Tensor):
            waiting += [(f"{path}{step}", part) for step, part in _parts(value)]


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from ((f"[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{index}]", part) for index, part in enumerate(value))
    elif isinstance(value, functools.partial):
        yield from ((".partial", part) for part in (value.func, value.args, value.keywords))
    elif isinstance(value, MethodType):
        yield ".__self__", value.__self__
    elif isinstance(value, FunctionType):
        yield from ((f".{name}", cell) for name, cell in inspect.getclosurevars(value).nonlocals.items())
        yield ".__defaults__", value.__defaults__
    elif hasattr(value, "__dict__"):
        yield from ((f".{name}", part) for name, part in vars(value).items())
