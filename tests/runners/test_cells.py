from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import catalogue
from benchmarks.definition import Normalisation
from benchmarks.types import Budget, Scenario, UserError, ValidatedBudget
from runners.grid import build
from runners.grid import suite as suite_file
from runners.grid.cells import Cell, Conditions, Job, unique
from runners.grid.loading import load_method
from runners.grid.suite import BenchmarkEntry, Settings, Suite, Variant
from tests.runners.helpers import FOREIGN, cells, foreign


def a_cell() -> Cell:
    return cells("finetune")[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "other"},
        {"config": {"lr": 0.002}},
        {"benchmark": "permuted-digits"},
        {"definition": {"n_tasks": 4}},
        {"scenario": Scenario.CIL},
        {"seed": 1},
        {"budget": Budget(32, steps=7)},
        {"budget": Budget(16, steps=6)},
        {"budget": Budget(32, epochs=6)},
        {"budget": ValidatedBudget(32, steps=6)},
        {"network": "mlp-10"},
        {"source": "0"},
        {"parts": {"network": "0"}},
    ],
)
def test_what_decides_the_numbers_changes_the_key_and_the_folder(changes):
    cell = a_cell()
    other = replace(cell, **changes)
    assert other.key != cell.key
    assert other.folder(Path("r")) != cell.folder(Path("r"))


@pytest.mark.parametrize(
    "changes", [{"label": "other"}, {"suite": "other"}, {"reference": "/elsewhere.py:X"}, {"chosen": {"lr": "a"}}]
)
def test_names_do_not_change_the_key(changes):
    assert replace(a_cell(), **changes).key == a_cell().key


def test_the_folder_says_what_the_cell_is():
    cell = replace(a_cell(), seed=3)
    assert cell.folder(Path("r")) == Path(f"r/split-digits/til/finetune/seed3-{cell.key[:12]}")


@pytest.mark.parametrize("budget", [Budget(32, steps=6), ValidatedBudget(32, epochs=6, patience=2)])
def test_a_job_travels_as_json(budget):
    job = Job(
        replace(a_cell(), budget=budget, twins=("again",)),
        Path("folder"),
        Conditions(device="cpu", environment={"a": 1}),
    )
    arrived = Job.from_json(json.loads(json.dumps(job.to_json())))
    assert arrived.cell.to_json() == job.cell.to_json() and arrived.cell.key == job.cell.key
    assert (arrived.folder, arrived.conditions, arrived.cell.budget) == (job.folder, job.conditions, budget)


def test_a_plain_budget_enters_the_key_as_ever():
    """Keys of records depend on it: no field is added for budgets that validation drives."""
    cell = a_cell()
    names = ("reference", "label", "suite", "chosen", "judged_on", "benchmark_file", "twins")
    decides = {name: getattr(cell, name) for name in Cell.__dataclass_fields__ if name not in names}
    decides["budget"] = {"batch_size": 32, "steps": 6, "epochs": None}
    assert cell.key == hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def test_a_cell_that_two_suites_ask_for_is_run_once_and_names_both():
    cell = a_cell()
    [one] = unique([cell, replace(cell, suite="second"), cell])
    assert one.suite == "test, second"


def test_a_row_without_cells_of_its_own_is_named_by_the_row_that_has_them():
    cell = a_cell()
    [one] = unique([cell, replace(cell, label="again"), replace(cell, label="more", suite="second"), cell])
    assert (one.label, one.twins, one.suite) == ("finetune", ("again", "more"), "test, second")


# -- the grid ------------------------------------------------------------------------------------


def a_suite(**changes: object) -> Suite:
    return Suite(
        **{
            "name": "s",
            "description": "d",
            "methods": ["finetune", "joint"],
            "scenarios": ["til", "cil"],
            "seeds": 2,
            "benchmarks": [BenchmarkEntry(name="split-digits")],
            **changes,
        }
    )


