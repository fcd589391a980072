"""Training steps of `Method.fit`: one by one, or captured once and replayed as a CUDA graph.

A step of a small network is a hundred kernels of a few microseconds, which the host cannot issue as fast as the
device runs them. Captured, a whole step (batch, loss, gradient, optimiser, hook) is one launch. Capture is correct
only if every step runs the same operations on the same tensors, which `Method.capturable` declares.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from benchmarks.types import UserError
from methods.shared.waits import first_wait

WARM_UP = 3
"""Number of steps before a capture, on its stream, in which libraries make their plans and optimisers their state.
They train. The last one detects waits of the host for the device, which a capture does not permit."""

log = logging.getLogger(__name__)

Step = Callable[[Tensor], Tensor]
"""Training step: sample indices (batch,) -> loss, 0-d."""
Recorder = Callable[[Callable[[], None]], Callable[[], None]]
"""Function that records a function's work on the device without running it, and returns a function that runs it.

It may have `aside(body)`, which runs a warm-up step, and `rehearse(body)`, which runs the last one and returns the
line at which the host waited for the device, if any.
"""


class CaptureFailed(UserError):
    """Capture that failed half-way: torch's allocator and random generator are unusable in this process."""

    def __init__(self, why: str) -> None:
        what = f"the training steps could not be captured as a CUDA graph ({why})"
        super().__init__(f"{what}; with CONTINUAL_GRAPHS=0 they run one by one")
        self.why = why

    def __reduce__(self) -> tuple[type[CaptureFailed], tuple[str]]:
        return CaptureFailed, (self.why,)


def recorder_for(device: torch.device) -> Recorder | None:
    """Recorder of steps on this device, or None if they run one by one. CONTINUAL_GRAPHS=0 turns recording off."""
    if device.type != "cuda" or os.environ.get("CONTINUAL_GRAPHS", "1") == "0":
        return None
    return CudaRecorder(device)


@cache
def _stream(index: int) -> torch.cuda.Stream:
    """Stream of a device's captures: one for all, because cuBLAS keeps a workspace for every stream it has seen."""
    return torch.cuda.Stream(index)


class CudaRecorder:
    """Recorder that captures on its own stream, on which the warm-up runs too."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = _stream(torch.cuda.current_device() if device.index is None else device.index)

    def __call__(self, body: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        # thread_local: other threads of a worker (pinned copies, the pipe) may use the device meanwhile
        capture = torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local")
        with torch.cuda.device(self.device), capture:
            body()
        return graph.replay

    def aside(self, body: Callable[[], None]) -> None:
        """Run on the capture's stream, ordered with the current one."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            body()
        current.wait_stream(self.stream)

    def rehearse(self, body: Callable[[], None]) -> str | None:
        """Same as `aside`; returns the line at which the host waited for the device, or None."""
        return first_wait(lambda: self.aside(body))


class Plain:
    """Runner of steps one by one."""

    def __init__(self, step: Step, why: str = "") -> None:
        """why: reason against a capture that was requested."""
        self.step, self.how = step, f"step by step: {why}" if why else "step by step"

    def run(self, batches: Sequence[Tensor]) -> Tensor:
        """Run one step per batch of sample indices; returns their losses (n,) on the device."""
        return torch.stack([self.step(indices) for indices in batches])


class Replayed:
    """Runner of a step recorded once and replayed; batches and losses are in buffers that do not move.

    settings: the optimiser's numbers on the host, e.g. the learning rate. They are part of a recording, so the step is
    recorded again when they change. If the host waits for the device in a step, steps run one by one. Raises
    CaptureFailed if a recording still fails.
    """

    def __init__(
        self, step: Step, record: Recorder, settings: Callable[[], Any],
        device: torch.device, longest: int, batch_size: int,
    ) -> None:  # fmt: skip
        self.step, self.record, self.settings = step, record, settings
        self.batches = torch.zeros(longest, batch_size, dtype=torch.int64, device=device)
        self.losses = torch.zeros(longest, device=device)
        self.at = torch.zeros(1, dtype=torch.int64, device=device)
        self.warm_ups = WARM_UP
        self.recorded: Callable[[], None] | None = None
        self.recorded_with: Any = None
        self.failure: str | None = None

    @property
    def how(self) -> str:
        """Execution of the steps so far, in words."""
        if self.failure:
            return f"step by step: {self.failure}"
        return "captured" if self.recorded else "step by step: too few steps"

    def run(self, batches: Sequence[Tensor]) -> Tensor:
        """Run the steps; same contract as `Plain.run`."""
        n = len(batches)
        self.batches[:n].copy_(torch.stack(list(batches)))
        self.at.zero_()
        warm = min(n, self.warm_ups)
        for _ in range(warm):
            self._warm_up()
        for _ in range(n - warm):
            self._recorded()()
        return self.losses[:n].clone()

    def _warm_up(self) -> None:
        self.warm_ups -= 1
        aside = getattr(self.record, "aside", lambda body: body())
        if self.warm_ups:
            aside(self._body)
            return
        line = getattr(self.record, "rehearse", aside)(self._body)
        if line is not None:
            self.failure = f"the host waits for the device at {line}"
            log.warning("training steps are not captured as a CUDA graph: %s", self.failure)

    def _recorded(self) -> Callable[[], None]:
        if self.failure:
            return self._body
        settings = self.settings()
        if self.recorded is None or settings != self.recorded_with:
            self.recorded = None  # frees the old recording's memory first
            try:
                self.recorded, self.recorded_with = self.record(self._body), settings
            except RuntimeError as error:
                raise CaptureFailed((str(error).strip() or type(error).__name__).splitlines()[0]) from error
        return self.recorded

    def _body(self) -> None:
        loss = self.step(self.batches.index_select(0, self.at)[0])
        self.losses.index_copy_(0, self.at, loss.reshape(1).to(self.losses.dtype))
        self.at.add_(1)


def host_settings(optimizer: Any) -> Any:
    """Numbers of the optimiser on the host; tensors are compared by identity."""
    groups = getattr(optimizer, "param_groups", None)
    if groups is None:
        return getattr(optimizer, "lr", None)
    return [
        {name: id(value) if isinstance(value, Tensor) else value for name, value in group.items() if name != "params"}
        for group in groups
    ]
