"""Trials of a study as Optuna keeps them, in one SQLite file per results folder."""

from __future__ import annotations

import csv
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from benchmarks.types import UserError, derived_seed
from methods.search import Log, OneOf, Range
from runners.tuning.study import Study

if TYPE_CHECKING:
    import optuna

FILE = "studies.db"
RANDOM_FIRST = 8
"""Trials before Optuna's model of the accuracy (TPE) draws the values."""


@dataclass(frozen=True)
class Trial:
    """Finished trial: `accuracy` on validation data, a fraction; None where it could not be run."""

    number: int
    state: str
    accuracy: float | None
    """Of a pruned trial: at its last look."""
    values: dict[str, Any]
    seconds: float
    certified: float | None = None
    """Certified accuracy on validation data after the last task; None unless it ran to its end and certifies."""


class Prefer(StrEnum):
    """Which of the trials within a standard error of the best one is chosen."""

    KNOWN = "known"
    """The suite's own values, else the published ones, else the best."""
    CERTIFIED = "certified"
    """The one with the highest certified accuracy; of a method that certifies nothing, as KNOWN."""


def best(trials: Sequence[Trial]) -> Trial:
    """The trial with the highest accuracy, the earliest of equals. Raises UserError where none ended well."""
    ended = _complete(trials)
    if not ended:
        raise UserError("no trial of this study ran to its end; see the records of its cells")
    return max(ended, key=lambda trial: (trial.accuracy, -trial.number))


