"""Measured costs of a cell: training, memory kept, and the size of the network it predicts with."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.stream import Stream
from benchmarks.tally import Tally
from benchmarks.types import TIL, Task
from methods.base import Method
from methods.networks import targets
from runners.cell import independence, network_used, stated
from runners.cell.kept_images import images_kept
from runners.process.shortage import shortage


def of_task(tally: Tally, task: Task) -> dict[str, int]:
    """Costs of one task, and its budget."""
    steps = task.budget.steps_for(len(task.train))
    batch = task.budget.batch_size
    return {
        "steps": tally.steps,
        "samples": tally.samples,
        "aside": tally.aside,
        "validation": tally.by_rows.get(id(task.validation.rows), 0),
        "steps_allowed": steps,
        "samples_allowed": steps * batch,
        "available": len(task.train) + sum(len(earlier.train) for earlier in task.previous),
    }


SAMPLES = 2
"""Test samples that are followed through `predict`."""


@cache
def network_parameters(name: str, input_shape: tuple[int, ...], n_outputs: int) -> int:
    """Parameters of a benchmark's network. Call it before a method is made, which may change how networks start."""
    with torch.random.fork_rng(devices=[]):
        network = targets.build(name, input_shape, n_outputs)
    return sum(p.numel() for p in network.parameters())


def declared(method: Method) -> dict[str, Any]:
    """What a method says of its memory: whether it is given earlier tasks, and how many of their samples it keeps.

    Raises UserError for a number that is not whole.
    """
    return {
        "rehearses": bool(method.rehearses),
        "declared": stated.whole(method.memory_samples, f"{method.name}: memory_samples"),
    }


def of_method(method: Method, stream: Stream, answers: Mapping[int, Tensor], batch_size: int) -> dict[str, Any]:
    """Size of the trained method's state and network. Do not use the method afterwards.

    answers: logits of the test samples that are asked again, and batch_size; see `runners.cell.independence`.
    """
    spec = stream.spec
    held = declared(method) | {
        "found": images_kept(method.state_dict(), stream),
        "network": spec.network,
        "network_parameters": network_parameters(spec.network, spec.input_shape, spec.n_outputs),
        "module_parameters": network_used.trained_numbers(attributes(method)),
    }
    again = independence.measure(method, stream, answers, batch_size)
    return held | _network_used(method, stream) | {"independence": again}


def attributes(method: Method) -> dict[str, Any]:
    return {name: value for name, value in vars(method).items() if name != "progress"}  # which leads to the runner


def _network_used(method: Method, stream: Stream) -> dict[str, int]:
    """Numbers that a test sample meets, maximum over tasks: `answers_with` with one known task, `_all` with all.

    A method may ask a network for each task that it knows; of one task it has one. Empty where nothing is seen.
    """
    told, seen = stream.spec.scenario is TIL, method.tasks_seen
    found = {}
    try:
        for name, tasks_seen, tasks in (("answers_with_all", seen, {0, len(stream) - 1}), ("answers_with", 1, {0})):
            method.tasks_seen = tasks_seen
            found[name] = max(_met(method, stream, j, told) for j in tasks)
    except Exception as error:  # `independence` reports a method that answers no small batch; one may count by itself
        if shortage(error):
            raise
    finally:
        method.tasks_seen = seen
    return found


def _met(method: Method, stream: Stream, j: int, told: bool) -> int:
    with independence.put_back(method.device):
        x = stream.test(j).batch(slice(0, SAMPLES)).x
        return network_used.numbers_met(partial(method.predict, task_id=j if told else None), x)
