"""Choose hyperparameters on validation data, with the same number of trials for every method.

python runners/tune.py --suite quick --method ewc --method hyperinterval --trials 16
python runners/tune.py --suite quick --method ewc --grid strength=100,1000,1e4
"""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from filelock import FileLock
from rich.console import Console

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder; with -m, not the working directory

from benchmarks.types import UserError
from runners import command_line
from runners.session import Options, build_cells, check, devices_of, make_engine

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
COLUMNS = ("suite", "benchmark", "scenario", "method", "trial", "state", "accuracy", "seconds", "parameter", "value")


@app.command()
def tune(
    suite: Annotated[str, typer.Option(metavar="NAME|FILE", help="Suite with the benchmarks and budgets.")],
    method: Annotated[list[str], typer.Option(metavar="NAME|FILE.py:CLASS", help="Method to tune; may be repeated.")],
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
    benchmarks: Annotated[str | None, typer.Option(metavar="A,B", help="Only these benchmarks.")] = None,
    scenarios: Annotated[str | None, typer.Option(metavar="til,dil,cil", help="Only these scenarios.")] = None,
    seeds: Annotated[int, typer.Option(help="Streams for each trial, from seeds that no comparison uses.")] = 1,
    budget_scale: Annotated[float, typer.Option(help="Multiply the training length of every trial.")] = 1.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    workers: Annotated[int | None, typer.Option(metavar="N", help="Worker processes.")] = None,
    engine: Annotated[str, typer.Option(help="local, ray or inline.")] = "local",
    data: Annotated[Path | None, typer.Option(envvar="CONTINUAL_DATA", help="Folder with the data sets.")] = None,
    results: Annotated[Path, typer.Option(help="Results folder; tuning writes to RESULTS/tuning.")] = Path("results"),
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", show_default="RESULTS/tuning/SUITE.toml", help="Chosen values.")
    ] = None,
) -> None:
    """Tune methods. The same command resumes a stopped one; a suite includes the values by `tuned = "FILE.toml"`."""
    if (trials is not None and trials < 1) or seeds < 1:
        raise UserError("--trials and --seeds must be at least 1")
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
        command=shlex.join(["python", "runners/tune.py", *sys.argv[1:]]),
    )
    check(options)
    with command_line.interruptible():
        _tune(options, 16 if trials is None else trials, _grid(grid or ()), seeds, out, command_line.console())


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
    options: Options, trials: int, grid: dict[str, list[str]], seeds: int, out: Path | None, console: Console
) -> None:
    from runners.grid.cells import Conditions
    from runners.records import environment, folder
    from runners.tuning import search
    from runners.watch.live import Display

    cells = [cell for cell in build_cells(options) if cell.scenario in _supported(cell)]
    studies = [search.grid_of(cell, grid, seeds) if grid else search.study_of(cell, seeds) for cell in cells]
    if not studies:
        raise UserError("nothing to tune: no method is defined in a scenario of this suite")
    assigned = devices_of(options)
    folder.probe(options.results)
    place = (options.results / "tuning").resolve()
    engine = make_engine(options, assigned)
    driver_environment = environment.of_driver()
    conditions = Conditions(
        device=assigned[0],
        data_dir=str(options.data.resolve()) if options.data else None,
        command=options.command,
        environment=driver_environment,
    )
    chosen: list[dict[str, Any]] = []
    try:
        for study in studies:
            with Display(console) as display:
                found = search.run(study, trials, place, conditions, engine, display)
            chosen.append(_chosen(study, found, driver_environment.get("commit"), options))
            with FileLock(place / ".files.lock"):  # another command may tune another method into the same files
                _write_trials(place / "trials.csv", study, found)
                _write_chosen(out or place / f"{study.cell.suite}.toml", chosen[-1])
            console.print(_in_words(study, found), highlight=False, soft_wrap=True)
    finally:
        engine.close()
    console.print(f"chosen values: {out or place / f'{studies[0].cell.suite}.toml'}", highlight=False, soft_wrap=True)


def _supported(cell: Any) -> Sequence[str]:
    from methods import registry

    cls: Any = registry.load(cell.reference)
    return tuple(cls.supports)


