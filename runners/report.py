"""Write the report of a results folder, from its records alone.

python runners/report.py results
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # run as a script: the rooms, not this folder

from runners import command_line

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def report(
    results: Annotated[Path, typer.Argument(help="Folder of the records.")] = Path("results"),
    out: Annotated[Path | None, typer.Option(show_default="RESULTS/report", help="Folder of the report.")] = None,
    compare: Annotated[Path | None, typer.Option(help="Another results folder, from before a change.")] = None,
) -> None:
    """Tables, figures and a PDF of every record in a results folder; nothing is run."""
    from reports.build import build_report

    with command_line.interruptible():
        written = build_report(results, out, compare=compare)
    console = Console()
    for path in (written.pdf, written.html, written.markdown, written.cells):
        console.print(str(path), soft_wrap=True, highlight=False, markup=False)
    for problem in written.problems:
        line = f"left out {problem.folder}: {problem.reason}"
        console.print(line, style="yellow", soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    command_line.main(app)
