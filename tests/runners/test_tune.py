"""Tuning: on validation data of other streams, resumable, the same trials for everyone, and back into a suite."""

import sqlite3
import tomllib
from dataclasses import replace
from pathlib import Path
from statistics import mean, median

import pytest

from benchmarks import data
from benchmarks.types import UserError
from reports.effort import Part
from reports.effort import read as effort_read
from reports.tuning import read
from runners import tune
from runners.engines.engine import InlineEngine
from runners.grid import suite
from runners.grid.cells import TUNING_SEEDS, Conditions
from runners.tuning import chosen, search, trials
from runners.tuning.study import Study
from tests.runners.helpers import cells
from tests.runners.tuned import SEARCHED, SUITE, trials_of, tuned


class Silent:
    def planned(self, jobs, outcomes) -> None: ...

    def heard(self, job, event) -> None: ...


def test_a_study_ends_in_values_that_a_suite_takes(tmp_path: Path) -> None:
    output = tuned(tmp_path, "--method", "ewc", "--method", "finetune")
    assert "5 trials" in output and "best on validation" in output
    ended = [line for line in output.splitlines() if " done " in line and "ewc" in line]
    assert ended and all("(lr = " in line and ", strength = " in line for line in ended)
    assert any("ewc (lr = 0.001, strength = 1e+03) seed 1000000" in line for line in ended)
    chosen = tomllib.loads((tmp_path / "tuning" / "quick.toml").read_text())
    assert [entry["method"] for entry in chosen["settings"]] == ["ewc", "finetune"]
    assert {entry["trials"] for entry in chosen["provenance"]} == {5}
    assert all(min(entry["seeds"]) >= TUNING_SEEDS for entry in chosen["provenance"])
    assert all(entry["accuracy"] >= entry["accuracy_before"] for entry in chosen["provenance"])
    rows = trials_of(tmp_path)
    assert {row["parameter"] for row in rows if row["method"] == "ewc"} == {"lr", "strength"}
    first = {row["parameter"]: float(row["value"]) for row in rows if row["method"] == "ewc" and row["trial"] == "0"}
    assert first == {"lr": 1e-3, "strength": 1e3}  # the suite's own values come first
    file = tmp_path / "mine.toml"
    file.write_text(
        'description = "tuned"\nmethods = ["ewc"]\ntuned = "tuning/quick.toml"\n[[benchmarks]]\nname = "split-digits"\n'
    )
    settings = suite.read(file).settings
    assert settings[0].values == chosen["settings"][0]["values"] and "5 trials at 0.02 of" in str(settings[0].source)
    assert [found.method for found in read(tmp_path)] == ["ewc", "finetune"]


def test_the_effort_is_recorded_where_the_report_reads_it_and_in_a_file_of_the_users(tmp_path: Path) -> None:
    output = tuned(tmp_path, "--method", "ewc", "--seeds", "2", "--out", str(tmp_path / "mine.toml"))
    assert (tmp_path / "mine.toml").read_text() == (tmp_path / "tuning" / "quick.toml").read_text()
    (effort,) = (found for found in effort_read(tmp_path) if found.parts[0].length == 0.02)  # not the shipped
    (why,) = tomllib.loads((tmp_path / "mine.toml").read_text())["provenance"]
    for streams, accuracy in (("by_stream", "accuracy"), ("by_stream_before", "accuracy_before")):
        assert len(why[streams]) == 2 and mean(why[streams]) == pytest.approx(why[accuracy], abs=1e-12)
    assert (effort.parts, effort.network) == ((Part(5, 2, 0.02),), "mlp-100-100")
    accuracies = {row["trial"]: float(row["accuracy"]) for row in trials_of(tmp_path) if row["state"] == "complete"}
    assert effort.best == max(accuracies.values()) and effort.own == accuracies["0"]
    assert effort.sensitivity == pytest.approx(effort.best - median(accuracies.values()))
    (why,) = tomllib.loads((tmp_path / "mine.toml").read_text())["provenance"]
    assert why["complete"] == len(accuracies) and why["complete"] + why["pruned"] == 5
    assert "accuracy_published" not in why and "the suite's own values: " in output  # they are the published ones


