"""Checks of a method's costs: steps, parameters, host synchronisation."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import CodeType
from typing import Any

import torch

from reports.deviations import beyond
from runners.cell import reach, stated
from runners.conformance.check import Check
from runners.conformance.trial import EASY, SHORT, Trial
from runners.process.dispatch import DispatchMode

WAITS_PER_STEP = 0.5
_WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim")
"""Operations whose result, or its shape, the host has to wait for on a GPU."""


class _Counter(DispatchMode):
    """Counter of operations called from `file` that synchronise host and GPU; works without a GPU.

    The parts that methods share take other ways on a GPU than on a CPU, so they are not judged here.
    """

    def __init__(self, file: str) -> None:
        super().__init__()
        self.file, self.count = file, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name.removeprefix("aten::") in _WAITING:
            frame, on_host = sys._getframe(1), False
            while frame is not None and _is_shared(frame.f_code.co_filename):
                on_host = on_host or _reads_step(frame.f_code)
                frame = frame.f_back
            self.count += frame is not None and not on_host and frame.f_code.co_filename == self.file
        return func(*args, **(kwargs or {}))


def _is_shared(file: str) -> bool:
    return "/torch/" in file or file == __file__


def _reads_step(code: CodeType) -> bool:
    """Check for the function by which an optimiser reads its counter of steps, which lies on the host on a GPU too."""
    return code.co_name == "_get_value" and "/torch/optim/" in code.co_filename


@contextmanager
def _counted(trial: Trial) -> Iterator[list[int]]:
    """Context whose list holds the number of synchronisations at the end."""
    counted: list[int] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if trial.device.type == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield counted
            finally:
                torch.cuda.set_sync_debug_mode("default")
            counted.append(sum("synchroniz" in str(warning.message) for warning in caught))
        else:
            with _Counter(inspect.getfile(trial.cls)) as counter:
                yield counted
            counted.append(counter.count)


def _budget(trial: Trial) -> Iterator[str]:
    allowed = EASY.steps
    assert allowed is not None
    for j, (updates, reported) in enumerate(zip(trial.run.updates, trial.run.reported, strict=True)):
        if updates > allowed:
            yield f"on task {j} it takes {updates} optimiser steps; the budget is {allowed}"
        elif reported > allowed:
            yield f"on task {j} its loss curve goes to step {reported}; the budget is {allowed}"
    for clause in beyond(trial.run.taken):
        yield f"it {clause}"


def _parameters(trial: Trial) -> Iterator[str]:
    method, stored = trial.run.method, trial.run.stored
    trained = stated.whole(method.parameters_trained(), "parameters_trained")
    if trained <= 0 and not trial.in_closed_form:
        yield "parameters_trained says that nothing is trained"
    if min(stored) <= 0:
        yield "parameters_stored says that nothing must be kept"
    if stored[0] and stored[1] < stored[0]:
        yield f"parameters_stored falls from {stored[0]} to {stored[1]} as tasks are added"
    saved = {key: value for key, value in method.state_dict().items() if not key.startswith("audit")}
    held = sum(part.numel() * part.element_size() for _, part in reach.tensors(saved)) // 4
    if stored[-1] < min(held, trained):
        yield f"parameters_stored says {stored[-1]}, but the state holds {held} numbers and {trained} are trained"


def _waits(trial: Trial) -> Iterator[str]:
    counts = []
    for steps in (4, 12):
        stream = trial.opened(replace(SHORT, steps=steps))
        method, task = trial.made(stream), stream.task(0)
        method.begin(task)
        with _counted(trial) as counted:
            method.learn(task)
        counts += counted
    per_step = (counts[1] - counts[0]) / 8
    if per_step > WAITS_PER_STEP:
        yield f"the host waits for the device {per_step:.1f} times in every step of training"


CHECKS = (
    Check(
        "budget",
        "no more optimiser steps, samples or passes are taken than the budget allows, and none on validation samples",
        "All methods train for the same number of steps; one that takes more is compared unfairly.",
        _budget,
    ),
    Check(
        "counters",
        "the numbers of trained and stored parameters are plausible",
        "The report sets accuracy against memory; a method that counts too little looks cheaper than it is.",
        _parameters,
    ),
    Check(
        "waiting",
        "the inner loop does not wait for the device (no .item(), float() or if on a tensor)",
        "Every wait stops the queue of a GPU; small networks then train several times slower.",
        _waits,
    ),
)
