"""Real faults, injected into runs; after each, the same command again must end with the records of an undisturbed run.

python -m tests.runners.faults            all of them, and the table (fault, times, lost, corrupted)
python -m tests.runners.faults NAME ...   only these
"""

from __future__ import annotations

import atexit
import itertools
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from unittest import mock

from rich.console import Console
from rich.table import Table

from benchmarks.types import CIL, TIL
from runners.cell.events import Event, EventKind
from runners.engines.local import LocalEngine
from runners.engines.scheduler import run_grid
from runners.grid.cells import Cell, Conditions
from runners.records.folder import StorageError
from runners.records.record import BrokenRecord, Record
from tests.runners.helpers import ROOT, Watching, command, compare_here, decisive, environment, foreign, tables

METHODS, SCENARIOS, STEPS = ("ewc", "si", foreign("Hungry")), (TIL, CIL), 30
OPTIONS = {
    "methods": METHODS[:2],
    "foreign": METHODS[2:],
    "scenarios": SCENARIOS,
    "seeds": 1,
    "budget_scale": STEPS / 300,
    "reference": False,
}
ARGUMENTS = (
    *("--methods", ",".join(METHODS[:2]), "--method", METHODS[2], "--scenarios", ",".join(SCENARIOS), "--seeds", "1"),
    *("--budget-scale", str(STEPS / 300), "--no-reference", "--no-report"),
)
GIB = 1 << 30


@dataclass(frozen=True)
class Whole:
    """What an undisturbed run leaves behind."""

    tables: dict[str, str]
    records: dict[str, dict[str, object]]

    @staticmethod
    def of(results: Path) -> Whole:
        return Whole(tables(results), decisive(results))


@dataclass(frozen=True)
class Count:
    """How many cells have no result in the end, and how many another one than undisturbed."""

    lost: int
    corrupted: int


Inject = Callable[[Path, random.Random], None]


@dataclass(frozen=True)
class Fault:
    """A fault with how often the whole set injects it."""

    name: str
    times: int
    inject: Inject
    """Begins a run in the results folder and disturbs it."""
    again: Callable[[Path], None]
    """The same command again."""


def undisturbed(results: Path) -> Whole:
    code, said = compare_here(results, **OPTIONS)
    assert code == 0, said
    return Whole.of(results)


def compared(results: Path, whole: Whole) -> Count:
    """What the faults have cost in the end."""
    lost = corrupted = 0
    for path, wanted in whole.records.items():
        try:
            record = Record.from_json((results / path).read_text())
        except (OSError, BrokenRecord):
            lost += 1
            continue
        folder = str(Path(path).parent)
        found = {name: text for name, text in tables(results).items() if name.startswith(folder)}
        expected = {name: text for name, text in whole.tables.items() if name.startswith(folder)}
        lost += not record.status.finished
        corrupted += found != expected or decisive(results).get(path) != wanted
    return Count(lost, corrupted)


def inflict(fault: Fault, times: int, whole: Whole, seed: int = 0) -> Count:
    """Inject a fault so many times, each in a folder of its own; the sum of what it cost."""
    lost = corrupted = 0
    for number in range(times):
        with tempfile.TemporaryDirectory() as scratch:
            results = Path(scratch) / "results"
            fault.inject(results, random.Random(f"{fault.name} {number} {seed}"))
            fault.again(results)
            count = compared(results, whole)
        lost, corrupted = lost + count.lost, corrupted + count.corrupted
    return Count(lost, corrupted)


# -- in this process -----------------------------------------------------------------------------


def again_here(results: Path) -> None:
    code, said = compare_here(results, **OPTIONS)
    assert code == 0, said


@contextmanager
def limited(kind: int, soft: int) -> Iterator[None]:
    """A limit of the system on this process."""
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


def full_disk(results: Path, rng: random.Random) -> None:
    """No file may grow beyond a size below that of a checkpoint."""
    with limited(resource.RLIMIT_FSIZE, rng.randrange(70_000, 150_000)):
        try:
            compare_here(results, **OPTIONS)
        except StorageError as error:
            assert "File too large" in str(error)
        else:
            raise AssertionError("the disk was not full")


