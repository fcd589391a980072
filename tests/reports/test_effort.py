"""What each method got of tuning, from the provenance of its values, and the inequality that a report must show."""

import json
import tomllib
from pathlib import Path

import pytest

from benchmarks import catalogue
from reports.effort import effort_table, read
from reports.load import load
from reports.paper import contents, paper
from reports.study import study
from runners.grid import suite
from tests.reports.synthetic import Synthetic

VALUES = {"lr": 0.25, "hidden": [50, 50]}
PROVENANCE = {
    "accuracy": 0.75, "accuracy_before": 0.5, "trials": 16, "seeds": [1, 2, 3], "length": 0.5, "sensitivity": 0.125,
    "network": "mlp-100-100",
}  # fmt: skip


def tuned(results: Path, *methods: str, scenario: str = "til", name: str = "mine", **changed: object) -> None:
    """Chosen values as runners/tune.py writes them; a value None leaves the key out."""
    lines = []
    for method in methods:
        lines += ["[[settings]]", f'method = "{method}"', 'benchmark = "split-digits"', f'scenario = "{scenario}"']
        lines += ["values = { lr = 0.25, hidden = [50, 50] }", "[[provenance]]"]
        kept = {key: value for key, value in {**PROVENANCE, **changed}.items() if value is not None}
        lines += [f"{key} = {json.dumps(value)}" for key, value in kept.items()]
    (results / "tuning").mkdir(exist_ok=True)
    (results / "tuning" / f"{name}.toml").write_text("\n".join(lines))


def record(results: Path, *methods: str, source: str = "tuned", config: dict | None = None, **options) -> None:
    for method in methods:
        chosen = dict.fromkeys(["lr", "hidden"], source) if source else {}
        Synthetic(method, config={**VALUES, "other": 1, **(config or {})}, chosen=chosen, **options).write(results)


def table(results: Path) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """Rows by method, without benchmark, and the notes."""
    found = effort_table(study(load(results)))
    assert found is not None
    return {row[1].key: [cell.key or cell.text for cell in row[2:]] for row in found.rows}, found.notes


def test_equal_tuning_is_shown_with_its_gain_and_said_to_be_equal(tmp_path: Path) -> None:
    record(tmp_path, "ewc", "hnet")
    tuned(tmp_path, "ewc", "hnet")
    row = ["16", "3", "0.5", "50.0", "75.0", "12.5", "runners/tune.py"]
    assert table(tmp_path) == (
        {"ewc": row, "hnet": row},
        ("Split Digits, TIL: equal, 16 trials on 3 streams, each at 0.5 of the training length for every method.",),
    )
    built = paper(contents(study(load(tmp_path))), [])
    assert [t.stem for t in built.tables].count("tuning-effort") == 1


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"trials": 15}, "15 trials on 3 streams, each at 0.5 of the training length"),
        ({"earlier_trials": 4}, "20 trials on 3 streams, each at 0.5 of the training length"),
        ({"seeds": [1]}, "16 trials on 1 stream, each at 0.5 of the training length"),
        ({"length": 1.0}, "16 trials on 3 streams"),
        (
            {
                "earlier_trials": 16,
                "trials": 4,
                "parts_trials": [16, 4],
                "parts_streams": [1, 3],
                "parts_length": [0.25, 1.0],
            },
            "16 trials on 1 stream at 0.25 of the training length, then 4 on 3 streams",
        ),
        (
            {
                "earlier_trials": 18,
                "trials": 4,
                "parts_trials": [16, 2, 4],
                "parts_streams": [3, 3, 3],
                "parts_length": [0.5, 0.5, 0.5],
            },
            "22 trials on 3 streams, each at 0.5 of the training length",
        ),
    ],
)
def test_another_number_of_trials_streams_or_length_is_named(tmp_path: Path, changed: dict, words: str) -> None:
    record(tmp_path, "ewc", "hnet", "si", "joint")
    tuned(tmp_path, "ewc", "hnet", "joint")
    tuned(tmp_path, "si", name="other", **changed)
    usual = "16 trials on 3 streams, each at 0.5 of the training length"
    assert table(tmp_path)[1] == (f"Split Digits, TIL: not equal, {usual} for 3 methods, but {words} for SI.",)


