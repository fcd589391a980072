"""Successive looks at trials, so that a hopeless one costs a part of one stream and not all streams whole.

Successive halving in the manner of Jamieson & Talwalkar (2016), with fixed shares. A look compares accuracies of the
same look only: of the same tasks on the same streams.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

FIRST_PART = 0.4
"""Share of the tasks at the first look: two of five tasks are the fewest that show forgetting and its cost."""
KEPT_AFTER_PART = 0.75
"""Share of the trials that go on after a part of the first stream: early tasks say little about late ones."""
KEPT_AFTER_STREAM = 0.5
"""Share of the trials that go on after the first stream: its noise, some points, seldom hides a trial below the
median from being the best."""
SPARED = 4
"""First trials that all run to their end: the suite's own values, the published ones, and some to compare with."""


@dataclass(frozen=True)
class Rung:
    """Extent to which trials run before the next look."""

    streams: int
    tasks: int
    kept: float = 1.0
    """Share of the trials that go on from here."""


def rungs(tasks: int, streams: int, pruned: bool = True) -> list[Rung]:
    """The looks at trials of `streams` streams with `tasks` tasks each; only the last if nothing is to be pruned."""
    whole = Rung(streams, tasks)
    first = max(1, round(FIRST_PART * tasks))
    found = [Rung(1, first, KEPT_AFTER_PART)] if first < tasks else []
    found += [Rung(1, tasks, KEPT_AFTER_STREAM)] if streams > 1 else []
    return [*found, whole] if pruned else [whole]


def goes_on(number: int, accuracy: float, reached: Sequence[float], kept: float) -> bool:
    """Check whether trial `number` is among the best `kept` of the accuracies `reached` at its look, its own included.

    Trials level with the last that goes on go on too.
    """
    place = math.ceil(kept * len(reached))
    return number < SPARED or accuracy >= sorted(reached, reverse=True)[place - 1]
