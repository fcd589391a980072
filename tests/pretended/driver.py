"""What torch.cuda answers on a machine with the pretended device."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from benchmarks import data
from tests.pretended.capture import Graph, capturing
from tests.pretended.device import ROOT, Device
from tests.pretended.rules import Kind
from tests.pretended.tensors import CUDA, OnDevice

MEMORY = 80 << 30
PEAK = 1 << 20
_LIKE_TORCH = [sys.modules[name] for name in (__name__, Device.__module__, OnDevice.__module__, Graph.__module__)]
"""Modules that are to look like torch's: it warns from machine code, so that no such frame is on the stack."""
PROPERTIES = SimpleNamespace(multi_processor_count=132, total_memory=MEMORY, name="pretended", major=9, minor=0)


@contextlib.contextmanager
def pretended(root: Path | None = None) -> Iterator[Device]:
    """The device, while it is there. root: where the code lies of which events name the place (default: this one)."""
    device = Device(root=root or ROOT)
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        with contextlib.ExitStack() as stack:
            for module in _LIKE_TORCH:
                stack.enter_context(mock.patch.dict(vars(module), {"__name__": "torch.pretended"}))
            for name, answer in _answers(device).items():
                stack.enter_context(mock.patch.object(torch.cuda, name, answer))
            state = SimpleNamespace(is_capturing=lambda: device.capturing)
            stack.enter_context(mock.patch.object(torch.accelerator, "current_stream", lambda *_: state))
            stack.enter_context(device)
            stack.enter_context(_AsOnCuda())
            yield device
    finally:
        torch._C._set_only_lift_cpu_tensors(False)
        data._load.cache_clear()  # it may hold tensors of the device that is gone


def _answers(device: Device) -> dict[str, Any]:
    """Functions of torch.cuda by name."""
    stream = type("Stream", (_Stream,), {"device_of_all": device})
    current = _Stream.__new__(stream)

    def initialised(answer: Any) -> Any:
        """A function that needs CUDA and starts it."""

        def function(*_: Any, **__: Any) -> Any:
            device.require()
            return answer

        return function

    return {
        "_lazy_init": device.require,
        "init": device.require,
        "is_available": lambda: True,
        "is_initialized": lambda: device.initialised,
        "device_count": lambda: 1,
        "current_device": initialised(0),
        "set_device": lambda asked: _set_device(device, asked),
        "device": _Nothing,
        "get_device_name": initialised("pretended"),
        "get_device_properties": initialised(PROPERTIES),
        "get_device_capability": initialised((9, 0)),
        "mem_get_info": initialised((MEMORY, MEMORY)),
        "reset_peak_memory_stats": lambda *_: _reset_peak(device),
        "max_memory_allocated": lambda *_: PEAK if device.initialised else 0,
        "memory_allocated": lambda *_: PEAK if device.initialised else 0,
        "empty_cache": lambda: device.refuse_in_a_capture("emptying the cache"),
        "manual_seed": device.seed,
        "manual_seed_all": device.seed,
        "synchronize": lambda *_: _synchronize(device),
        "set_sync_debug_mode": lambda mode: _set_sync_debug_mode(device, mode),
        "get_sync_debug_mode": lambda: ("default", "warn", "error").index(device.sync_debug_mode),
        "Stream": stream,
        "current_stream": lambda *_: current,
        "default_stream": lambda *_: current,
        "stream": _Nothing,
        "is_current_stream_capturing": lambda: device.capturing,
        "CUDAGraph": Graph,
        "graph": lambda graph, *_, **__: capturing(device, graph),
    }


def _set_device(device: Device, asked: Any) -> None:
    device.require()
    if torch.device(asked if not isinstance(asked, int) else f"cuda:{asked}").index not in (None, 0):
        raise RuntimeError("CUDA error: invalid device ordinal")


def _reset_peak(device: Device) -> None:
    if not device.initialised:  # the allocator, asked directly
        raise RuntimeError("Invalid device argument : did you call init?")


def _synchronize(device: Device) -> None:
    device.require()
    device.event(Kind.SYNCHRONIZE, "torch.cuda.synchronize")


def _set_sync_debug_mode(device: Device, mode: int | Literal["default", "warn", "error"]) -> None:
    device.require()
    device.sync_debug_mode = ("default", "warn", "error")[mode] if isinstance(mode, int) else mode
    if device.sync_debug_mode != "default":
        text = "Synchronization debug mode is a prototype feature and does not yet detect all synchronizing operations"
        warnings.warn(text, UserWarning, stacklevel=3)


class _Stream:
    device_of_all: Device
    cuda_stream = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        self.device_of_all.require()
        self.device_of_all.streams += 1

    def wait_stream(self, _: Any) -> None: ...

    def synchronize(self) -> None:
        _synchronize(self.device_of_all)


class _Nothing(contextlib.nullcontext[None]):
    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()


class _AsOnCuda(TorchFunctionMode):
    """What Python or C++ decides by the device before any operation is dispatched."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # torch would ask the driver for the number of the current device
        args = [_numbered(value) for value in args]
        kwargs = {name: _numbered(value) for name, value in (kwargs or {}).items()}
        if func is torch.nn.functional.one_hot and isinstance(args[0], OnDevice):
            return _one_hot(*args, **kwargs)
        return func(*args, **kwargs)


def _numbered(value: Any) -> Any:
    return CUDA if isinstance(value, str | torch.device) and str(value) == "cuda" else value


def _one_hot(labels: Tensor, num_classes: int = -1) -> Tensor:
    """On CUDA the labels are not looked at where the number of classes is given."""
    n = int(labels.max()) + 1 if num_classes == -1 else num_classes
    return (labels[..., None] == torch.arange(n, device=labels.device)).long()
