"""The pretended device itself: it runs operations on the CPU and keeps what they mean for the host."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.pretended.capture import Graph, mapped
from tests.pretended.rules import WAITS, Call, Kind, judged
from tests.pretended.tensors import OnDevice

ROOT = Path(__file__).resolve().parents[2]
_NO_KERNEL = {
    "view", "_unsafe_view", "t", "transpose", "select", "slice", "detach", "expand", "alias", "unsqueeze", "squeeze",
    "split", "split_with_sizes", "unbind", "permute", "as_strided", "empty", "empty_like", "new_empty", "reshape",
    "empty_strided", "diagonal", "_reshape_alias", "unfold", "lift_fresh", "new_empty_strided",
}  # fmt: skip


@dataclass(frozen=True)
class Event:
    """Host and device had to do with each other: how, in which operation, in which phase of a test, and where."""

    kind: Kind
    operation: str
    phase: str
    place: str
    """File, line and function of the project's code."""

    @property
    def waits(self) -> bool:
        """Whether the host waited."""
        return self.kind in WAITS

    def __str__(self) -> str:
        return f"{self.place}: {self.operation} ({self.kind}), during {self.phase}"


@dataclass(eq=False)
class Device(TorchDispatchMode):
    """State of the device and of the process that uses it; a mode that sees every operation."""

    root: Path = ROOT
    phase: str = "other"
    events: list[Event] = field(default_factory=list)
    kernels: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(phase, operation) -> how often it ran on the device; views and empty tensors need no kernel."""
    initialised: bool = False
    """Whether CUDA has been asked for anything that needs it."""
    spoilt: bool = False
    """Whether a capture failed in this process."""
    streams: int = 0
    """Streams that were made."""
    sync_debug_mode: Literal["default", "warn", "error"] = "default"
    graph: Graph | None = None
    """What is being captured."""
    random_state: Tensor = field(default_factory=lambda: torch.Generator().manual_seed(1).get_state())

    def __post_init__(self) -> None:
        super().__init__()

    @property
    def capturing(self) -> bool:
        return self.graph is not None

    def seed(self, seed: int) -> None:
        """Seed the device's generator; the CPU's gives other numbers for the same seed."""
        self.refuse_in_a_capture("seeding")
        self.random_state = torch.Generator().manual_seed(seed ^ 0x5EED5EED).get_state()

    # -- what happens ------------------------------------------------------------------------

    def event(self, kind: Kind, operation: str) -> None:
        """Keep it. Raises RuntimeError in a capture, and as the sync debug mode says."""
        self.events.append(Event(kind, operation, self.phase, self._place()))
        if self.capturing:
            raise RuntimeError(f"operation not permitted when stream is capturing: {operation} ({kind})")
        if kind in WAITS and self.sync_debug_mode == "error":
            raise RuntimeError("called a synchronizing CUDA operation")
        if kind in WAITS and self.sync_debug_mode == "warn":
            warnings.warn("called a synchronizing CUDA operation", UserWarning, stacklevel=2)

    def refuse_in_a_capture(self, operation: str) -> None:
        """Raise RuntimeError if a capture is under way."""
        if self.capturing:
            self.event(Kind.FORBIDDEN, operation)

    @contextlib.contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Name the phase of what happens inside."""
        before, self.phase = self.phase, phase
        try:
            yield
        finally:
            self.phase = before

    def waits(self, *phases: str) -> list[Event]:
        """The events for which the host waited, in these phases or in all."""
        return [event for event in self.events if event.waits and (not phases or event.phase in phases)]

    def _place(self) -> str:
        frame = sys._getframe(1)
        while frame is not None:
            file = Path(frame.f_code.co_filename)
            if file.is_relative_to(self.root) and not {"tests", "site-packages", ".venv"} & set(file.parts):
                return f"{file.relative_to(self.root)}:{frame.f_lineno} {frame.f_code.co_name}"
            frame = frame.f_back
        return "?"

    # -- operations --------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call = Call(func, args, kwargs or {})
        if call.name in ("pin_memory", "_pin_memory", "is_pinned"):
            return _pinned(call)
        if not call.concerns_the_device:
            return self._on_the_host(call)
        self.require()
        kind = judged(call)
        if kind is not None:
            self.event(kind, call.name)
        if call.name not in _NO_KERNEL:
            self.kernels[self.phase, call.name] += 1
        return self._wrapped(call, self._run(call))

    def require(self) -> None:
        """CUDA is needed. Raises RuntimeError in a process in which a capture failed."""
        self.initialised = True
        if self.spoilt:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    def _on_the_host(self, call: Call) -> Any:
        if self.capturing and call.is_random:
            self.event(Kind.HOST_RANDOM, call.name)
        return call.func(*call.args, **call.kwargs)

    def _run(self, call: Call) -> Any:
        """The operation on the values."""
        kwargs = {name: value for name, value in call.kwargs.items() if name != "pin_memory"}
        if call.wanted is not None:
            kwargs["device"] = torch.device("cpu")
        args, kwargs = mapped(_inner, call.args), mapped(_inner, kwargs)
        run = self._draw if call.is_random and kwargs.get("generator") is None else _apply
        if self.graph is None:
            return run(call.func, args, kwargs)
        return self.graph.run(run, call.func, args, kwargs, {id(tensor.elem) for tensor in call.here})

    def _wrapped(self, call: Call, result: Any) -> Any:
        """The result as tensors of the device; an operation in place gives the tensor that it was given."""
        if not call.gives_here:
            return result
        known = {id(tensor.elem): tensor for tensor in call.here}

        def wrapped(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            return known[id(value)] if id(value) in known else OnDevice(value)

        return mapped(wrapped, result)

    def _draw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation that draws random numbers, with the device's generator."""
        of_the_host = torch.get_rng_state()
        torch.set_rng_state(self.random_state)
        try:
            return func(*args, **kwargs)
        finally:
            self.random_state = torch.get_rng_state()
            torch.set_rng_state(of_the_host)


def _pinned(call: Call) -> Any:
    """A copy in memory that no driver is asked for, which says of itself that it is pinned; or whether it is."""
    tensor = call.args[0]
    if call.name == "is_pinned":
        return getattr(tensor, "pinned", False)
    if isinstance(tensor, OnDevice):
        raise RuntimeError("cannot pin a tensor of cuda:0: only dense CPU tensors can be pinned")
    copied = tensor.clone()
    copied.pinned = True
    return copied


def _apply(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return func(*args, **kwargs)


def _inner(value: Any) -> Any:
    return value.elem if isinstance(value, OnDevice) else value
