"""Record of a cell as the reports read it, and the choice among several records of one cell."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import paths
from reports.metrics import Matrix
from reports.schema import ROWS_AT_MOST, CertificateRow, ClaimRow, Status, misfit

SIZES_SHOWN = 6
"""Tasks whose numbers of classes are listed one by one."""


@dataclass(frozen=True)
class Record:
    """Finished or unfinished cell. Matrices are (T+1, T) fractions, NaN where not measured."""

    folder: Path
    """Relative to the results folder."""
    root: Path
    key: str
    status: Status
    reason: str
    benchmark: str
    scenario: str
    method: str
    label: str
    seed: int
    config: Mapping[str, Any]
    chosen: Mapping[str, str]
    """Hyperparameter -> source of its value; all others have the method's default."""
    definition: Mapping[str, Any]
    """Definition of the benchmark: validation samples held out of each task, ...; empty in older records."""
    budget: Mapping[str, Any]
    network: str
    n_tasks: int
    classes_per_task: int
    task_names: tuple[str, ...]
    source: str
    parts: Mapping[str, str]
    """Hashes of the code of its network, transforms, ...; empty in older records."""
    carried: str
    """Earlier code that computed it, and the evidence that it gives the same numbers; empty if `source` did."""
    fairness: Mapping[str, Any]
    """Measured use of budget, network and memory, by `tasks` and `held`; empty in older records."""
    suite: str
    command: str
    environment: Mapping[str, Any]
    started: str
    finished: str
    train_seconds: tuple[float, ...]
    evaluate_seconds: tuple[float, ...]
    peak_rss: float | None
    peak_device: float | None
    parameters_trained: int | None
    parameters_stored: int | None
    stored_per_task: tuple[int, ...]
    tables: frozenset[str] | None = field(repr=False, default=None)
    """Names of the files that belong to the record; None if the record lists none."""
    accuracy: Matrix | None = field(repr=False, default=None)
    certified: Matrix | None = field(repr=False, default=None)
    inferred: Matrix | None = field(repr=False, default=None)
    certificates: tuple[CertificateRow, ...] = field(repr=False, default=())
    """Certified accuracy by propagation and input radius; empty in older records."""

    @property
    def cut(self) -> str:
        """Tasks and classes of each: `5 × 2`, `3: 2, 4, 3`, or of many tasks with unequal numbers `40 × 2–9`."""
        sizes = self.definition.get("sizes")
        if not isinstance(sizes, list) or not sizes or not all(isinstance(size, int) for size in sizes):
            return f"{self.n_tasks} × {self.classes_per_task}"
        if len(sizes) > SIZES_SHOWN:
            return f"{self.n_tasks} × {min(sizes)}–{max(sizes)}"
        return f"{self.n_tasks}: {', '.join(map(str, sizes))}"

    @property
    def done(self) -> bool:
        return self.status is Status.DONE

    @cached_property
    def claims(self) -> tuple[ClaimRow, ...]:
        """Rows of claims.csv; empty if the method guarantees nothing or the file cannot be read."""
        return tuple(_claims(self._rows("claims.csv")))

    @cached_property
    def losses(self) -> tuple[tuple[int, int, float], ...]:
        """Rows (task, step, loss) of steps.csv."""
        return tuple(_losses(self._rows("steps.csv")))

    def exhibit(self, name: str) -> dict[str, Matrix]:
        """Columns of one of the method's exhibits; empty if missing, unreadable or unfit for the stream."""
        rows = self._rows(f"exhibit-{name}.csv")
        if not 0 < len(rows) <= ROWS_AT_MOST:
            return {}
        try:
            columns = {key: [float(row[key] or "nan") for row in rows] for key in rows[0]}
        except (KeyError, TypeError, ValueError):
            return {}
        return {} if misfit(name, columns, self.n_tasks) else {key: np.array(found) for key, found in columns.items()}

    def _rows(self, name: str) -> list[dict[str, str]]:
        """Rows of a file by column; none if it is no table of this record or cannot be read."""
        if self.tables is not None and name not in self.tables:
            return []
        try:
            text = paths.read_text(os.path.join(self.root, self.folder, name), paths.TABLE_BYTES)
            return list(csv.DictReader(io.StringIO(text, newline="")))
        except (OSError, ValueError, csv.Error):
            return []


