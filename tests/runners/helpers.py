"""Small cells, a quiet console, and the compare command in a process of its own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.types import Scenario
from runners.cell.events import Event
from runners.grid import build
from runners.grid.cells import Cell, Conditions, Job
from runners.grid.suite import BenchmarkEntry, Suite
from runners.records.record import Record
from runners.session import Options, run

ROOT = Path(__file__).resolve().parents[2]
FOREIGN = Path(__file__).with_name("foreign.py")
STEPS = 6
TABLES = ("accuracy.csv", "certified.csv", "inferred.csv", "claims.csv", "steps.csv")


class Watching:
    """A watcher that remembers, and may act on what it hears."""

    def __init__(self, act=None) -> None:
        self.events: list[tuple[Job, Event]] = []
        self.act = act

    def planned(self, jobs, outcomes) -> None: ...

    def heard(self, job: Job, event: Event) -> None:
        self.events.append((job, event))
        if self.act is not None:
            self.act(job, event)


def foreign(name: str) -> str:
    """The reference of a class of foreign.py."""
    return f"{FOREIGN}:{name}"


def cells(
    *methods: str,
    scenarios: tuple[str, ...] = ("til",),
    seeds: int = 1,
    steps: int = STEPS,
    benchmark: str = "split-digits",
    assignments: tuple[tuple[str, str, str], ...] = (),
    network: str | None = None,
) -> list[Cell]:
    """Cells of a few steps on the digits."""
    suite = Suite(
        name="test",
        description="test",
        methods=[name for name in methods if ".py:" not in name] or ["finetune"],
        scenarios=[Scenario(name) for name in scenarios],
        seeds=seeds,
        benchmarks=[BenchmarkEntry(name=benchmark, steps=steps, network=network)],
    )
    files = tuple(name for name in methods if ".py:" in name)
    built = build.build([suite], build.Choices(foreign=files, assignments=assignments))
    return [cell for cell in built if cell.method in methods or ".py:" in cell.reference]


def job(cell: Cell, results: Path) -> Job:
    return Job(cell, cell.folder(results), Conditions(command="test"))


def silent(_event: Event) -> None:
    """Hears events and does nothing."""


def tables(results: Path) -> dict[str, str]:
    """Every table below a results folder, by relative path."""
    return {
        str(file.relative_to(results)): file.read_text()
        for file in sorted(results.glob("*/*/*/seed*/*"))
        if file.name in TABLES
    }


def decisive(results: Path) -> dict[str, dict[str, object]]:
    """All fields of all records but those that name a moment or a place, by relative path."""
    found = {}
    for file in sorted(results.rglob("cell.json")):
        record = Record.from_json(file.read_text())
        kept = {
            name: getattr(record, name)
            for name in ("key", "status", "reason", "config", "budget", "parameters", "stored_per_task", "files")
        }
        found[str(file.relative_to(results))] = kept
    return found


def compare_here(results: Path, **options: Any) -> tuple[int, str]:
    """The compare command in this process: exit code and what it printed."""
    console = Console(file=io.StringIO(), width=200)
    defaults = {"suites": ("quick",), "engine": "inline", "device": "cpu", "report": False, "budget_scale": 0.02}
    code = run(Options(results=results, **{**defaults, **options}), console)
    return code, console.file.getvalue()  # type: ignore[attr-defined]


def command(*arguments: str | Path, script: str = "compare.py") -> list[str]:
    return [sys.executable, str(ROOT / "runners" / script), *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in ("CONTINUAL_DATA", "PYTHONPATH")}
    return {**kept, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **more}


def call(
    *arguments: str | Path, script: str = "compare.py", cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, to its end."""
    return subprocess.run(
        command(*arguments, script=script), capture_output=True, text=True, timeout=300, env=environment(), cwd=cwd
    )
