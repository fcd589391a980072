"""CUDA graphs of the pretended device: a body's operations are noted, not felt, and run again when replayed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

if TYPE_CHECKING:
    from tests.pretended.device import Device

Run = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
"""Runs an operation on the values of the device's tensors."""


def mapped(function: Callable[[Any], Any], values: Any) -> Any:
    """A function of every value, also of those in the lists that an operation takes."""
    if isinstance(values, tuple | list):
        return type(values)([mapped(function, value) for value in values])
    if isinstance(values, dict):
        return {name: mapped(function, value) for name, value in values.items()}
    return function(values)


@dataclass
class Graph:
    """What torch.cuda.CUDAGraph is: operations on the very tensors that they were captured with."""

    operations: list[tuple[Run, Any, Any, Any, Any]] = field(default_factory=list)
    before: dict[int, tuple[Any, Any]] = field(default_factory=dict)
    """Storages that the body met, by address, each with a copy of what it held then."""

    def run(self, run: Run, func: Any, args: Any, kwargs: Any, on_device: set[int]) -> Any:
        """Run an operation of the body and note it. on_device: identities of the device's tensors among the arguments.

        Numbers of the CPU are noted as they are now, as a kernel's arguments are.
        """

        def noted(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            if id(value) not in on_device:
                return value.clone()
            storage = value.untyped_storage()
            self.before.setdefault(storage.data_ptr(), (storage, storage.clone()))
            return value

        args, kwargs = mapped(noted, args), mapped(noted, kwargs)
        result = run(func, args, kwargs)
        self.operations.append((run, func, args, kwargs, result))
        return result

    def undo(self) -> None:
        """Put back what the body changed: a capture does not run it."""
        with _disable_current_modes():
            for storage, saved in self.before.values():
                storage.copy_(saved)
        self.before.clear()

    def replay(self) -> None:
        with torch.no_grad(), _disable_current_modes():
            for run, func, args, kwargs, recorded in self.operations:
                mapped_pairs(_copy, recorded, run(func, args, kwargs))


def _copy(old: Any, new: Any) -> None:
    if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
        old.copy_(new)


def mapped_pairs(function: Callable[[Any, Any], None], old: Any, new: Any) -> None:
    """Call a function with the values of two results of one operation."""
    if isinstance(old, tuple | list):
        for a, b in zip(old, new, strict=True):
            mapped_pairs(function, a, b)
    else:
        function(old, new)


@contextlib.contextmanager
def capturing(device: Device, graph: Graph) -> Iterator[None]:
    """As torch.cuda.graph. An error inside leaves the process as CUDA does: nothing of the device works any more."""
    device.refuse_in_a_capture("a capture")
    device.graph, random_state = graph, device.random_state
    try:
        yield
    except BaseException:
        device.spoilt = True
        raise
    finally:
        device.graph, device.random_state = None, random_state
        graph.undo()


def recorder(device: Device) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """A recorder as methods.shared.stepping has it, on the current stream."""

    def record(body: Callable[[], None]) -> Callable[[], None]:
        graph = Graph()
        with capturing(device, graph):
            body()
        return graph.replay

    return record
