"""Put the finished cells of results folders among the records that ship with the repository.

python runners/reference.py results
python runners/reference.py results --check
python runners/reference.py results --replace-rows
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # run as a script: the rooms, not this folder

from benchmarks.types import UserError
from runners import command_line, reference_records, reproduction

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def reference(
    results: Annotated[list[Path], typer.Argument(help="Folders of records; of equal cells the last one stays.")],
    out: Annotated[Path, typer.Option(help="Folder of the reference records.")] = reference_records.FOLDER,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing: say how far your cells' accuracies agree with theirs.")
    ] = False,
    replace_rows: Annotated[
        bool,
        typer.Option("--replace-rows", help="Where yours have a row with other values, drop its shipped cells first."),
    ] = False,
) -> None:
    """Add finished cells to the reference records; a cell run with newer code replaces the older one."""
    console = Console()
    for folder in results:
        if not folder.is_dir():
            raise UserError(f"there is no results folder {folder}")
    if check:
        known = reference_records.read(out)
        own = (cell for folder in results for cell in reference_records.collect(folder))
        for line in reproduction.check(own, known).in_words():
            console.print(line, soft_wrap=True, highlight=False, markup=False)
        return
    cells = list(reference_records.read(out).values())
    before = len(cells)
    added = [cell for folder in results for cell in reference_records.collect(folder)]
    if replace_rows:
        kept = reference_records.without_rows_of(cells, added)
        console.print(f"{len(cells) - len(kept)} reference records dropped for rows with other values", highlight=False)
        cells = kept
    cells = reference_records.merged(cells, added)
    reference_records.write(cells, out)
    for folder in results:
        reference_records.copy_sheets(folder, out)
    sizes = {file.name: file.stat().st_size for file in sorted(out.iterdir())}
    for name, size in sizes.items():
        console.print(f"{out / name}: {size / 1e6:.2f} MB", soft_wrap=True, highlight=False, markup=False)
    console.print(f"{len(cells)} reference records, {len(cells) - before} more than before", highlight=False)


if __name__ == "__main__":
    command_line.main(app)
