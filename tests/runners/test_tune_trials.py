"""Trials of a search with a training that is pretended: what Optuna's model learns, and calls that are killed."""

import hashlib
import itertools
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest

from methods.search import Even, OneOf
from runners.grid.cells import Conditions
from runners.records.record import Status
from runners.tuning import search, trials
from tests.runners.helpers import cells


class Kill(BaseException):
    pass


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Pretended training and storages in memory. Step number `last` of a storage or a training kills the call."""
    count = SimpleNamespace(done=0, last=None)
    storages: dict[Path, optuna.storages.InMemoryStorage] = {}

    def step(act):
        def counted(*arguments, **options):
            count.done += 1
            if count.done == count.last:
                raise Kill
            return act(*arguments, **options)

        return counted

    def opened(some: search.Study, folder: Path) -> optuna.Study:
        storage = storages.setdefault(folder, optuna.storages.InMemoryStorage())
        names = {"storage": storage, "study_name": some.name, "load_if_exists": True, "direction": "maximize"}
        return optuna.create_study(sampler=optuna.samplers.RandomSampler(), **names)

    def run_grid(jobs, folder, *_):
        return [SimpleNamespace(cell=cell, folder=folder, status=Status.DONE, reason="") for cell in jobs]

    def accuracy(outcome, tasks: int) -> float:  # coarse, so that trials are level
        return hashlib.sha256(f"{outcome.cell.key}{tasks}".encode()).digest()[0] // 32 / 8

    changed = ("create_new_trial", "set_trial_state_values", "set_trial_user_attr", "set_trial_intermediate_value")
    for name in changed:
        monkeypatch.setattr(optuna.storages.InMemoryStorage, name, step(getattr(optuna.storages.InMemoryStorage, name)))
    monkeypatch.setattr(trials, "open_study", opened)
    monkeypatch.setattr(trials, "_certified", lambda *_: None)
    monkeypatch.setattr(trials, "RANDOM_FIRST", 3)
    monkeypatch.setattr(search, "scheduler", SimpleNamespace(run_grid=step(run_grid)))
    monkeypatch.setattr(search, "_accuracy", accuracy)
    monkeypatch.setattr(search, "_seconds", lambda _: 1.0)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return count


def test_a_call_killed_at_any_step_ends_in_the_trials_of_one_that_was_not(tmp_path: Path, steps) -> None:
    own = (("lwf", "temperature", "3.0"),)  # in none of the ranges' values
    some = search.study_of(cells("lwf", assignments=own)[0], 2)
    assert len(some.ranges) == 3 and len(some.first) == 2

    def run(name: str) -> list[search.Trial]:
        return search.run(some, 8, tmp_path / name, Conditions(), None, None)  # type: ignore[arg-type]

    whole = run("whole")
    total, places = steps.done, [trial.number for trial in whole]
    assert places == list(range(8)) and {trial.state for trial in whole} == {"complete", "pruned"}
    for number in range(1, total + 1):
        steps.done, steps.last = 0, number
        with pytest.raises(Kill):
            run(str(number))
        steps.last = None
        assert run(str(number)) == whole, number
    for number in range(15, total, 16):  # and again while it is resumed
        for last in (number, 12):
            steps.done, steps.last = 0, last
            with pytest.raises(Kill):
                run(f"twice {number}")
        steps.last = None
        assert run(f"twice {number}") == whole, number


def asked(some: search.Study, folder: Path, number: int) -> list[optuna.trial.Trial]:
    kept = trials.open_study(some, folder)
    trials.queue(kept, some)
    return [trials.ask(kept, some, place) for place in range(number)]


@pytest.mark.parametrize("threshold", ["[0.95]", "[0.95,0.99]"])
def test_a_list_is_told_to_the_model_as_the_value_of_the_range(tmp_path: Path, threshold: str) -> None:
    """GPM's suites have lists and its range tuples: the model learnt from them under a value drawn at random."""
    some = search.study_of(cells("gpm", assignments=(("gpm", "threshold", threshold), ("gpm", "lr", "0.5")))[0], 1)
    first = asked(some, tmp_path, len(some.first))
    for trial, values in zip(first, some.first, strict=True):
        assert trials.values_of(trial) == values
        assert trial.params.get("threshold", "(0.95, 0.99)") == str(tuple(values["threshold"]))
    assert some.first[0]["threshold"] == [float(part) for part in threshold.strip("[]").split(",")]


def test_values_out_of_range_are_tried_and_kept_from_the_model(tmp_path: Path, monkeypatch) -> None:
    """InterContiNet's threshold is None by default; Optuna would take it to be anywhere in its range."""
    some = search.study_of(cells("intercontinet")[0], 1)
    assert isinstance(some.ranges["threshold"], Even) and some.first[0]["threshold"] is None
    seen: list[int] = []
    draw = optuna.samplers.TPESampler.infer_relative_search_space

    def watched(sampler, study, trial):
        seen.append(len(study.trials) - 1)
        return draw(sampler, study, trial)

    monkeypatch.setattr(optuna.samplers.TPESampler, "infer_relative_search_space", watched)
    first, *others = asked(some, tmp_path, 3)
    assert first.params == {} and trials.values_of(first) == some.first[0]
    assert seen == [0, 1] and all(trial.params == trials.values_of(trial) for trial in others)


def test_trials_that_did_not_end_well_have_no_streams_and_failed_ones_no_accuracy(tmp_path: Path) -> None:
    study = search.study_of(cells("ewc")[0], 3)
    states, looks = optuna.trial.TrialState, {1: 0.5, 2: 0.75}

    def ended(state: optuna.trial.TrialState, value: float | None = None, **attributes: object) -> search.Trial:
        told = {"values": study.first[0], "by_stream": [0.5, 0.75, 1.0], **attributes}
        made = optuna.trial.create_trial(state=state, value=value, intermediate_values=looks, user_attrs=told)
        return trials.as_trial(study, made, tmp_path)

    complete = ended(states.COMPLETE, 0.75)
    assert (complete.accuracy, complete.by_stream) == (0.75, (0.5, 0.75, 1.0))
    diverged = ended(states.COMPLETE, 0.75, diverged=True)
    assert (diverged.state, diverged.accuracy, diverged.by_stream) == ("diverged", 0.75, ())
    pruned, failed = ended(states.PRUNED), ended(states.FAIL, seconds=1.0)
    assert (pruned.accuracy, pruned.by_stream) == (0.75, ())
    assert (failed.accuracy, failed.by_stream) == (None, ())


def test_drawn_values_of_a_choice_are_those_of_its_range(tmp_path: Path) -> None:
    some = search.study_of(cells("lwf")[0], 1)
    wanted = some.ranges["temperature"]
    assert isinstance(wanted, OneOf)
    drawn = [trials.values_of(trial)["temperature"] for trial in asked(some, tmp_path, 8)]
    assert set(drawn) <= set(wanted.values) and len(set(drawn)) > 1 and all(type(v) is float for v in drawn)
    assert list(itertools.islice(drawn, 1)) == [some.first[0]["temperature"]]
