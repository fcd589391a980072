"""Hyperparameter search: studies of trials on validation data, on streams that no comparison uses.

A trial is one cell for each tuning seed, judged on validation samples; the stream it runs on holds no test data
(`benchmarks.stream.TuningStream`). The seeds begin at FIRST_SEED, far from those of comparisons. Trials are asked for
in rounds of ROUND, independent of the number of workers, so that a call reproduces its trials on any machine.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from benchmarks import catalogue
from benchmarks.types import UserError, derived_seed
from methods.search import Even, Log, OneOf, Range, space
from runners.engines import scheduler
from runners.engines.engine import Engine
from runners.grid import hyperparameters
from runners.grid.cells import Cell, Conditions
from runners.records.record import Status

if TYPE_CHECKING:
    import optuna

FIRST_SEED = 1_000_000
"""Seeds of tuning; comparisons count from 0."""
ROUND = 4
FIRST_PART = 0.4
"""Share of the tasks after which hopeless trials end."""
KEPT = 75.0
"""Percent of the trials so far that a trial must be among to go on."""
SPARED = 4
"""Trials that all run to their end, before any is ended early."""


@dataclass(frozen=True)
class Study:
    """Hyperparameters of one method on one benchmark in one scenario."""

    cell: Cell
    """The comparison's cell of seed 0, with the values that the suite has now."""
    ranges: dict[str, Range]
    seeds: int
    points: tuple[dict[str, Any], ...] = ()
    """A grid: exactly these values are tried, all to the end. Empty: the ranges are searched."""

    @property
    def name(self) -> str:
        """Name of the study; it changes with the method's code, the budget, the suite's other values and the grid."""
        cell = self.cell
        parts = [cell.suite, cell.benchmark, cell.scenario, cell.label, f"{self.seeds} seeds", cell.key[:12]]
        grid = [f"grid {derived_seed(str(self.points)):x}"] if self.points else []
        return "/".join([*parts, *grid])

    def cells(self, values: dict[str, Any]) -> list[Cell]:
        """The cells of a trial. Raises UserError for values that the method refuses."""
        from methods import registry

        cls: Any = registry.load(self.cell.reference)
        config = hyperparameters.configure(self.cell.method, cls.Config, {**self.cell.config, **values}, "trial")
        changed = replace(self.cell, config=hyperparameters.as_json(config), judged_on="validation", chosen={})
        return [replace(changed, seed=FIRST_SEED + k) for k in range(self.seeds)]


@dataclass(frozen=True)
class Trial:
    """Finished trial: `accuracy` on validation data, a fraction; None where it could not be run."""

    number: int
    state: str
    accuracy: float | None
    values: dict[str, Any]
    seconds: float


def study_of(cell: Cell, seeds: int) -> Study:
    """Study for a cell of a comparison. Raises UserError where its method has nothing to search."""
    from methods import registry

    cls: Any = registry.load(cell.reference)
    ranges, benchmark = space(cell.label, cls.Config), catalogue.find(cell.benchmark)
    if cell.scenario not in benchmark.undefined:
        config = hyperparameters.configure(cell.method, cls.Config, cell.config)
        ranges = dict(cls.searched(benchmark.spec(cell.scenario, cell.network), config, ranges))
    return Study(cell, ranges, seeds)


def grid_of(cell: Cell, given: Mapping[str, Sequence[str]], seeds: int) -> Study:
    """Grid study of all combinations of the values `given` for each hyperparameter, preceded by the suite's own.

    Raises UserError for a hyperparameter or value that the method does not have.
    """
    from methods import registry

    cls: Any = registry.load(cell.reference)

    def value_of(name: str, value: object) -> Any:
        return getattr(hyperparameters.configure(cell.method, cls.Config, {**cell.config, name: value}, "--grid"), name)

    # `configure` refuses an unknown name, whatever its value.
    own = {name: value_of(name, cell.config.get(name, "")) for name in given}
    values = {name: list(dict.fromkeys(value_of(name, text) for text in texts)) for name, texts in given.items()}
    combined = [dict(zip(values, each, strict=True)) for each in product(*values.values())]
    points = [own, *(point for point in combined if point != own)]
    ranges: dict[str, Range] = {}
    for name in given:
        among = tuple(dict.fromkeys(point[name] for point in points))
        if len(among) < 2:
            raise UserError(f"--grid {name}: {cell.label} has {own[name]} anyway; name another value")
        ranges[name] = OneOf(among)
    return Study(cell, ranges, seeds, tuple(points))


