"""Training samples of a task, divided into those to train on and those that are held out for validation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks import strata
from benchmarks.definition import Benchmark, HeldOut
from benchmarks.types import UserError


class Rows(NamedTuple):
    """Rows of the data set, (n,) int64, and their labels within the task, (n,) int64."""

    rows: Tensor
    labels: Tensor


class Parts(NamedTuple):
    """Training rows of a task and held-out rows."""

    train: Rows
    validation: Rows


def divide(benchmark: Benchmark, seed: int, task: int, whole: Rows) -> Parts:
    """The first samples held out, or a draw of every class in proportion, as `benchmark.held_out` says.

    Raises UserError where no sample would be left to train on.
    """
    (rows, labels), n = whole, benchmark.validation
    if n >= len(rows):
        what = "images" if benchmark.holds_images else "samples"
        raise UserError(
            f"{benchmark.name}: task {task} has {len(rows)} training {what}, and {n} are to be set "
            "aside for validation; nothing is left to train on"
        )
    if benchmark.held_out is HeldOut.FIRST or n == 0:
        return Parts(Rows(rows[n:], labels[n:]), Rows(rows[:n], labels[:n]))
    aside = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    aside[strata.drawn(labels, n, seed, benchmark.name, "validation", task)] = True
    return Parts(Rows(rows[~aside], labels[~aside]), Rows(rows[aside], labels[aside]))


def check(benchmark: Benchmark, parts: Parts, classes: Iterable[int], name: Callable[[int], str]) -> None:
    """Raise UserError, with its name, for a class (a label) without samples to train on, or to validate where drawn.

    Of the first samples, whose number the papers say, some may have no sample of a class.
    """
    n, labels = benchmark.validation, torch.cat([part.labels for part in parts])
    drawn = n > 0 and benchmark.held_out is HeldOut.DRAWN
    for word, part in (("training", parts.train), *([("validation", parts.validation)] if drawn else [])):
        lacking = min(set(classes) - set(part.labels.tolist()), default=None)
        if lacking is not None:
            what = "images" if benchmark.holds_images else "samples"
            has = f"has {int((labels == lacking).sum())} of the {len(labels)} training {what} of its task"
            raise UserError(
                f"{benchmark.name}: {name(lacking)} {has}, and none is left as a {word} {what[:-1]} when {n} are set "
                f"aside for validation; give the class more {what} or leave it out, or set another number aside"
            )
