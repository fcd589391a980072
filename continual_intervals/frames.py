"""Records as tidy tables, one observation a line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.types import UserError, suggestion
from reports import load as records
from reports.machines import machine
from reports.record import Record
from reports.study import Entry, Study, study

PLACE = ["benchmark", "scenario", "label", "seed"]
"""Columns that every table begins with; the label is the method's, with what sets its variants apart."""


@dataclass(frozen=True)
class Frames:
    """Tables of a set of records. Accuracies are fractions; what was not measured has no line."""

    study: Study
    """Study behind the report of these records; `plot` draws it."""

    @property
    def cells(self) -> pd.DataFrame:
        """A line for each cell: names, status, metrics, costs of the whole stream, and the record's folder."""
        return self.study.frame

    @cached_property
    def R(self) -> pd.DataFrame:
        """Test accuracy on `task` after learning `after` tasks (0: before any training)."""
        return self._table(["after", "task", "accuracy"], lambda record: _long(record.accuracy))

    @cached_property
    def C(self) -> pd.DataFrame:
        """Certified accuracy, in the shape of R; of methods that certify."""
        return self._table(["after", "task", "certified"], lambda record: _long(record.certified))

    @cached_property
    def inferred(self) -> pd.DataFrame:
        """Accuracy of task inference, in the shape of R; of methods that infer the task."""
        return self._table(["after", "task", "inferred"], lambda record: _long(record.inferred))

    @cached_property
    def claims(self) -> pd.DataFrame:
        """Promises about old tasks, kept or broken; the columns are those of claims.csv (docs/records.md)."""
        names = ["after", "task", "contained", "outside", "drift", "median_width", "median_logit_width", "violation"]
        return self._table(
            [*names, "reason", "certified_train"], lambda record: (asdict(row).values() for row in record.claims)
        )

    @cached_property
    def costs(self) -> pd.DataFrame:
        """Seconds of training and evaluation, parameters stored, of each task, and the machine of these clocks."""
        return self._table(["task", "train_seconds", "evaluate_seconds", "parameters_stored", "machine"], _costs)

    def where(self, **names: str | int | Iterable[str | int]) -> Frames:
        """Tables of the cells with these values of benchmark, scenario, label, method, seed or status.

        Raises UserError for an unknown name, and where no cell is left.
        """
        known = (*PLACE, "method", "status")
        for name in names:
            if name not in known:
                raise UserError(f"cells have no {name!r}.{suggestion(name, known)} They have {', '.join(known)}")
        wanted = {name: _several(value) for name, value in names.items()}
        left = [e for e in self.study.entries if all(_of(e, name) in some for name, some in wanted.items())]
        if not left:
            there = {name: sorted({_of(e, name) for e in self.study.entries}) for name in names}
            raise UserError(f"no cell has {names}; there are {there}")
        return Frames(Study(self.study.source, tuple(left)))

    def _table(self, columns: Sequence[str], rows: Callable[[Record], Iterable[Iterable[Any]]]) -> pd.DataFrame:
        found = [(*(_of(e, name) for name in PLACE), *row) for e in self.study.entries for row in rows(e.record)]
        return pd.DataFrame(found, columns=[*PLACE, *columns])


def load(results: str | Path = "results", cells: Sequence[Path] | None = None) -> Frames:
    """Tables of all records of a results folder, or of the folders `cells` only.

    Raises UserError where there is no record.
    """
    return Frames(study(records.load(Path(results), cells)))


def _several(value: str | int | Iterable[str | int]) -> set[str | int]:
    return {value} if isinstance(value, str | int) else set(value)


def _of(entry: Entry, name: str) -> Any:
    if name in ("benchmark", "scenario"):
        return getattr(entry.group, name)
    return entry.label if name == "label" else str(entry.record.status) if name == "status" else _plain(entry, name)


def _plain(entry: Entry, name: str) -> Any:
    return getattr(entry.record, name)


def _long(matrix: np.ndarray | None) -> Iterable[tuple[int, int, float]]:
    cells = np.ndenumerate(matrix) if matrix is not None else ()
    return ((after, task, value) for (after, task), value in cells if not np.isnan(value))


def _costs(record: Record) -> Iterable[tuple[int | float | str, ...]]:
    parts = (record.train_seconds, record.evaluate_seconds, record.stored_per_task)
    for task in range(max(map(len, parts))):
        yield task, *(float(part[task]) if task < len(part) else np.nan for part in parts), machine(record)
