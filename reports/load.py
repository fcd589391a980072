"""Load records from disk: complete ones are read, all others are reported; nothing is guessed or merged."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import paths, untrusted
from benchmarks.types import UserError
from reports.metrics import Matrix
from reports.record import Problem, Record, Records, newest
from reports.schema import CELL_FOLDERS, RECORD, SCHEMA, CertificateRow, Status, checksum, digest, folder_name

_TWO_NUMBERS = re.compile(r"^(\d+),(\d+),", re.MULTILINE)


Found = tuple[list[Record], list[Problem]]
"""Records of some folders, and the folders left out."""
Helper = Callable[[list[Path], Path], Callable[[], Found]]
"""Function that reads folders of a results folder in another process; the returned function waits for them."""


def load(root: Path, cells: Sequence[Path] | None = None, helper: Helper | None = None) -> Records:
    """Load all records below `root`, or those of the folders `cells` only.

    helper: reads half of them in parallel. Raises UserError if `root` is no folder or holds no record at all.
    """
    if not root.is_dir():
        raise UserError(f"there is no results folder {root}")
    folders = sorted(root.glob(CELL_FOLDERS)) if cells is None else [Path(cell) for cell in cells]
    here = len(folders) if helper is None else len(folders) // 2
    others = helper(folders[here:], root) if helper else lambda: ([], [])
    (records, problems), (more_records, more_problems) = read(folders[:here], root), others()
    records, problems = records + more_records, problems + more_problems
    if not records:
        listed = "; ".join(f"{p.folder}: {p.reason}" for p in problems[:3])
        raise UserError(f"{root} holds no readable record (<benchmark>/<scenario>/<method>/seed...)" + _after(listed))
    kept, superseded = newest(records)
    return Records(root, tuple(kept), tuple(problems), tuple(superseded))


def read(folders: Sequence[Path], root: Path) -> Found:
    """Read the records in `folders` below `root`, in order. Values that many of them share are kept once."""
    records, problems = [], []
    once: dict[str, Any] = {}
    for folder in folders:
        if not folder.is_dir():
            continue
        try:
            records.append(_read(folder, root, once))
        except _Broken as error:
            problems.append(Problem(untrusted.printable(_relative(folder, root).as_posix()), str(error)))
    return records, problems


class _Broken(Exception):
    """Folder without a complete record of this layout."""


def _after(text: str) -> str:
    return f"; {text}" if text else ""


def _relative(folder: Path, root: Path) -> Path:
    if folder.is_relative_to(root):
        return folder.relative_to(root)
    try:
        return folder.resolve().relative_to(root.resolve())
    except ValueError:
        return folder


def _read(folder: Path, root: Path, once: dict[str, Any]) -> Record:
    if (name := _relative(folder, root).as_posix()) != untrusted.printable(name):
        raise _Broken("the folder's name has a character that cannot be printed")
    try:
        raw = untrusted.parse(paths.read_text(os.path.join(folder, RECORD), paths.RECORD_BYTES))
    except FileNotFoundError:
        raise _Broken("no cell.json") from None
    except (OSError, ValueError) as error:
        raise _Broken(f"cell.json cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        found = raw.get("schema") if isinstance(raw, dict) else type(raw).__name__
        raise _Broken(f"layout {found!r}; this report reads layout {SCHEMA}")
    try:
        untrusted.check_record(raw)
    except (KeyError, TypeError, ValueError) as error:
        raise _Broken(f"cell.json is not of this layout ({type(error).__name__}: {error})") from None
    tables = _checked(raw, folder)
    if raw.get("judged_on", "test") != "test":
        raise _Broken(f"a record of tuning, judged on {raw['judged_on']} data")
    try:
        record = _from_json(raw, _relative(folder, root), root, tables, once)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise _Broken(f"cell.json is not of this layout ({type(error).__name__}: {error})") from None
    if folder.name != folder_name(record.seed, record.key):
        raise _Broken(f"the folder's name does not fit its record (seed {record.seed}, key {record.key[:12]})")
    _check_tasks("claims.csv", tables, record.n_tasks)
    if record.done and record.accuracy is None:
        raise _Broken("status done, but no accuracy.csv")
    return record


def _checked(raw: Mapping[str, Any], folder: Path) -> dict[str, str] | None:
    """Read the tables of the record by file name and verify their checksums; None for a record that lists none."""
    body = {key: value for key, value in raw.items() if key != "checksum"}
    if "checksum" in raw and raw["checksum"] != checksum(body):
        raise _Broken("cell.json was altered: its checksum does not fit")
    tables = {}
    for name, expected in (raw.get("files") or {}).items():
        try:
            tables[name] = paths.read_text(os.path.join(folder, name), paths.TABLE_BYTES)
        except FileNotFoundError:
            raise _Broken(f"{name} is missing") from None
        except OSError as error:
            raise _Broken(f"{name} cannot be read: {error.strerror}") from None
        except ValueError:
            raise _Broken(f"{name} is no text") from None
        if digest(tables[name]) != expected:
            raise _Broken(f"{name} is truncated or was altered: its checksum does not fit")
    return tables or None


def _check_tasks(name: str, tables: Mapping[str, str] | None, tasks: int) -> None:
    """Raise _Broken if a row's first two columns, tasks learnt and the task, do not fit a stream of `tasks`."""
    for after, task in _TWO_NUMBERS.findall((tables or {}).get(name, "")):
        if len(after + task) > 18 or not (int(after) <= tasks and int(task) < tasks):
            raise _Broken(f"{name} names task {task[:20]} after {after[:20]}; there are {tasks}")


