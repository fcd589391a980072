"""Tuning: files, names and options that a search refuses before it trains, or copes with."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from benchmarks.types import UserError
from runners import tune
from runners.grid import suite
from runners.grid.cells import Cell
from runners.tuning import chosen, search, trials
from runners.tuning.study import Study
from tests.runners.helpers import cells, foreign
from tests.runners.tuned import RUN, SEARCHED, SUITE, tuned


def refused(results: Path, match: str, *arguments: str, text: str = SUITE) -> None:
    """A call is refused before it has trained anything."""
    with pytest.raises(UserError, match=match) as refusal:
        tuned(results, "--method", "finetune", *arguments, number=1, text=text)
    assert "\n" not in str(refusal.value) and not (results / "tuning" / "cells").exists()


SETTINGS = '[[settings]]\nmethod = "ewc"\nbenchmark = "split-digits"\nscenario = "til"\nsource = "x"\nvalues = {}\n'


@pytest.mark.parametrize(
    "text, said",
    [
        (SUITE, "unknown key description"),
        (SETTINGS, r"not all \[\[settings\]\] have .*a \[\[provenance\]\] with trials"),
        (SETTINGS + "[[provenance]]\ntrials = true\n", r"a \[\[provenance\]\] with trials"),
        (SETTINGS.replace('source = "x"', "") + "[[provenance]]\ntrials = 1\n", "a source"),
        (SETTINGS + "[[provenance]]\ntrials = 1\ndate = 2020-01-01\n", r"provenance\[0\]\.date"),
        (SETTINGS[:30], "is not TOML"),
        (b"\xff", "cannot be read"),
    ],
)
@pytest.mark.parametrize("name", ["mine.toml", "tuning/quick.toml"])
def test_a_file_that_tuning_has_not_written_is_left_alone(
    tmp_path: Path, name: str, text: str | bytes, said: str
) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    content = text if isinstance(text, bytes) else text.encode()
    file.write_bytes(content)
    out = ("--out", str(file)) if name == "mine.toml" else ()
    refused(tmp_path, f"^{'--out: .*' if out else ''}.*{said}.*tune.py replaces only what it has written", *out)
    assert file.read_bytes() == content


@pytest.mark.parametrize("name", ["mine.toml", "tuning/quick.toml"])
def test_a_folder_in_the_place_of_chosen_values_stays_there(tmp_path: Path, name: str) -> None:
    (tmp_path / name / "kept").mkdir(parents=True)
    out = ("--out", str(tmp_path / name)) if name == "mine.toml" else ()
    refused(tmp_path, "cannot be read: Is a directory; tune.py replaces", *out)
    assert (tmp_path / name / "kept").is_dir()


def test_a_place_where_no_file_can_be_written_is_told_before_the_search(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(tmp_path, "^--out: .*Not a directory", "--out", str(tmp_path / "file" / "mine.toml"))
    (tmp_path / "link").symlink_to("/proc" if Path("/proc").is_dir() else "/dev/null")
    refused(tmp_path, "^--out: the folder .*link cannot be written", "--out", str(tmp_path / "link" / "mine.toml"))
    (tmp_path / "tuning").rmdir()
    (tmp_path / "tuning").write_text("")
    refused(tmp_path, "the folder .*tuning cannot be written: File exists")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a,b\n1,2\n"])
def test_a_table_that_is_none_of_trials_is_told_before_the_search(tmp_path: Path, content: bytes) -> None:
    table = tmp_path / "tuning" / "trials.csv"
    table.parent.mkdir()
    table.write_bytes(content)
    refused(tmp_path, r"trials\.csv cannot be read .*; rename it")
    assert table.read_bytes() == content


def test_damaged_studies_are_told_with_what_to_do(tmp_path: Path) -> None:
    database = tmp_path / "tuning" / "studies.db"
    database.parent.mkdir()
    database.write_bytes(b"no database " * 1000)
    refused(tmp_path, r"studies\.db cannot be used: file is not a database\. If it is damaged, rename it: the same")
    database.unlink()
    output = tuned(tmp_path, "--method", "finetune", number=1)
    database.write_bytes(database.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"studies\.db cannot be used: .*malformed"):
        tuned(tmp_path, "--method", "finetune", number=1)
    database.rename(tmp_path / "damaged.db")
    again = tuned(tmp_path, "--method", "finetune", number=1)
    assert "1 finished before" in again and output.splitlines()[-2:] == again.splitlines()[-2:]


@pytest.mark.parametrize("name", ["a b?mode=ro", "{x}", "%41 #1", "ü"])
def test_a_results_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    (cell,) = cells("finetune", steps=6)
    trials.open_study(search.study_of(cell, 1), tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == [name] and (tmp_path / name / "studies.db").is_file()


def test_every_suite_has_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, steps in (("one", 5), ("two", 6), ("three", 6)):
        text = 'description = "d"\nmethods = ["finetune"]\n[[benchmarks]]\nname = "split-digits"\nsteps = {}\n'
        (tmp_path / f"{name}.toml").write_text(text.format(steps))
    monkeypatch.setattr(suite, "SUITES", tmp_path)
    call = ["--suite", "all", "--method", "finetune", "--trials", "1", "--scenarios", "til", "--engine", "inline"]
    call += ["--device", "cpu", "--results", str(tmp_path / "results")]
    with pytest.raises(UserError, match=r"--out .*mine\.toml: a file has the values of one suite, not of one, "):
        RUN.invoke(tune.app, [*call, "--out", str(tmp_path / "mine.toml")], catch_exceptions=False)
    done = RUN.invoke(tune.app, call, catch_exceptions=False)
    found = {file.stem: tomllib.loads(file.read_text()) for file in (tmp_path / "results" / "tuning").glob("*.toml")}
    assert found.keys() == {"one", "two", "three"} and done.output.count("chosen values: ") == 3
    assert [len(each["settings"]) for each in found.values()] == [1, 1, 1]
    (one,), (two,), (three,) = (found[name]["provenance"] for name in ("one", "two", "three"))
    assert one["study"] != two["study"] == three["study"]  # a cell that two suites ask for


def test_a_name_of_a_suite_with_a_comma_is_one_name(tmp_path: Path) -> None:
    tuned(tmp_path, "--method", "finetune", number=1, text=f'name = "a, b"\n{SUITE}')
    assert [file.stem for file in (tmp_path / "tuning").glob("*.toml")] == ["a, b"]


def test_any_name_of_a_hyperparameter_can_be_written(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    for method in ("a", "b"):
        chosen.write(file, {**SEARCHED, "method": method, "values": {"λ": 0.5}}, {})
    assert [entry["values"] for entry in chosen.read(file)] == [{"λ": 0.5}, {"λ": 0.5}]


def test_an_argument_that_is_no_text_does_not_hinder_the_writing(tmp_path: Path) -> None:
    (cell,) = cells("finetune", steps=6)
    study = search.study_of(cell, 1)
    ended = [search.Trial(0, "complete", 0.5, {"lr": 0.5}, 1.0)]
    entry = chosen.entry(study, ended, search.Prefer.KNOWN, cell.budget, "tune.py --results r\udcff", "")
    chosen.write(tmp_path / "mine.toml", entry, {})
    assert chosen.read(tmp_path / "mine.toml")[0]["provenance"]["command"].endswith(r"r\udcff")


@pytest.mark.parametrize(("option", "number"), [("--trials", "0"), ("--seeds", "0"), ("--seeds", "1000001")])
def test_counts_that_cannot_be_meant_are_refused(option: str, number: str) -> None:
    call = ["--suite", "quick", "--method", "ewc", option, number]
    with pytest.raises(UserError, match=f"{option} {number}: "):
        RUN.invoke(tune.app, call, catch_exceptions=False)


def test_a_text_of_a_grid_that_no_record_holds_is_refused_before_the_search() -> None:
    (cell,) = [each for each in cells(foreign("KilledOnce")) if each.method == "killed-once"]
    with pytest.raises(UserError, match=r"--grid: killed-once\.flag: the text .* holds the character U\+2028"):
        search.grid_of(cell, {"flag": ["a\u2028b"]}, 1)


def test_an_unknown_preference_is_refused() -> None:
    with pytest.raises(UserError, match="choose known or certified"):
        RUN.invoke(tune.app, ["--suite", "quick", "--method", "ewc", "--prefer", "sure"], catch_exceptions=False)


def searched(name: str) -> Cell:
    reference = f"{Path(__file__).with_name('searched.py')}:{name}"
    return next(cell for cell in cells(reference) if cell.reference == reference)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Depth", r"depth: search has depth = Log 1\.0 100\.0, where permitted is a whole number; write OneOf"),
        ("Width", r"width = Even .*, where permitted is a whole number or none"),
        ("Wrong", r"depth = one of 3, 4\.5, where permitted is a whole number"),
    ],
)
def test_ranges_of_values_that_the_field_refuses_are_told_before_the_search(name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        search.study_of(searched(name), 1)


def test_ranges_of_values_that_the_field_permits_are_searched() -> None:
    assert list(search.study_of(searched("Right"), 1).ranges) == ["depth", "shares", "rate"]


def test_a_grid_of_lists_is_one_of_values(tmp_path: Path) -> None:
    study = search.grid_of(searched("Listed"), {"widths": ["[1]", "[2,3]", "[2, 3]"]}, 1)
    assert study.first == ({"widths": [1]}, {"widths": [2, 3]})
    assert [trials.values_of(each) for each in asked(study, tmp_path)] == list(study.first)


def asked(study: Study, folder: Path) -> list[Any]:
    kept = trials.open_study(study, folder)
    trials.queue(kept, study)
    return [trials.ask(kept, study, place) for place in range(2)]
