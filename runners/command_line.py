"""What the commands share: reading lists of names, and turning mistakes into a sentence and exit code 2."""

from __future__ import annotations

import csv
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import typer
from rich.console import Console

from benchmarks.types import Scenario, UserError, suggestion
from runners import streams

UNLIMITED = 10_000
"""Characters in a line of a pipe or a file."""
EXIT_FAILED_CELLS, EXIT_MISTAKE, EXIT_INTERRUPTED = 1, 2, 130


def main(app: typer.Typer) -> None:
    """Run a command; a UserError becomes its sentence and exit code 2, SIGTERM acts as Ctrl-C does,
    and where nobody reads on (`| head`) it ends without a word."""
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)  # also where the shell had it ignored, as for background jobs
    streams.prepare()
    try:
        try:
            app()
        finally:
            streams.flush()
    except UserError as error:
        complain(str(error))
        sys.exit(EXIT_MISTAKE)
    except streams.ReaderGone as error:
        streams.silence()
        sys.exit(error.code)


def console() -> Console:
    """Standard output: as wide as the terminal, or as COLUMNS says; in a pipe or a file nothing is wrapped."""
    found = Console()
    return found if found.is_terminal or os.environ.get("COLUMNS") else Console(width=UNLIMITED)


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C inside ends the command with a sentence (typer would end it in silence)."""
    try:
        yield
    except KeyboardInterrupt:
        complain("stopped; the same command goes on where it stopped", heading="")
        raise typer.Exit(EXIT_INTERRUPTED) from None


def complain(sentence: str, heading: str = "error: ") -> None:
    """Print to standard error, unwrapped."""
    Console(stderr=True, emoji=False).print(
        f"{heading}{sentence}", style="red", soft_wrap=True, highlight=False, markup=False
    )


def names(text: str | None) -> tuple[str, ...] | None:
    """`a,b` -> ("a", "b"), and `"a,b",c` -> ("a,b", "c") as in a CSV file; None stays None."""
    if text is None:
        return None
    parts = next(csv.reader([" ".join(text.splitlines())], skipinitialspace=True), [])
    found = tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))
    if not found:
        raise UserError(f"{text!r} names nothing; write names with commas between them")
    return found


def scenarios(text: str | None) -> tuple[Scenario, ...] | None:
    """Names of scenarios. Raises UserError with the nearest one."""
    wanted = names(text)
    if wanted is None:
        return None
    for name in wanted:
        if name not in list(Scenario):
            hint = suggestion(name.lower(), Scenario, most=1)
            raise UserError(f"--scenarios {name}: there is no such scenario.{hint} Available: {', '.join(Scenario)}")
    return tuple(Scenario(name) for name in wanted)


@contextmanager
def progress_bar(console: Console, title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that is told (done, total); nothing of it stays on the screen."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def show_list(console: Console) -> None:
    """Print what there is to run."""
    from runners import listing

    for table in listing.tables():
        console.print(table)
        console.print()


def show_status(results: Path, watch: bool, console: Console) -> None:
    """Print how things stand in a results folder, once or until the run there ends. Raises UserError."""
    from runners.watch import status

    (status.watch if watch else status.show)(results, console)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
