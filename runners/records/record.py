"""Record of a cell: its fields, statuses and tables, as text."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from benchmarks import untrusted
from benchmarks.types import Budget, Scenario, UserError
from reports.schema import SCHEMA, CertificateRow, ClaimRow, Status, checksum, digest

__all__ = ["BrokenRecord", "ClaimRow", "Matrix", "Measurements", "Record", "Status", "digest", "empty_matrix"]

_LATER = {"chosen", "judged_on", "definition", "carried", "fairness", "parts", "certificates"}
"""Fields that older records lack."""
_FREE = ("reason", "traceback", "command", "task_names", "environment")
"""Fields with texts from elsewhere: messages, arguments, class names, which may hold any character."""


class BrokenRecord(Exception):
    """A record that is truncated, altered or of another schema; the text says which."""


Matrix = list[list[float | None]]
"""(T+1) x T, row i after learning i tasks; None where not measured."""


def empty_matrix(n_tasks: int) -> Matrix:
    return [[None] * n_tasks for _ in range(n_tasks + 1)]


@dataclass
class Measurements:
    """Measurements of a running cell; they grow task by task and are kept in checkpoints."""

    accuracy: Matrix
    certified: Matrix
    inferred: Matrix
    claims: list[ClaimRow] = field(default_factory=list)
    steps: list[tuple[int, int, float]] = field(default_factory=list)
    """Loss curve: task, steps done, mean loss since the entry before."""
    train_seconds: list[float] = field(default_factory=list)
    evaluate_seconds: list[float] = field(default_factory=list)
    stored_per_task: list[int] = field(default_factory=list)
    exhibits: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """Tables that the method gave after the last task, column by column; see runners.cell.exhibits."""
    taken: list[dict[str, int]] = field(default_factory=list)
    """Budget use of each task; see runners.cell.usage."""
    held: dict[str, Any] = field(default_factory=dict)
    """Size of the method's state after the last task; see runners.cell.usage."""
    certificates: list[CertificateRow] = field(default_factory=list)
    """Certified accuracy after the last task in more ways; see runners.cell.certificates."""
    peak_rss: int = 0
    peak_device: int = 0

    @staticmethod
    def empty(n_tasks: int) -> Measurements:
        return Measurements(empty_matrix(n_tasks), empty_matrix(n_tasks), empty_matrix(n_tasks))

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Measurements:
        data = json.loads(text)
        data["claims"] = [ClaimRow(**row) for row in data["claims"]]
        data["certificates"] = [CertificateRow(**row) for row in data.get("certificates", [])]
        data["steps"] = [(int(task), int(step), float(loss)) for task, step, loss in data["steps"]]
        return Measurements(**data)

    def of_conduct(self) -> dict[str, Any]:
        """Fairness fields of a record; empty before the method is made."""
        return {"tasks": self.taken, "held": self.held} if self.taken or self.held else {}

    def tables(self) -> dict[str, str]:
        """CSV files of the record, by file name; empty ones are left out."""
        found = {"accuracy.csv": matrix_csv(self.accuracy), "steps.csv": steps_csv(self.steps)}
        for name, matrix in (("certified.csv", self.certified), ("inferred.csv", self.inferred)):
            if any(value is not None for row in matrix for value in row):
                found[name] = matrix_csv(matrix)
        if self.claims:
            found["claims.csv"] = claims_csv(self.claims)
        for name, columns in self.exhibits.items():
            found[f"exhibit-{name}.csv"] = _csv(list(columns), list(zip(*columns.values(), strict=True)))
        return found


