"""The main command: run a grid of methods and benchmarks, then write the report.

python runners/compare.py --suite quick
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder; with -m, not the working directory

from benchmarks.types import UserError
from runners import command_line, completion
from runners.session import Options, run

DEFAULT_SUITE = "quick"
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def compare(
    suite: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FILE",
            show_default="quick",
            help="Suite to run; may be repeated.",
            autocompletion=completion.suites,
        ),
    ] = None,
    methods: Annotated[
        str | None, typer.Option(metavar="A,B", help="Only these methods.", autocompletion=completion.methods)
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE.py:CLASS",
            help="Add your own method (this runs the file); may be repeated.",
            autocompletion=completion.files,
        ),
    ] = None,
    benchmarks: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Only these benchmarks; those that no chosen suite has are added, with their own settings.",
            autocompletion=completion.benchmarks,
        ),
    ] = None,
    benchmark: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE.py:NAME",
            help="Add your own benchmark (this runs the file); may be repeated.",
            autocompletion=completion.python_files,
        ),
    ] = None,
    scenarios: Annotated[
        str | None,
        typer.Option(metavar="til,dil,cil", help="Only these scenarios.", autocompletion=completion.scenarios),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="N|A,B", help="Seeds instead of the suite's: 0 to N-1, or those of a list; `5,` is seed 5 alone."
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="METHOD.KEY=VALUE", help="A hyperparameter; may be repeated."),
    ] = None,
    budget_scale: Annotated[float, typer.Option(help="Multiply the training length of every cell.")] = 1.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", show_default="one per core, up to four per GPU", help="Worker processes."),
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of each worker.")] = 1,
    engine: Annotated[
        str, typer.Option(help="local (worker processes), ray (a cluster) or inline (this process).")
    ] = "local",
    cell_timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="End a cell that runs longer (engines local and ray).")
    ] = None,
    on_oom: Annotated[
        str,
        typer.Option(
            metavar="record|retry-smaller",
            help="After a lack of memory: record it, or retry with half the evaluation batch.",
        ),
    ] = "record",
    ray_address: Annotated[
        str,
        typer.Option(
            metavar="auto|HOST:PORT", help="The Ray cluster; default: a Ray on this machine, for this run only."
        ),
    ] = "local",
    cell_gpus: Annotated[float, typer.Option(help="GPUs of each cell; a fraction shares one (engine ray).")] = 1.0,
    cell_memory: Annotated[
        float | None, typer.Option(metavar="GIB", help="Main memory declared for each cell (engine ray).")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            envvar="CONTINUAL_DATA",
            help="Folder with the data sets; needed for folders of images and for machines without internet.",
        ),
    ] = None,
    results: Annotated[Path, typer.Option(help="Folder of the records.")] = Path("results"),
    reference: Annotated[
        bool | None,
        typer.Option(
            "--reference/--no-reference",
            show_default="with --method",
            help="Take cells from the shipped records if code and hyperparameters agree.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show a line for each benchmark and scenario, with time and memory; run nothing."
        ),
    ] = False,
    rerun: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CELL",
            help="Run this cell alone, also if finished (a name of --dry-run --verbose or --status); may be repeated. "
            "The old record stays until the new one is complete.",
            autocompletion=completion.cells,
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="With --dry-run: show every cell, its memory and its expected time.")
    ] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Run without writing a report.")] = False,
    check: Annotated[
        bool,
        typer.Option("--check/--no-check", help="Check methods of your own for conformance first; noted in records."),
    ] = True,
    logger: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Also log live to tensorboard, wandb, mlflow, or FILE.py:CLASS.",
            autocompletion=completion.loggers,
        ),
    ] = None,
    status: Annotated[
        Path | None,
        typer.Option(metavar="RESULTS", help="Show cells finished, running, failed and waiting there; run nothing."),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="With --status: refresh until the run ends.")] = False,
    list_all: Annotated[bool, typer.Option("--list", help="Show methods, benchmarks and suites.")] = False,
) -> None:
    """Compare continual-learning methods on the same task streams: run the unfinished cells, then write the report.

    The same command resumes a stopped run. Exit code 1: a cell failed; 2: a mistake in the call.
    """
    console = command_line.console()
    if list_all:
        command_line.show_list(console)
        return
    if status is not None:
        command_line.show_status(status, watch, console)
        return
    if watch:
        raise UserError("--watch needs a results folder: write --status RESULTS --watch")
    if verbose and not dry_run:
        raise UserError("--verbose shows the cells of a plan: write --dry-run --verbose")
    options = Options(
        suites=tuple(suite or [DEFAULT_SUITE]),
        methods=command_line.names(methods),
        foreign=tuple(method or ()),
        benchmarks=command_line.names(benchmarks),
        own_benchmarks=tuple(benchmark or ()),
        scenarios=command_line.scenarios(scenarios),
        seeds=command_line.seeds(seeds),
        assignments=tuple(assignments or ()),
        budget_scale=budget_scale,
        device=device,
        workers=workers,
        threads=threads,
        engine=engine,
        cell_timeout=cell_timeout,
        on_oom=on_oom,
        ray_address=ray_address,
        cell_gpus=cell_gpus,
        cell_memory=cell_memory,
        data=data,
        results=results,
        reference=reference,
        dry_run=dry_run,
        rerun=tuple(name for text in rerun or () for name in command_line.names(text) or ()),
        verbose=verbose,
        report=not no_report,
        check=check,
        loggers=command_line.names(logger) or (),
        command=command_line.invocation("compare.py"),
    )
    with command_line.interruptible():
        raise typer.Exit(run(options, console))


if __name__ == "__main__":
    command_line.main(app)
