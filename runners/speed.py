"""Measure speed: time per training step, memory, and the ratio to the floor.

python runners/speed.py --methods hyperinterval,finetune --benchmarks split-mnist --data DIR

Every (method, benchmark, scenario) runs in a process of its own. Steps are timed inside the shared `fit`, after a
warm-up, at the first, the middle and the last task, or after `--tasks-seen`. The floor of a hypernetwork method is the
time of its output layer's memory traffic at the copy bandwidth measured in the same process: W is read forward; W and
both Adam moments are read and written backward. A chunked one also writes and reads the weights of a network, and its
look-ahead reads more (runners/timing/floor.py). The plain loop is finetuning written by hand. EWC also has a
hand-written loop of its own, with a penalty for each old task and parameter.

`--epochs` times whole tasks of one epoch, EWC's Fisher pass included. `--methods ewc,avalanche:EWC` compares
Avalanche's EWC with ours, on the same network and images, from tensors and from PIL images.

`--group masks` times the methods with masks or owner maps next to finetuning, on two networks of WSN's tables, with
the hyperparameters of its suites: `over plain loop` is the ratio to a plain step of that network in the same process.
`--random-images` needs no data: the cost of a step depends on the shape of images, not on their content.

`--official DIR` also times the authors' step: same shapes, same data, same number of old tasks. DIR is a checkout of
github.com/gmum/HyperInterval, HyperMask or InterContiNet, or of github.com/chrhenning/hypercl (HNET); the first two
need hypnettorch on PYTHONPATH.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder; with -m, not the working directory

from benchmarks import catalogue
from benchmarks.types import Scenario, UserError
from methods import registry
from runners import command_line, completion
from runners.grid.hyperparameters import configure, parse_assignment
from runners.grid.suite import find as find_suites
from runners.process import cpu, devices
from runners.records import folder
from runners.session import THREADS_AT_MOST
from runners.timing import groups
from runners.timing.measure import Result, measure
from runners.timing.official import method_of
from runners.timing.rounds import Order
from runners.timing.table import compare, machines, rows, table, title

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
METHODS, BENCHMARKS = (",".join(names) for names in (groups.DEFAULT.methods, groups.DEFAULT.suites))
STEPS = {"cpu": 20, "cuda": 250}
"""Timed steps by device. On CUDA each of the five rounds has 50 steps, as many as training runs between two checks of
the losses: a check waits for the device, so that shorter rounds would measure more waiting than training has."""


@app.command()
def speed(
    methods: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Methods to time.", autocompletion=completion.methods, show_default=METHODS),
    ] = None,
    benchmarks: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Benchmarks to time them on.",
            autocompletion=completion.benchmarks,
            show_default=BENCHMARKS,
        ),
    ] = None,
    scenarios: Annotated[
        str,
        typer.Option(metavar="til,dil,cil", help="Scenarios to time them in.", autocompletion=completion.scenarios),
    ] = "til",
    suite: Annotated[
        str | None,
        typer.Option(
            help="Suite whose hyperparameters are used.", autocompletion=completion.suites, show_default=groups.SUITE
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Methods, benchmarks and suites of a group instead of these defaults: {', '.join(groups.GROUPS)}.",
        ),
    ] = None,
    tasks: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Number of tasks instead of the benchmark's (permuted).")
    ] = None,
    tasks_seen: Annotated[str | None, typer.Option(metavar="0,4,9", help="Numbers of old tasks to time after.")] = None,
    official: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR", help="Also time the official step of HyperInterval, HyperMask, HNET or InterContiNet."
        ),
    ] = None,
    epochs: Annotated[
        bool,
        typer.Option(
            "--epochs", help="Time whole tasks of one epoch instead of steps; avalanche:NAME also from PIL images."
        ),
    ] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="METHOD.KEY=VALUE", help="A hyperparameter instead of the suite's."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of timed steps per phase and task; above 5, rounded up to fives.",
            show_default="20, on CUDA 250",
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, max=THREADS_AT_MOST, help="Threads of the process.")] = 2,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "cpu",
    data: Annotated[Path | None, typer.Option(envvar="CONTINUAL_DATA", help="Folder with the data sets.")] = None,
    random_images: Annotated[
        bool, typer.Option("--random-images", help="Random images in the shape of the benchmark's; no data is read.")
    ] = False,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the table as CSV.")] = None,
    profile: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the slowest operations of the last task's step, as Markdown."),
    ] = None,
) -> None:
    """Measure time per training step and peak memory, with their ratios to the floor and to a plain loop."""
    for option, file in (("--csv", csv), ("--profile", profile)):
        _refuse_unwritable(option, file)
    if epochs and profile is not None:
        raise UserError("--profile shows the operations of a step; leave --epochs out")
    device = devices.single(device)
    steps = steps or STEPS.get(device.partition(":")[0], STEPS["cpu"])
    given = [parse_assignment(text) for text in set_ or []]
    members = groups.find(group)
    named = command_line.names(methods) or members.methods
    for name, key, _ in given:
        if name not in named:
            raise UserError(f"--set {name}.{key}: {name} is not among the methods to time, {', '.join(named)}")
    checkouts = {method_of(folder): folder for folder in official or ()}
    if strangers := checkouts.keys() - set(named):
        raise UserError(f"--official: {', '.join(sorted(strangers))} is not among the methods to time")
    if checkouts and epochs:
        raise UserError("--official times steps; leave --epochs out")
    seen = _numbers(tasks_seen)
    orders: list[Order] = []
    for benchmark in command_line.names(benchmarks) or members.suites:
        catalogue.find(benchmark)
        source = suite or members.suites.get(benchmark, groups.SUITE)
        for scenario in command_line.scenarios(scenarios) or ():
            for method in named:
                settings = _settings(source, method, benchmark, scenario)
                settings |= {key: value for name, key, value in given if name == method}
                # A mistake is found before anything is timed.
                config = configure(method, registry.load(method).Config, settings)
                reason = registry.load(method).skip(catalogue.find(benchmark).spec(scenario), config)
                if reason is not None:
                    command_line.console().print(f"not timed: {reason}", highlight=False, soft_wrap=True)
                    continue
                order = Order(
                    method, benchmark, scenario, device, threads, steps, tasks, data, settings, seen, epochs=epochs,
                    random_images=random_images,
                )  # fmt: skip
                orders += _with_others(order, checkouts.get(method))
    if not orders:
        raise UserError("no method is left to time")
    results = [_apart(order) for order in orders]
    found = [row for result in results for row in rows(result)]
    compare(found)
    console = command_line.console()
    wide = Console(width=max(console.width, 175))
    wide.print(machines(results), highlight=False)
    wide.print(table(found))
    if csv is not None:
        import pandas as pd

        _write(csv, pd.DataFrame(found).to_csv(index=False))
    if profile is not None:
        _write(profile, "\n".join(map(_profiled, results)))


def _numbers(text: str | None) -> tuple[int, ...]:
    """Numbers of old tasks, `0,4,9`, in order. Raises UserError."""
    found = command_line.names(text) or ()
    if not all(re.fullmatch("[0-9]{1,6}", number) for number in found):
        raise UserError(f"--tasks-seen {text}: write numbers of old tasks with commas, from 0: 0,4,9")
    return tuple(sorted(set(map(int, found))))


def _refuse_unwritable(option: str, file: Path | None) -> None:
    """Raise UserError for a file that could not be written after the measuring."""
    if file is None:
        return
    if not file.exists():
        folder.probe(file.parent)
    elif file.is_dir() or not os.access(file, os.W_OK):
        raise UserError(f"{option} {file}: this is no file that can be written; name another one")


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}; the numbers are in the table above") from error


def _with_others(order: Order, checkout: Path | None) -> list[Order]:
    """The order, then those of the same method's other programs."""
    found = [order]
    if order.epochs and order.method.startswith(registry.AVALANCHE_PREFIX):
        found.append(replace(order, pictures=True))
    if checkout is not None:
        found.append(replace(order, official=checkout))
    return found


