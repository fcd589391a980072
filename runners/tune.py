"""Choose hyperparameters on validation data, with the same number of trials for every method.

python runners/tune.py --suite quick --method ewc --method hyperinterval --trials 16
python runners/tune.py --suite quick --method ewc --grid strength=100,1000,1e4
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
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
    from benchmarks.types import Budget
    from runners.grid.cells import Cell, Conditions
    from runners.grid.suite import Suite
    from runners.tuning.search import Prefer, Study

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
        read = re.findall(r"(?:\[[^\]]*\]|[^,\[])+", values)
        parts, whole = [part.strip() for part in read], ",".join(read) == values
        if not key.strip() or not whole or not all(parts) or not parts or key.strip() in found:
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
    from runners.loggers.feed import Feed
    from runners.tuning import chosen, search
    from runners.watch.live import Display

    asked = suite.find(options.suites)
    studies = _studies(options, asked, grid, seeds, console)
    budgets = _whole_budgets(options, asked, studies)
    assigned = devices_of(options)
    place = (options.results / "tuning").resolve()
    files = [[place / f"{each.name}.toml" for each in _asking(asked, study.cell)] for study in studies]
    own = list(dict.fromkeys(file for some in files for file in some))  # the report reads these
    _check_entries(studies, files)
    _check_files(place, own, out)
    engine = make_engine(options, assigned)
    conditions, written, failed = _conditions(options, assigned[0]), dict[Path, None](), 0
    commit = (conditions.environment or {}).get("commit") or ""
    try:
        with Feed(options.loggers, options.results, console) as feed:
            for study, some, whole in zip(studies, files, budgets, strict=True):
                try:
                    if (apart := search.settled(study, place)) is not study:
                        study, other = apart, "an earlier study has other ranges; this one is kept apart from it"
                        console.print(f"note: {_place(study)}: {other}", highlight=False, soft_wrap=True, markup=False)
                    with Display(console) as display:
                        found = search.run(study, trials, place, conditions, engine, Watchers((display, feed)))
                    entry = chosen.entry(study, found, prefer, whole, options.command, commit)
                except search.Unusable:
                    raise
                except UserError as error:  # the other studies have nothing to do with it
                    failed += 1
                    command_line.complain(f"{_place(study)}: {error}")
                    continue
                with FileLock(place / ".files.lock"):  # another command may tune another method into the same files
                    chosen.write_trials(place / "trials.csv", study, found, prefer)
                    for file in [*some, *([out] if out else [])]:
                        chosen.write(file, entry, study.cell.config)
                written |= dict.fromkeys([out] if out else some)
                console.print(_in_words(study, found, prefer), highlight=False, soft_wrap=True)
    finally:
        engine.close()
    for file in written:
        console.print(f"chosen values: {file}", highlight=False, soft_wrap=True)
    if failed:
        command_line.complain(f"{failed} of {count(len(studies), 'study', 'studies')} chose no values; see above")
        raise typer.Exit(command_line.EXIT_FAILED_CELLS)


def _conditions(options: Options, device: str) -> Conditions:
    from runners.grid.cells import Conditions
    from runners.records import environment

    return Conditions(
        device=device,
        data_dir=str(options.data.resolve()) if options.data else None,
        command=options.command,
        environment=environment.of_driver(),
    )


def _studies(
    options: Options, suites: Sequence[Suite], grid: dict[str, list[str]], seeds: int, console: Console
) -> list[Study]:
    """Studies of all rows but those of variants that their own values leave nothing to search in, which it tells.

    Raises UserError where none is left.
    """
    from runners.tuning import search

    studies, left_out = [], []
    for cell in [row for each in build_cells(options) for row in _rows(each)]:
        if cell.scenario not in _supported(cell):
            continue
        rows = [row for each in _asking(suites, cell) for row in each.variants if row.label == cell.label]
        fixed = {key for row in rows for key in row.values}
        try:
            made = search.grid_of(cell, grid, seeds, fixed) if grid else search.study_of(cell, seeds, fixed)
            studies.append(made)
        except search.Fixed as error:
            left_out.append(str(error))
    if not studies:
        nothing = "nothing to tune: no method is defined in a scenario of this suite"
        raise UserError(left_out[0] if left_out else nothing)
    for sentence in dict.fromkeys(left_out):
        console.print(f"note: {sentence}", highlight=False, soft_wrap=True, markup=False)
    return studies


def _rows(cell: Cell) -> list[Cell]:
    """The cell under the label of each row that it stands for; a row is tuned apart from others of its values."""
    return [replace(cell, label=label, twins=()) for label in (cell.label, *cell.twins)]


def _asking(suites: Sequence[Suite], cell: Cell) -> list[Suite]:
    """The suites that ask for a row's cell, which has their names with commas; of a variant, those that have it."""
    asking = [each for each in suites if f", {each.name}, " in f", {cell.suite}, "]
    return [each for each in asking if any(row.label == cell.label for row in each.variants)] or asking


def _whole_budgets(options: Options, suites: Sequence[Suite], studies: Sequence[Study]) -> list[Budget]:
    """For each study the budget in the first suite that asks for it, which --budget-scale multiplies."""
    if options.budget_scale == 1:
        return [study.cell.budget for study in studies]

    def places(cell: Cell) -> list[tuple[str, ...]]:
        return [(each.name, cell.benchmark, cell.scenario, cell.label) for each in _asking(suites, cell)]

    whole = [row for each in build_cells(replace(options, budget_scale=1.0)) for row in _rows(each)]
    found = {place: cell.budget for cell in whole for place in places(cell)}
    return [found[places(study.cell)[0]] for study in studies]


def _check_entries(studies: Sequence[Study], files: Sequence[Sequence[Path]]) -> None:
    """Refuse two studies of one entry of a file of chosen values: the later would replace the earlier's."""
    found: set[tuple[Path, str]] = set()
    for study, some in zip(studies, files, strict=True):
        if twice := [file for file in some if (file, _place(study)) in found]:
            raise UserError(
                f"suite {twice[0].stem} lists {study.cell.benchmark} twice, with other lengths or networks, and a file "
                "of chosen values has one entry for both; write two suites"
            )
        found |= {(file, _place(study)) for file in some}


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
    ended, failed = (sum(trial.state == state for trial in trials) for state in ("pruned", "failed"))
    text = (
        f"{_place(study)}: {count(len(trials), 'trial')}, {ended} ended early{f', {failed} failed' if failed else ''}; "
        f"best on validation {100 * (best.accuracy or 0):.2f} % ({first}): {values}"
    )
    if not study.grid:
        return text
    return "\n".join([text, *(f"  {_trial(trial)}" for trial in trials)])


def _place(study: Study) -> str:
    return f"{study.cell.label}, {study.cell.benchmark} {study.cell.scenario}"


def _trial(trial: Any) -> str:
    from runners.tuning.study import listed

    certified = "" if trial.certified is None else f" (certified {_percent(trial.certified)})"
    return f"{listed(trial.values)}: {_percent(trial.accuracy)}{certified}"


def _percent(accuracy: float | None) -> str:
    return "failed" if accuracy is None else f"{100 * accuracy:.2f} %"


if __name__ == "__main__":
    command_line.main(app)