def _in_words(study: Any, trials: Sequence[Any]) -> str:
    from runners.tuning import search

    best = search.best(trials)
    values = _listed(best)
    first = "" if trials[0].accuracy is None else f" (the suite's own values: {100 * trials[0].accuracy:.2f} %)"
    ended = sum(trial.state == "pruned" for trial in trials)
    cell = study.cell
    text = (
        f"{cell.label}, {cell.benchmark} {cell.scenario}: {len(trials)} trials, {ended} ended early; best on "
        f"validation {100 * (best.accuracy or 0):.2f} %{first}: {values}"
    )
    if not study.points:
        return text
    return "\n".join([text, *(f"  {_listed(trial)}: {_percent(trial.accuracy)}" for trial in trials)])


def _listed(trial: Any) -> str:
    return ", ".join(f"{key} = {_short(value)}" for key, value in trial.values.items())


def _percent(accuracy: float | None) -> str:
    return "failed" if accuracy is None else f"{100 * accuracy:.2f} %"


def _chosen(study: Any, trials: Sequence[Any], commit: str | None, options: Options) -> dict[str, Any]:
    from runners.tuning import search

    best, cell = search.best(trials), study.cell
    length = f" at {options.budget_scale:g} of the training length" if options.budget_scale != 1 else ""
    grid = f" of a grid ({'; '.join(map(_listed, trials))})" if study.points else ""
    return {
        "method": cell.label,
        "benchmark": cell.benchmark,
        "scenario": str(cell.scenario),
        "source": f"tuned on validation data: {len(trials)} trials{grid}{length}, runners/tune.py",
        "values": best.values,
        "provenance": {
            "accuracy": best.accuracy,
            "accuracy_before": trials[0].accuracy or 0.0,
            "trials": len(trials),
            "complete": sum(trial.state == "complete" for trial in trials),
            "pruned": sum(trial.state == "pruned" for trial in trials),
            "failed": sum(trial.state == "failed" for trial in trials),
            "seeds": [search.FIRST_SEED + k for k in range(study.seeds)],
            "train_seconds": round(sum(trial.seconds for trial in trials), 1),
            "study": study.name,
            "command": options.command,
            "commit": commit or "",
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }


def _write_chosen(file: Path, entry: dict[str, Any]) -> None:
    """Write the values to the file; they replace earlier ones of the same method, benchmark and scenario."""
    from runners.grid.suite import read_toml
    from runners.records.folder import share

    identity = ("method", "benchmark", "scenario")
    old = read_toml(file, "file of tuned values") if file.is_file() else {}
    entries = [
        {**part, "provenance": why}
        for part, why in zip(old.get("settings", []), old.get("provenance", []), strict=True)
        if any(part.get(key) != entry[key] for key in identity)
    ]
    parts = ['# Values chosen by runners/tune.py on validation data; a suite takes them by: tuned = "this file"']
    # Sorted, so that the file does not depend on the order in which methods were tuned.
    for each in sorted([*entries, entry], key=lambda e: tuple(str(e[key]) for key in identity)):
        plain = {key: value for key, value in each.items() if key not in ("values", "provenance")}
        parts += ["\n[[settings]]", *(f"{key} = {_toml(value)}" for key, value in plain.items())]
        inner = ", ".join(f"{key} = {_toml(value)}" for key, value in each["values"].items())
        parts.append(f"values = {{ {inner} }}")
        parts += ["[[provenance]]", *(f"{key} = {_toml(value)}" for key, value in each["provenance"].items())]
    file.parent.mkdir(parents=True, exist_ok=True)
    share(file, ("\n".join(parts) + "\n").encode())


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _write_trials(file: Path, study: Any, trials: Sequence[Any]) -> None:
    """Write all trials as a table, one line for each hyperparameter; lines of the same study are replaced."""
    from runners.records.folder import share

    cell = study.cell
    identity = [cell.suite, cell.benchmark, str(cell.scenario), cell.label]
    rows = list(csv.reader(file.read_text(encoding="utf-8").splitlines()))[1:] if file.is_file() else []
    rows = [row for row in rows if row[:4] != identity]
    for trial in trials:
        accuracy = "" if trial.accuracy is None else repr(trial.accuracy)
        for key, value in trial.values.items():
            rows.append([*identity, str(trial.number), trial.state, accuracy, f"{trial.seconds:.2f}", key, str(value)])
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    share(file, buffer.getvalue().encode())


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    command_line.main(app)