def run(
    study: Study, trials: int, folder: Path, conditions: Conditions, engine: Engine, watcher: scheduler.Watcher
) -> list[Trial]:
    """Run the study up to `trials` trials, resuming an earlier call; return all trials.

    The first trial has the values that the suite has now, so that what is chosen is never worse on validation. A grid
    has as many trials as points. Raises UserError where another process runs the study.
    """
    with _alone(study, folder):
        return _run(study, trials, folder, conditions, engine, watcher)


@contextmanager
def _alone(study: Study, folder: Path) -> Iterator[None]:
    """Lock the study, because concurrent calls would confuse each other's trials. Raises UserError."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f".{derived_seed(study.name):x}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"{study.name} is being tuned by another process; wait until it ends, or give another folder by --results"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _run(
    study: Study, trials: int, folder: Path, conditions: Conditions, engine: Engine, watcher: scheduler.Watcher
) -> list[Trial]:
    trials = len(study.points) or trials
    kept = _open(study, folder)
    _take_up_again(kept)
    while (done := len(_ended(kept))) < trials:
        kept = _open(study, folder, derived_seed(study.name, done))
        for point in study.points or [_present(study)]:
            kept.enqueue_trial(_drawn(study, point), skip_if_exists=True)
        asked = [kept.ask(_distributions(study.ranges)) for _ in range(min(ROUND, trials - done))]
        _run_round(study, kept, asked, folder / "cells", conditions, engine, watcher)
    return [_trial(study, trial) for trial in _ended(kept)[:trials]]


def best(trials: Sequence[Trial]) -> Trial:
    """The trial with the highest accuracy, the earliest of equals. Raises UserError where none ended well."""
    complete = [trial for trial in trials if trial.state == "complete" and trial.accuracy is not None]
    if not complete:
        raise UserError("no trial of this study ran to its end; see the records of its cells")
    return max(complete, key=lambda trial: (trial.accuracy, -trial.number))


def _run_round(
    study: Study,
    kept: optuna.Study,
    asked: Sequence[optuna.trial.Trial],
    results: Path,
    conditions: Conditions,
    engine: Engine,
    watcher: scheduler.Watcher,
) -> None:
    """Run all trials up to the first look, then the promising ones to their end; run those of a grid at once."""
    from optuna.trial import TrialState

    cells = {trial: _cells(study, trial) for trial in asked}
    tasks = study.cell.n_tasks
    first = max(1, round(FIRST_PART * tasks))
    alive = [trial for trial in asked if cells[trial]]
    for stop in ([first] if first < tasks and not study.points else []) + [None]:
        jobs = [cell for trial in alive for cell in cells[trial]]
        outcomes = scheduler.run_grid(jobs, results, replace(conditions, stop_after=stop), engine, watcher)
        by_key = {outcome.cell.key: outcome for outcome in outcomes}
        for trial in list(alive):
            own = [by_key[cell.key] for cell in cells[trial]]
            values = [_accuracy(outcome) for outcome in own]
            trial.set_user_attr("seconds", sum(_seconds(outcome.folder) for outcome in own))
            skipped = next((outcome for outcome in own if outcome.status is Status.SKIPPED), None)
            if skipped is not None:
                raise UserError(f"{study.name}: nothing to tune here: {skipped.reason}")
            if any(value is None for value in values):
                reason = next(outcome.reason for outcome, value in zip(own, values, strict=True) if value is None)
                trial.set_user_attr("reason", reason)
                kept.tell(trial, state=TrialState.FAIL)
                alive.remove(trial)
                continue
            accuracy = mean(value for value in values if value is not None)
            if stop is None:
                kept.tell(trial, accuracy)
                continue
            trial.report(accuracy, stop)
            if trial.should_prune():
                kept.tell(trial, state=TrialState.PRUNED)
                alive.remove(trial)
    for trial in asked:
        if not cells[trial]:
            kept.tell(trial, state=TrialState.FAIL)


def _cells(study: Study, trial: optuna.trial.Trial) -> list[Cell]:
    """The cells of a trial; none where the method refuses the values."""
    try:
        return study.cells(_values(study.ranges, trial.params))
    except UserError as error:
        trial.set_user_attr("reason", str(error))
        return []


def _accuracy(outcome: scheduler.Outcome) -> float | None:
    """Mean validation accuracy over the tasks learnt, 0 where training diverged, None where the cell failed."""
    if outcome.status is Status.DIVERGED:
        return 0.0
    if outcome.status not in (Status.DONE, Status.RUNNING):
        return None
    rows = list(csv.reader((outcome.folder / "accuracy.csv").read_text(encoding="utf-8").splitlines()))[1:]
    learnt = [[float(text) for text in row[1 : int(row[0]) + 1]] for row in rows if int(row[0]) and row[1]]
    return mean(learnt[-1])


def _seconds(folder: Path) -> float:
    from runners.records.folder import CellFolder

    record = CellFolder(folder).read()
    return sum(record.seconds["train"]) if record is not None else 0.0


# -- Optuna --------------------------------------------------------------------------------------------


def _open(study: Study, folder: Path, seed: int = 0) -> optuna.Study:
    """The study in folder/studies.db, made where it is not there yet."""
    import optuna

    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant_liar is called experimental
        return optuna.create_study(
            storage=f"sqlite:///{folder / 'studies.db'}",
            study_name=study.name,
            load_if_exists=True,
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=seed % 2**32, constant_liar=True, n_startup_trials=8),
            pruner=optuna.pruners.PercentilePruner(KEPT, n_startup_trials=SPARED),
        )


def _take_up_again(kept: optuna.Study) -> None:
    """Enqueue the trials that an interrupted call left unfinished; their cells resume from checkpoints."""
    from optuna.trial import TrialState

    for trial in kept.get_trials(states=[TrialState.RUNNING]):
        kept.tell(trial.number, state=TrialState.FAIL)
        kept.enqueue_trial(trial.params, user_attrs={"again": trial.number})


def _ended(kept: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Trials that count: ended, and not resumed under another number."""
    from optuna.trial import TrialState

    again = {trial.user_attrs.get("again") for trial in kept.trials}
    ended = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    return [trial for trial in kept.trials if trial.state in ended and trial.number not in again]


