"""Write the report of a results folder, from its records alone.

python runners/report.py results
python runners/report.py --reference
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder; with -m, not the working directory

from benchmarks.types import UserError
from runners import command_line

REFERENCE_REPORT = Path("reference-report")
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def report(
    results: Annotated[Path | None, typer.Argument(help="Folder of the records.", show_default="results")] = None,
    out: Annotated[Path | None, typer.Option(show_default="RESULTS/report", help="Folder of the report.")] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Another results folder to compare with, from before a change.")
    ] = None,
    reference: Annotated[
        bool, typer.Option("--reference", help="Report the shipped records, in the folder reference-report.")
    ] = False,
) -> None:
    """Write tables, figures and a PDF of all records in a results folder; no cell is run."""
    from reports.build import build_report

    if reference and results is not None:
        raise UserError(f"give either {results} or --reference")
    with command_line.interruptible(), ExitStack() as stack:
        if reference:
            from runners.records import reference_records

            results = Path(stack.enter_context(TemporaryDirectory()))
            reference_records.unpack(results)
            out = out or REFERENCE_REPORT
        written = build_report(results or Path("results"), out, compare=compare)
    console = command_line.console()
    for path in (written.pdf, written.html, written.markdown, written.cells):
        console.print(str(path), soft_wrap=True, highlight=False, markup=False)
    for problem in written.problems:
        line = f"left out {problem.folder}: {problem.reason}"
        console.print(line, style="yellow", soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    command_line.main(app)
