"""status.json: state of the runs on a results folder, for other programs, `--status` and `--watch`."""

from __future__ import annotations

import json
import math
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout
from pydantic import TypeAdapter
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from benchmarks import paths, untrusted
from benchmarks.types import UserError
from reports.schema import CELL_FOLDERS, RECORD
from runners.records.folder import read_status, write_atomically
from runners.records.record import Status
from runners.watch.board import Board, Failure, Snapshot
from runners.watch.screen import view

STATUS, LOCK = "status.json", ".status.lock"
SCHEMA = 1
SECONDS_BETWEEN_WRITES = 2.0
SECONDS_OF_SILENCE = 60.0
"""A run elsewhere that has not written for so long is taken for gone."""
FAILURES_SHOWN = 20
PROCESS_AT_MOST = 2**31 - 1
RUNNING, ENDED, STOPPED, GONE = "running", "ended", "stopped", "gone"


@dataclass(frozen=True)
class Run:
    """One command on the results folder. Times are ISO 8601, UTC."""

    host: str
    process: int
    command: str
    state: str
    """running, ended (all cells have been seen to) or stopped (Ctrl-C or an error); as of `updated`."""
    started: str
    updated: str
    progress: Snapshot
    born: str = ""
    """Start of the process, which tells it from a later one of the same number; empty where not known."""

    @property
    def place(self) -> tuple[str, int, str]:
        return self.host, self.process, self.started


class StatusFile:
    """Writer that keeps status.json current during a run; use it in a `with` block.

    A results folder that cannot be written does not end the run here: writing the records will raise the error.
    """

    def __init__(self, results: Path, board: Board, command: str) -> None:
        self.results, self.board = results, board
        self.run = Run(
            socket.gethostname(), os.getpid(), command, RUNNING, _now(), _now(), board.snapshot(), _born(os.getpid())
        )  # fmt: skip
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._keep, name="status", daemon=True)

    def __enter__(self) -> StatusFile:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self.thread.join()
        self._write(ENDED if kind is None else STOPPED)

    def _keep(self) -> None:
        while not self.over.wait(SECONDS_BETWEEN_WRITES):
            self._write(RUNNING)

    def _write(self, state: str) -> None:
        self.run = replace(self.run, state=state, updated=_now(), progress=self.board.snapshot())
        with suppress(OSError, Timeout), FileLock(self.results / LOCK, timeout=SECONDS_BETWEEN_WRITES):
            others = [run for run in _stored(self.results) if run.place != self.run.place and _state(run) == RUNNING]
            body = {"schema": SCHEMA, "runs": [_readable(asdict(run)) for run in (*others, self.run)]}
            write_atomically(self.results / STATUS, json.dumps(body, indent=1).encode(), durable=False)


def read(results: Path) -> list[Run]:
    """Runs in status.json with their current state; without the file, a summary of the records.

    Raises UserError where there is no such folder.
    """
    if not results.is_dir():
        raise UserError(f"--status {results}: there is no such folder")
    runs = [replace(run, state=_state(run)) for run in _stored(results)]
    return runs or [_from_records(results)]


def show(results: Path, console: Console) -> None:
    """Print the state of a results folder. Raises UserError."""
    console.print(_page(read(results), failures=FAILURES_SHOWN, waiting=True))


def watch(results: Path, console: Console, seconds: float = SECONDS_BETWEEN_WRITES) -> None:
    """Show the state until all runs have ended; Ctrl-C ends only the watching. Raises UserError."""
    with suppress(KeyboardInterrupt), Live(_page(read(results)), console=console, auto_refresh=False) as live:
        while True:
            runs = read(results)
            if all(run.state != RUNNING for run in runs):
                live.update(_page(runs, failures=FAILURES_SHOWN, waiting=True), refresh=True)
                return
            live.update(_page(runs), refresh=True)
            time.sleep(seconds)


def _page(runs: Sequence[Run], **options: Any) -> RenderableType:
    parts: list[RenderableType] = []
    for run in runs:
        where = f"{run.state} on {run.host} (process {run.process}), as of {_local(run.updated)}"
        heading = Text(run.command or "records", style="bold")
        heading.append(f"  {where}" if run.command else "", style="dim")
        parts += [heading, view(run.progress, **options)]
        if run.state in (STOPPED, GONE):
            parts.append(Text("not running: the same command resumes it", style="yellow"))
    return Group(*parts)


def _readable(value: Any) -> Any:
    """The value as `untrusted.parse` permits it: None for a number that is not finite, texts with escapes."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return untrusted.printable(value)
    if isinstance(value, dict):
        return {key: _readable(inner) for key, inner in value.items()}
    return [_readable(inner) for inner in value] if isinstance(value, list | tuple) else value


def _stored(results: Path) -> list[Run]:
    try:
        body = untrusted.parse(paths.read_text(results / STATUS, paths.RECORD_BYTES))
        runs = TypeAdapter(list[Run]).validate_python(body["runs"]) if body["schema"] == SCHEMA else []
        return [run for run in runs if datetime.fromisoformat(run.updated).tzinfo and run.process <= PROCESS_AT_MOST]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _state(run: Run) -> str:
    """State of a run; `gone` if it claims `running` but its process has ended or has been silent too long."""
    if run.state != RUNNING:
        return run.state
    # Only processes of this machine can be queried; a run elsewhere is judged by its silence.
    if run.host == socket.gethostname():
        if not _alive(run.process):
            return GONE
        if run.born and (born := _born(run.process)):
            return RUNNING if born == run.born else GONE
    silent = (datetime.now(UTC) - datetime.fromisoformat(run.updated)).total_seconds()
    # The clocks of two machines may differ in either direction.
    return RUNNING if abs(silent) < SECONDS_OF_SILENCE else GONE


def _born(process: int) -> str:
    """Boot of the machine and start of the process in clock ticks after it; empty where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # The name of the command, in brackets, may hold spaces and brackets.
        ticks = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
    return f"{boot} {ticks}"


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # The process exists but belongs to another user.
    except PermissionError:
        return True
    return True


def _from_records(results: Path) -> Run:
    """Counts and failures from the records of a folder without status.json."""
    counts: Counter[str] = Counter()
    failures = []
    for file in sorted(results.glob(f"{CELL_FOLDERS}/{RECORD}")):
        status, reason = read_status(file.parent)
        if status in list(Status):
            counts[str(status)] += 1
            if not Status(status).finished:
                title = " ".join(file.parent.relative_to(results).parts)
                failures.append(Failure(title, str(status), reason or "begun and not ended", str(file.parent)))
    total = sum(counts.values())
    snapshot = Snapshot(total, 0, dict(counts), 0.0, None, failures=failures)
    return Run(socket.gethostname(), 0, "", ENDED, _now(), _now(), snapshot)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _local(moment: str) -> str:
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")
