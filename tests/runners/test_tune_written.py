"""What a search writes, from trials that are made up: chosen values, their provenance, the table, and its figure."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.types import Budget, UserError
from reports.tuning import read, tuning
from runners import tune
from runners.grid import suite
from runners.grid.cells import Cell
from runners.session import Options, build_cells
from runners.tuning import chosen, search
from runners.tuning.search import Prefer, Study, Trial
from tests.runners.helpers import cells
from tests.runners.tuned import RUN, SUITE, trials_of

VARIANT = """description = "d"
methods = ["wsn"]
scenarios = ["til"]
seeds = 1
{tuned}
[[benchmarks]]
name = "split-digits"
{more}
[[variants]]
label = "wsn-0.03"
method = "wsn"
values = {{ capacity = 0.03 }}
"""
OF_VARIANT = """[[settings]]
method = "wsn-0.03"
benchmark = "split-digits"
scenario = "til"
source = "s"
values = { lr = 0.25, capacity = 0.5 }
[[provenance]]
trials = 1
"""


def entry_of(study: Study, *found: Trial, whole: Budget | None = None) -> dict:
    return chosen.entry(study, found, Prefer.KNOWN, whole or study.cell.budget, "tune.py", "")


def trial(number: int, state: str, accuracy: float | None, **values: object) -> Trial:
    return Trial(number, state, accuracy, values or {"lr": 0.5}, 1.0)


def cells_of(folder: Path, text: str) -> dict[str, Cell]:
    (folder / "mine.toml").write_text(text)
    return {cell.label: cell for cell in build_cells(Options(suites=(str(folder / "mine.toml"),)))}


def call(folder: Path, *arguments: str):
    options = ["--suite", str(folder / "mine.toml"), "--results", str(folder), "--scenarios", "til", "--device", "cpu"]
    return RUN.invoke(tune.app, [*options, "--engine", "inline", *arguments], catch_exceptions=False)


def pretend(monkeypatch: pytest.MonkeyPatch, *failing: str) -> list[Study]:
    """Search that trains nothing and chooses the last of the first values; that of some labels fails."""
    ran: list[Study] = []

    def run(study: Study, *_: object) -> list[Trial]:
        ran.append(study)
        if study.cell.label in failing:
            raise UserError("nothing to tune here")
        return [Trial(k, "complete", 0.1 + 0.4 * k, values, 1.0) for k, values in enumerate(study.first)]

    monkeypatch.setattr(search, "run", run)
    return ran


def test_a_value_that_toml_lacks_replaces_the_suites_own(tmp_path: Path) -> None:
    """InterContiNet's threshold is None by default: one for each scenario. Left out, the suite's 0.8 would stay."""
    text = 'description = "d"\nmethods = ["intercontinet"]\nscenarios = ["til"]\nseeds = 1\n{}'
    text += '[[benchmarks]]\nname = "split-digits"\n'
    text += '[[settings]]\nmethod = "intercontinet"\nvalues = {{ threshold = 0.8 }}\n'
    cell = cells_of(tmp_path, text.format(""))["intercontinet"]
    study = search.study_of(cell, 1)
    assert [values["threshold"] for values in study.first] == [0.8, None]
    entry = entry_of(study, *(trial(k, "complete", 0.5 + 0.4 * k, **v) for k, v in enumerate(study.first)))
    for _ in range(2):  # and once more over itself
        chosen.write(tmp_path / "tuned.toml", entry, cell.config)
    cell = cells_of(tmp_path, text.format('tuned = "tuned.toml"\n'))["intercontinet"]
    assert cell.config["threshold"] is None and cell.chosen["threshold"] == entry["source"]


@pytest.mark.parametrize(("scale", "length"), [(0.05, 0.5), (0.5, 0.5), (1.0, 1.0)])
def test_the_recorded_length_is_that_of_the_rounded_budget(tmp_path: Path, monkeypatch, scale, length) -> None:
    pretend(monkeypatch)
    text = SUITE.replace('name = "split-digits"\n', 'name = "split-digits"\nepochs = 2\n')
    (tmp_path / "mine.toml").write_text(text)
    assert call(tmp_path, "--method", "ewc", "--budget-scale", str(scale)).exit_code == 0
    (entry,) = chosen.read(tmp_path / "tuning" / "mine.toml")
    kept = ("length", "epochs", "batch_size")
    assert [entry["provenance"][key] for key in kept] == [length, 2, 32] and "steps" not in entry["provenance"]
    assert ("of the training length" in entry["source"]) == (length != 1)


def test_every_suites_own_budget_is_what_the_length_is_a_share_of(tmp_path: Path, monkeypatch) -> None:
    """At a tenth both have one epoch, in one cell of two suites."""
    ran = pretend(monkeypatch)
    for name, epochs in (("one", 4), ("two", 5), ("three", 40)):
        text = SUITE.replace('name = "split-digits"\n', f'name = "split-digits"\nepochs = {epochs}\n')
        (tmp_path / f"{name}.toml").write_text(text)
    monkeypatch.setattr(suite, "SUITES", tmp_path)
    options = ["--suite", "all", "--method", "ewc", "--scenarios", "til", "--budget-scale", "0.1", "--engine", "inline"]
    RUN.invoke(tune.app, [*options, "--results", str(tmp_path), "--device", "cpu"], catch_exceptions=False)
    assert len(ran) == 2
    for name, length, epochs in (("one", 0.25, 4), ("three", 0.1, 40)):
        why = chosen.read(tmp_path / "tuning" / f"{name}.toml")[0]["provenance"]
        assert (why["length"], why["epochs"]) == (length, epochs)


def test_values_that_could_not_be_trained_have_no_accuracy_in_the_provenance() -> None:
    study = Study(cells("ewc")[0], {}, 1, ({"lr": 0.5}, {"lr": 0.25}))
    why = entry_of(study, trial(0, "failed", None), trial(1, "complete", 0.75))["provenance"]
    assert "accuracy_before" not in why and why["accuracy_published"] == 0.75
    assert (why["complete"], why["failed"], why["sensitivity"]) == (1, 1, 0.0)


def test_the_accuracies_before_and_as_published_are_those_of_the_first_two_trials() -> None:
    study = Study(cells("ewc")[0], {}, 1, ({"lr": 0.5}, {"lr": 0.25}))
    trials = (trial(k, "complete", share) for k, share in enumerate((0.25, 0.5, 1.0, 0.75)))
    why = entry_of(study, *trials)["provenance"]
    assert (why["accuracy_before"], why["accuracy_published"], why["accuracy_best"]) == (0.25, 0.5, 1.0)
    assert why["accuracy"] == 1.0 and why["sensitivity"] == 0.375


@pytest.mark.parametrize("grid", [False, True])
def test_the_streams_of_what_was_compared_are_recorded(grid: bool) -> None:
    """The best gains on one stream alone, so that the suite's own values stay. A grid has no published values."""
    streams = [(0.5, 0.6, 0.7), (0.3, 0.4, 0.5), (0.5, 0.6, 0.97), (0.2, 0.3, 0.4)]
    found = [
        Trial(k, "complete", sum(each) / 3, {"lr": 0.5 + k}, 1.0, by_stream=each) for k, each in enumerate(streams)
    ]
    own, published = ({"lr": 0.5}, {"lr": 1.5})
    first = tuple(each.values for each in found) if grid else (own, published)
    entry = entry_of(Study(cells("ewc")[0], {}, 3, first, grid), *found)
    recorded = {key: tuple(value) for key, value in entry["provenance"].items() if key.startswith("by_stream")}
    wanted = {"by_stream": streams[0], "by_stream_before": streams[0], "by_stream_best": streams[2]}
    assert entry["values"] == own and recorded == wanted | ({} if grid else {"by_stream_published": streams[1]})
    best = replace(found[2], accuracy=0.9, by_stream=(0.8, 0.9, 1.0))
    why = entry_of(Study(cells("ewc")[0], {}, 3, first, grid), *found[:2], best)["provenance"]
    assert why["by_stream"] == [0.8, 0.9, 1.0] and "by_stream_best" not in why
    alone = [replace(each, by_stream=each.by_stream[:1]) for each in found]
    assert not [
        key for key in entry_of(Study(cells("ewc")[0], {}, 1, first, grid), *alone)["provenance"] if "by_" in key
    ]


