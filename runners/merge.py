"""Copy the records of several results folders into one.

python runners/merge.py results-a results-b --into results
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder; with -m, not the working directory

from runners import command_line

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def merge(
    results: Annotated[list[Path], typer.Argument(help="Folders of records.")],
    into: Annotated[Path, typer.Option(help="Folder that receives the records; it may hold some already.")],
) -> None:
    """Copy the records of several results folders into one; the folders themselves stay as they are.

    A cell that several have with the same numbers counts once, the first folder's record. Cells with different numbers
    are named, and nothing is copied. Unfinished cells come with their checkpoints. The same command completes a merge
    that was stopped.
    """
    from runners.records import merging

    console, aside = command_line.console(), list[str]()
    with command_line.interruptible():
        begun = [into] if into.is_dir() and any(into.iterdir()) else []
        found = merging.merged([*begun, *results])
        written = merging.write(found, into, aside.append)
    console.print(
        f"{merging.in_words(found)}; {written} copied into {into}", soft_wrap=True, highlight=False, markup=False
    )
    for note in (*aside, *merging.notes(found)):
        console.print(note, style="yellow", soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    command_line.main(app)
