"""Untrusted JSON, read within limits, so that no record hangs, crashes or escapes into a terminal. No torch."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import paths

DEPTH, VALUES = 20, 1_000_000
TASKS, CLASSES = 10_000, 1_000_000
"""More tasks than this, and classes of each, are no stream but a slip or an attack: loops run over them."""
WHOLE = 1 << 63
TABLE = re.compile(r"[A-Za-z0-9][\w-]{0,60}\.csv", re.ASCII)
"""Names of the tables that may belong to a record."""
TAKEN = frozenset({"steps", "steps_allowed", "samples", "samples_allowed", "aside", "available"})
"""Counts of what a task took of its budget."""
HELD = ("declared", "found", "network_parameters", "module_parameters", "answers_with", "answers_with_all")
"""Counts of what a method holds."""
VERDICT = ("check", "scenario", "sentence")
"""Fields of a finding of the conformance suite."""
_PERMITTED = "\t\n"
"""Control characters that texts hold: a traceback has lines."""
_FORBIDDEN = re.compile(f"(?![{_PERMITTED}])[{paths.UNPRINTABLE}]")


class Untrustworthy(ValueError):
    """Input that breaks a limit; the text says which."""


def parse(text: str) -> Any:
    """Parse JSON of bounded depth and size: finite numbers, texts without control characters. Raises Untrustworthy."""
    try:
        data = json.loads(text)
    except RecursionError:
        raise Untrustworthy(f"nested more than {DEPTH} deep") from None
    except ValueError as error:
        raise Untrustworthy(f"truncated or not JSON ({error})") from error
    _check(data)
    return data


def read_record(path: str | Path) -> dict[str, Any]:
    """Read cell.json; check its paths and counts, but not its checksum. Raises OSError, ValueError, KeyError."""
    body = parse(paths.read_text(path, paths.RECORD_BYTES))
    if not isinstance(body, dict):
        raise Untrustworthy("no table of names and values")
    check_record(body)
    return body


def check_record(body: Mapping[str, Any]) -> None:
    """Check the fields of a record that become paths or counts. Raises Untrustworthy, paths.UnsafePath, KeyError."""
    for field in ("benchmark", "scenario", "method", "key"):
        paths.part(body[field], field)
    for field in ("label", "network", "source"):
        if body.get(field):
            paths.name(body[field], field)
    for field, least, most in (("n_tasks", 1, TASKS), ("classes_per_task", 0, CLASSES), ("seed", 0, WHOLE)):
        value = body.get(field, least) if least == 0 else body[field]
        if type(value) is not int or not least <= value <= most:
            raise Untrustworthy(f"{field} is {str(value)[:40]!r}, not a whole number from {least} to {most}")
    named = body.get("files") or {}
    if not isinstance(named, dict):
        raise Untrustworthy("files is no table of names and checksums")
    for file in named:
        check_table(file)
    for field in ("task_names", "stored_per_task"):
        if not isinstance(found := body.get(field) or [], list) or len(found) > TASKS:
            raise Untrustworthy(f"{field} is no list of at most {TASKS} entries")
    _check_fairness(body.get("fairness") or {})


def _check_fairness(measured: Any) -> None:
    """Check for tables where the report looks names up, and whole numbers where it counts. Raises Untrustworthy."""
    tables = [("fairness", measured)]
    if isinstance(measured, dict):
        held = measured.get("held") or {}
        tables += [("fairness.held", held), ("fairness.conformance", measured.get("conformance") or {})]
        if isinstance(held, dict):
            tables.append(("fairness.held.independence", held.get("independence") or {}))
    for name, table in tables:
        if not isinstance(table, dict):
            raise Untrustworthy(f"{name} is no table of names and values")
    tasks = measured.get("tasks") or []
    if not isinstance(tasks, list) or not all(isinstance(task, dict) and set(task) >= TAKEN for task in tasks):
        raise Untrustworthy(f"fairness.tasks is no list of tables with {', '.join(sorted(TAKEN))}")
    counts = [*tasks, {key: value for key, value in tables[1][1].items() if key in HELD}]
    counts.append({key: value for key, value in tables[3][1].items() if key in ("asked", "differ")})
    if not all(type(value) is int and value >= 0 for row in counts for value in row.values()):
        raise Untrustworthy("fairness holds a count that is no whole number")
    for name in ("passed", "failed", "skipped"):
        rows = tables[2][1].get(name) or []
        if not isinstance(rows, list) or not all(
            isinstance(row, dict) and all(isinstance(row.get(key), str) for key in VERDICT) for row in rows
        ):
            raise Untrustworthy(f"fairness.conformance.{name} is no list of tables with {', '.join(VERDICT)}")


def check_table(file: str) -> None:
    """Raise Untrustworthy unless a record may have a table of this name."""
    if not TABLE.fullmatch(file):
        raise Untrustworthy(f"{file[:80]!a} is no name of a table; it would be read or written elsewhere")


def printable(text: str) -> str:
    """Text in which all that `parse` refuses is escaped."""
    return text if text.isprintable() else _FORBIDDEN.sub(lambda found: ascii(found[0])[1:-1], text)


def _check(data: Any) -> None:
    level, seen = [data], 0
    for _ in range(DEPTH):
        inner: list[Any] = []
        for value in level:
            kind = type(value)  # exact: json.loads makes no other, and a command reads a million of them
            if kind is str:
                if not value.isprintable() and (found := _FORBIDDEN.search(value)):
                    raise Untrustworthy(f"the text {value[:60]!a} holds the character U+{ord(found[0]):04X}")
            elif kind is float:
                if not math.isfinite(value):
                    raise Untrustworthy(f"the number {value} is not finite")
            elif kind is int:
                if not -WHOLE <= value < WHOLE:
                    raise Untrustworthy(f"the number {str(value)[:40]} has more than 63 bits")
            elif kind is dict:
                inner += value
                inner += value.values()
            elif kind is list:
                inner += value
        if not inner:
            return
        level, seen = inner, seen + len(inner)
        if seen > VALUES:
            raise Untrustworthy(f"more than {VALUES} values")
    raise Untrustworthy(f"nested more than {DEPTH} deep")
