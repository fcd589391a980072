"""Looks at trials: what a hopeless one costs, which go on, and the same trials however they are run."""

import dataclasses
import math
from pathlib import Path

import optuna
import pytest

from benchmarks.types import DIL, TIL, Budget
from runners.engines.engine import Engine, InlineEngine
from runners.engines.local import LocalEngine
from runners.engines.scheduler import run_grid
from runners.grid.cells import Conditions
from runners.records.folder import CellFolder
from runners.records.record import Status
from runners.tuning import published, search, study, trials
from runners.tuning.rungs import KEPT_AFTER_PART, KEPT_AFTER_STREAM, SPARED, Rung, goes_on, rungs
from tests.runners.helpers import Watching, cells, foreign

STEPS = 20


def searched(method: str = "finetune", seeds: int = 2, **options) -> search.Study:
    return search.study_of(cells(method, steps=STEPS, **options)[0], seeds)


def run(some: search.Study, results: Path, engine: Engine | None = None, number: int = 8, watcher=None):
    found = search.run(some, number, results, Conditions(), engine or InlineEngine(1), watcher or Watching())
    return [dataclasses.replace(trial, seconds=0.0) for trial in found]


def test_the_looks_come_after_a_part_of_a_stream_a_stream_and_all() -> None:
    assert rungs(5, 3) == [Rung(1, 2, 0.75), Rung(1, 5, 0.5), Rung(3, 5)]
    assert rungs(10, 1) == [Rung(1, 4, 0.75), Rung(1, 10)]
    assert rungs(1, 2) == [Rung(1, 1, 0.5), Rung(2, 1)]
    assert rungs(5, 3, pruned=False) == [Rung(3, 5)]


def test_the_best_go_on_with_those_level_with_them_and_the_first_in_any_case() -> None:
    reached = [0.1, 0.2, 0.3, 0.3, 0.5, 0.6, 0.7, 0.8]
    assert [a for a in reached if goes_on(9, a, reached, 0.5)] == [0.5, 0.6, 0.7, 0.8]
    assert [a for a in reached if goes_on(9, a, reached, 0.75)] == [0.3, 0.3, 0.5, 0.6, 0.7, 0.8]
    assert [goes_on(number, 0.1, reached, 0.5) for number in (0, SPARED - 1, SPARED)] == [True, True, False]


def test_a_look_compares_with_trials_at_the_same_look_only() -> None:
    """Accuracies on the first tasks are higher: by them a trial would pass every later look, and new ones none."""
    kept = optuna.create_study(direction="maximize")
    for looks in ((0.9, 0.5), (0.8, 0.3), (0.95,), (0.9, 0.4)):
        trial = kept.ask()
        for step, accuracy in enumerate(looks, start=1):
            trial.report(accuracy, step)
        kept.tell(trial, state=optuna.trial.TrialState.PRUNED)
    asked = [kept.ask() for _ in range(2)]
    assert search._going_on(kept, dict(zip(asked, (0.45, 0.35), strict=True)), 2, Rung(1, 5, 0.5)) == asked[:1]
    assert kept.trials[-1].state is optuna.trial.TrialState.PRUNED


def test_a_cell_that_went_further_is_judged_as_it_was_at_the_look(tmp_path: Path) -> None:
    """Else a repeated call would judge trials by other numbers than the one that it resumes."""
    for method, last in (("Good", None), ("NanLoss", 0.0)):
        (cell,) = searched(foreign(method), seeds=1).cells({})
        jobs = [cell], tmp_path, Conditions(stop_after=1), InlineEngine(1), Watching()
        (paused,) = run_grid(*jobs)
        (ended,) = run_grid(*jobs[:2], Conditions(), *jobs[3:])
        assert (paused.status, ended.status) == (Status.RUNNING, Status.DIVERGED if last == 0.0 else Status.DONE)
        assert search._accuracy(ended, 1) == search._accuracy(paused, 1) != search._accuracy(ended, 5)
        assert last in (None, search._accuracy(ended, 5))


def test_a_trial_that_diverged_is_none_that_ran_to_its_end(tmp_path: Path) -> None:
    found = run(searched(foreign("NanLoss"), seeds=1), tmp_path, number=1)
    assert [(trial.state, trial.accuracy) for trial in found] == [("diverged", 0.0)]


def test_a_hopeless_trial_costs_a_part_of_one_stream_or_one_stream(tmp_path: Path) -> None:
    some = searched(seeds=3)
    found = run(some, tmp_path, number=12)
    looks = [t.intermediate_values for t in trials.ended(trials.open_study(some, tmp_path))]
    assert {trial.state for trial in found[:SPARED]} == {"complete"}
    for trial, values in zip(found, looks, strict=True):
        folders = [CellFolder(cell.folder(tmp_path / "cells")).read() for cell in some.cells(trial.values)]
        learnt = [len(record.seconds["train"]) if record else 0 for record in folders]
        whole = {"pruned": [2, 0, 0] if len(values) == 1 else [5, 0, 0], "complete": [5, 5, 5]}
        assert learnt == whole[trial.state] and list(values) == list(range(1, len(values) + 1))
    assert {(trial.state, len(values)) for trial, values in zip(found, looks, strict=True)} == {
        ("complete", 2), ("pruned", 1), ("pruned", 2)
    }  # fmt: skip
    for step, share in ((1, KEPT_AFTER_PART), (2, KEPT_AFTER_STREAM)):
        for begun in (4, 8):  # by hand: the rounds after the first, against all trials up to their end
            reached = {n: values[step] for n, values in enumerate(looks[: begun + 4]) if step in values}
            most = math.ceil(len(reached) * share)
            here = {n for n in reached if n >= begun}
            better = {n: sum(other > reached[n] for other in reached.values()) for n in here}
            on = {n for n in here if step + 1 in looks[n] or found[n].state == "complete"}
            assert on == {n for n in here if better[n] < most}