@dataclass(frozen=True)
class Problem:
    """Folder that was left out, with the reason."""

    folder: str
    reason: str


@dataclass(frozen=True)
class Records:
    root: Path
    records: tuple[Record, ...]
    problems: tuple[Problem, ...] = ()
    superseded: tuple[Record, ...] = ()


def newest(records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Split records into the newest and the superseded among those that differ in their source only.

    An older finished record is preferred to a newer one that is still running. A hyperparameter that only one of two
    sources knows is no difference: the other had no such choice yet. In one row, seeds computed by other code than the
    newest seed are superseded too, so that no mean mixes two states of the code.
    """
    by_cell: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        by_cell.setdefault(_cell(record), []).append(record)
    kept, superseded = [], []
    for group in by_cell.values():
        current: list[Record] = []
        for record in sorted(group, key=_age, reverse=True):
            (superseded if any(_replaces(newer, record) for newer in current) else current).append(record)
        kept.extend(current)
    stale = {record.folder for record in _of_other_code(kept)}
    superseded += [record for record in kept if record.folder in stale]
    return [record for record in kept if record.folder not in stale], superseded


def _of_other_code(records: Sequence[Record]) -> Iterator[Record]:
    """Yield the records with numbers whose code differs from that of the newest in their row."""
    rows: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        if record.status in (Status.DONE, Status.DIVERGED):
            of_row = json.dumps([record.config, _data(record)], sort_keys=True, default=str)
            rows.setdefault((*_row(record), of_row), []).append(record)
    for row in rows.values():
        newest_one = max(row, key=_age)
        yield from (record for record in row if not _same_code(record, newest_one))


def _same_code(one: Record, other: Record) -> bool:
    return one.source == other.source and _agree(one.parts, other.parts)


def _agree(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Check whether two mappings agree on their common keys."""
    return all(other[key] == value for key, value in one.items() if key in other)


def _data(record: Record) -> dict[str, Any]:
    return {key: value for key, value in record.definition.items() if value is not None}


def _age(record: Record) -> tuple[bool, str, str]:
    return record.status is not Status.RUNNING, record.finished or record.started, record.key


def _replaces(newer: Record, older: Record) -> bool:
    if not _agree(newer.definition, older.definition):  # other data, or other samples of them
        return False
    if newer.source == older.source:
        return dict(newer.config) == dict(older.config)
    return _agree(newer.config, older.config)


def _cell(record: Record) -> tuple[str, ...]:
    return (*_row(record), str(record.seed))


def _row(record: Record) -> tuple[str, ...]:
    names = (record.benchmark, record.scenario, record.method, record.label, record.network)
    budget = json.dumps(record.budget, sort_keys=True, default=str)
    return (*names, str(record.n_tasks), str(record.classes_per_task), budget)


def _claims(rows: list[dict[str, str]]) -> Iterator[ClaimRow]:
    for row in rows:
        try:
            yield ClaimRow(
                after=int(row["after"]),
                task=int(row["task"]),
                contained=_truth(row["contained"]),
                outside=int(row.get("outside") or 0),
                drift=float(row.get("drift") or "nan"),
                median_width=float(row.get("median_width") or "nan"),
                median_logit_width=float(row.get("median_logit_width") or "nan"),
                violation=_truth(row.get("violation") or ""),
                reason=row.get("reason") or "",
                certified_train=float(row.get("certified_train") or "nan"),
            )
        except (KeyError, TypeError, ValueError):
            continue


def _losses(rows: list[dict[str, str]]) -> Iterator[tuple[int, int, float]]:
    for row in rows:
        try:
            yield int(row["task"]), int(row["step"]), float(row["loss"])
        except (KeyError, TypeError, ValueError):
            continue


def _truth(text: str) -> bool:
    return text.strip().lower() in {"1", "true", "yes", "1.0"}
