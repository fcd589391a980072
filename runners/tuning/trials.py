"""Trials of a study as Optuna keeps them, in one SQLite file per results folder."""

from __future__ import annotations

import csv
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from pathlib import Path
from statistics import mean, median, stdev
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from benchmarks.types import UserError, derived_seed
from methods.search import Log, OneOf, Range
from runners.tuning.study import Study

if TYPE_CHECKING:
    import optuna

FILE = "studies.db"
ROUNDING = 1e-9
"""Largest difference that counts as none. A gain of one stream alone equals its standard error but for rounding."""
RANDOM_FIRST = 8
"""Trials before Optuna's model of the accuracy (TPE) draws the values."""


@dataclass(frozen=True)
class Trial:
    """Finished trial: `accuracy` on validation data, a fraction; None where it could not be run."""

    number: int
    state: str
    """`complete`, `diverged` (it counts, with 0 for a stream that did not reach its end), `pruned` or `failed`."""
    accuracy: float | None
    """Of a pruned trial: at its last look."""
    values: dict[str, Any]
    seconds: float
    certified: float | None = None
    """Certified accuracy on validation data after the last task; None unless it ran to its end and certifies."""
    reason: str | None = None
    """Of a failed trial: why."""
    by_stream: tuple[float, ...] = ()
    """Accuracy of each stream, fractions with mean `accuracy`; empty unless all ran to their end."""


class Prefer(StrEnum):
    """Which of the trials within a standard error of the best one is chosen."""

    KNOWN = "known"
    """The more accurate of the suite's own and the published values, else the best."""
    CERTIFIED = "certified"
    """The one with the highest certified accuracy; of a method that certifies nothing, as KNOWN."""


def best(trials: Sequence[Trial]) -> Trial:
    """The trial with the highest accuracy, the earliest of equals. Raises UserError where none ended well."""
    ended = _complete(trials)
    if not ended:
        why = next((f" ({trial.reason})" for trial in trials if trial.reason), "")
        raise UserError(
            f"no trial of this study ran to its end{why}; mend the cause and give the same command, which runs failed "
            "trials again"
        )
    return max(ended, key=_precedence)


def _precedence(trial: Trial) -> tuple[float, int]:
    """Key by which the most accurate trial comes last, the earliest of equals."""
    return trial.accuracy or 0.0, -trial.number


def _complete(trials: Sequence[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.state in ("complete", "diverged") and trial.accuracy is not None]


def choice(study: Study, trials: Sequence[Trial], prefer: Prefer = Prefer.KNOWN) -> Trial:
    """The trial whose values are chosen: the best, unless one that `prefer` names is as good.

    As good is an accuracy within one standard error of the best one's (Breiman et al. 1984, section 3.4.3). Of many
    trials that validation cannot tell apart the best is the luckiest. Of the known values only the more accurate are
    judged, by `error_of_gain`, because a failure on one stream widens that error. A trial chosen for its certified
    accuracy is judged by `error_of_answers`, so that no spread excuses a loss of accuracy.
    """
    if prefer is Prefer.CERTIFIED and (certified := certifying(study, trials)):
        return max(certified, key=lambda trial: (trial.certified, *_precedence(trial)))
    winner = best(trials)
    known = max(_complete(trials[: len(study.known)]), key=_precedence, default=winner)
    gain = (winner.accuracy or 0.0) - (known.accuracy or 0.0)
    return known if gain <= error_of_gain(study, winner, known) + ROUNDING else winner


def certifying(study: Study, trials: Sequence[Trial]) -> list[Trial]:
    """The trials that certify, of those within the error of the answers of the best: `Prefer.CERTIFIED` chooses one."""
    winner = best(trials)
    least = (winner.accuracy or 0.0) - error_of_answers(study, winner)
    return [t for t in _complete(trials) if t.certified is not None and (t.accuracy or 0.0) >= least]


def error_of_answers(study: Study, trial: Trial) -> float:
    """Binomial standard error of the accuracy of a trial, a fraction, of its validation answers on all streams."""
    accuracy = trial.accuracy or 0.0
    return math.sqrt(accuracy * (1 - accuracy) / study.answers)


def error_of_gain(study: Study, winner: Trial, known: Trial) -> float:
    """Standard error of the gain in accuracy over known values, a fraction, the larger of two.

    One is that of the winner's answers. The other is that of the mean over streams of the gains on the same stream,
    where both trials have several: streams can differ by more than their answers account for.
    """
    of_answers = error_of_answers(study, winner)
    if len(winner.by_stream) < 2 or len(known.by_stream) != len(winner.by_stream):
        return of_answers
    gains = [a - b for a, b in zip(winner.by_stream, known.by_stream, strict=True)]
    return max(of_answers, stdev(gains) / math.sqrt(len(gains)))


def sensitivity(trials: Sequence[Trial]) -> float | None:
    """Accuracy of the best trial less the median of those that ran to their end, a fraction; None if none did.

    A lower bound of the cost of careless values, because pruned and diverged trials are left out.
    """
    ended = [trial.accuracy for trial in trials if trial.state == "complete" and trial.accuracy is not None]
    return (best(trials).accuracy or 0.0) - median(ended) if ended else None


class Unusable(UserError):
    """The database of a folder cannot be used, for any study."""


def open_study(study: Study, folder: Path) -> optuna.Study:
    """The study in folder/studies.db, made where it is not there yet."""
    import optuna

    folder.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"study_name": study.name, "load_if_exists": True, "direction": "maximize"}
    options["sampler"] = optuna.samplers.RandomSampler()  # samples nothing: trials are queued with their values
    with _storage(folder) as storage:
        return optuna.create_study(storage=storage, **options)


