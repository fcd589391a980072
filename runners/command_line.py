"""Shared code of the commands: lists of names, errors as one sentence with exit code 2, progress, interruption."""

from __future__ import annotations

import csv
import errno
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise, takewhile
from pathlib import Path
from types import FrameType
from typing import Any

import typer
from rich.console import Console
from typer.core import TyperArgument, TyperOption

from benchmarks.types import Scenario, UserError, suggestion
from runners import streams

UNLIMITED = 10_000
"""Width of the console in a pipe or a file, in characters, so that no line is wrapped there."""
CONSOLE = "continual-intervals"
"""Name of the console command, which has the scripts of this folder as subcommands."""
EXIT_FAILED_CELLS, EXIT_MISTAKE, EXIT_INTERRUPTED = 1, 2, 130


def main(app: typer.Typer) -> None:
    """Run a command. A UserError prints its sentence and gives exit code 2, as does an output that cannot be written.

    SIGTERM acts like Ctrl-C. A reader that closes the pipe early (`| head`) ends the command silently.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    # A shell starts background jobs with SIGINT ignored, and Python then installs no handler of its own.
    signal.signal(signal.SIGINT, _interrupt)
    streams.prepare()
    ignore_useless_columns()
    try:
        try:
            refuse_empty(sys.argv[1:])
            refuse_unclear(typer.main.get_command(app), sys.argv[1:])
            app()
        finally:
            streams.flush()
    except UserError as error:
        complain(str(error))
        sys.exit(EXIT_MISTAKE)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        complain(f"the path {str(error.filename)[:80]}... is longer than the file system permits; write a shorter one")
        sys.exit(EXIT_MISTAKE)
    except streams.Unwritable as error:
        streams.silence()
        if error.sentence:
            complain(error.sentence)
        sys.exit(error.code)


def ignore_useless_columns() -> None:
    """Treat COLUMNS as unset where it is 0, into which nothing would fit, or no number."""
    if not os.environ.get("COLUMNS", "").strip("0").isdecimal():
        os.environ.pop("COLUMNS", None)


def refuse_empty(arguments: Sequence[str]) -> None:
    """Raise UserError for an empty argument, as an unset variable gives it: as a path it means the working folder."""
    for before, word in pairwise(["", *arguments]):
        option, equals, value = word.partition("=")
        if not word or (word.startswith("--") and equals and not value):
            name = option or (before if before.startswith("--") else "")
            raise UserError(f"{name or 'an argument'} is empty; write a value, or leave it out")


def refuse_unclear(command: Any, arguments: Sequence[str]) -> None:
    """Raise UserError for an option without its value, given twice, or with several values and no comma.

    typer would take the next option for the value and the last of two silently, and not say where a value that stands
    alone belongs.
    """
    options = [part for part in command.params if isinstance(part, TyperOption)]
    every = {name for option in options for name in (*option.opts, *option.secondary_opts)}
    valued = [option for option in options if not (option.is_flag or option.count)]
    for word, following in pairwise([*arguments, ""]):
        if following in every and any(word in option.opts for option in valued):
            raise UserError(f"{word} needs a value; {following} is an option")
    single = [option for option in valued if not option.multiple]
    for option in single:
        times = sum(
            word in option.opts or word.startswith(tuple(f"{name}=" for name in option.opts)) for word in arguments
        )
        if times > 1:
            raise UserError(f"{option.opts[0]} is given {times} times; write it once, a list with commas: A,B")
    if any(isinstance(part, TyperArgument) for part in command.params):
        return
    known = {name for option in single for name in option.opts}
    for place, word in enumerate(arguments):
        values = list(takewhile(lambda each: not each.startswith("-"), arguments[place + 1 :]))
        if word in known and len(values) > 1:
            listed = ",".join(value.strip(",") for value in values)
            raise UserError(
                f"{word} has {len(values)} values; write a list with commas and no spaces, {word} {listed}, and a "
                "value with spaces in quotes"
            )


def invocation(script: str) -> str:
    """The command as it was called, for records: of `continual-intervals`, or `python runners/SCRIPT`."""
    called = [CONSOLE] if Path(sys.argv[0]).stem == CONSOLE else ["python", f"runners/{script}"]
    return shlex.join([*called, *sys.argv[1:]])


def console() -> Console:
    """Console on standard output, as wide as the terminal or COLUMNS; in a pipe or a file nothing is wrapped."""
    found = Console()
    return found if found.is_terminal or os.environ.get("COLUMNS") else Console(width=UNLIMITED)


@contextmanager
def interruptible() -> Iterator[None]:
    """Context in which Ctrl-C ends the command with a sentence (typer would end it silently)."""
    try:
        yield
    except KeyboardInterrupt:
        complain("stopped; run the same command again to resume", heading="")
        raise typer.Exit(EXIT_INTERRUPTED) from None


def complain(sentence: str, heading: str = "error: ") -> None:
    """Print a sentence to standard error, unwrapped."""
    Console(stderr=True, emoji=False).print(
        f"{heading}{sentence}", style="red", soft_wrap=True, highlight=False, markup=False
    )


def names(text: str | None) -> tuple[str, ...] | None:
    """Names in a list: `a,b` -> ("a", "b"), and `"a,b",c` -> ("a,b", "c") as in a CSV file; None stays None.

    Raises UserError for a list without names.
    """
    if text is None:
        return None
    parts = next(csv.reader([" ".join(text.splitlines())], skipinitialspace=True), [])
    found = tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))
    if not found:
        raise UserError(f"{text!r} contains no names; write names separated by commas")
    return found


def scenarios(text: str | None) -> tuple[Scenario, ...] | None:
    """Scenarios in a list of names; None stays None. Raises UserError for an unknown name, with the nearest one."""
    wanted = names(text)
    if wanted is None:
        return None
    for name in wanted:
        if name not in list(Scenario):
            hint = suggestion(name.lower(), Scenario, most=1)
            raise UserError(f"--scenarios {name}: there is no such scenario.{hint} Available: {', '.join(Scenario)}")
    return tuple(Scenario(name) for name in wanted)


def seeds(text: str | None) -> int | tuple[int, ...] | None:
    """Number of seeds, `3`, or the seeds themselves, `5,7` or `5,`; None stays None. Raises UserError for others."""
    wanted = names(text)
    if text is None or wanted is None:
        return None
    try:
        found = tuple(map(int, wanted))
    except ValueError:
        raise UserError(f"--seeds {text}: write how many seeds, 3, or the seeds with commas, 5,7") from None
    return found if "," in text else found[0]


@contextmanager
def progress_bar(console: Console, title: str) -> Iterator[Callable[[int, int], None]]:
    """Progress bar, as a function of (done, total); it disappears at the end."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def show_list(console: Console) -> None:
    """Print the available methods, benchmarks and suites."""
    from runners import listing

    for table in listing.tables():
        console.print(table)
        console.print()


def show_status(results: Path, watch: bool, console: Console) -> None:
    """Print the state of a results folder, once or until the run there ends. Raises UserError for no such folder."""
    from runners.watch import status

    (status.watch if watch else status.show)(results, console)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
