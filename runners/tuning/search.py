"""Hyperparameter search: studies of trials on validation data, on streams that no comparison uses.

A trial is one cell for each tuning seed, judged on validation samples; the stream it runs on holds no test data
(`benchmarks.stream.TuningStream`). The seeds begin at TUNING_SEEDS, far from those of comparisons. Trials are asked for
in rounds of ROUND, independent of the number of workers, so that a call reproduces its trials on any machine. All
trials of a round run up to a look (runners/tuning/rungs.py) before any goes on from it.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from benchmarks.types import UserError, derived_seed
from runners.engines import scheduler
from runners.engines.engine import Engine
from runners.grid.cells import Cell, Conditions
from runners.records.record import Status
from runners.tuning import trials as store
from runners.tuning.rungs import Rung, goes_on, rungs
from runners.tuning.study import Fixed, Study, grid_of, study_of
from runners.tuning.trials import Prefer, Trial, Unusable, best, certifying, choice, sensitivity, settled

if TYPE_CHECKING:
    import optuna

__all__ = [
    "ROUND",
    "Fixed",
    "Prefer",
    "Study",
    "Trial",
    "Unusable",
    "best",
    "certifying",
    "choice",
    "grid_of",
    "run",
    "sensitivity",
    "settled",
    "study_of",
]

ROUND = 4
"""Trials that run up to a look before any goes on."""


def run(
    study: Study, trials: int, folder: Path, conditions: Conditions, engine: Engine, watcher: scheduler.Watcher
) -> list[Trial]:
    """Run the study up to `trials` trials, resuming an earlier call; return all trials.

    The first trial has the values that the suite has now and is never pruned. A grid has as many trials as points.
    Trials that failed in training are run again; those whose values the method refuses are not. Raises UserError where
    another process runs the study.
    """
    with _alone(study, folder), store.usable(folder):
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
    trials = len(study.first) if study.grid else trials
    kept = store.open_study(study, folder)
    store.queue(kept, study)

    def ran(cells: Sequence[Cell], tasks: int) -> list[scheduler.Outcome]:
        stop = replace(conditions, stop_after=tasks)
        return scheduler.run_grid(cells, folder / "cells", stop, engine, watcher)

    def ended() -> list[optuna.trial.FrozenTrial]:
        return [trial for trial in store.ended(kept) if store.number(trial) < trials]

    while (done := len(ended())) < trials:
        count = min(ROUND - done % ROUND, trials - done)  # an interrupted call may have ended a part of a round
        _run_round(study, kept, [store.ask(kept, study, done + i) for i in range(count)], ran)
    return [store.as_trial(study, trial, folder / "cells") for trial in ended()]


def _run_round(
    study: Study,
    kept: optuna.Study,
    asked: Sequence[optuna.trial.Trial],
    ran: Callable[[Sequence[Cell], int], Sequence[scheduler.Outcome]],
) -> None:
    """Run trials from look to look, those that go on to their end. ran: runs cells up to a number of tasks."""
    from optuna.trial import TrialState

    cells = {trial: _cells(study, trial) for trial in asked}
    alive = [trial for trial in asked if cells[trial]]
    for trial in asked:
        if trial not in alive:
            kept.tell(trial, state=TrialState.FAIL)
    looks = rungs(study.cell.n_tasks, study.seeds, pruned=not study.grid)
    for step, rung in enumerate(looks, start=1):
        jobs = {trial: cells[trial][: rung.streams] for trial in alive}
        outcomes = {o.cell.key: o for o in ran([cell for some in jobs.values() for cell in some], rung.tasks)}
        judged = {trial: _judged(study, trial, [outcomes[c.key] for c in jobs[trial]], rung) for trial in alive}
        accuracies = {trial: accuracy for trial, accuracy in judged.items() if accuracy is not None}
        for trial in alive:
            if trial not in accuracies:
                kept.tell(trial, state=TrialState.FAIL)
            elif step == len(looks):
                kept.tell(trial, accuracies[trial])
            else:
                trial.report(accuracies[trial], step)
        alive = list(accuracies)
        if step < len(looks):
            alive = _going_on(kept, accuracies, step, rung)


def _going_on(
    kept: optuna.Study, accuracies: dict[optuna.trial.Trial, float], step: int, rung: Rung
) -> list[optuna.trial.Trial]:
    """Those of the trials at a look that go on, judged against all that ever reached it; the others are pruned."""
    from optuna.trial import TrialState

    reached = [trial.intermediate_values[step] for trial in store.ended(kept) if step in trial.intermediate_values]
    reached += accuracies.values()
    alive = [t for t, accuracy in accuracies.items() if goes_on(store.number(t), accuracy, reached, rung.kept)]
    for trial in accuracies:
        if trial not in alive:
            kept.tell(trial, state=TrialState.PRUNED)
    return alive


def _cells(study: Study, trial: optuna.trial.Trial) -> list[Cell]:
    """The cells of a trial; none where the method refuses the values."""
    try:
        return study.cells(store.values_of(trial))
    except UserError as error:
        trial.set_user_attr("reason", str(error))
        return []


def _judged(study: Study, trial: optuna.trial.Trial, outcomes: Sequence[scheduler.Outcome], rung: Rung) -> float | None:
    """Mean accuracy of a trial over its streams at a look; None, with the reason kept, if one of its cells failed.

    Raises UserError where the method is skipped here.
    """
    trial.set_user_attr("seconds", sum(_seconds(outcome.folder) for outcome in outcomes))
    if any(outcome.status is Status.DIVERGED for outcome in outcomes):
        trial.set_user_attr("diverged", True)
    accuracies = []
    for outcome in outcomes:
        if outcome.status is Status.SKIPPED:
            raise UserError(f"{study.name}: nothing to tune here: {outcome.reason}")
        accuracy = _accuracy(outcome, rung.tasks)
        if accuracy is None:
            trial.set_user_attr("reason", outcome.reason)
            return None
        accuracies.append(accuracy)
    trial.set_user_attr("by_stream", accuracies)
    return mean(accuracies)


def _accuracy(outcome: scheduler.Outcome, tasks: int) -> float | None:
    """Mean validation accuracy after the first `tasks` tasks over these; 0 where training diverged, None if it failed.

    A cell may have gone further in an earlier call.
    """
    if outcome.status not in (Status.DONE, Status.RUNNING, Status.DIVERGED):
        return None
    rows = csv.reader((outcome.folder / "accuracy.csv").read_text(encoding="utf-8").splitlines()[1:])
    found = [row[1 : tasks + 1] for row in rows if int(row[0]) == tasks and row[1]]
    if not found and outcome.status is Status.DIVERGED:
        return 0.0
    return mean(map(float, found[0]))


def _seconds(folder: Path) -> float:
    from runners.records.folder import CellFolder

    record = CellFolder(folder).read()
    return sum(record.seconds["train"]) if record is not None else 0.0