def test_the_accuracy_with_published_values_is_recorded(tmp_path: Path) -> None:
    output = tuned(tmp_path, "--method", "hypermask", number=2)
    (why,) = tomllib.loads((tmp_path / "tuning" / "quick.toml").read_text())["provenance"]
    lam = {
        row["trial"]: (float(row["value"]), float(row["accuracy"]))
        for row in trials_of(tmp_path)
        if row["parameter"] == "lam"
    }
    assert lam == {"0": (1e-2, why["accuracy_before"]), "1": (1e-3, why["accuracy_published"])}
    assert f"the published ones: {100 * why['accuracy_published']:.2f} %" in output


def test_the_same_call_gives_the_same_trials_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """A call that was killed in a trial, repeated, ends in the trials of one that was not."""
    tuned(tmp_path / "whole", "--method", "finetune", number=6)
    tuned(tmp_path / "parts", "--method", "finetune", number=4)
    with sqlite3.connect(tmp_path / "parts" / "tuning" / "studies.db") as database:
        before = database.execute("select count(*) from trials").fetchone()[0]
    output = tuned(tmp_path / "parts", "--method", "finetune", number=6)
    assert before == 4 and "6 trials" in output

    def values(results: Path) -> list[tuple[str, str]]:
        return [(row["trial"], row["value"]) for row in trials_of(results)]

    assert values(tmp_path / "whole") == values(tmp_path / "parts")


def test_a_trial_that_was_killed_is_taken_up_again(tmp_path: Path) -> None:
    (cell,) = cells("finetune", steps=6)
    study = search.study_of(cell, 1)
    kept = trials.open_study(study, tmp_path)
    trials.ask(kept, study, 0)  # and nobody ever tells what became of it
    found = search.run(study, 2, tmp_path, Conditions(), InlineEngine(1), Silent())
    assert len(found) == 2 and all(trial.state != "failed" for trial in found)


def test_two_calls_cannot_tune_one_study_at_once(tmp_path: Path) -> None:
    (cell,) = cells("finetune", steps=6)
    study = search.study_of(cell, 1)
    with search._alone(study, tmp_path), pytest.raises(UserError, match="is being tuned by another process"):
        search.run(study, 1, tmp_path, Conditions(), InlineEngine(1), Silent())
    assert len(search.run(study, 1, tmp_path, Conditions(), InlineEngine(1), Silent())) == 1


def test_a_call_killed_before_all_of_a_grid_was_queued_still_tries_all_of_it(tmp_path: Path) -> None:
    (cell,) = cells("finetune", steps=6)
    study = search.grid_of(cell, {"lr": ["0.1", "0.01"]}, 1)
    kept = trials.open_study(study, tmp_path)
    trials.queue(kept, replace(study, first=study.first[:1]))
    found = search.run(study, 1, tmp_path, Conditions(), InlineEngine(1), Silent())
    assert [trial.values["lr"] for trial in found] == [1e-3, 0.1, 0.01]


