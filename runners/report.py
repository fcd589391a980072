"""Write the report of a results folder, from its records alone.

python runners/report.py results
python runners/report.py results-a results-b
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

REFERENCE_REPORT, MERGED_REPORT = Path("reference-report"), Path("merged-report")
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def report(
    results: Annotated[
        list[Path] | None, typer.Argument(help="Folder of the records, or several.", show_default="results")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(show_default="RESULTS/report, or merged-report", help="Folder of the report.")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Another results folder to compare with, from before a change.")
    ] = None,
    reference: Annotated[
        bool, typer.Option("--reference", help="Report the shipped records, in the folder reference-report.")
    ] = False,
) -> None:
    """Write tables, figures and a PDF of all records in a results folder, or in several; no cell is run.

    A cell that several folders have with the same numbers counts once; cells with different numbers are named, and no
    report is written.
    """
    from reports.build import build_report

    if reference and results:
        raise UserError(f"give either {results[0]} or --reference")
    console, notes = command_line.console(), []
    with command_line.interruptible(), ExitStack() as stack:
        if reference:
            from runners.records import reference_records

            folder = Path(stack.enter_context(TemporaryDirectory()))
            reference_records.unpack(folder)
            out = out or REFERENCE_REPORT
        elif results and len(results) > 1:
            from runners.records import merging

            found = merging.merged(results)
            folder = Path(stack.enter_context(TemporaryDirectory()))
            merging.link(found, folder)
            out, notes = out or MERGED_REPORT, merging.notes(found)
            console.print(merging.in_words(found), soft_wrap=True, highlight=False, markup=False)
        else:
            folder = results[0] if results else Path("results")
        written = build_report(folder, out, compare=compare)
    for path in (written.pdf, written.html, written.markdown, written.cells):
        console.print(str(path), soft_wrap=True, highlight=False, markup=False)
    for line in (*notes, *(f"left out {problem.folder}: {problem.reason}" for problem in written.problems)):
        console.print(line, style="yellow", soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    command_line.main(app)
