"""The documented measurement of speed: seconds per training step, memory, and the distance to the floor.

python runners/speed.py --methods hyperinterval,finetune --benchmarks split-mnist --data DIR

Every (method, benchmark, scenario) runs in a process of its own. Steps are timed inside the shared
`fit`, after a warm-up, at the first, the middle and the last task, or after `--tasks-seen`. The floor of
a hypernetwork method is the traffic of its output layer, W read forward, W and both Adam moments read and
written backward, at the copy bandwidth measured in the same process. The plain loop is finetuning written
by hand; EWC has a loop of its own kind too, with a penalty for each old task and parameter.

`--official DIR` times the authors' HyperInterval step too: same shapes, same data, same number of old
tasks. DIR is a checkout of github.com/gmum/HyperInterval; hypnettorch must be importable (PYTHONPATH).
"""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.types import Scenario
from runners import command_line
from runners.suite import find as find_suites
from runners.timing import Order, Result, measure, rows

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
SHOWN = ("benchmark", "scenario", "method", "task", "phase", "ms_per_step", "cpu_ms_per_step", "growth", "over_floor",
         "over_plain_loop", "over_same_by_hand", "peak_MiB", "peak_over_weights", "times_faster")  # fmt: skip


@app.command()
def speed(
    methods: Annotated[str, typer.Option(metavar="A,B")] = "finetune,ewc,hnet,hypermask,intercontinet,hyperinterval",
    benchmarks: Annotated[str, typer.Option(metavar="A,B")] = "split-digits",
    scenarios: Annotated[str, typer.Option(metavar="til,dil,cil")] = "til",
    suite: Annotated[str, typer.Option(help="Suite whose hyperparameters are used.")] = "mnist",
    tasks: Annotated[int | None, typer.Option(metavar="N", help="Tasks instead of the benchmark's (permuted).")] = None,
    tasks_seen: Annotated[str | None, typer.Option(metavar="0,4,9", help="Time after so many old tasks.")] = None,
    official: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Time HyperInterval's official step too.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Timed steps per phase and task.")] = 20,
    threads: Annotated[int, typer.Option(help="Threads of the process.")] = 2,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    data: Annotated[Path | None, typer.Option(envvar="CONTINUAL_DATA", help="Folder with the data sets.")] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the table as CSV.")] = None,
) -> None:
    """Measure seconds per training step, peak memory, and their ratio to the floor and to a plain loop."""
    import pandas as pd

    seen = tuple(sorted(int(number) for number in tasks_seen.split(","))) if tasks_seen else ()
    found: list[dict[str, Any]] = []
    for benchmark in command_line.names(benchmarks) or ():
        for scenario in command_line.scenarios(scenarios) or ():
            for method in command_line.names(methods) or ():
                settings = _settings(suite, method, benchmark, scenario)
                order = Order(method, benchmark, scenario, device, threads, steps, tasks, data, settings, seen)
                found += rows(_apart(order))
                if official is not None and method == "hyperinterval":
                    found += rows(_apart(replace(order, official=official)))
    _compare(found)
    table = Table(*SHOWN)
    for row in found:
        table.add_row(*("" if row[name] is None else str(row[name]) for name in SHOWN))
    console = Console()
    Console(width=max(console.width, 175)).print(table)
    if csv is not None:
        pd.DataFrame(found).to_csv(csv, index=False)


def _compare(found: list[dict[str, Any]]) -> None:
    """Add `times_faster` to our rows that have an official one beside them."""
    official = {_place(row): row["ms_per_step"] for row in found if row["method"].endswith("(official)")}
    for row in found:
        theirs = official.get((*_place(row)[:2], f"{row['method']} (official)", row["task"]))
        row["times_faster"] = round(theirs / row["ms_per_step"], 1) if theirs else None


def _place(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["benchmark"], row["scenario"], row["method"], row["task"]


def _settings(suite: str, method: str, benchmark: str, scenario: Scenario) -> dict[str, Any]:
    """The suite's hyperparameters for the cell; later entries win, as in a run."""
    values: dict[str, Any] = {}
    for entry in find_suites([suite])[0].settings:
        if entry.applies(method, benchmark, scenario):
            values |= entry.values
    return values


def _apart(order: Order) -> Result:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, order).result()


if __name__ == "__main__":
    command_line.main(app)