@pytest.mark.slow
def test_a_call_that_was_interrupted_in_a_round_ends_in_the_same_trials(tmp_path: Path) -> None:
    some = searched()
    whole = run(some, tmp_path / "whole")
    assert any(trial.state == "pruned" for trial in whole[4:])
    for stop in (10, 50):  # so many tasks: in the second look of each round

        def act(_job, event, heard=iter(range(1, 1000)), stop=stop) -> None:  # noqa: B008 - one count per call
            if event.kind == "task_done" and next(heard) == stop:
                raise KeyboardInterrupt

        parts = tmp_path / str(stop)
        with pytest.raises(KeyboardInterrupt):
            run(some, parts, watcher=Watching(act))
        assert run(some, parts) == whole, stop
    assert [trial.number for trial in whole] == list(range(8))


@pytest.mark.slow
def test_two_cells_are_in_flight_at_once_and_give_the_trials_of_one_worker(tmp_path: Path) -> None:
    """Each of the first two cells waits in its first task until the other has begun too."""
    place = tmp_path / "place"
    place.mkdir()
    some = searched(foreign("Meets"), assignments=(("meets", "place", str(place)),))
    engine = LocalEngine(["cpu"] * 2, threads=1)
    try:
        two = run(some, tmp_path / "two", engine, number=6)
    finally:
        engine.close()
    assert len(list(place.iterdir())) == 2 and all(trial.state != "failed" for trial in two)
    assert run(some, tmp_path / "one", number=6) == two


def test_trials_of_an_earlier_protocol_are_not_mixed_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = searched(seeds=1)
    now = run(some, tmp_path / "now", number=3)
    monkeypatch.setattr(study, "PROTOCOL", study.PROTOCOL - 1)
    run(some, tmp_path / "mixed", number=4)
    monkeypatch.undo()
    assert run(some, tmp_path / "mixed", number=3) == now


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "0" * 64},
        {"parts": {"network": "0" * 64}},
        {"budget": Budget(32, steps=STEPS + 1)},
        {"network": "mlp-9"},
        {"config": {"lr": 0.5}},
        {"scenario": DIL},
    ],
    ids=str,
)
def test_trials_of_other_code_or_of_another_length_are_not_mixed_in(changes) -> None:
    """A study of another name is another study, so that what was tried for the one says nothing of the other."""
    (cell,) = cells("finetune", steps=STEPS)
    names = {search.study_of(each, 2).name for each in (cell, dataclasses.replace(cell, **changes))}
    assert len(names | {search.study_of(cell, 3).name}) == 3


def test_the_first_trial_has_the_suites_own_values_even_out_of_range(tmp_path: Path) -> None:
    some = searched("ewc", seeds=1, assignments=(("ewc", "strength", "0"), ("ewc", "lr", "0.5")))
    first, second = run(some, tmp_path, number=2)
    assert first.values == {"lr": 0.5, "strength": 0.0} and first.state == "complete"
    assert second.values == {"lr": 1e-3, "strength": 1e3}  # the Config's defaults


def published_of(method: str, scenario: str = "til", **options) -> tuple[dict, ...]:
    return searched(method, scenarios=(scenario,), **options).first[1:]


def test_where_the_suite_has_the_published_values_they_are_tried_once() -> None:
    assert published_of("ewc") == ()
    assert published_of("hnet", benchmark="split-mnist") == ()


def test_strengths_that_a_paper_declares_for_the_benchmark_replace_the_suites_own() -> None:
    changed = (("hyperinterval", "beta", "2.0"), ("hyperinterval", "lr", "0.01"), ("hyperinterval", "eps", "3.0"))
    kept = {"lr": 0.01, "eps": 3.0}
    for scenario, beta in (("til", 0.01), ("dil", 0.005)):
        options = {"benchmark": "permuted-mnist-10", "network": "mlp-100-100", "assignments": changed}
        assert published_of("hyperinterval", scenario, **options) == ({**kept, "beta": beta},)
    both = published_of("hypermask", benchmark="split-cifar-100", network="zenkenet")  # of two, the network's own
    assert [(values["beta"], values["lam"]) for values in both] == [(0.01, 0.01)]


def test_published_strengths_are_converted_to_the_form_that_the_suite_uses() -> None:
    """The paper's beta times the weights of the paper's network, whatever the network here."""
    form = (("hnet", "strength_per", "weight"), ("hnet", "beta", "2.0"))
    held = 1024 * 1000 + 1000 + 1000 * 1000 + 1000 + 1000 * 100 + 100
    for network in ("mlp-100-100", None):
        ((values),) = published_of("hnet", benchmark="permuted-mnist-10", network=network, assignments=form)
        assert values["beta"] == pytest.approx(0.1 * held)
    # No paper used the digits: the default, Split MNIST's, at its paper's network.
    ((values),) = published_of("hnet", assignments=form)
    assert values == {"lr": 1e-3, "beta": pytest.approx(0.01 * (784 * 400 + 400 + 400 * 400 + 400 + 400 * 10 + 10))}


def test_methods_without_declared_strengths_have_their_defaults_as_published() -> None:
    (cell,) = cells("ewc", steps=6, assignments=(("ewc", "strength", "7.0"),))
    assert cell.scenario == TIL and published.published(cell, {"strength": 7.0}) == {"strength": 1e3}
    assert search.study_of(cell, 1).first == ({"lr": 1e-3, "strength": 7.0}, {"lr": 1e-3, "strength": 1e3})