def test_every_search_that_led_to_the_values_is_in_the_row(tmp_path: Path) -> None:
    record(tmp_path, "ewc", "si")
    parts = {"parts_trials": [16, 4], "parts_streams": [1, 3], "parts_length": [0.5, 0.5]}
    tuned(tmp_path, "ewc", earlier_trials=16, trials=4, **parts)
    tuned(tmp_path, "si", name="other")
    assert table(tmp_path)[0]["ewc"][:3] == ["16, then 4", "1, then 3", "0.5"]
    found = effort_table(study(load(tmp_path)))
    assert found is not None and "A search that a later one refined: before is that of the first" in found.caption


def test_the_shipped_search_that_was_refined_has_its_own_figures(tmp_path: Path) -> None:
    (lid,) = [each for each in read(tmp_path) if (each.method, each.benchmark) == ("lid", "split-mnist")]
    assert (lid.amount, lid.refined, lid.own, lid.best) == ("20 trials on 3 streams", True, 0.7909333333333334, 0.8156)
    assert lid.sensitivity == 0.024733333333333273


def test_values_from_elsewhere_have_their_source_and_no_numbers(tmp_path: Path) -> None:
    record(tmp_path, "ewc", "hnet")
    record(tmp_path, "si", source="chosen on validation data (three streams)", config={"lr": 0.5})
    record(tmp_path, "finetune", source="", config={"lr": 0.5})
    tuned(tmp_path, "ewc", "hnet", "si")
    rows, notes = table(tmp_path)
    assert rows["si"] == ["–"] * 6 + ["chosen on validation data (three streams)"]
    assert rows["finetune"] == ["–"] * 6 + ["defaults"]
    assert notes[0].endswith("for 2 methods, but defaults for Fine-tuning; values from elsewhere for SI.")


def test_values_of_another_benchmark_have_its_search_without_its_accuracies(tmp_path: Path) -> None:
    there = {"benchmark": "permuted-digits", "source": "as on split-digits: tuned"}
    record(tmp_path, "ewc", "hnet", **there)
    record(tmp_path, "si", config={"lr": 0.5}, **there)
    tuned(tmp_path, "ewc", "si")
    tuned(tmp_path, "hnet", name="other", prefer="certified")
    rows, (note,) = table(tmp_path)
    assert rows["ewc"] == ["16", "3", "0.5", "–", "–", "–", "runners/tune.py on Split Digits"]
    assert rows["hnet"][-1] == "runners/tune.py on Split Digits, certified"
    assert rows["si"] == ["–"] * 6 + ["as on split-digits: tuned"], "other values than the search chose"
    assert "16 trials on 3 streams, each at 0.5 of the training length on Split Digits for 2 methods" in note
    found = effort_table(study(load(tmp_path)))
    assert found is not None and "Certified: of the trials" in found.caption


@pytest.mark.parametrize("options", [{"scenario": "dil"}, {"benchmark": "split-mnist"}, {"network": "mlp-400-400"}])
def test_a_search_belongs_to_its_own_place_only(tmp_path: Path, options: dict) -> None:
    record(tmp_path, "ewc", **options)
    tuned(tmp_path, "ewc")
    rows, notes = table(tmp_path)
    assert rows["ewc"] == ["–"] * 6 + ["tuned"] and notes[0].endswith("IL: no method has trials.")


@pytest.mark.parametrize(("budget", "ours"), [({}, True), ({"steps": 30}, False), ({"batch_size": 64}, False)])
def test_a_search_belongs_to_records_at_the_budget_that_its_length_is_a_share_of(
    tmp_path: Path, budget: dict, ours: bool
) -> None:
    whole = {"batch_size": 32, "steps": 300, "epochs": None}
    record(tmp_path, "ewc", budget={**whole, **budget})
    tuned(tmp_path, "ewc", batch_size=32, steps=300)
    assert (table(tmp_path)[0]["ewc"][0] == "16") == ours