def test_the_grid_is_the_product_and_gives_every_method_the_same_budget():
    suite = a_suite(benchmarks=[BenchmarkEntry(name="split-digits", steps=40), BenchmarkEntry(name="permuted-digits")])
    found = build.build([suite], build.Choices(budget_scale=0.5))
    default = catalogue.find("permuted-digits").budget.steps
    assert default is not None
    assert len(found) == len({cell.key for cell in found}) == 2 * 2 * 2 * 2
    assert {(c.benchmark, c.budget.steps) for c in found} == {("split-digits", 20), ("permuted-digits", default // 2)}
    assert [cell.seed for cell in found] == sorted(cell.seed for cell in found)


def test_the_key_of_an_image_folders_cell_changes_with_its_files_and_not_with_their_place(tmp_path):
    def key(place):
        suite = a_suite(methods=["finetune"], benchmarks=[BenchmarkEntry(name="images-birds-2x2")])
        return build.build([suite], build.Choices(seeds=1, scenarios=(Scenario.TIL,), data=tmp_path / place))[0].key

    for place in ("a", "b"):
        folder = tmp_path / place / "birds" / "train" / "wren"
        folder.mkdir(parents=True)
        (folder / "1.png").write_bytes(b"one")
    assert key("a") == key("b")
    (folder / "1.png").write_bytes(b"other")
    other = key("b")
    assert other != key("a")
    (folder / "2.png").write_bytes(b"one")
    assert key("b") not in (other, key("a"))


def test_choices_narrow_and_add():
    choices = build.Choices(("ewc",), (foreign("Good"),), ("permuted-digits",), (Scenario.DIL,), 1)
    found = build.build([a_suite(), a_suite(name="t")], choices)
    assert [(c.label, c.benchmark, c.scenario, c.seed) for c in found] == [
        ("ewc", "permuted-digits", "dil", 0),
        ("good", "permuted-digits", "dil", 0),
    ]
    assert found[1].reference == f"{FOREIGN}:Good"


def test_later_settings_win_and_the_command_line_wins_over_all():
    blocks = [
        Settings(method="finetune", values={"lr": 0.5}),
        Settings(method="finetune", scenario=Scenario.CIL, values={"lr": 0.25}),
        Settings(method="finetune", benchmark="split-mnist", values={"lr": 0.125}),
        Settings(method="joint", values={"lr": 1}),
    ]
    found = build.build([a_suite(settings=blocks, seeds=1)], build.Choices())
    assert {(c.method, c.scenario): c.config["lr"] for c in found} == {
        ("finetune", "til"): 0.5,
        ("finetune", "cil"): 0.25,
        ("joint", "til"): 1.0,
        ("joint", "cil"): 1.0,
    }
    [cell] = build.build(
        [a_suite(settings=blocks)],
        build.Choices(("finetune",), (), None, (Scenario.CIL,), 1, (("finetune", "lr", "3e-2"),)),
    )
    assert cell.config["lr"] == 0.03


def test_where_a_value_comes_from_goes_with_the_value_that_wins():
    blocks = [
        Settings(method="finetune", values={"lr": 0.5}, source="a paper"),
        Settings(method="finetune", scenario=Scenario.CIL, values={"lr": 0.25}),
    ]
    slow = Variant(label="slow", method="finetune", values={"lr": 1e-5}, source="slower")
    choices = build.Choices(seeds=1, assignments=(("joint", "lr", "0.1"),))
    found = build.build([a_suite(settings=blocks, variants=[slow])], choices)
    assert {(c.label, c.scenario): c.chosen for c in found} == {
        ("finetune", "til"): {"lr": "a paper"},
        ("finetune", "cil"): {"lr": "suite s"},
        ("slow", "til"): {"lr": "slower"},
        ("slow", "cil"): {"lr": "slower"},
        ("joint", "til"): {"lr": "command line"},
        ("joint", "cil"): {"lr": "command line"},
    }


def test_a_benchmark_takes_the_values_of_another_where_none_name_it():
    def block(lr, where=None, scenario=None):
        return Settings(method="finetune", benchmark=where, scenario=scenario, values={"lr": lr}, source=f"s{lr}")

    blocks = [
        block(0.1),
        block(0.2, "split-digits"),
        block(0.3, "split-digits", Scenario.CIL),
        block(0.4, "permuted-digits", Scenario.DIL),
        block(0.5, "split-digits", Scenario.DIL),
        Settings(method="joint", benchmark="split-digits", values={"lr": 0.6}),
        Settings(method="slow", benchmark="permuted-digits", values={"lr": 0.7}),
    ]
    entries = [BenchmarkEntry(name="split-digits"), BenchmarkEntry(name="permuted-digits", values_of="split-digits")]
    slow = Variant(label="slow", method="finetune", values={"lr": 0.8})
    grid = a_suite(settings=blocks, benchmarks=entries, scenarios=list(Scenario), variants=[slow], seeds=1)
    found = {(c.benchmark, c.label, str(c.scenario)): c for c in build.build([grid], build.Choices())}
    taken = {
        (label, scenario): (cell.config["lr"], cell.chosen["lr"])
        for (benchmark, label, scenario), cell in found.items()
        if benchmark == "permuted-digits"
    }
    assert taken == {
        ("finetune", "til"): (0.2, "as on split-digits: s0.2"),
        ("finetune", "dil"): (0.4, "s0.4"),  # its own values, also where a later block is of the other benchmark
        ("finetune", "cil"): (0.3, "as on split-digits: s0.3"),
        **{("joint", str(each)): (0.6, "as on split-digits: suite s") for each in Scenario},
        **{("slow", str(each)): (0.7, "suite s") for each in Scenario},
    }
    assert found["split-digits", "finetune", "til"].chosen == {"lr": "s0.2"}
    choices = build.Choices(methods=("finetune",), benchmarks=("permuted-digits",), scenarios=(Scenario.CIL,))
    alone = build.build([grid], choices)[0]
    assert alone.config["lr"] == 0.3  # also where the other benchmark is not run


def test_a_variant_may_be_for_some_scenarios_only():
    slow = Variant(label="slow", method="finetune", values={"lr": 1e-5}, scenarios=[Scenario.CIL])
    cells = build.build([a_suite(seeds=1, scenarios=list(Scenario), variants=[slow])], build.Choices())
    assert [cell.scenario for cell in cells if cell.label == "slow"] == [Scenario.CIL]
    assert {cell.scenario for cell in cells if cell.label == "finetune"} == set(Scenario)


def test_a_variant_is_a_row_of_its_own():
    suite = a_suite(seeds=1, variants=[Variant(label="finetune-slow", method="finetune", values={"lr": 1e-5})])
    found = {cell.label: cell for cell in build.build([suite], build.Choices(scenarios=(Scenario.TIL,)))}
    assert found.keys() == {"finetune", "joint", "finetune-slow"}
    assert found["finetune-slow"].method == "finetune" and found["finetune-slow"].config["lr"] == 1e-5
    [only] = build.build([suite], build.Choices(methods=("finetune-slow",), scenarios=(Scenario.TIL,)))
    assert only.label == "finetune-slow"


@pytest.mark.parametrize(
    "suite, choices, answer",
    [
        ({"methods": ["finetun"]}, {}, r"unknown method 'finetun'\. Did you mean finetune"),
        ({"methods": [foreign("Bad")]}, {}, "holds no Method class 'Bad'; it holds: .*Good"),
        ({"benchmarks": [BenchmarkEntry(name="split-digit")]}, {}, r"unknown benchmark 'split-digit'\. Did you mean"),
        ({"settings": [Settings(method="finetune", values={"rl": 1})]}, {}, r"suite s: settings\[0\]: finetune has no"),
        ({"settings": [Settings(method="finetun", values={})]}, {}, "unknown method 'finetun'"),
        ({"settings": [Settings(method="joint", benchmark="x", values={})]}, {}, "unknown benchmark 'x'"),
        ({"variants": [Variant(label="joint", method="finetune", values={})]}, {}, "are called 'joint'"),
        ({}, {"assignments": (("ewc", "lr", "1"),)}, r"--set ewc\.lr=1: 'ewc' is not in this grid: finetune, joint"),
        ({}, {"assignments": (("joint", "lr", "x"),)}, r"joint\.lr = 'x': permitted is a number"),
        ({}, {"foreign": ("/nowhere.py:X",)}, r"there is no file /nowhere\.py"),
        ({}, {"foreign": (foreign("Bad"),)}, "holds no Method class 'Bad'; it holds: .*Good"),
        ({}, {"budget_scale": 1e300}, r"suite s: split-digits: the budget times 1e\+300 is too long for a record"),
        ({}, {"budget_scale": 1.7e308}, r"suite s: split-digits: the budget times 1\.7e\+308 is too long for a record"),
    ],
)
def test_mistakes_are_user_errors(suite, choices, answer):
    with pytest.raises(UserError, match=answer):
        build.build([a_suite(**suite)], build.Choices(**choices))


def test_a_file_may_not_take_the_name_of_a_shipped_method(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(FOREIGN.read_text().replace('"good"', '"finetune"'))
    with pytest.raises(UserError, match=r"registers the name 'finetune', which methods\.finetune has"):
        load_method(f"{file}:Good")


def test_a_file_that_does_not_import_is_a_user_error(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("import no_such_package")
    with pytest.raises(UserError, match="does not import: ModuleNotFoundError: No module named 'no_such_package'"):
        load_method(f"{file}:Good")


@pytest.mark.parametrize(
    "changes",
    [
        {"n_tasks": 4},
        {"classes_per_task": [3, 2, 2, 2, 1]},
        {"validation": 999},
        {"held_out": "drawn"},
        {"class_order": "shuffled"},
        {"augmentation": "flip-crop"},
        {"normalisation": Normalisation((0.5,), (0.25,))},
        {"stored_shape": (1, 32, 32)},
        {"dataset": "fashion-mnist"},
        {"kind": "permuted", "classes_per_task": 10, "padding": 2},
    ],
    ids=str,
)
def test_what_decides_the_samples_of_a_benchmark_is_in_its_definition(changes):
    benchmark = replace(catalogue.find("split-mnist"), name="mine")
    assert build.definition_of(replace(benchmark, **changes), None) != build.definition_of(benchmark, None)


def test_the_definition_of_an_own_benchmark_names_its_data_set_and_kind():
    """A shipped one's name says both, so that keys of shipped records have neither."""
    for name in ("rotated-mnist", "split-mnist-shuffled", "images-birds-2x2"):
        found = catalogue.find(name)
        assert {"kind", "dataset"}.isdisjoint(build.definition_of(found, None))
        for edited in (replace(found, name="mine"), replace(found, dataset="fashion-mnist")):
            definition = build.definition_of(edited, None)
            assert (definition["kind"], definition["dataset"]) == (str(found.kind), edited.dataset)


def test_a_key_says_how_validation_is_held_out_where_it_is_drawn():
    """Keys of shipped benchmarks stay; cells of image folders from before the draw are stale."""
    from benchmarks.catalogue import find
    from runners.grid.build import definition_of

    assert "held_out" not in definition_of(find("split-mnist-shuffled"), None)
    assert definition_of(find("images-no such folder-2x2"), None)["held_out"] == "drawn"


OWN = """from dataclasses import dataclass
from methods.base import register
from methods.finetune import Finetune


@register("my-replay")
class Replay(Finetune):
    @dataclass(frozen=True)
    class Config:
        lr: float = 0.001
        note: str = "a"


@register("other")
class Other(Finetune):
    pass
"""
SUITE = """description = "d"
methods = ["finetune", "own.py:Replay"]
scenarios = ["til"]
seeds = 1
[[benchmarks]]
name = "split-digits"
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path


def rates(own: Path, more: str, **choices) -> dict[str, float]:
    """Learning rate of each row of a suite that lists a method by its file."""
    (own / "mine.toml").write_text(SUITE + more)
    built = build.build([suite_file.read(own / "mine.toml")], build.Choices(**choices))
    return {cell.label: cell.config["lr"] for cell in built}


@pytest.mark.parametrize("name", ["my-replay", "own.py:Replay"])
def test_a_suites_own_method_is_named_by_its_file_or_as_it_is_registered(own, name):
    """Also where the command line leaves the method out, or chooses it."""
    more = (
        f'[[settings]]\nmethod = "{name}"\nvalues = {{ lr = 0.5 }}\n'
        f'[[variants]]\nlabel = "fast"\nmethod = "{name}"\nvalues = {{ lr = 0.75 }}\n'
        '[[settings]]\nmethod = "fast"\nvalues = {}\n'
    )
    assert rates(own, more) == {"finetune": 0.001, "my-replay": 0.5, "fast": 0.75}
    assert rates(own, more, methods=("finetune",)) == {"finetune": 0.001}
    assert rates(own, more, methods=("my-replay",)) == {"my-replay": 0.5, "fast": 0.75}
    assert rates(own, more, methods=("fast",)) == {"fast": 0.75}


def test_the_file_of_a_variant_alone_is_known_too(own):
    more = (
        '[[variants]]\nlabel = "more"\nmethod = "own.py:Other"\nvalues = {}\n'
        '[[settings]]\nmethod = "other"\nvalues = { lr = 0.5 }\n'
    )
    assert rates(own, more)["more"] == 0.5
    assert rates(own, more, methods=("finetune",)) == {"finetune": 0.001}
    with pytest.raises(UserError, match="unknown method 'others'"):
        rates(own, more.replace('"other"', '"others"'))


def test_settings_name_a_method_or_benchmark_of_a_file_below_the_suite_only(own):
    for key in ("method", "benchmark"):
        names = {"method": "finetune", "benchmark": "split-digits", key: "../own.py:Other"}
        lines = "".join(f'{name} = "{value}"\n' for name, value in names.items())
        with pytest.raises(UserError, match=rf"mine\.toml: settings\.{key}: .* would leave its folder"):
            rates(own, f"[[settings]]\n{lines}values = {{}}\n")


@pytest.mark.parametrize("text", ["a\u2028b", "\x1b[31m"])
def test_values_that_would_make_a_record_unreadable_are_refused(own, text):
    with pytest.raises(UserError, match=r"my-replay\.note: the text .* holds the character U\+"):
        rates(own, "", assignments=(("my-replay", "note", text),))
