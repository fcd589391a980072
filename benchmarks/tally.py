"""Counts of optimiser steps and of the training rows handed out for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook


@dataclass
class Tally:
    """Counts of one task. Rows are those handed out while gradients are on, augmented or not."""

    steps: int = 0
    """Optimiser steps, in `fit` and in loops of the method's own."""
    samples: int = 0
    """Rows handed out up to the last step."""
    aside: int = 0
    """Rows handed out after the last step: importances, statistics, or steps that no optimiser takes."""

    by_rows: dict[int, int] = field(default_factory=dict)
    """Rows handed out of each view, by the id of its `rows` tensor."""

    def step(self, count: int = 1) -> None:
        self.steps += count
        self.samples, self.aside = self.samples + self.aside, 0

    def rows(self, count: int) -> None:
        self.aside += count


_current: Tally | None = None


@contextmanager
def counting() -> Iterator[Tally]:
    """Context that counts all steps and rows of this process."""
    global _current
    outer, tally = _current, Tally()

    def stepped(*_: Any) -> None:
        tally.step()

    handle = register_optimizer_step_post_hook(stepped)
    _current = tally
    try:
        yield tally
    finally:
        _current = outer
        handle.remove()


def handed_out(count: int, view: Tensor) -> None:
    """Count rows handed out of the view with the row numbers `view`, inside `counting`."""
    if _current is not None:
        _current.rows(count)
        _current.by_rows[id(view)] = _current.by_rows.get(id(view), 0) + count


@contextmanager
def loop(steps: int, batch_size: int) -> Iterator[None]:
    """Count the steps of `fit` as a minimum, also where an optimiser has no hooks or a captured step is replayed."""
    tally = _current
    if tally is None:
        yield
        return
    steps_before, rows_before = tally.steps, tally.samples + tally.aside
    yield
    rows = tally.samples + tally.aside - rows_before
    tally.rows(max(0, steps * batch_size - rows))
    tally.step(max(0, steps - (tally.steps - steps_before)))