def test_a_chosen_value_that_toml_lacks_is_known_in_the_records(tmp_path: Path) -> None:
    record(tmp_path, "ewc", config={"hidden": None})
    tuned(tmp_path, "ewc")
    file = tmp_path / "tuning" / "mine.toml"
    file.write_text(file.read_text().replace("[50, 50]", '"None"'))
    assert table(tmp_path)[0]["ewc"][0] == "16"


def test_groups_of_defaults_are_equal_and_alone_make_no_table(tmp_path: Path) -> None:
    record(tmp_path, "ewc", "si", source="")
    assert effort_table(study(load(tmp_path))) is None
    record(tmp_path, "ewc", scenario="cil")
    assert table(tmp_path)[1][0] == "Split Digits, TIL: equal, defaults for every method."


def test_what_older_files_do_not_say_is_left_open(tmp_path: Path) -> None:
    record(tmp_path, "ewc")
    tuned(tmp_path, "ewc", length=None, sensitivity=None, network=None)
    assert table(tmp_path)[0]["ewc"] == ["16", "3", "–", "50.0", "75.0", "–", "runners/tune.py"]


def test_values_of_the_suite_that_could_not_be_trained_have_a_dash(tmp_path: Path) -> None:
    record(tmp_path, "ewc")
    tuned(tmp_path, "ewc", accuracy_before=None)
    assert table(tmp_path)[0]["ewc"][3] == "–"


@pytest.mark.parametrize(
    "changed",
    [
        {"trials": "many"},
        {"seeds": 3},
        {"accuracy": [1]},
        {"accuracy_before": "nan"},
        {"trials": None},
        {"parts_trials": [16]},
        {"parts_trials": 16},
        {"parts_trials": ["a"], "parts_streams": [1], "parts_length": [1.0]},
    ],
)
def test_a_damaged_entry_costs_itself_only(tmp_path: Path, changed: dict) -> None:
    record(tmp_path, "ewc", "si")
    tuned(tmp_path, "ewc")
    tuned(tmp_path, "si", name="damaged", **changed)
    (tmp_path / "tuning" / "broken.toml").write_text("[[settings]")
    (tmp_path / "tuning" / "odd.toml").write_text("settings = 1\nprovenance = [2]")
    (tmp_path / "tuning" / "folder.toml").mkdir()
    rows, _ = table(tmp_path)
    assert rows["ewc"][0] == "16" and rows["si"][-1] == "tuned"


def test_the_searches_of_every_shipped_suite_are_known(tmp_path: Path) -> None:
    """A suite whose `tuned` lay elsewhere, or in another form, would look untuned in every report."""
    entries = 0
    for file in suite.shipped().values():
        if name := tomllib.loads(file.read_text()).get("tuned"):
            entries += len(tomllib.loads((file.parent / name).read_text())["settings"])
    efforts = read(tmp_path)
    assert len(efforts) == entries >= 36 and all(part.length is not None for effort in efforts for part in effort.parts)


@pytest.mark.parametrize("name", sorted(file.stem for file in (suite.SUITES / "tuned").glob("*.toml")))
def test_every_shipped_search_names_the_budget_of_its_suite(name: str) -> None:
    """Otherwise a record at another length would be credited with it."""
    (found,) = suite.find([name])
    budgets = {entry.name: entry.budget(catalogue.find(entry.name).budget) for entry in found.benchmarks}
    written = tomllib.loads((suite.SUITES / "tuned" / f"{name}.toml").read_text())
    for entry, provenance in zip(written["settings"], written["provenance"], strict=True):
        wanted = {key: value for key, value in vars(budgets[entry["benchmark"]]).items() if value is not None}
        assert {key: provenance[key] for key in ("steps", "epochs", "batch_size") if key in provenance} == wanted
