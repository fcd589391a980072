"""Add the finished cells of results folders to the records that ship with the repository.

python runners/reference.py results
python runners/reference.py results --check
python runners/reference.py results --replace-rows
python runners/reference.py results-now --same-numbers results-before
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder; with -m, not the working directory

from benchmarks.types import UserError
from runners import command_line
from runners.records import reference_records, reproduction, same_numbers
from runners.records.folder import LOCK

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def reference(
    results: Annotated[list[Path], typer.Argument(help="Folders of records; of equal cells the last one is kept.")],
    out: Annotated[Path, typer.Option(help="Folder of the reference records.")] = reference_records.FOLDER,
    check: Annotated[
        bool, typer.Option("--check", help="Compare your cells' accuracies with the shipped ones; write nothing.")
    ] = False,
    replace_rows: Annotated[
        bool,
        typer.Option(
            "--replace-rows", help="First drop shipped cells of rows whose hyperparameters differ from yours."
        ),
    ] = False,
    before: Annotated[
        Path | None,
        typer.Option(
            "--same-numbers",
            metavar="FOLDER",
            help="The same cells, run with earlier code: shipped records of that code stay valid if no number differs.",
        ),
    ] = None,
) -> None:
    """Add finished cells to the reference records; a cell of newer code replaces the older one."""
    console = command_line.console()
    for folder in [*results, *([before] if before else [])]:
        if not folder.is_dir():
            raise UserError(f"there is no results folder {folder}")
    if before is not None and (check or replace_rows):
        raise UserError("--same-numbers adds no cells: leave --check and --replace-rows out")
    with command_line.interruptible():
        if before is not None:
            _carry(results, before, out, console)
        elif check:
            known = reference_records.existing(out)
            own = (cell for folder in results for cell in reference_records.collect(folder))
            for line in reproduction.check(own, known).in_words():
                console.print(line, soft_wrap=True, highlight=False, markup=False)
        else:
            _add(results, out, replace_rows, console)


def _add(results: list[Path], out: Path, replace_rows: bool, console: Console) -> None:
    """Add the finished cells of results folders to the reference records in `out`."""
    added = [cell for folder in results for cell in reference_records.collect(folder)]
    with reference_records.changing(out):
        cells = list(reference_records.read(out).values())
        known = len(cells)
        if replace_rows:
            kept = reference_records.without_rows_of(cells, added)
            console.print(
                f"{len(cells) - len(kept)} reference records dropped: their rows have other hyperparameters",
                highlight=False,
            )
            cells = kept
        cells = reference_records.merged(cells, added)
        reference_records.write(cells, out)
        for folder in results:
            reference_records.copy_sheets(folder, out)
    files = (file for file in sorted(out.iterdir()) if file.is_file() and file.name != LOCK)
    sizes = {file.name: file.stat().st_size for file in files}
    for name, size in sizes.items():
        console.print(f"{out / name}: {size / 1e6:.2f} MB", soft_wrap=True, highlight=False, markup=False)
    console.print(f"{len(cells)} reference records, {len(cells) - known} more than before", highlight=False)


def _carry(results: list[Path], before: Path, out: Path, console: Console) -> None:
    """Give reference records of earlier code the keys of the later code, where both give the same numbers."""
    later = (record for folder in results for _, record in reference_records.finished(folder))
    shown = same_numbers.compare((record for _, record in reference_records.finished(before)), later)
    if not out.is_dir():
        raise UserError(f"{out} holds no reference records")
    with reference_records.changing(out):
        cells = list(reference_records.existing(out).values())
        carried = list(same_numbers.carry(cells, shown))
        reference_records.write(carried, out)
    for one in shown:
        console.print(f"{one.method}: the same numbers in {one.in_words()}", soft_wrap=True, highlight=False)
    for place, n in same_numbers.left_out(cells, shown).items():
        console.print(f"{place}: not compared, so {n} records stay stale", soft_wrap=True, highlight=False)
    changed = sum(a.record.key != b.record.key for a, b in zip(cells, carried, strict=True))
    console.print(f"{changed} reference records carried over to the later code", highlight=False)


if __name__ == "__main__":
    command_line.main(app)