def out_of_memory(results: Path, _rng: random.Random) -> None:
    """The address space ends where the hungry method wants more of it."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    with limited(resource.RLIMIT_AS, used + 2 * GIB):
        code, said = compare_here(results, **OPTIONS)
    assert code == 1 and said.count("\noom ") == len(SCENARIOS), said


def interrupted_here(results: Path, rng: random.Random, cell_to_stop: int | None = None) -> None:
    """Ctrl-C after some task of some cell."""
    from runners.engines.engine import InlineEngine

    stop, seen = rng.randrange(4, 24) if cell_to_stop is None else cell_to_stop, 0

    def act(_job: object, event: Event) -> None:
        nonlocal seen
        seen += event.kind is EventKind.TASK_DONE
        if seen >= stop:
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        run_grid(the_grid(), results, Conditions(command="test"), InlineEngine(1), Watching(act))


def the_grid() -> list[Cell]:
    """The cells that the command builds."""
    from runners import session

    return session.build_cells(session.Options(suites=("quick",), **OPTIONS))


def damaged(pattern: str, how: str) -> Inject:
    def inject(results: Path, rng: random.Random) -> None:
        # A cell has five tasks, and its tables are written at its end.
        interrupted_here(results, rng, rng.randrange(6, 24))
        file = rng.choice(sorted(results.rglob(pattern)))
        content = bytearray(file.read_bytes())
        place = rng.randrange(len(content))
        if how == "truncated":
            content = content[:place]
        else:
            content[place] ^= 1 << rng.randrange(8)
        file.write_bytes(bytes(content))

    return inject


def clock_set_back(results: Path, rng: random.Random) -> None:
    """A run is interrupted; in the middle of the next one the clock goes back by a day, and later on again."""
    interrupted_here(results, rng)
    real, readings, day = time.time, itertools.count(), 86_400

    def back() -> float:
        return real() - (day if next(readings) > 2 else 0)

    def back_in_words() -> str:
        return datetime.fromtimestamp(back(), UTC).isoformat(timespec="milliseconds")

    with (
        mock.patch("time.time", back),
        mock.patch("runners.cell.blank.stamp", back_in_words),
        mock.patch("runners.cell.execution.stamp", back_in_words),
        mock.patch("runners.watch.status._now", back_in_words),
    ):
        code, said = compare_here(results, **OPTIONS)
    assert code == 0, said
    assert next(readings) > 3, "nobody read the clock after it was set back"


# -- in processes of their own -------------------------------------------------------------------


def begun(results: Path, through: Sequence[str] = ()) -> subprocess.Popen[str]:
    """The command under way; `through`: another one that starts it."""
    return subprocess.Popen(
        [*through, *command(*ARGUMENTS, "--results", results, "--workers", "2")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )


def wait_for(results: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    while process.poll() is None and not list(results.rglob(pattern)):
        time.sleep(0.005)


@cache
def workers() -> LocalEngine:
    """Two worker processes that serve all injections; one that is killed is replaced."""
    engine = LocalEngine(["cpu", "cpu"], threads=1)
    atexit.register(engine.close)
    return engine


def again_by_workers(results: Path) -> None:
    outcomes = run_grid(the_grid(), results, Conditions(command="test"), workers(), Watching())
    assert all(outcome.status.finished for outcome in outcomes), outcomes


def worker_killed(results: Path, rng: random.Random) -> None:
    """SIGKILL of a worker that has a cell in hand, after a random number of events and a random time."""
    engine, left = workers(), rng.randrange(1, 40)

    def kill(_job: object, _event: Event) -> None:
        nonlocal left
        left -= 1
        busy = [worker for worker in engine.workers if worker.job is not None]
        if left <= 0 and busy and not killed:
            time.sleep(rng.uniform(0.0, 0.1))
            killed.append(rng.choice(busy).process.pid)
            os.kill(killed[0], signal.SIGKILL)

    killed: list[int] = []
    outcomes = run_grid(the_grid(), results, Conditions(command="test"), engine, Watching(kill))
    assert killed and any("signal 9" in str(outcome.reason) for outcome in outcomes), "the kill hit no cell"


def driver_killed(results: Path, rng: random.Random) -> None:
    process = begun(results)
    wait_for(results, "cell.json", process)
    time.sleep(rng.uniform(0.0, 3.0))
    process.kill()
    process.communicate()


def two_at_once(results: Path, _rng: random.Random) -> None:
    both = [begun(results) for _ in range(2)]
    for process in both:
        said, _ = process.communicate(timeout=900)
        assert process.returncode == 0, said


@contextmanager
def small_disk(results: Path, size: str) -> Iterator[None]:
    """The results folder is a file system of its own (needs root); what is on it is kept in the end."""
    results.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", results], check=True)
    try:
        yield
    finally:
        kept = results.with_name("kept")
        subprocess.run(["cp", "-a", results, kept], check=True)
        subprocess.run(["umount", results], check=True)
        results.rmdir()
        kept.rename(results)


def disk_of_its_own_full(results: Path, rng: random.Random) -> None:
    with small_disk(results, f"{rng.randrange(300, 900)}k"):
        process = begun(results)
        said, _ = process.communicate(timeout=900)
        assert process.returncode == 2 and "No space left on device" in said, said


def read_only(results: Path, rng: random.Random) -> None:
    """Every folder loses its write permission, which also binds root once that has lost its privilege to ignore it."""
    unprivileged = ("setpriv", "--bounding-set", "-dac_override", "--inh-caps", "-dac_override")
    process = begun(results, () if os.geteuid() else unprivileged)
    wait_for(results, "checkpoint.pt", process)
    time.sleep(rng.uniform(0.0, 0.3))
    assert process.poll() is None, "the run ended before the fault"
    try:
        _set_permission(results, 0o555)
        said, _ = process.communicate(timeout=900)
    finally:
        _set_permission(results, 0o755)
    assert process.returncode == 2 and "Permission denied" in said, said


def _set_permission(results: Path, mode: int) -> None:
    """The outer folders first, so that no new one appears."""
    results.chmod(mode)
    for folder in sorted(path for path in results.rglob("*") if path.is_dir()):
        folder.chmod(mode)


def ray_node_killed(results: Path, rng: random.Random) -> None:
    """One of two nodes of a cluster dies while it has a cell; the run itself ends with every cell."""
    code = Path(__file__).with_name("node_loss.py")
    seconds = f"{rng.uniform(0.0, 0.3):.2f}"  # a fast machine finishes the cells of a node within a second
    done = subprocess.run(
        [sys.executable, str(code), str(results), seconds],
        env={**environment(), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0 and "; retried" in done.stdout, done.stdout + done.stderr


HERE = (
    Fault("full disk (RLIMIT_FSIZE)", 3, full_disk, again_here),
    Fault("out of memory (RLIMIT_AS)", 2, out_of_memory, again_here),
    Fault("checkpoint truncated", 3, damaged("checkpoint.pt", "truncated"), again_here),
    Fault("checkpoint with a flipped bit", 3, damaged("checkpoint.pt", "flipped"), again_here),
    Fault("record truncated", 3, damaged("cell.json", "truncated"), again_here),
    Fault("record with a flipped bit", 3, damaged("cell.json", "flipped"), again_here),
    Fault("table truncated", 3, damaged("accuracy.csv", "truncated"), again_here),
    Fault("table with a flipped bit", 3, damaged("accuracy.csv", "flipped"), again_here),
    Fault("clock set back by a day", 2, clock_set_back, again_here),
)
"""Quick ones: no worker processes."""
ONCE = tuple(HERE[i] for i in (0, 5, 6))
"""Those that every run of the tests injects once: no space, a record, a table; the marker slow has the others."""
AWAY = (
    Fault("worker killed (SIGKILL)", 20, worker_killed, again_by_workers),
    Fault("driver killed (SIGKILL)", 3, driver_killed, again_by_workers),
    Fault("two commands at once", 2, two_at_once, again_by_workers),
    Fault("full disk (small file system)", 2, disk_of_its_own_full, again_by_workers),
    Fault("results read-only in mid-run", 2, read_only, again_by_workers),
    Fault("Ray node killed", 2, ray_node_killed, again_by_workers),
)


def main(names: list[str]) -> None:
    chosen = [fault for fault in (*HERE, *AWAY) if not names or any(name in fault.name for name in names)]
    table = Table("fault", "times", "lost", "corrupted", "time", box=None)
    with tempfile.TemporaryDirectory() as scratch:
        whole = undisturbed(Path(scratch))
    for fault in chosen:
        start = time.monotonic()
        count = inflict(fault, fault.times, whole)
        row = (fault.name, str(fault.times), str(count.lost), str(count.corrupted))
        table.add_row(*row, f"{time.monotonic() - start:.0f} s")
        Console(stderr=True).print(*row)
    Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