def test_a_choice_for_certificates_is_called_so_only_if_one_as_good_has_any() -> None:
    """The best certifies nothing; the suite's own values stay because of the spread, and not for their certificates."""
    study = Study(cells("ewc")[0], {}, 3, ({"lr": 0.5},))
    found = [
        Trial(0, "complete", 0.9, {"lr": 0.5}, 1.0, 0.4, None, (0.93, 0.93, 0.84)),
        Trial(1, "complete", 0.95, {"lr": 1.5}, 1.0, None, None, (0.93, 0.93, 0.99)),
    ]
    entry = chosen.entry(study, found, Prefer.CERTIFIED, study.cell.budget, "tune.py", "")
    assert entry["values"] == {"lr": 0.5} and entry["provenance"]["prefer"] == "known"
    assert "most certified" not in entry["source"]


def test_diverged_trials_are_counted_and_left_out_of_the_sensitivity() -> None:
    study = Study(cells("ewc")[0], {}, 1, ({"lr": 0.5},))
    shares = [("complete", 0.5), ("complete", 0.75), ("diverged", 0.0), ("diverged", 0.0), ("pruned", 0.25)]
    why = entry_of(study, *(trial(k, *share) for k, share in enumerate(shares)))["provenance"]
    assert [why[state] for state in ("trials", "complete", "pruned", "failed", "diverged")] == [5, 2, 1, 0, 2]
    assert why["sensitivity"] == 0.125
    why = entry_of(study, trial(0, "diverged", 0.0))["provenance"]
    assert "sensitivity" not in why and why["accuracy_before"] == why["accuracy"] == 0.0


