"""The schema of records: version, files, statuses, claims, checksums. The runners write it, the reports read it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

SCHEMA = 1
RECORD = "cell.json"
CELL_FOLDERS = "*/*/*/seed*"
"""Of the cells in a results folder: benchmark, scenario, method, seed with key."""
NAN = float("nan")


class Status(StrEnum):
    """The outcome of a cell; a closed set."""

    DONE = "done"
    SKIPPED = "skipped"
    """Not defined for this method or benchmark; the reason says why."""
    DIVERGED = "diverged"
    """The loss or the predictions left the finite numbers."""
    FAILED = "failed"
    RUNNING = "running"
    """Begun and not ended: under way, or killed; will be resumed."""
    OOM = "oom"

    @property
    def finished(self) -> bool:
        """Whether the result stands, so that the cell is not run again."""
        return self in (Status.DONE, Status.SKIPPED, Status.DIVERGED)


@dataclass(frozen=True)
class ClaimRow:
    """A method's promise for `task` as it stands `after` that many tasks, a row of claims.csv; see methods.base.Claim.

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
    """Whether the accuracy lies below the certified accuracy recorded when the task was learnt, or a sample that is
    certified now is answered wrongly now."""
    reason: str
    certified_train: float = NAN
    """Share of the task's training samples that the certificate covered when the task was learnt.

    One minus it is the worst-case error of the papers; only in the row with after = task + 1.
    """


def folder_name(seed: int, key: str) -> str:
    """The last part of a cell's folder."""
    return f"seed{seed}-{key[:12]}"


def digest(text: str) -> str:
    """SHA-256 of a table's text, or of a record's."""
    return hashlib.sha256(text.encode()).hexdigest()


def checksum(body: Mapping[str, Any]) -> str:
    """The checksum of a record's fields, itself left out."""
    return digest(json.dumps(body, sort_keys=True, separators=(",", ":")))