def _complete(trials: Sequence[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.state == "complete" and trial.accuracy is not None]


def choice(study: Study, trials: Sequence[Trial], prefer: Prefer = Prefer.KNOWN) -> Trial:
    """The trial whose values are chosen: the best, unless one that `prefer` names is as good.

    As good is an accuracy within one standard error of the best one's (Breiman et al. 1984, section 3.4.3), a binomial
    one of all validation answers of a trial. Of many trials that validation cannot tell apart the best is the luckiest.
    """
    winner = best(trials)
    accuracy = winner.accuracy or 0.0
    error = math.sqrt(accuracy * (1 - accuracy) / study.answers)
    equals = [trial for trial in _complete(trials) if (trial.accuracy or 0.0) >= accuracy - error]
    certifying = [trial for trial in equals if trial.certified is not None]
    if prefer is Prefer.CERTIFIED and certifying:
        return max(certifying, key=lambda trial: (trial.certified, trial.accuracy, -trial.number))
    known = trials[: len(study.known)]
    return next((trial for trial in equals if trial in known), winner)


def sensitivity(trials: Sequence[Trial]) -> float:
    """Accuracy of the best trial less the median of those that ran to their end, a fraction.

    A lower bound of the cost of careless values, because pruned trials are left out.
    """
    return (best(trials).accuracy or 0.0) - median(trial.accuracy or 0.0 for trial in _complete(trials))


def open_study(study: Study, folder: Path) -> optuna.Study:
    """The study in folder/studies.db, made where it is not there yet."""
    import optuna
    import sqlalchemy

    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # As a URI, in which SQLite reads any bytes of a path; `{` and `?` have meanings for Optuna and SQLAlchemy.
    place = (folder / FILE).resolve().as_uri()
    url = sqlalchemy.URL.create("sqlite", database=place, query={"uri": "true"})
    with usable(folder, RuntimeError):  # of a version of Optuna with other tables
        return optuna.create_study(
            storage=url.render_as_string(), study_name=study.name, load_if_exists=True, direction="maximize"
        )


@contextmanager
def usable(folder: Path, *others: type[Exception]) -> Iterator[None]:
    """Context in which errors of the database in `folder`, and `others`, are UserErrors."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError, *others) as error:
        cause = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None) or error
        raise UserError(
            f"{folder / FILE} cannot be used: {cause}. If it is damaged, rename it: the same command then makes the "
            "same trials again, and runs none of their finished cells"
        ) from error


def queue(kept: optuna.Study, study: Study) -> None:
    """Queue the first trials, and those that an interrupted call left; their cells resume from checkpoints."""
    from optuna.trial import TrialState

    queued = [trial.user_attrs.get("values") for trial in kept.trials]
    for place, values in enumerate(study.first):
        if (plain := json.loads(json.dumps(values))) not in queued:
            kept.enqueue_trial(_drawn(study.ranges, values), user_attrs={"values": plain, "number": place})
    again = {trial.user_attrs.get("again") for trial in kept.trials}
    for trial in kept.get_trials(states=[TrialState.RUNNING]):
        if trial.number not in again:
            handed = {key: trial.user_attrs[key] for key in ("values", "number") if key in trial.user_attrs}
            kept.enqueue_trial(trial.params, user_attrs={**handed, "again": trial.number})
        kept.tell(trial.number, state=TrialState.FAIL)


def ask(kept: optuna.Study, study: Study, place: int) -> optuna.trial.Trial:
    """The next trial, queued or drawn. It depends on the study's name, its `place` and the trials before it only."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant_liar is called experimental
        kept.sampler = optuna.samplers.TPESampler(
            seed=derived_seed(study.name, place) % 2**32, constant_liar=True, n_startup_trials=RANDOM_FIRST
        )
    asked = kept.ask(_distributions(study.ranges))
    if "number" not in asked.user_attrs:
        asked.set_user_attr("number", place)
    return asked


def number(trial: optuna.trial.Trial | optuna.trial.FrozenTrial) -> int:
    """Place of a trial in its study, which it keeps if it is taken up again. Optuna's number may be another."""
    return int(trial.user_attrs.get("number", trial.number))


def ended(kept: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Trials that count, in order: ended, and not taken up again."""
    from optuna.trial import TrialState

    again = {trial.user_attrs.get("again") for trial in kept.trials}
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    return sorted((t for t in kept.trials if t.state in states and t.number not in again), key=number)


def as_trial(study: Study, trial: optuna.trial.FrozenTrial, results: Path) -> Trial:
    """Ended trial without Optuna's part in it. results: folder of its cells."""
    looks, values = trial.intermediate_values, values_of(study.ranges, trial)
    return Trial(
        number(trial),
        trial.state.name.lower().replace("fail", "failed"),
        trial.value if trial.value is not None else looks[max(looks)] if looks else None,
        values,
        float(trial.user_attrs.get("seconds", 0.0)),
        _certified(study, values, results) if trial.value is not None else None,
    )


def _certified(study: Study, values: dict[str, Any], results: Path) -> float | None:
    """Mean certified accuracy after the last task over tasks and streams; None if the method certifies nothing."""
    found = []
    for cell in study.cells(values):
        file = cell.folder(results) / "certified.csv"
        if not file.is_file():  # also where training diverged
            return None
        *_, last = csv.reader(file.read_text(encoding="utf-8").splitlines())
        if not all(last):
            return None
        found.append(mean(map(float, last[1:])))
    return mean(found)


def values_of(ranges: Mapping[str, Range], trial: optuna.trial.Trial | optuna.trial.FrozenTrial) -> dict[str, Any]:
    """Values of a trial for the Config: those that were queued, in range or not, or those that Optuna drew."""
    if "values" in trial.user_attrs:
        return dict(trial.user_attrs["values"])
    found: dict[str, Any] = {}
    for name, value in trial.params.items():
        wanted = ranges[name]
        found[name] = {str(v): v for v in wanted.values}[value] if isinstance(wanted, OneOf) else float(value)
    return found


def _distributions(ranges: Mapping[str, Range]) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    found: dict[str, Any] = {}
    for name, wanted in ranges.items():
        if isinstance(wanted, OneOf):
            found[name] = CategoricalDistribution([str(value) for value in wanted.values])
        else:
            found[name] = FloatDistribution(wanted.low, wanted.high, log=isinstance(wanted, Log))
    return found


def _drawn(ranges: Mapping[str, Range], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as Optuna has them, as far as the ranges hold them; it takes others to be anywhere in the range."""
    found: dict[str, Any] = {}
    for name, wanted in ranges.items():
        value = values[name]
        if isinstance(wanted, OneOf):
            found |= {name: str(value)} if value in wanted.values else {}
        elif isinstance(value, int | float) and wanted.low <= value <= wanted.high:
            found[name] = float(value)
    return found
