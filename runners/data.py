"""List, prepare and check the data sets on this machine before a run.

python runners/data.py --list
python runners/data.py --prepare cifar-100
python runners/data.py --check cifar-100 --data DIR
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder; with -m, not the working directory

from benchmarks import catalogue, plugins, preparation
from benchmarks.types import UserError
from runners import command_line, completion, streams
from runners.columns import Columns
from runners.listing import budget_in_words

if TYPE_CHECKING:
    from benchmarks.definition import Benchmark
    from benchmarks.plugins import DataSource

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    list_all: Annotated[
        bool, typer.Option("--list", help="List data sets, present and missing, and their folders.")
    ] = False,
    prepare: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Fetch if permitted, check and decode; may be repeated.",
            autocompletion=completion.data_sets,
        ),
    ] = None,
    check: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Compare files with their checksums, count samples, cut a benchmark's tasks; may be repeated.",
            autocompletion=completion.data_sets,
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(envvar="CONTINUAL_DATA", help="Folder with the data sets, read only.")
    ] = None,
) -> None:
    """List, prepare or check data sets. NAME is a data set (cifar-100), a benchmark (split-cifar-100), or `all`.

    Exit code 1: a data set is missing or damaged; 2: a mistake in the call.
    """
    console = command_line.console()
    if data is not None and not data.is_dir():
        raise UserError(f"--data {data}: there is no such folder")
    if not (list_all or prepare or check):
        raise UserError("write --list, --prepare NAME or --check NAME")
    if list_all:
        _show(preparation.survey(data), console)
    failed = False
    with command_line.interruptible():
        for name in preparation.chosen(prepare or [], data):
            failed |= not _act(preparation.prepare, name, data, console)
        for name in preparation.chosen(check or [], data):
            whole = _act(preparation.check, name, data, console)
            failed |= not whole
            for benchmark in preparation.used_by(check or [], name) if whole else ():
                failed |= not _cut(benchmark, data, console)
    raise typer.Exit(command_line.EXIT_FAILED_CELLS if failed else 0)


def _act(action: preparation.Action, dataset: DataSource, data: Path | None, console: Console) -> bool:
    begun, name = time.monotonic(), plugins.named(dataset)
    try:
        with command_line.progress_bar(console, name) as progress:
            lines = action(dataset, data, progress)
    except UserError as error:
        command_line.complain(str(error))
        return False
    except (Exception, SystemExit) as error:  # of a function of the user's, which may raise anything
        if not plugins.is_reference(dataset) or isinstance(error, streams.Unwritable):
            raise
        command_line.complain(f"data set {name}: its function raises {_in_words(error)}")
        return False
    _print(lines, console)
    console.print(f"{name}: {time.monotonic() - begun:.1f} s", style="dim", highlight=False)
    return True


def _cut(benchmark: Benchmark, data: Path | None, console: Console) -> bool:
    try:
        lines = preparation.cut(benchmark, data)
    except UserError as error:
        command_line.complain(str(error))
        return False
    _print(lines, console)
    return True


def _print(lines: list[str], console: Console) -> None:
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _in_words(error: BaseException) -> str:
    """An exception in a line, with its place in the user's file."""
    from runners.conformance import mistakes
    from runners.process.shortage import first_line

    at = mistakes.place(error.__traceback__, set())
    return f"{type(error).__name__}: {first_line(error)}{f' ({at})' if at else ''}"


def _of_image_folders() -> str:
    """Default setting of the benchmarks that image folders make."""
    one, classes = catalogue.find("images-FOLDER-2x2"), 2
    return (
        f"{one.network}, {budget_in_words(one.budget)} a task, {one.stored_shape[1]} x {one.stored_shape[2]} pixels, "
        f"{one.validation // classes} images for each class of a task for validation, drawn in proportion; "
        "a suite file can give another network and budget"
    )


def _show(rows: list[preparation.Row], console: Console) -> None:
    shown = [(row.name, row.state, row.size, row.decoded) for row in rows]
    console.print(Columns("Data sets", ("name", "state", "size", "decoded"), shown))
    console.print(f"images-FOLDER-TASKSxCLASSES: {_of_image_folders()}", soft_wrap=True, highlight=False, markup=False)
    for row in rows:
        if row.advice:
            console.print(f"{row.name}: {row.advice}", soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    command_line.main(app)