def settled(study: Study, folder: Path) -> Study:
    """The study; apart from the one of its name where the folder has that with other ranges."""
    import optuna

    if study.grid or not (folder / FILE).is_file():  # the name of a grid tells its values
        return study
    with _storage(folder) as storage:
        try:
            kept = optuna.load_study(study_name=study.name, storage=storage)
        except KeyError:
            return study
        ranges = _distributions(study.ranges)
        other = any(trial.distributions not in ({}, ranges) for trial in kept.get_trials(deepcopy=False))
    return replace(study, apart=True) if other else study


@contextmanager
def _storage(folder: Path) -> Iterator[Any]:
    """The database of a folder, locked: two processes that make its tables at once hinder each other."""
    import optuna
    import sqlalchemy

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # As a URI, in which SQLite reads any bytes of a path; `{` and `?` have meanings for Optuna and SQLAlchemy.
    place = (folder / FILE).resolve().as_uri()
    url = sqlalchemy.URL.create("sqlite", database=place, query={"uri": "true"})
    with usable(folder, RuntimeError), FileLock(folder / ".studies.lock"):  # RuntimeError: of another version's tables
        yield url.render_as_string()


@contextmanager
def usable(folder: Path, *others: type[Exception]) -> Iterator[None]:
    """Context in which errors of the database in `folder`, and `others`, are `Unusable`."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError, *others) as error:
        cause = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None) or error
        raise Unusable(
            f"{folder / FILE} cannot be used: {cause}. If it is damaged, rename it: the same command then makes the "
            "same trials again, and runs none of their finished cells"
        ) from error


def queue(kept: optuna.Study, study: Study) -> None:
    """Queue the trials that an earlier call left, those that failed in training, and missing first trials.

    Cells of an interrupted call resume from checkpoints. Trials are queued by place, so that those of earlier rounds
    end before any is drawn.
    """
    from optuna.trial import TrialState

    while kept.get_trials(deepcopy=False, states=[TrialState.WAITING]):
        kept.ask()  # to be queued anew: Optuna asks in the order of its own numbers
    again = _again(kept)
    left = [trial for trial in kept.trials if trial.state is TrialState.RUNNING]
    left += [trial for trial in ended(kept) if _failed_in_training(trial)]
    for trial in sorted(left, key=number):
        if trial.number not in again:
            _add(kept, study, trial.user_attrs["values"], number=number(trial), again=trial.number)
        if trial.state is TrialState.RUNNING:
            kept.tell(trial.number, state=TrialState.FAIL)
    queued = [trial.user_attrs["values"] for trial in kept.trials]
    for place, values in enumerate(study.first):
        if _plain(values) not in queued:
            _add(kept, study, values, number=place)


def _again(kept: optuna.Study) -> set[int | None]:
    """Optuna's numbers of the trials that were taken up again."""
    return {trial.user_attrs.get("again") for trial in kept.trials}


def _failed_in_training(trial: optuna.trial.FrozenTrial) -> bool:
    """Check whether cells of the trial failed; False where the method refuses the values, so that there are none."""
    return trial.state.name == "FAIL" and "seconds" in trial.user_attrs


def _add(kept: optuna.Study, study: Study, values: Mapping[str, Any], **attributes: int) -> None:
    """Queue a trial in one step of the storage, so that none is ever there without its values and its number."""
    import optuna

    point = _point(study.ranges, values)
    kept.add_trial(
        optuna.trial.create_trial(
            state=optuna.trial.TrialState.WAITING,
            params=point,
            distributions=_distributions(study.ranges) if point else {},
            user_attrs={"values": _plain(values), **attributes},
        )
    )


