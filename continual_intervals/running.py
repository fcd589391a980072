"""Cells and comparisons from Python, by the code of the commands and into the same records."""

from __future__ import annotations

import io
import operator
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console

from benchmarks.catalogue import Benchmark
from benchmarks.types import Scenario, UserError, suggestion
from continual_intervals import classes, frames
from runners import command_line, session
from runners.grid.cells import TUNING_SEEDS
from runners.loggers.logger import Logger
from runners.session import Options

if TYPE_CHECKING:
    from runners.engines.scheduler import Outcome
    from runners.grid.cells import Cell

CLASSES = "classes"
"""In the results folder: the classes of notebook cells and scripts that were run."""
Methods = Iterable[str | type]
Loggers = str | Logger | Iterable[str | Logger]
Folder = str | Path


def run(
    method: str | type,
    benchmark: str | Benchmark,
    scenario: str,
    seeds: int | Iterable[int] = 1,
    *,
    budget_scale: float = 1.0,
    results: Folder = "results",
    data: Folder | None = None,
    device: str = "auto",
    workers: int | None = None,
    engine: str = "local",
    check: bool = False,
    logger: Loggers = (),
    progress: bool = True,
    **hyperparameters: object,
) -> pd.DataFrame:
    """R of one method: test accuracy on every task (column) after every task (row); index (seed, after).

    method: a registered name, FILE.py:CLASS, or a class, also one of a notebook cell. benchmark: likewise a name,
    FILE.py:NAME, or a `benchmarks.catalogue.Benchmark`. seeds: their number, or the seeds themselves. Hyperparameters
    that are not given have the method's defaults. Other arguments: as of `compare.py`. Finished cells are read from
    `results`, not run again. logger: "tensorboard", "wandb", "mlflow", FILE.py:CLASS, an object of a subclass of
    Logger, or a list of these. Raises UserError for a mistake in the call, and where a cell ends without numbers.
    """
    place = _path(results, "results")
    found = classes.reference(method, place / CLASSES)
    on = classes.benchmark_reference(benchmark, place / CLASSES)
    called = f"continual_intervals.run({_named(method)!r}, {_named(benchmark)!r}, {scenario!r}, ...)"
    options = Options((), data=data if data is None else _path(data, "data"), device=str(device),
                      workers=_workers(workers), engine=engine, results=place, budget_scale=_factor(budget_scale),
                      check=check, reference=False, loggers=_loggers(logger), command=called)  # fmt: skip
    session.check(options)
    with _searchable(found, on):
        cells = _cells(found.text, on.text, _scenario(scenario), _seeds(seeds), options, hyperparameters)
        outcomes = session.run_cells(cells, options, _console(progress))
    for outcome in outcomes:
        if str(outcome.status) != "done":
            raise UserError(f"{outcome.cell.title} is {outcome.status}: {outcome.reason} ({outcome.folder})")
    return _matrices(outcomes, place)


def compare(
    suite: str | Path | Sequence[str | Path] = "quick",
    methods: Methods | None = None,
    results: Folder = "results",
    *,
    add: Methods = (),
    benchmarks: Iterable[str | Benchmark] | None = None,
    scenarios: Iterable[str] | None = None,
    seeds: int | Iterable[int] | None = None,
    settings: Mapping[str, object] | None = None,
    budget_scale: float = 1.0,
    data: Folder | None = None,
    device: str = "auto",
    workers: int | None = None,
    engine: str = "local",
    reference: bool = False,
    check: bool = True,
    logger: Loggers = (),
    progress: bool = True,
) -> frames.Frames:
    """Tables of a suite's cells; those that are unfinished are run first.

    methods: only these, names and classes; None: the suite's. add: further ones. benchmarks: likewise, names,
    FILE.py:NAME and `Benchmark`s. settings: hyperparameters, such as {"ewc.strength": 100}. reference: take shipped
    records where they agree. logger: as of `run`. Other arguments: as of
    `compare.py`. A cell that fails stops no other; `cells` of the tables has its
    reason. Raises UserError for a mistake in the call.
    """
    place = _path(results, "results")
    folder = place / CLASSES
    only = None if methods is None else [classes.reference(method, folder) for method in _listed(methods)]
    more = [*(only or ()), *(classes.reference(method, folder) for method in _listed(add))]
    files = [one.text for one in more if ".py:" in one.text or one.text.endswith(".py")]
    on = None if benchmarks is None else [classes.benchmark_reference(one, folder) for one in _listed(benchmarks)]
    named = None if methods is None else [_named(method) for method in _listed(methods)]
    options = Options(
        suites=tuple(map(str, [suite] if isinstance(suite, str | Path) else _listed(suite))),
        methods=None if only is None else tuple(one.text for one in only if one.text not in files),
        foreign=tuple(files),
        benchmarks=None if on is None else tuple(one.text for one in on),
        scenarios=None if scenarios is None else tuple(map(_scenario, _listed(scenarios))),
        seeds=None if seeds is None else tuple(_seeds(seeds)),
        assignments=tuple(f"{name}={_text(value)}" for name, value in (settings or {}).items()),
        budget_scale=_factor(budget_scale),
        device=str(device),
        workers=_workers(workers),
        engine=engine,
        data=None if data is None else _path(data, "data"),
        results=place,
        reference=reference,
        check=check,
        loggers=_loggers(logger),
        command=f"continual_intervals.compare({suite!r}, {named!r}, ...)",
    )
    session.check(options)
    console = _console(progress)
    with _searchable(*more, *(on or ())):
        cells = session.build_cells(options)
        session.tell(cells, console)
        outcomes = session.run_cells(cells, options, console)
    session.sum_up(outcomes, console)
    return frames.load(place, [outcome.folder for outcome in outcomes])