def _profiled(result: Result) -> str:
    """Operations of the last task's step as Markdown, from a process of its own: a profiler takes memory and time."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # otherwise the profiler prints its start and stop
    last = result.timings[-1].task
    again = _apart(replace(result.order, seen=(last,), steps=1, profile=True))
    lines = [
        f"## {title(result.order)}, task {last}",
        "",
        "| operation | calls a step | ms a step | share |",
        "| --- | --- | --- | --- |",
    ]
    for timing in again.timings:
        lines += [
            f"| {part.name} | {part.calls:g} | {1000 * part.seconds:.2f} | {100 * part.share:.0f} % |"
            for part in timing.profile
        ]
    return "\n".join([*lines, ""])


def _settings(suite: str, method: str, benchmark: str, scenario: Scenario) -> dict[str, Any]:
    """Hyperparameters of the cell by the suite; later entries win, as in a run."""
    values: dict[str, Any] = {}
    for entry in find_suites([suite])[0].settings:
        if entry.applies(method, benchmark, scenario):
            values |= entry.values
    return values


def _apart(order: Order) -> Result:
    """Result of an order, measured in a process of its own."""
    # The process inherits the variables. Libraries read them when they are loaded, so a fork of this one is too late.
    os.environ.update(cpu.variables(order.threads))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, order).result()


if __name__ == "__main__":
    command_line.main(app)