def test_tuning_cannot_reach_test_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every test label wrong and every test picture black, the trials and the chosen values are the same."""
    tuned(tmp_path / "plain", "--method", "finetune", number=3)
    whole = data.load("digits")
    ruined = replace(whole, test_images=whole.test_images * 0, test_labels=(whole.test_labels + 1) % 10)
    monkeypatch.setattr("benchmarks.stream.load", lambda *_args, **_options: ruined)
    tuned(tmp_path / "ruined", "--method", "finetune", number=3)
    columns = ("trial", "state", "accuracy", "parameter", "value")
    plain, again = (
        [[row[name] for name in columns] for row in trials_of(tmp_path / kind)] for kind in ("plain", "ruined")
    )
    assert plain == again


def test_values_that_a_method_refuses_and_hopeless_trials_end_early() -> None:
    (cell,) = cells("finetune", steps=6)
    study = search.study_of(cell, 2)
    seeds = [each.seed for each in study.cells({"lr": 0.5})]
    assert seeds == [TUNING_SEEDS, TUNING_SEEDS + 1]
    assert all(each.judged_on == "validation" and each.config["lr"] == 0.5 for each in study.cells({"lr": 0.5}))
    pruned = search.Trial(0, "pruned", 0.9, {}, 1.0)
    complete = search.Trial(1, "complete", 0.8, {}, 1.0)
    assert search.best([pruned, complete]) is complete


@pytest.mark.parametrize(
    ("accuracies", "kept"),
    [
        ([0.97, 0.90, 0.98], 0),  # 0.98 +- 0.014 of 100 answers: the suite's own values are as good
        ([0.95, 0.97, 0.98], 1),  # its own are worse, the published ones as good
        ([0.95, 0.90, 0.98], 2),
        ([0.95, 0.90, 0.98, 0.97], 2),  # a trial that was drawn has no precedence
        ([None, 0.97, 0.98], 1),
        ([1.0, 1.0, 1.0], 0),
        ([0.99, 0.90, 1.0], 2),  # no error at an accuracy of 1
        ([0.97, 0.975, 0.98], 1),  # of two as good the more accurate
    ],
)
def test_known_values_give_way_to_those_better_by_more_than_a_standard_error(accuracies, kept) -> None:
    class Known:
        known = ({"lr": 1.0}, {"lr": 2.0})
        answers = 100

    found = [
        search.Trial(number, "failed" if value is None else "complete", value, {}, 1.0)
        for number, value in enumerate(accuracies)
    ]
    assert search.choice(Known(), found) is found[kept]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("streams", "kept"),
    [
        ([(0.90, 0.90, 0.90), (0.90, 0.90, 0.99)], 0),  # a gain of 3 points on one stream alone, where 3 are an error
        ([(0.90, 0.90, 0.90), (0.93, 0.92, 0.94)], 1),  # the same gain on every stream
        ([(0.99, 0.90, 0.81), (1.00, 0.92, 0.84)], 1),  # streams differ by more than the gain, which is on each
        ([(0.915, 0.925, 0.92), (0.92, 0.93, 0.925)], 0),  # on each stream, within the error of the answers
        ([(), (0.93, 0.92, 0.94)], 1),  # streams not recorded: the error of the answers only
        ([(0.90,), (0.93,)], 1),  # one stream has no spread
        ([(0.78, 0.56, 0.75), (0.74, 0.71, 0.73), (0.76, 0.78, 0.74)], 2),  # the first is as good by its failure only
    ],
)
def test_a_gain_is_judged_by_its_spread_over_streams(streams, kept) -> None:
    class Known:
        known = ({"lr": 1.0}, {"lr": 2.0})[: len(streams) - 1]
        answers = 1000

    found = [search.Trial(n, "complete", mean(s) if s else 0.90, {}, 1.0, None, None, s) for n, s in enumerate(streams)]
    assert search.choice(Known(), found) is found[kept]  # type: ignore[arg-type]


def test_a_spread_over_streams_does_not_pay_for_certificates() -> None:
    class Known:
        known = ({"lr": 1.0},)
        answers = 1000

    streams = [(0.90, 0.90, 0.60), (0.90, 0.90, 0.90), (0.89, 0.90, 0.90)]
    certified = [0.59, 0.2, 0.5]
    found = [search.Trial(n, "complete", mean(s), {}, 1.0, certified[n], None, s) for n, s in enumerate(streams)]
    assert search.choice(Known(), found) is found[0]  # type: ignore[arg-type]
    assert search.choice(Known(), found, search.Prefer.CERTIFIED) is found[2]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("trials", "kept"),
    [
        ([(0.97, 0.1), (0.90, 0.9), (0.98, 0.2), (0.97, 0.6)], 3),  # 0.98 +- 0.014: 0.90 is out, 0.6 the most certain
        ([(0.97, 0.1), (0.90, 0.9), (0.98, 0.2)], 2),  # a known value has no precedence
        ([(0.95, 0.9), (0.98, 0.2), (0.97, 0.2)], 1),  # of equally certain ones the most accurate
        ([(0.97, 0.2), (0.90, 0.9), (0.98, 0.2)], 2),  # also where it is a later one
        ([(0.98, 0.2), (0.98, 0.2), (0.98, 0.2)], 0),
        ([(0.97, None), (0.90, None), (0.98, None)], 0),  # certifies nothing: the known value
        ([(None, None), (0.97, None), (0.98, 0.1)], 2),
    ],
)
def test_the_most_certified_of_those_as_good_can_be_preferred(trials, kept) -> None:
    class Known:
        known = ({"lr": 1.0}, {"lr": 2.0})
        answers = 100

    found = [
        search.Trial(number, "failed" if accuracy is None else "complete", accuracy, {}, 1.0, certified)
        for number, (accuracy, certified) in enumerate(trials)
    ]
    assert search.choice(Known(), found, search.Prefer.CERTIFIED) is found[kept]  # type: ignore[arg-type]


def test_the_same_trials_are_judged_anew_by_certified_accuracy(tmp_path: Path) -> None:
    """Nothing is run again. The table and the provenance have the certified accuracy of the cells."""
    command = ("--method", "intercontinet", "--grid", "scale_lr=0.001,10", "--budget-scale", "0.05", "--seeds", "2")
    tuned(tmp_path, *command)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "tuning" / "cells").rglob("*.csv")}
    output = tuned(tmp_path, *command, "--prefer", "certified")
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "tuning" / "cells").rglob("*.csv")}
    shares = {row["trial"]: float(row["certified"]) for row in trials_of(tmp_path)}
    last = [file.read_text().splitlines()[-1].split(",")[1:] for file in before if file.name == "certified.csv"]
    assert sum(shares.values()) == pytest.approx(sum(sum(map(float, row)) / len(row) for row in last) / 2)
    written = tomllib.loads((tmp_path / "tuning" / "quick.toml").read_text())
    (why,), (settings,) = written["provenance"], written["settings"]
    assert "the most certified of those as good" in settings["source"]
    assert why["prefer"] == "certified" and why["certified"] in shares.values()
    assert all(f"(certified {100 * share:.2f} %)" in output for share in shares.values())
    (effort,) = [each for each in effort_read(tmp_path) if each.method == "intercontinet" and each.trials == 3]
    assert effort.prefer == "certified"


def test_a_method_that_certifies_nothing_is_chosen_as_without_the_preference(tmp_path: Path) -> None:
    tuned(tmp_path, "--method", "finetune", "--prefer", "certified", number=1)
    written = tomllib.loads((tmp_path / "tuning" / "quick.toml").read_text())
    assert written["provenance"][0]["prefer"] == "known" and "certified" not in written["settings"][0]["source"]


def test_the_star_is_at_the_chosen_values(tmp_path: Path) -> None:
    """Trial 1 is the luckiest; trial 0, the suite's own, is as good and stays."""
    study = Study(cells("ewc")[0], {}, 1, ({"lr": 0.01},))
    shares = [("complete", 0.95), ("complete", 0.955), ("pruned", 0.3)]
    found = [trials.Trial(k, *shares[k], {"lr": 10.0 ** (k - 2)}, 1.0) for k in range(3)]
    chosen.write_trials(tmp_path / "tuning" / "trials.csv", study, found, search.Prefer.KNOWN)
    (tuned,) = read(tmp_path)
    assert [point.chosen for point in tuned.points["lr"]] == [True, False, False]
    assert tuned.star == " Star: the chosen values, 95.0 %."


