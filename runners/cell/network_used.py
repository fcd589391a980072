"""Size of the network that a method predicts with: numbers that meet a sample in the operations of `predict`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from runners.cell.reach import tensors
from runners.process.dispatch import DispatchMode


class _Watch(DispatchMode):
    """Trace of a sample through `predict`: every tensor that meets the sample, or a result of it, in an operation."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.of_sample = {_storage(x)}
        """Storages that hold the sample or what was computed from it."""
        self.met: dict[StorageWeakRef, dict[int, int]] = {}
        """Of each storage that met it, numbers by place. The reference keeps its identity from being given anew."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = list(_tensors((args, kwargs)))
        follows = any(_storage(part) in self.of_sample for part in given)
        if follows:
            for part in given:
                storage, most = _storage(part), part.untyped_storage().nbytes() // part.itemsize
                if storage not in self.of_sample and part.dtype is not torch.bool:
                    places, place = self.met.setdefault(storage, {}), int(part.storage_offset())
                    places[place] = max(places.get(place, 0), min(part.numel(), most))
        result = func(*args, **kwargs)
        if follows:
            written = (
                value
                for argument, value in zip(func._schema.arguments, args, strict=False)
                if argument.alias_info is not None and argument.alias_info.is_write
            )
            self.of_sample |= {_storage(part) for part in _tensors((result, list(written)))}
        return result


def numbers_met(answer: Callable[[Tensor], object], x: Tensor) -> int:
    """Count of the numbers that meet the inputs x (b, *input_shape) on the way to an answer.

    Weights that a hypernetwork generates count once generated; what generates them does not. An operation that PyTorch
    does not dispatch is not seen.
    """
    with torch.no_grad(), _Watch(x) as watch:
        answer(x)
    return sum(sum(places.values()) for places in watch.met.values())


def trained_numbers(method: object) -> int:
    """Numbers of all tensors that attributes, containers, objects and closures lead to and that training changes.

    Parameters of networks count where they are frozen, too.
    """
    found: dict[int, Tensor] = {}
    for _, value in tensors(method):
        if value.is_meta:  # a shell, whose weights are generated
            continue
        if isinstance(value, nn.Parameter) or value.requires_grad or (value.is_leaf and value.grad is not None):
            found[id(value)] = value
    return sum(value.numel() for value in found.values())


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(value.values())
    elif isinstance(value, Iterable) and not isinstance(value, str | bytes):
        for part in value:
            yield from _tensors(part)


def _storage(value: Tensor) -> StorageWeakRef:
    return StorageWeakRef(value.untyped_storage())
