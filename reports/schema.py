"""The schema of records: version, files, statuses, claims, checksums. The runners write it, the reports read it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

SCHEMA = 1
RECORD = "cell.json"
CELL_FOLDERS = "*/*/*/seed*"
"""Pattern of the cells' folders in a results folder: benchmark, scenario, method, seed with key."""
ROWS_AT_MOST = 20_000
"""Largest number of rows of a method's own table (an exhibit)."""
EXHIBITS = {
    "embeddings": ("task", "dimension", "lower", "middle", "upper"),
    "mask-overlap": ("task", "other", "overlap"),
    "bases": ("task", "layer", "columns", "inputs", "captured", "leak", "drift"),
    "drift": ("task", "layer", "lower", "upper", "inside", "width"),
}
"""Exhibits that the report draws, with the columns that it needs; all others are only stored."""
_LAYERS_AT_MOST, _LARGEST = 1_000, 1e100
NAN = float("nan")


class Status(StrEnum):
    """The outcome of a cell; a closed set."""

    DONE = "done"
    SKIPPED = "skipped"
    """Not defined for this method or benchmark; the reason says why."""
    DIVERGED = "diverged"
    """The loss or the predictions became infinite or undefined."""
    FAILED = "failed"
    RUNNING = "running"
    """Started and not finished: running, or killed; will be resumed."""
    OOM = "oom"

    @property
    def finished(self) -> bool:
        """True if the result is final, so that the cell is not run again."""
        return self in (Status.DONE, Status.SKIPPED, Status.DIVERGED)


@dataclass(frozen=True)
class ClaimRow:
    """State of a method's guarantee for `task` after `after` tasks, a row of claims.csv; see methods.base.Claim.

    NaN where a number was not measured.
    """

    after: int
    task: int
    contained: bool
    outside: int
    drift: float
    median_width: float
    median_logit_width: float
    """Median of upper - lower over all logits of the task's test samples."""
    violation: bool
    """True if the accuracy is below the certified accuracy recorded when the task was learnt, or if a currently
    certified sample is misclassified."""
    reason: str
    certified_train: float = NAN
    """Share of the task's training samples that the certificate covered when the task was learnt.

    One minus it is the worst-case error of the papers; only in the row with after = task + 1.
    """

    @property
    def holds(self) -> bool:
        """True if the premise of the claim still holds."""
        return self.contained and not self.reason


@dataclass(frozen=True)
class CertificateRow:
    """Certified accuracy on one task after the last one, by one propagation and for one input radius."""

    task: int
    samples: int
    """Number of test samples that were certified: all, or a draw."""
    radius: float
    """Largest change of a pixel of the input, on the pixels' scale [0, 1]."""
    propagation: str
    """`interval` or `affine`; see methods.intervals.affine."""
    certified: float | None
    """Share of the samples; None if the method's bounds cannot take the radius, or are not those of `propagate`."""
    seconds: float
    """Wall clock for all samples; of affine propagation, with the interval bounds that it starts from."""

    @staticmethod
    def of(fields: Mapping[str, Any]) -> CertificateRow:
        """The row with these fields of a record. Raises ValueError or TypeError for others."""
        row = CertificateRow(**fields)
        whole = all(type(value) is int and value >= 0 for value in (row.task, row.samples))
        shares = row.certified is None or 0 <= row.certified <= 1
        if not (whole and shares and row.radius >= 0 and row.seconds >= 0 and isinstance(row.propagation, str)):
            raise ValueError("certificates has a row with a number out of its range")
        return row


def misfit(name: str, columns: Mapping[str, Sequence[float]], tasks: int) -> str | None:
    """Reason why an exhibit of a stream of `tasks` cannot be drawn, None if it can, or if the report never draws it."""
    drawn = EXHIBITS.get(name, ())
    if not set(drawn) <= columns.keys():
        return None
    counts = {"task": tasks, "other": tasks, "dimension": ROWS_AT_MOST, "layer": _LAYERS_AT_MOST}
    for column in drawn:
        below = counts.get(column)
        for value in columns[column]:
            if below is not None and not (0 <= value < below and value == int(value)):
                return f"the column {column} of the exhibit {name} has {value:g}, no whole number from 0 to {below - 1}"
            if _LARGEST < abs(value) < math.inf:
                return f"the column {column} of the exhibit {name} has {value:g}; at most {_LARGEST:g} can be drawn"
    return None


def folder_name(seed: int, key: str) -> str:
    """Last part of a cell's folder."""
    return f"seed{seed}-{key[:12]}"


def digest(text: str) -> str:
    """SHA-256 of a table's text, or of a record's."""
    return hashlib.sha256(text.encode()).hexdigest()


def checksum(body: Mapping[str, Any]) -> str:
    """Checksum of a record's fields, without the checksum itself."""
    return digest(json.dumps(body, sort_keys=True, separators=(",", ":")))