def _cells(
    reference: str,
    benchmark: str,
    scenario: Scenario,
    seeds: Sequence[int],
    options: Options,
    values: Mapping[str, object],
) -> list[Cell]:
    from runners.grid import build, hyperparameters, suite
    from runners.grid.loading import load_method

    method: Any = load_method(reference)
    name, plain = method.name, {key: _plain(value) for key, value in values.items()}
    hyperparameters.configure(name, method.cls.Config, plain, "run")  # before the suite, which names itself
    made = suite.made(
        {
            "name": "python",
            "description": "a call of continual_intervals.run",
            "methods": [name],
            "scenarios": [scenario],
            "seeds": 1,
            "benchmarks": [{"name": benchmark}],
            "settings": [{"method": name, "values": plain, "source": "Python"}],
        },
        "run",
    )
    own = (reference,) if reference != name else ()
    choices = build.Choices(
        methods=() if own else None, foreign=own, seeds=seeds, budget_scale=options.budget_scale, data=options.data
    )
    return build.build([made], choices)


def _matrices(outcomes: Sequence[Outcome], results: Path) -> pd.DataFrame:
    long = frames.load(results, [outcome.folder for outcome in outcomes]).R
    return long.pivot(index=["seed", "after"], columns="task", values="accuracy")


@contextmanager
def _searchable(*references: classes.Reference) -> Iterator[None]:
    """Let processes that are started meanwhile import the user's own modules."""
    before = os.environ.get("PYTHONPATH")
    folders = dict.fromkeys(folder for one in references for folder in one.folders)
    os.environ["PYTHONPATH"] = os.pathsep.join([*filter(None, [before]), *folders])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _console(progress: bool) -> Console:
    if progress:
        return command_line.console()
    return Console(file=io.StringIO(), force_jupyter=False, force_terminal=False)


def _scenario(name: str) -> Scenario:
    if name not in list(Scenario):
        hint = suggestion(str(name).lower(), Scenario, most=1)
        raise UserError(f"there is no scenario {name!r}.{hint} Available: {', '.join(Scenario)}")
    return Scenario(name)


def _seeds(seeds: Any) -> list[int]:
    """Seeds as whole numbers, those of numpy too. Raises UserError."""
    number, found = _whole(seeds), []
    with suppress(TypeError):  # of what is no list
        found = [_whole(seed) for seed in seeds] if number is None else [number - 1]
    whole = [seed for seed in found if seed is not None and seed >= 0]
    if not found or len(whole) < len(found):
        raise UserError(f"seeds = {seeds!r}: give their number, at least 1, or a list of whole numbers from 0")
    if max(whole) >= TUNING_SEEDS:
        raise UserError(f"seeds = {seeds!r}: seeds from {TUNING_SEEDS:,} on are kept for tuning; give smaller ones")
    return whole if number is None else list(range(number))


def _whole(value: Any) -> int | None:
    """A whole number as Python's own; None for anything else."""
    if isinstance(value, bool) or getattr(value, "ndim", 0) or "bool" in str(getattr(value, "dtype", "")):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _workers(number: Any) -> int | None:
    if number is not None and _whole(number) is None:
        raise UserError(f"workers = {number!r}: give a whole number, at least 1")
    return _whole(number)


def _factor(scale: Any) -> float:
    if not isinstance(scale, Real) or isinstance(scale, bool):
        raise UserError(f"budget_scale = {scale!r}: give a positive number")
    return float(scale)


def _listed(names: Any) -> list[Any]:
    """Names as a list; one name alone, which is an iterable of letters, is refused."""
    if isinstance(names, str | type | Benchmark):
        raise UserError(f"{_named(names)}: give a list, [{_named(names)!r}]")
    if not isinstance(names, Iterable):
        raise UserError(f"{names!r}: give a list")
    return list(names)


def _loggers(logger: Loggers) -> tuple[str | Logger, ...]:
    found = tuple(logger) if isinstance(logger, Iterable) and not isinstance(logger, str) else (logger,)
    for each in found:
        if not isinstance(each, str | Logger):
            raise UserError(f"logger = {each!r}: give a name, FILE.py:CLASS, or an object of a subclass of Logger")
    return found


def _named(method: str | type | Benchmark) -> str:
    if isinstance(method, Benchmark):
        return method.name
    return method if isinstance(method, str) else getattr(method, "__name__", str(method))


def _path(folder: Any, name: str) -> Path:
    try:
        return Path(folder)
    except TypeError as error:
        raise UserError(f"{name} = {folder!r}: give a folder, as text or a Path") from error


def _plain(value: object) -> object:
    """A value as a suite file has it."""
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return value.item() if hasattr(value, "item") else value  # type: ignore[attr-defined]


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
