"""Check whether shipped results reproduce: cells of a results folder against reference records of the same key.

The same key means the same code, configuration, budget and seed, so that only the machine and the versions of the
packages can make a difference. Floating-point sums differ between processors; over thousands of steps that may grow.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import fmean

from reports.words import count
from runners.records.record import Status
from runners.records.reference_records import ReferenceCell

ACCURACY = "accuracy.csv"


@dataclass
class Repeated:
    """Cells of one benchmark in one scenario that were run here and are also shipped."""

    benchmark: str
    scenario: str
    identical: int = 0
    """Cells with every accuracy the same to the last digit."""
    other_end: list[str] = field(default_factory=list)
    """Cells that ended differently (diverged, skipped or done), in words."""
    changes: dict[str, dict[int, float]] = field(default_factory=dict)
    """ACC here minus ACC shipped, a fraction, by label and seed; finished cells only."""

    @property
    def cells(self) -> int:
        return sum(map(len, self.changes.values())) + len(self.other_end)

    @property
    def largest(self) -> tuple[float, str, int]:
        """Change of ACC of largest magnitude, its label and its seed; (0, "", 0) where there is none."""
        found = [(change, label, seed) for label, seeds in self.changes.items() for seed, change in seeds.items()]
        return max(found, key=lambda each: abs(each[0]), default=(0.0, "", 0))

    @property
    def largest_mean(self) -> tuple[float, str]:
        """The same of a method's mean over its seeds here."""
        found = [(fmean(seeds.values()), label) for label, seeds in self.changes.items()]
        return max(found, key=lambda each: abs(each[0]), default=(0.0, ""))


@dataclass
class Check:
    """Comparison of the cells, and the cells that could not be compared."""

    groups: dict[tuple[str, str], Repeated] = field(default_factory=dict)
    taken: int = 0
    """Cells that `--reference` had taken from the reference records: they show nothing."""
    unknown: int = 0
    """Cells without a reference record of their key."""

    def in_words(self) -> Iterator[str]:
        """One line per benchmark and scenario, then the cells left out."""
        for group in self.groups.values():
            change, label, seed = group.largest
            mean, of = group.largest_mean
            text = (
                f"{group.benchmark} {group.scenario}: {group.identical} of "
                f"{count(group.cells, 'cell')} repeated are identical"
            )
            if group.identical < group.cells - len(group.other_end):
                text += (
                    f"; ACC changed by at most {100 * abs(change):.2f} points ({label}, seed {seed}), the mean of a "
                    f"method by at most {100 * abs(mean):.2f} ({of})"
                )
            yield text
            yield from group.other_end
        if self.taken:
            yield f"taken from the reference records, not run, so that they show nothing: {self.taken}"
        if self.unknown:
            yield f"without a reference record (other code, settings, length or seed): {self.unknown}"


def check(own: Iterable[ReferenceCell], reference: Mapping[str, ReferenceCell]) -> Check:
    """Compare finished cells with the reference records of the same key."""
    found = Check()
    for cell in own:
        known, record = reference.get(cell.record.key), cell.record
        if known is None:
            found.unknown += 1
        elif known.record.started == record.started and known.record.environment == record.environment:
            found.taken += 1
        else:
            place = (record.benchmark, str(record.scenario))
            _compare(cell, known, found.groups.setdefault(place, Repeated(*place)))
    return found


def _compare(cell: ReferenceCell, known: ReferenceCell, group: Repeated) -> None:
    record = cell.record
    if record.status is not known.record.status:
        group.other_end.append(
            f"  {record.label} seed {record.seed}: {record.status} here, {known.record.status} shipped"
        )
        return
    same = cell.tables.get(ACCURACY) == known.tables.get(ACCURACY)
    group.identical += same
    change = 0.0 if same or record.status is not Status.DONE else _acc(cell) - _acc(known)
    group.changes.setdefault(record.label, {})[record.seed] = change


def _acc(cell: ReferenceCell) -> float:
    """Mean accuracy over all tasks after the last one."""
    last = list(csv.reader(cell.tables[ACCURACY].splitlines()))[-1]
    return fmean(float(text) for text in last[1:])
