"""Tuning: failed trials that a new call runs again, studies whose ranges changed, and two commands at once."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from filelock import FileLock, Timeout

from benchmarks.types import UserError
from methods.search import Log, OneOf
from runners.engines.engine import InlineEngine
from runners.grid.cells import Conditions
from runners.records.record import Status
from runners.tuning import search, trials
from runners.tuning.study import Study
from tests.runners.helpers import cells

REASON = "OSError: No space left on device"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Pretended training and storages in memory. The learning rates for which `faulty` is true fail."""
    found = SimpleNamespace(faulty=lambda lr: False, ran=[])
    storages: dict[Path, optuna.storages.InMemoryStorage] = {}

    def storage(folder: Path):
        (folder / trials.FILE).touch()
        return nullcontext(storages.setdefault(folder, optuna.storages.InMemoryStorage()))

    def run_grid(jobs, folder, *_):
        found.ran += [cell.config["lr"] for cell in jobs]
        failed = {cell.key for cell in jobs if found.faulty(cell.config["lr"])}
        status = {cell.key: Status.FAILED if cell.key in failed else Status.DONE for cell in jobs}
        return [SimpleNamespace(cell=c, folder=folder, status=status[c.key], reason=REASON) for c in jobs]

    def accuracy(outcome, tasks: int) -> float | None:
        return None if outcome.status is Status.FAILED else min(1.0, 0.5 + outcome.cell.config["lr"])

    monkeypatch.setattr(trials, "_storage", storage)
    monkeypatch.setattr(trials, "_certified", lambda *_: None)
    monkeypatch.setattr(search, "scheduler", SimpleNamespace(run_grid=run_grid))
    monkeypatch.setattr(search, "_accuracy", accuracy)
    monkeypatch.setattr(search, "_seconds", lambda _: 1.0)
    return found


def run(study: Study, number: int, folder: Path) -> list[search.Trial]:
    return search.run(study, number, folder, Conditions(), InlineEngine(1), None)  # type: ignore[arg-type]


def study() -> Study:
    return search.study_of(cells("finetune", steps=6)[0], 1)


def states(found: list[search.Trial]) -> list[str]:
    return [trial.state for trial in found]


def test_a_trial_that_failed_in_training_is_run_again_by_a_new_call(tmp_path: Path, world) -> None:
    """The suite's own values failed once: they keep their place, and nothing else is run again."""
    some = study()
    own = some.first[0]["lr"]
    world.faulty = lambda lr: lr == own
    first = run(some, 4, tmp_path)
    assert states(first)[0] == "failed" and first[0].reason == REASON
    assert states(run(some, 4, tmp_path)) == states(first), "it fails again"
    world.faulty, world.ran = (lambda lr: False), []
    again = run(some, 4, tmp_path)
    assert {*world.ran} == {own} and again[1:] == first[1:]
    assert (again[0].number, again[0].state, again[0].values) == (0, "complete", some.first[0])
    world.ran.clear()
    assert run(some, 4, tmp_path) == again and not world.ran


def test_failures_leave_the_other_trials_as_they_are(tmp_path: Path, world) -> None:
    """A trial that fails whenever it is run changes no draw, wherever the calls end."""
    some = study()
    whole = run(some, 10, tmp_path / "sound")
    bad = {whole[2].values["lr"], whole[5].values["lr"]}
    world.faulty = lambda lr: lr in bad
    whole = run(some, 12, tmp_path / "whole")
    assert states(whole).count("failed") >= 1
    for number in (3, 6, 7, 9, 12):
        parts = run(some, number, tmp_path / "parts")
        assert [trial.number for trial in parts] == list(range(number))
    assert parts == whole
    assert [trial.number for trial in run(some, 6, tmp_path / "parts")] == list(range(6))


def test_values_that_the_method_refuses_are_not_tried_again(tmp_path: Path, world, monkeypatch) -> None:
    some, plain, asked = study(), Study.cells, []

    def refusing(self: Study, values: dict) -> list:
        asked.append(values["lr"])
        if values != self.first[0]:
            raise UserError("not these")
        return plain(self, values)

    monkeypatch.setattr(Study, "cells", refusing)
    first = run(some, 3, tmp_path)
    assert states(first) == ["complete", "failed", "failed"] and first[1].reason == "not these"
    asked.clear()
    assert run(some, 3, tmp_path) == first and not asked


def test_where_no_trial_ended_well_the_error_names_the_reason_and_what_to_do(tmp_path: Path, world) -> None:
    world.faulty = lambda lr: True
    found = run(study(), 2, tmp_path)
    with pytest.raises(UserError, match=f"no trial of this study ran to its end .*{REASON}.*same command"):
        search.best(found)
    world.faulty = lambda lr: False
    assert states(run(study(), 2, tmp_path)) == ["complete", "complete"]


@pytest.mark.parametrize(
    ("before", "after"),
    [(Log(1e-4, 1e-1), Log(1e-6, 1e-5)), (OneOf((0.1, 0.2)), OneOf((0.1, 0.3, 0.4))), (OneOf((0.1, 0.2)), Log(0.1, 1))],
)
def test_a_study_of_other_ranges_is_another(tmp_path: Path, world, before, after) -> None:
    some = replace(study(), ranges={"lr": before})
    assert search.settled(some, tmp_path) is some
    first = run(some, 4, tmp_path)
    assert search.settled(some, tmp_path) is some, "the ranges are as they were"
    other = search.settled(replace(some, ranges={"lr": after}), tmp_path)
    assert other.name.startswith(some.name.rpartition("/protocol")[0]) and other.name != some.name
    drawn = [trial.values["lr"] for trial in run(other, 4, tmp_path)[1:]]
    assert all(lr in after.values if isinstance(after, OneOf) else after.low <= lr <= after.high for lr in drawn)
    assert search.settled(replace(some, ranges={"lr": after}), tmp_path).name == other.name, "and is resumed"
    assert run(search.settled(some, tmp_path), 4, tmp_path) == first


def test_two_commands_cannot_make_the_tables_of_one_folder_at_once(tmp_path: Path, monkeypatch) -> None:
    """Optuna does not make them in one step: the second command died of a table that was there already."""
    held = []

    def create_study(**_) -> None:
        with pytest.raises(Timeout):
            FileLock(tmp_path / ".studies.lock", timeout=0).acquire()
        held.append(True)

    monkeypatch.setattr(optuna, "create_study", create_study)
    trials.open_study(study(), tmp_path)
    assert held