def _distributions(ranges: dict[str, Range]) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    found: dict[str, Any] = {}
    for name, wanted in ranges.items():
        if isinstance(wanted, OneOf):
            found[name] = CategoricalDistribution([str(value) for value in wanted.values])
        else:
            found[name] = FloatDistribution(wanted.low, wanted.high, log=isinstance(wanted, Log))
    return found


def _values(ranges: dict[str, Range], drawn: dict[str, Any]) -> dict[str, Any]:
    """Values of the Config that Optuna drew."""
    found: dict[str, Any] = {}
    for name, value in drawn.items():
        wanted = ranges[name]
        found[name] = {str(v): v for v in wanted.values}[value] if isinstance(wanted, OneOf) else float(value)
    return found


def _present(study: Study) -> dict[str, Any]:
    """The suite's own values."""
    return {name: study.cell.config[name] for name in study.ranges}


def _drawn(study: Study, values: dict[str, Any]) -> dict[str, Any]:
    """Values as Optuna has them, as far as the ranges hold them."""
    found: dict[str, Any] = {}
    for name, wanted in study.ranges.items():
        value = values[name]
        if isinstance(wanted, OneOf):
            found |= {name: str(value)} if value in wanted.values else {}
        elif isinstance(wanted, Log | Even) and isinstance(value, int | float) and wanted.low <= value <= wanted.high:
            found[name] = float(value)
    return found


def _trial(study: Study, trial: optuna.trial.FrozenTrial) -> Trial:
    return Trial(
        trial.number,
        trial.state.name.lower().replace("fail", "failed"),
        trial.value if trial.value is not None else next(iter(trial.intermediate_values.values()), None),
        _values(study.ranges, trial.params),
        float(trial.user_attrs.get("seconds", 0.0)),
    )