def ask(kept: optuna.Study, study: Study, place: int) -> optuna.trial.Trial:
    """The next trial, queued or drawn. It depends on the study's name, its `place` and the trials before it only."""
    from optuna.trial import TrialState

    if not kept.get_trials(deepcopy=False, states=[TrialState.WAITING]):
        _add(kept, study, _draw(kept, study, place), number=place)
    return kept.ask()


def _draw(kept: optuna.Study, study: Study, place: int) -> dict[str, Any]:
    """Values that Optuna's model draws from the trials so far, in the order of their places.

    The model reads a copy of them, because the order in the storage changes where a call is interrupted. Trials of
    values that are out of range are left out: the model could hold them with invented values only.
    """
    import optuna
    from optuna.trial import TrialState

    distributions = _distributions(study.ranges)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant_liar is called experimental
        sampler = optuna.samplers.TPESampler(
            seed=derived_seed(study.name, place) % 2**32, constant_liar=True, n_startup_trials=RANDOM_FIRST
        )
    model = optuna.create_study(direction="maximize", sampler=sampler)
    for trial in sorted([*ended(kept), *kept.get_trials(states=[TrialState.RUNNING])], key=number):
        point = _point(study.ranges, values_of(trial))
        if point and trial.state is not TrialState.FAIL:
            model.add_trial(
                optuna.trial.create_trial(
                    state=trial.state,
                    value=trial.value,
                    params=point,
                    distributions=distributions,
                    intermediate_values=trial.intermediate_values,
                )
            )
    drawn = model.ask(distributions).params
    texts = {name: {str(v): v for v in r.values} for name, r in study.ranges.items() if isinstance(r, OneOf)}
    return {name: texts[name][value] if name in texts else float(value) for name, value in drawn.items()}


def number(trial: optuna.trial.Trial | optuna.trial.FrozenTrial) -> int:
    """Place of a trial in its study, which it keeps if it is taken up again. Optuna's number may be another."""
    return int(trial.user_attrs.get("number", trial.number))


def ended(kept: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Trials that count, in order: ended, and not taken up again."""
    from optuna.trial import TrialState

    again, states = _again(kept), (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    return sorted((t for t in kept.trials if t.state in states and t.number not in again), key=number)


def as_trial(study: Study, trial: optuna.trial.FrozenTrial, results: Path) -> Trial:
    """Ended trial without Optuna's part in it. results: folder of its cells."""
    looks, values, state = trial.intermediate_values, values_of(trial), trial.state.name.lower()
    if state == "fail":
        looks = {}  # values that could not be trained have no accuracy, although a part of a stream had
    return Trial(
        number(trial),
        "failed" if state == "fail" else "diverged" if _diverged(trial) else state,
        trial.value if trial.value is not None else looks[max(looks)] if looks else None,
        values,
        float(trial.user_attrs.get("seconds", 0.0)),
        _certified(study, values, results) if trial.value is not None else None,
        trial.user_attrs.get("reason") if state == "fail" else None,
        # A stream that diverged counts as 0, which would make the spread so large that the trial is as good as any.
        () if trial.value is None or _diverged(trial) else tuple(trial.user_attrs.get("by_stream", ())),
    )


def _diverged(trial: optuna.trial.FrozenTrial) -> bool:
    return trial.state.name == "COMPLETE" and bool(trial.user_attrs.get("diverged"))


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


def values_of(trial: optuna.trial.Trial | optuna.trial.FrozenTrial) -> dict[str, Any]:
    """Values of a trial for the Config, in range or not, as JSON values."""
    return dict(trial.user_attrs["values"])


def _plain(value: Any) -> Any:
    """Values as JSON has them, with lists in place of tuples."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value.value if isinstance(value, Enum) else value


def _distributions(ranges: Mapping[str, Range]) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    found: dict[str, Any] = {}
    for name, wanted in ranges.items():
        if isinstance(wanted, OneOf):
            found[name] = CategoricalDistribution([str(value) for value in wanted.values])
        else:
            found[name] = FloatDistribution(wanted.low, wanted.high, log=isinstance(wanted, Log))
    return found


def _point(ranges: Mapping[str, Range], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as Optuna has them; empty if one of them is out of its range."""
    found: dict[str, Any] = {}
    for name, wanted in ranges.items():
        value = _plain(values[name])
        if isinstance(wanted, OneOf):
            places = [_plain(each) for each in wanted.values]
            if value in places:
                found[name] = str(wanted.values[places.index(value)])
        elif isinstance(value, int | float) and wanted.low <= value <= wanted.high:
            found[name] = float(value)
    return found if found.keys() == ranges.keys() else {}
