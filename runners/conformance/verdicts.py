"""Verdicts of the conformance suite on the foreign methods of a comparison; each result is computed once and cached."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from benchmarks import paths, untrusted
from benchmarks.types import Scenario
from methods import registry
from runners.conformance.apart import Verdict, examined, unchecked
from runners.grid.cells import Cell
from runners.grid.fingerprint import file_of, source_hash
from runners.records.folder import share

SHIPPED = Path(registry.__file__).parent
FOLDER = "conformance"
"""In the results folder; one file for each method's code and set of scenarios."""
LIMIT = 180.0
"""Seconds for one method."""


@cache
def is_foreign(reference: str) -> bool:
    """Check whether a method does not ship with the project (Avalanche's methods, by its adapter, do)."""
    module = sys.modules[registry.load(reference).__module__]
    return not Path(inspect.getfile(module)).resolve().is_relative_to(SHIPPED)


def of_cells(
    cells: Sequence[Cell], results: Path, say: Callable[[str], None], *, check: bool = True, limit: float = LIMIT
) -> dict[str, Verdict]:
    """Verdict on each method of the cells, by its name. `say` receives progress messages.

    check: False where the user wants none; that is the verdict then. A finding stops nothing.
    """
    asked: dict[tuple[str, str, str], set[Scenario]] = {}
    for cell in cells:
        asked.setdefault((cell.reference, cell.source, cell.method), set()).add(cell.scenario)
    found = {}
    for (reference, source, name), scenarios in asked.items():
        wanted = [str(scenario) for scenario in Scenario if scenario in scenarios]
        if not check:
            found[name] = unchecked("switched off by --no-check", wanted)
            continue
        file = results / FOLDER / f"{name.replace(':', '-')}-{_key(name, source, wanted, limit)}.json"
        kept = _kept(file)
        if kept is None:
            say(f"{name}: checking for conformance in {', '.join(wanted)} (at most {limit:g} s)")
        found[name] = kept or _anew(file, reference, source, wanted, limit)
        say(f"{name}: {in_words(found[name])}")
    return found


def in_words(verdict: Verdict) -> str:
    """Summary of a verdict in one line."""
    if verdict["not_checked"]:
        return f"not checked for conformance ({verdict['not_checked']})"
    checks = list(dict.fromkeys(row["check"] for row in verdict["failed"]))
    count = len({row["check"] for name in ("passed", "failed") for row in verdict[name]})
    return f"{count} conformance checks, " + (f"fails {', '.join(checks)}" if checks else "nothing found")


def _key(name: str, source: str, scenarios: Sequence[str], limit: float) -> str:
    suite = source_hash(file_of("runners.conformance.suite"))
    return hashlib.sha256(json.dumps([name, source, suite, list(scenarios), limit]).encode()).hexdigest()[:16]


def _kept(file: Path) -> Verdict | None:
    """The verdict of an earlier run, where it can be read and has a result."""
    try:
        found = untrusted.parse(paths.read_text(file, paths.RECORD_BYTES))
    except (OSError, ValueError):
        return None
    known = isinstance(found, dict) and found.keys() == unchecked("", ()).keys()
    return found if known and not found["not_checked"] else None


def _anew(file: Path, reference: str, source: str, scenarios: Sequence[str], limit: float) -> Verdict:
    """Verdict by a run of the suite. Kept where there is a result: another run may end otherwise, or in time."""
    verdict = examined(reference, source, scenarios, limit)
    if not verdict["not_checked"]:
        share(file, json.dumps(verdict, indent=1).encode())
    return verdict