def _from_json(
    raw: Mapping[str, Any], folder: Path, root: Path, tables: Mapping[str, str] | None, once: dict[str, Any]
) -> Record:
    tasks = int(raw["n_tasks"])
    seconds, memory, parameters = (raw.get(name) or {} for name in ("seconds", "memory_bytes", "parameters"))
    status = Status(raw["status"])

    def matrix(name: str) -> Matrix | None:
        text = _read_table(os.path.join(root, folder, name)) if tables is None else tables.get(name)
        return _matrix(name, text, tasks)

    def kept(value: Any) -> Any:
        return once.setdefault(repr(value), value)

    return Record(
        folder=folder,
        root=root,
        key=str(raw["key"]),
        status=status,
        reason=str(raw.get("reason") or ""),
        benchmark=str(raw["benchmark"]),
        scenario=str(raw["scenario"]),
        method=str(raw["method"]),
        label=str(raw.get("label") or raw["method"]),
        seed=int(raw["seed"]),
        config=kept(dict(raw.get("config") or {})),
        definition=kept(dict(raw.get("definition") or {})),
        chosen=kept({str(key): str(text) for key, text in (raw.get("chosen") or {}).items()}),
        budget=kept(dict(raw.get("budget") or {})),
        network=kept(str(raw.get("network") or "")),
        n_tasks=tasks,
        classes_per_task=int(raw.get("classes_per_task") or 0),
        task_names=kept(tuple(map(str, raw.get("task_names") or ()))),
        source=kept(str(raw.get("source") or "")),
        parts=kept(dict(raw.get("parts") or {})),
        carried=kept(str(raw.get("carried") or "")),
        fairness=dict(raw.get("fairness") or {}),
        suite=str(raw.get("suite") or ""),
        command=kept(str(raw.get("command") or "")),
        environment=kept(dict(raw.get("environment") or {})),
        started=str(raw.get("started") or ""),
        finished=str(raw.get("finished") or ""),
        train_seconds=tuple(map(float, seconds.get("train") or ())),
        evaluate_seconds=tuple(map(float, seconds.get("evaluate") or ())),
        peak_rss=_number(memory.get("peak_rss")),
        peak_device=_number(memory.get("peak_device")),
        parameters_trained=_whole(parameters.get("trained")),
        parameters_stored=_whole(parameters.get("stored")),
        stored_per_task=tuple(map(int, raw.get("stored_per_task") or ())),
        tables=None if tables is None else kept(frozenset(tables)),
        accuracy=matrix("accuracy.csv"),
        certified=matrix("certified.csv"),
        inferred=matrix("inferred.csv"),
        certificates=tuple(CertificateRow.of(row) for row in raw.get("certificates") or ()),
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def _read_table(path: str) -> str | None:
    """Text of a table, None if there is no such file."""
    try:
        return paths.read_text(path, paths.TABLE_BYTES)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _Broken(f"{os.path.basename(path)} cannot be read ({type(error).__name__})") from None


def _matrix(name: str, text: str | None, tasks: int) -> Matrix | None:
    """Parse the (T+1, T) matrix of a CSV file's text; None without text. Raises _Broken for anything else."""
    if text is None:
        return None
    lines = text.split()
    try:
        rows = [line.split(",") for line in lines[1:]]
        values = np.array([[float(value or "nan") for value in row] for row in rows])
    except ValueError:
        raise _Broken(f"{name} is not a matrix of numbers") from None
    if values.shape != (tasks + 1, tasks + 1) or not np.array_equal(values[:, 0], np.arange(tasks + 1)):
        raise _Broken(f"{name} is truncated or has another shape than {tasks + 1} rows for {tasks} tasks")
    matrix = values[:, 1:]
    if ((matrix < 0) | (matrix > 1)).any():
        raise _Broken(f"{name} holds values outside 0..1")
    return matrix