def test_a_search_and_a_grid_have_their_own_lines_and_figures(tmp_path: Path) -> None:
    (cell,) = cells("ewc")
    searched, grid = search.study_of(cell, 1), search.grid_of(cell, {"lr": ["0.5"]}, 1)
    table = tmp_path / "tuning" / "trials.csv"
    ended = [trial(0, "complete", 0.5), trial(1, "failed", None), trial(2, "diverged", 0.0)]
    earlier = replace(searched, seeds=2)  # a search at other settings, whose values nothing has any more
    for study, found in ((earlier, ended), (searched, ended), (grid, ended[:1]), (grid, ended[:1]), (searched, ended)):
        chosen.write_trials(table, study, found, Prefer.KNOWN)
    rows = trials_of(tmp_path)
    assert [row["study"] for row in rows] == [grid.name, *[searched.name] * 3]
    assert [(tuned.trials, tuned.failed) for tuned in read(tmp_path)] == [(1, 0), (3, 1)]
    report: Any = SimpleNamespace(source=SimpleNamespace(root=tmp_path))
    of_grid, of_search = (job(report, {}) for job in tuning(report))
    assert [of_grid.stem, of_search.stem] == ["tuning-split-digits-til-ewc-grid", "tuning-split-digits-til-ewc"]
    assert "in 1 trial of a grid of lr by runners/tune.py" in of_grid.caption
    assert "in 3 trials, of which 1 failed, of a search by runners/tune.py" in of_search.caption
    assert "Crosses: 0 trials pruned, with their accuracy then; 1 trial that diverged." in of_search.caption


def test_lines_without_a_study_are_replaced_by_a_search_and_kept_by_a_grid(tmp_path: Path) -> None:
    (cell,) = cells("ewc")
    table = tmp_path / "tuning" / "trials.csv"
    table.parent.mkdir()
    older = f"suite,benchmark,scenario,method,trial,state,accuracy,parameter,value\n{cell.suite},split-digits,til,ewc"
    table.write_text(f"{older},0,complete,0.5,lr,0.1\n")
    chosen.write_trials(table, search.grid_of(cell, {"lr": ["0.5"]}, 1), [trial(0, "complete", 0.5)], Prefer.KNOWN)
    assert [tuned.trials for tuned in read(tmp_path)] == [1, 1]
    chosen.write_trials(table, search.study_of(cell, 1), [trial(0, "complete", 0.5)], Prefer.KNOWN)
    assert [bool(row["study"]) for row in trials_of(tmp_path)] == [True, True]


def test_a_search_leaves_the_values_that_make_a_variant(tmp_path: Path, monkeypatch) -> None:
    ran = pretend(monkeypatch)
    (tmp_path / "mine.toml").write_text(VARIANT.format(tuned="", more=""))
    assert call(tmp_path, "--method", "wsn").exit_code == 0
    assert {study.cell.label: sorted(study.ranges) for study in ran} == {"wsn": ["capacity", "lr"], "wsn-0.03": ["lr"]}
    assert all("capacity" not in values for values in ran[1].first)
    assert ran[1].name != replace(ran[1], ranges=ran[0].ranges).name, "trials of other keys would be taken up"


def test_a_variant_with_nothing_left_to_search_is_left_out_and_named(tmp_path: Path, monkeypatch) -> None:
    ran = pretend(monkeypatch)
    text = VARIANT.format(tuned="", more="").replace("capacity = 0.03", "capacity = 0.03, lr = 0.25")
    (tmp_path / "mine.toml").write_text(text)
    done = call(tmp_path, "--method", "wsn")
    assert done.exit_code == 0 and [study.cell.label for study in ran] == ["wsn"]
    assert "note: wsn-0.03 is not tuned: its `values` in the suite fix lr, capacity" in done.output
    with pytest.raises(UserError, match=r"wsn-0\.03 is not tuned"):
        call(tmp_path, "--method", "wsn-0.03")