def test_an_older_table_of_trials_keeps_its_columns(tmp_path: Path) -> None:
    table = tmp_path / "tuning" / "trials.csv"
    table.parent.mkdir(parents=True)
    table.write_text(
        "suite,benchmark,scenario,method,trial,state,accuracy,seconds,parameter,value\n"
        "quick,split-digits,dil,ewc,0,complete,0.5,1.0,lr,0.1\n"
    )
    tuned(tmp_path, "--method", "finetune", number=1)
    old, *_ = trials_of(tmp_path)
    assert read(tmp_path)[0].star == "", "it names no choice"
    assert (old["certified"], old["seconds"], old["value"]) == ("", "1.0", "0.1")


def test_an_accuracy_counts_the_validation_answers_of_all_tasks_and_streams() -> None:
    study = search.study_of(cells("ewc")[0], 3)
    assert study.answers == 30 * 5 * 3  # of Split Digits
    assert len(study.known) == len(study.first)
    grid = search.grid_of(cells("ewc")[0], {"lr": ["0.1", "0.2"]}, 3)
    assert grid.known == ({"lr": 0.001},)


def test_a_grid_tries_the_given_values_and_the_suites_own_all_to_their_end(tmp_path: Path) -> None:
    grid = ("--grid", "strength=100,1e4", "--grid", "lr=0.001,1e-8")
    output = tuned(tmp_path, "--method", "ewc", *grid)
    rows = trials_of(tmp_path)
    tried = [
        tuple(float(row["value"]) for row in rows if row["trial"] == str(number)) for number in range(len(rows) // 2)
    ]
    assert tried == [(1e3, 1e-3), (100.0, 1e-3), (100.0, 1e-8), (1e4, 1e-3), (1e4, 1e-8)]
    assert {row["state"] for row in rows} == {"complete"}  # also those that cannot learn
    assert all(f"strength = {text}, lr = 1e-08: " in output for text in ("100", "1e+04"))
    (chosen,) = tomllib.loads((tmp_path / "tuning" / "quick.toml").read_text())["settings"]
    assert tuple(chosen["values"][key] for key in ("strength", "lr")) in tried
    assert "grid" in chosen["source"]
    assert "0 finished before" not in tuned(tmp_path, "--method", "ewc", *grid)  # nothing is run twice


GRID = {
    **SEARCHED, "source": "tuned on validation data: 3 trials of a grid, runners/tune.py",
    "values": {"strength": 5.0}, "provenance": {"trials": 3, "study": "grid"},
}  # fmt: skip


@pytest.mark.parametrize("times", [1, 2])
def test_a_grid_that_began_with_the_values_of_a_file_refines_them(tmp_path: Path, times: int) -> None:
    file = tmp_path / "quick.toml"
    for written in (SEARCHED, *[GRID] * times):
        chosen.write(file, written, {"lr": 0.03, "strength": 7.0, "mode": "separate"})
    found = tomllib.loads(file.read_text())
    assert found["settings"][0]["values"] == {"lr": 0.03, "strength": 5.0}
    assert found["settings"][0]["source"] == (
        "tuned on validation data: 16 trials; then 3 trials of a grid, runners/tune.py"
    )
    assert found["provenance"] == [{"trials": 3, "study": "grid", "earlier_trials": 16}]


def test_the_trials_of_all_searches_that_led_to_the_values_are_counted(tmp_path: Path) -> None:
    """Sixteen of a search, three of a grid of one hyperparameter, then two of a grid of the other."""
    file, config = tmp_path / "quick.toml", {"lr": 0.03, "strength": 7.0}
    other = {**GRID, "values": {"lr": 0.01}, "provenance": {"trials": 2, "study": "another grid"}}
    for written, began in ((SEARCHED, config), (GRID, config), (other, {**config, "strength": 5.0})):
        chosen.write(file, written, began)
    found = tomllib.loads(file.read_text())
    assert found["settings"][0]["values"] == {"lr": 0.01, "strength": 5.0}
    assert found["provenance"] == [{"trials": 2, "study": "another grid", "earlier_trials": 19}]


def test_a_grid_that_began_with_other_values_replaces_those_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "quick.toml"
    for written in (SEARCHED, GRID):
        chosen.write(file, written, {"lr": 0.001, "strength": 7.0})
    assert tomllib.loads(file.read_text())["settings"][0]["values"] == {"strength": 5.0}


def test_tuning_tells_the_file_with_what_the_search_began(tmp_path: Path) -> None:
    """The suite's values are those of the file that a grid of one hyperparameter is written to."""
    file = tmp_path / "mine.toml"
    chosen.write(file, {**SEARCHED, "values": {"lr": 0.03, "strength": 7.0}}, {})
    tuned(tmp_path, "--method", "ewc", "--grid", "strength=5", "--out", str(file), text=f'tuned = "mine.toml"\n{SUITE}')
    (found,) = tomllib.loads(file.read_text())["settings"]
    assert found["values"]["lr"] == 0.03 and found["values"]["strength"] in (5.0, 7.0)


def test_lists_in_a_grid_and_what_is_no_grid() -> None:
    assert tune._grid(["hidden=[100],[50, 50]", "lr=1, 0.3"]) == {"hidden": ["[100]", "[50, 50]"], "lr": ["1", "0.3"]}
    for wrong in (["lr"], ["lr="], ["=1"], ["lr=1", "lr=2"], ["lr=0.1,[0.2"], ["lr=0.1,,0.2"], ["lr=0.1,"]):
        with pytest.raises(UserError, match="write it as key=value"):
            tune._grid(wrong)
    (cell,) = cells("ewc", steps=6)
    assert [point["lr"] for point in search.grid_of(cell, {"lr": ["0.5", "0.001", "0.5"]}, 1).first] == [1e-3, 0.5]
    for name, value, said in (
        ("strength", "a", "permitted is a number"),
        ("foo", "1", "has no hyperparameter"),
        ("lr", "0.001", "name another value"),
    ):
        with pytest.raises(UserError, match=said):
            search.grid_of(cell, {name: [value]}, 1)