@dataclass(frozen=True)
class Record:
    """The contents of cell.json. Accuracies are fractions; seconds are wall clock; sizes in bytes."""

    key: str
    status: Status
    benchmark: str
    scenario: Scenario
    method: str
    label: str
    seed: int
    config: dict[str, Any]
    budget: Budget
    network: str
    n_tasks: int
    classes_per_task: int
    source: str
    suite: str
    command: str
    environment: dict[str, Any]
    started: str
    chosen: dict[str, str] = field(default_factory=dict)
    """Hyperparameter -> where its value comes from; the others have the method's default."""
    definition: dict[str, Any] = field(default_factory=dict)
    """Of the benchmark: input shape, validation samples held out of each task, order of classes, ..."""
    judged_on: str = "test"
    """`validation` in records of tuning, which no comparison takes."""
    reason: str | None = None
    traceback: str | None = None
    task_names: tuple[str, ...] = ()
    finished: str | None = None
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"train": [], "evaluate": []})
    memory_bytes: dict[str, int | None] = field(default_factory=lambda: {"peak_rss": None, "peak_device": None})
    parameters: dict[str, int | None] = field(default_factory=lambda: {"trained": None, "stored": None})
    stored_per_task: tuple[int, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of every table that belongs to this record."""
    fairness: dict[str, Any] = field(default_factory=dict)
    """Measurements of budget, network and memory: `tasks`, a row each, and `held`; of a foreign method the verdict
    of the conformance suite, `conformance`; empty in older records."""
    parts: dict[str, str] = field(default_factory=dict)
    """Hashes of the code of the network, the transforms, ..., which the key holds too; empty in older records."""
    certificates: tuple[CertificateRow, ...] = ()
    """Certified accuracy after the last task by propagation and input radius; empty in older records and where nothing
    is certified. No table, because it holds seconds, and tables are compared to the last digit."""
    carried: str | None = None
    """Of a reference record: which earlier code computed it, and how `source` was shown to give the same numbers."""

    def with_measurements(self, measured: Measurements) -> Record:
        """This record with the clocks, memory and table digests of what was measured."""
        stored = measured.stored_per_task
        return replace(
            self,
            seconds={"train": measured.train_seconds, "evaluate": measured.evaluate_seconds},
            memory_bytes={"peak_rss": measured.peak_rss or None, "peak_device": measured.peak_device or None},
            parameters={**self.parameters, "stored": stored[-1] if stored else None},
            stored_per_task=tuple(stored),
            fairness={**self.fairness, **measured.of_conduct()},
            certificates=tuple(measured.certificates),
            files={name: digest(text) for name, text in measured.tables().items()},
        )

    def to_json(self) -> str:
        body = {"schema": SCHEMA, **asdict(self)}
        body |= {name: _printable(body[name]) for name in _FREE}
        return json.dumps({**body, "checksum": checksum(body)}, indent=1)

    @staticmethod
    def from_json(text: str) -> Record:
        """Read cell.json. Raises BrokenRecord if it is truncated, altered or of another schema."""
        try:
            body = untrusted.parse(text)
        except ValueError as error:
            raise BrokenRecord(str(error)) from error
        return Record.from_body(body)

    @staticmethod
    def from_body(body: Any) -> Record:
        """Make the record of what `untrusted.parse` read, which is used up. Raises BrokenRecord as `from_json`."""
        if not isinstance(body, dict) or body.get("schema") != SCHEMA:
            found = body.get("schema") if isinstance(body, dict) else None
            raise BrokenRecord(f"schema {found}, while this version writes schema {SCHEMA}")
        if body.pop("checksum", None) != checksum(body):
            raise BrokenRecord("altered: the checksum does not match")
        body.pop("schema")
        if body.keys() | _LATER != Record.__dataclass_fields__.keys():
            raise BrokenRecord("the fields are not those of this schema")
        try:
            untrusted.check_record(body)
            body["status"], body["scenario"] = Status(body["status"]), Scenario(body["scenario"])
            body["budget"] = Budget.of(body["budget"])
            body["certificates"] = tuple(CertificateRow.of(row) for row in body.get("certificates", ()))
            body["task_names"], body["stored_per_task"] = tuple(body["task_names"]), tuple(body["stored_per_task"])
        except (ValueError, TypeError, KeyError, UserError) as error:
            raise BrokenRecord(str(error)) from error
        return Record(**body)


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return untrusted.printable(value)
    if isinstance(value, dict):
        return {key: _printable(inner) for key, inner in value.items()}
    return [_printable(inner) for inner in value] if isinstance(value, list | tuple) else value


def matrix_csv(matrix: Matrix) -> str:
    header = ["after", *(f"task{j}" for j in range(len(matrix[0])))]
    return _csv(header, [[after, *map(_cell_text, row)] for after, row in enumerate(matrix)])


def steps_csv(steps: Sequence[tuple[int, int, float]]) -> str:
    return _csv(["task", "step", "loss"], steps)


def claims_csv(claims: Sequence[ClaimRow]) -> str:
    names = [item.name for item in fields(ClaimRow)]
    return _csv(names, [[_cell_text(getattr(claim, name)) for name in names] for claim in claims])


def _cell_text(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)


def _csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()