def test_a_grid_of_a_value_that_makes_a_variant_is_refused(tmp_path: Path, monkeypatch) -> None:
    ran = pretend(monkeypatch)
    (tmp_path / "mine.toml").write_text(VARIANT.format(tuned="", more=""))
    with pytest.raises(
        UserError, match=r"--grid capacity: the `values` of wsn-0\.03 in the suite fix it; name another"
    ):
        call(tmp_path, "--method", "wsn-0.03", "--grid", "capacity=0.1")
    done = call(tmp_path, "--method", "wsn", "--grid", "capacity=0.1")
    assert [study.cell.label for study in ran] == ["wsn"] and "note: --grid capacity: the `values` of" in done.output


def test_the_values_of_a_variant_win_over_tuned_ones(tmp_path: Path) -> None:
    """An earlier version tuned them too: the row became that of its method, and vanished."""
    (tmp_path / "tuned.toml").write_text(OF_VARIANT)
    found = cells_of(tmp_path, VARIANT.format(tuned='tuned = "tuned.toml"', more=""))
    assert [(cell.config["capacity"], cell.config["lr"]) for cell in found.values()] == [(0.5, 1e-3), (0.03, 0.25)]
    by_hand = OF_VARIANT.partition("[[provenance]]")[0]
    assert cells_of(tmp_path, VARIANT.format(tuned="", more=by_hand))["wsn-0.03"].config["capacity"] == 0.5


def test_a_search_that_fails_leaves_the_others(tmp_path: Path, monkeypatch) -> None:
    ran = pretend(monkeypatch, "finetune")
    (tmp_path / "mine.toml").write_text(SUITE)
    done = call(tmp_path, "--method", "finetune", "--method", "ewc")
    assert done.exit_code == 1 and [study.cell.label for study in ran] == ["finetune", "ewc"]
    assert "finetune, split-digits til: nothing to tune here" in done.output
    assert "1 of 2 studies chose no values" in done.output
    assert [entry["method"] for entry in chosen.read(tmp_path / "tuning" / "mine.toml")] == ["ewc"]


@pytest.mark.parametrize("method", ["wsn", "wsn-0.03"])
def test_a_variant_with_the_values_of_its_method_is_tuned_too(tmp_path: Path, monkeypatch, method: str) -> None:
    """It had no study, and then the values that were chosen for its method, but for its own."""
    ran = pretend(monkeypatch)
    settings = '[[settings]]\nmethod = "wsn"\nvalues = { capacity = 0.03 }\n'
    (tmp_path / "mine.toml").write_text(VARIANT.format(tuned="", more=settings))
    assert call(tmp_path, "--method", method, "--budget-scale", "0.5").exit_code == 0
    ranges = {"wsn": ["capacity", "lr"], "wsn-0.03": ["lr"]}
    wanted = ["wsn", "wsn-0.03"] if method == "wsn" else ["wsn-0.03"]
    assert [(study.cell.label, sorted(study.ranges)) for study in ran] == [(label, ranges[label]) for label in wanted]
    assert [entry["method"] for entry in chosen.read(tmp_path / "tuning" / "mine.toml")] == wanted


def test_a_variant_is_written_to_the_files_of_the_suites_that_have_it(tmp_path: Path, monkeypatch) -> None:
    """Another suite refuses the label."""
    pretend(monkeypatch)
    settings = '[[settings]]\nmethod = "wsn"\nvalues = { capacity = 0.03 }\n'
    with_variant, _, _ = VARIANT.format(tuned="", more=settings).partition("[[variants]]")
    (tmp_path / "one.toml").write_text(with_variant)
    (tmp_path / "two.toml").write_text(VARIANT.format(tuned="", more=settings))
    monkeypatch.setattr(suite, "SUITES", tmp_path)
    options = ["--suite", "all", "--method", "wsn", "--engine", "inline", "--device", "cpu", "--results", str(tmp_path)]
    assert RUN.invoke(tune.app, options, catch_exceptions=False).exit_code == 0
    names = {name: [e["method"] for e in chosen.read(tmp_path / "tuning" / f"{name}.toml")] for name in ("one", "two")}
    assert names == {"one": ["wsn"], "two": ["wsn", "wsn-0.03"]}


