"""Check that predictions are stateless: some test samples are predicted again, singly and in mixed batches."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from benchmarks.stream import Stream
from benchmarks.types import TIL
from methods.base import Method
from runners.process.precision import ieee_float32
from runners.process.shortage import first_line, shortage

PICKED, IN_ALL, ALONE = 100, 2000, 4
"""Samples of each task that are asked again, of all tasks together, and of each task one by one."""
RELATIVE, ABSOLUTE = 1e-3, 1e-4
"""Two classes whose logits lie nearer to each other are level: another batch is summed in another order."""


def picked(n: int, n_tasks: int) -> Tensor:
    """Indices of a task's n test samples to predict again: evenly spread, at most 100, 2,000 over all tasks."""
    count = min(n, PICKED, max(ALONE, IN_ALL // n_tasks))
    return torch.linspace(0, n - 1, count).long()


def measure(
    method: Method, stream: Stream, answers: Mapping[int, Tensor], batch_size: int = IN_ALL
) -> dict[str, int | str]:
    """Numbers of answers `asked` again and of those that `differ`, and `error` where the method gave none.

    answers: of each task, the logits (n, classes) of its picked samples as they were given in whole batches. The
    method is not to be used afterwards, as its own `predict` may change it. batch_size: of evaluation; no more samples
    are asked together.
    """
    try:
        with put_back(method.device), torch.no_grad(), ieee_float32():
            return _measure(method, stream, answers, batch_size)
    except Exception as error:
        if shortage(error):
            raise
        return {"asked": 0, "differ": 0, "error": first_line(error)[:200]}


@contextmanager
def put_back(device: torch.device) -> Iterator[None]:
    """Context that restores all random generators."""
    own, numpys = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(own)
        np.random.set_state(numpys)


def _measure(method: Method, stream: Stream, answers: Mapping[int, Tensor], size: int) -> dict[str, int | str]:
    told = stream.spec.scenario is TIL
    inputs = {j: _inputs(stream, j) for j in answers}
    asked = differ = 0
    for tasks in [[j] for j in inputs] if told else [list(inputs)]:
        order = _mixed([len(inputs[j]) for j in tasks])
        x, before = torch.cat([inputs[j] for j in tasks])[order], torch.cat([answers[j] for j in tasks])[order]
        after = torch.cat([method.predict(part, tasks[0] if told else None) for part in x.split(size)])
        asked, differ = asked + len(order), differ + _differing(before, after)
    for j, x in inputs.items():
        for i in range(min(ALONE, len(x))):
            after = method.predict(x[i : i + 1], j if told else None)
            asked, differ = asked + 1, differ + _differing(answers[j][i : i + 1], after)
    return {"asked": asked, "differ": differ}


def _inputs(stream: Stream, j: int) -> Tensor:
    samples = stream.test(j)
    return samples.batch(picked(len(samples), len(stream)).to(samples.device)).x


def _mixed(lengths: list[int]) -> Tensor:
    """An order of all samples in which the tasks take turns, each from its last sample to its first."""
    places = torch.cat([torch.arange(n).flip(0) for n in lengths])
    return places.argsort(stable=True)


def _differing(before: Tensor, after: Tensor) -> int:
    """Number of answers whose class changed, not counting ties in either of the two. Logits (n, classes)."""
    if before.shape != after.shape:
        return len(before)
    first, second = before.argmax(1, keepdim=True), after.argmax(1, keepdim=True)
    apart = torch.ones(len(before), dtype=torch.bool, device=before.device)
    for logits in (before, after):
        gap = (logits.gather(1, first) - logits.gather(1, second)).abs().squeeze(1)
        apart &= gap > ABSOLUTE + RELATIVE * logits.abs().amax(1)
    return int(apart.sum())
