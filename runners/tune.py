"""Choose hyperparameters on validation data, with the same number of trials for every method.

python runners/tune.py --suite quick --method ewc --method hyperinterval --trials 16
python runners/tune.py --suite quick --method ewc --grid strength=100,1000,1e4
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from filelock import FileLock
from rich.console import Console

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder; with -m, not the working directory

from benchmarks.types import UserError
from reports.words import count
from runners import command_line, completion
from runners.grid.cells import TUNING_SEEDS
from runners.session import Options, build_cells, check, devices_of, make_engine

if TYPE_CHECKING:
    from runners.tuning.search import Prefer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def tune(
    suite: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE", help="Suite with the benchmarks and budgets.", autocompletion=completion.suites
        ),
    ],
    method: Annotated[
        list[str],
        typer.Option(
            metavar="NAME|FILE.py:CLASS", help="Method to tune; may be repeated.", autocompletion=completion.method
        ),
    ],
    trials: Annotated[
        int | None, typer.Option(show_default="16", help="Trials for each method, benchmark and scenario.")
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=A,B,...",
            help="Try only these values and the suite's own; repeated: every combination. "
            "A list is written with brackets: hidden=[100],[50,50].",
        ),
    ] = None,
    benchmarks: Annotated[
        str | None, typer.Option(metavar="A,B", help="Only these benchmarks.", autocompletion=completion.benchmarks)
    ] = None,
    scenarios: Annotated[
        str | None,
        typer.Option(metavar="til,dil,cil", help="Only these scenarios.", autocompletion=completion.scenarios),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Streams for each trial, from seeds that no comparison uses.")] = 1,
    budget_scale: Annotated[float, typer.Option(help="Multiply the training length of every trial.")] = 1.0,
    prefer: Annotated[
        str,
        typer.Option(
            metavar="known|certified",
            help="Of the trials within a standard error of the best, choose the suite's own or published values, "
            "or those of the highest certified accuracy.",
        ),
    ] = "known",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    workers: Annotated[int | None, typer.Option(metavar="N", help="Worker processes.")] = None,
    engine: Annotated[str, typer.Option(help="local, ray or inline.")] = "local",
    data: Annotated[Path | None, typer.Option(envvar="CONTINUAL_DATA", help="Folder with the data sets.")] = None,
    results: Annotated[Path, typer.Option(help="Results folder; tuning writes to RESULTS/tuning.")] = Path("results"),
    logger: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Also log trials live to tensorboard, wandb, mlflow, or FILE.py:CLASS.",
            autocompletion=completion.loggers,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", show_default="RESULTS/tuning/SUITE.toml", help="Chosen values.")
    ] = None,
) -> None:
    """Tune methods. The same command resumes a stopped one; a suite includes the values by `tuned = "FILE.toml"`."""
    if trials is not None and trials < 1:
        raise UserError(f"--trials {trials}: must be at least 1")
    if not 1 <= seeds <= TUNING_SEEDS:
        raise UserError(f"--seeds {seeds}: write how many streams, from 1 to {TUNING_SEEDS:,}")
    if grid and trials is not None:
        raise UserError("--trials and --grid: a grid has as many trials as combinations; leave --trials out")
    files = tuple(name for name in method if ".py" in name)
    options = Options(
        suites=(suite,),
        methods=tuple(name for name in method if name not in files),
        foreign=files,
        benchmarks=command_line.names(benchmarks),
        scenarios=command_line.scenarios(scenarios),
        seeds=1,
        budget_scale=budget_scale,
        device=device,
        workers=workers,
        engine=engine,
        data=data,
        results=results,
        command=command_line.invocation("tune.py"),
        loggers=command_line.names(logger) or (),
    )
    check(options)
    number, rule = 16 if trials is None else trials, _prefer(prefer)
    with command_line.interruptible():
        _tune(options, number, _grid(grid or ()), rule, seeds, out, command_line.console())


def _prefer(text: str) -> Prefer:
    from runners.tuning.search import Prefer

    if text not in list(Prefer):
        raise UserError(f"--prefer {text}: choose known or certified")
    return Prefer(text)


def _grid(texts: Sequence[str]) -> dict[str, list[str]]:
    """Grid of values: `lr=1,0.3` as {"lr": ["1", "0.3"]}; commas within brackets belong to a value."""
    found: dict[str, list[str]] = {}
    for text in texts:
        key, _, values = text.partition("=")
        parts = [part.strip() for part in re.findall(r"(?:\[[^\]]*\]|[^,\[])+", values)]
        if not key.strip() or not all(parts) or not parts or key.strip() in found:
            raise UserError(f"--grid {text}: write it as key=value,value, each key once, e.g. --grid lr=0.1,0.01")
        found[key.strip()] = parts
    return found


def _tune(
    options: Options,
    trials: int,
    grid: dict[str, list[str]],
    prefer: Prefer,
    seeds: int,
    out: Path | None,
    console: Console,
) -> None:
    from runners.engines.scheduler import Watchers
    from runners.grid import suite
    from runners.grid.cells import Conditions
    from runners.loggers.feed import Feed
    from runners.records import environment
    from runners.tuning import chosen, search
    from runners.watch.live import Display

    cells = [cell for cell in build_cells(options) if cell.scenario in _supported(cell)]
    studies = [search.grid_of(cell, grid, seeds) if grid else search.study_of(cell, seeds) for cell in cells]
    if not studies:
        raise UserError("nothing to tune: no method is defined in a scenario of this suite")
    assigned = devices_of(options)
    place = (options.results / "tuning").resolve()
    names = [each.name for each in suite.find(options.suites)]  # a cell has those that ask for it, with commas
    files = [[place / f"{n}.toml" for n in names if f", {n}, " in f", {study.cell.suite}, "] for study in studies]
    own = list(dict.fromkeys(file for some in files for file in some))  # the report reads these
    _check_files(place, own, out)
    engine = make_engine(options, assigned)
    driver_environment = environment.of_driver()
    conditions = Conditions(
        device=assigned[0],
        data_dir=str(options.data.resolve()) if options.data else None,
        command=options.command,
        environment=driver_environment,
    )
    try:
        with Feed(options.loggers, options.results, console) as feed:
            for study, some in zip(studies, files, strict=True):
                with Display(console) as display:
                    found = search.run(study, trials, place, conditions, engine, Watchers((display, feed)))
                entry = chosen.entry(
                    study, found, prefer, options.budget_scale, options.command, driver_environment.get("commit") or ""
                )
                with FileLock(place / ".files.lock"):  # another command may tune another method into the same files
                    chosen.write_trials(place / "trials.csv", study, found, prefer)
                    for file in [*some, *([out] if out else [])]:
                        chosen.write(file, entry, study.cell.config)
                console.print(_in_words(study, found, prefer), highlight=False, soft_wrap=True)
    finally:
        engine.close()
    for file in [out] if out else own:
        console.print(f"chosen values: {file}", highlight=False, soft_wrap=True)


def _check_files(place: Path, own: Sequence[Path], out: Path | None) -> None:
    """Check the files that the chosen values will be written to, before hours of training. Raises UserError."""
    from runners.records import folder
    from runners.tuning import chosen

    folder.probe(place)
    chosen.read_trials(place / "trials.csv")
    for file in own:
        chosen.read(file)
    if out is None:
        return
    if len(own) > 1:
        names = ", ".join(file.stem for file in own)
        raise UserError(f"--out {out}: a file has the values of one suite, not of {names}; choose one by --suite")
    try:
        chosen.read(out)
        folder.probe(out.parent)
    except UserError as error:
        raise UserError(f"--out: {error}") from error


def _supported(cell: Any) -> Sequence[str]:
    from methods import registry

    cls: Any = registry.load(cell.reference)
    return tuple(cls.supports)


def _in_words(study: Any, trials: Sequence[Any], prefer: Prefer) -> str:
    from runners.tuning import search
    from runners.tuning.study import listed

    best, choice = search.best(trials), search.choice(study, trials, prefer)
    values = listed(best.values)
    if choice is not best:
        values += f"; better by no more than a standard error, so the choice is {_trial(choice)}"
    names = ("the suite's own values", "the published ones")[: 1 if study.grid else len(study.first)]
    first = ", ".join(f"{name}: {_percent(trial.accuracy)}" for name, trial in zip(names, trials, strict=False))
    ended = sum(trial.state == "pruned" for trial in trials)
    cell = study.cell
    text = (
        f"{cell.label}, {cell.benchmark} {cell.scenario}: {count(len(trials), 'trial')}, {ended} ended early; best on "
        f"validation {100 * (best.accuracy or 0):.2f} % ({first}): {values}"
    )
    if not study.grid:
        return text
    return "\n".join([text, *(f"  {_trial(trial)}" for trial in trials)])


def _trial(trial: Any) -> str:
    from runners.tuning.study import listed

    certified = "" if trial.certified is None else f" (certified {_percent(trial.certified)})"
    return f"{listed(trial.values)}: {_percent(trial.accuracy)}{certified}"


def _percent(accuracy: float | None) -> str:
    return "failed" if accuracy is None else f"{100 * accuracy:.2f} %"


if __name__ == "__main__":
    command_line.main(app)