def test_two_lengths_of_one_benchmark_have_no_place_in_a_file(tmp_path: Path, monkeypatch) -> None:
    """The values of the later study replaced those of the earlier."""
    ran = pretend(monkeypatch)
    (tmp_path / "mine.toml").write_text(f'{SUITE}[[benchmarks]]\nname = "split-digits"\nsteps = 7\n')
    with pytest.raises(UserError, match="suite mine lists split-digits twice, with other lengths or networks"):
        call(tmp_path, "--method", "ewc")
    assert not ran


def test_studies_of_other_ranges_are_kept_apart_which_a_note_says(tmp_path: Path, monkeypatch) -> None:
    ran = pretend(monkeypatch)
    (tmp_path / "mine.toml").write_text(SUITE)
    monkeypatch.setattr(search, "settled", lambda study, _: replace(study, apart=True))
    output = call(tmp_path, "--method", "ewc").output
    assert "note: ewc, split-digits til: an earlier study has other ranges; this one is kept apart from it" in output
    assert "/ranges " in chosen.read(tmp_path / "tuning" / "mine.toml")[0]["provenance"]["study"]
    assert [study.apart for study in ran] == [True]


def test_failed_trials_are_told(monkeypatch) -> None:
    study = Study(cells("ewc")[0], {}, 1, ({"lr": 0.5},))
    found = [trial(0, "complete", 0.5), trial(1, "failed", None), trial(2, "failed", None)]
    assert "3 trials, 0 ended early, 2 failed; best on validation 50.00 %" in tune._in_words(study, found, Prefer.KNOWN)
    assert "failed" not in tune._in_words(study, found[:1], Prefer.KNOWN)


def refined(tmp_path: Path, *rules: Prefer) -> dict[str, Any]:
    """Entry of a search at a quarter on one stream, then of a grid on three at full length, judged by these rules."""
    (cell,) = cells("ewc", assignments=(("ewc", "lr", "0.25"), ("ewc", "strength", "4.0")))
    shares = (0.25, 0.375, 1.0, 0.5)
    searched = Study(replace(cell, budget=Budget(32, 25)), {}, 1, ({"lr": 1.0}, {"lr": 2.0}))
    trials = [trial(k, "complete", share, lr=0.25, strength=k + 2.0) for k, share in enumerate(shares)]
    trials = [replace(each, by_stream=(each.accuracy or 0.0,) * 2) for each in trials]
    chosen.write(tmp_path / "mine.toml", entry_of(searched, *trials, whole=Budget(32, 100)), {})
    grid = Study(replace(cell, budget=Budget(32, 100)), {}, 3, ({"lr": 0.25}, {"lr": 0.125}), grid=True)
    trials = [Trial(k, "complete", 0.75, {"lr": 0.25 / (k + 1)}, 1.0, 0.5 + k / 4) for k in range(2)]
    trials = [replace(each, by_stream=(0.75,) * 3) for each in trials]
    for rule in rules:
        entry = chosen.entry(grid, trials, rule, Budget(32, 100), "tune.py", "")
        chosen.write(tmp_path / "mine.toml", entry, cell.config)
    (found,) = chosen.read(tmp_path / "mine.toml")
    return found


@pytest.mark.parametrize("times", [1, 2])
def test_a_refined_search_keeps_its_figures(tmp_path: Path, times: int) -> None:
    found = refined(tmp_path, *[Prefer.KNOWN] * times)
    why = found["provenance"]
    assert found["values"] == {"strength": 4.0, "lr": 0.25}
    assert (why["accuracy_before"], why["accuracy_published"], why["accuracy_best"]) == (0.25, 0.375, 0.75)
    streams = [why[f"by_stream{end}"] for end in ("", "_before", "_published")]
    assert streams == [[0.75] * 3, [0.25] * 2, [0.375] * 2], "the grid's, then the search's"
    assert why["sensitivity"] == 0.5625, "the search's; the grid's is 0"
    assert [why[key] for key in chosen.PARTS] == [[4, 2], [1, 3], [0.25, 1.0]] and why["earlier_trials"] == 4


def test_a_grid_judged_by_another_rule_has_the_source_of_that_rule(tmp_path: Path) -> None:
    found = refined(tmp_path, Prefer.KNOWN, Prefer.CERTIFIED)
    assert found["source"] == (
        "tuned on validation data: 4 trials at 0.25 of the training length; then 2 trials of a grid (lr = 0.25; "
        "lr = 0.125) on 3 streams, the most certified of those as good, runners/tune.py"
    )
    assert found["values"]["lr"] == 0.125 and found["provenance"]["prefer"] == "certified"
    assert refined(tmp_path, Prefer.CERTIFIED, Prefer.KNOWN)["source"].endswith("on 3 streams, runners/tune.py")
