from __future__ import annotations

import pytest

from benchmarks import catalogue
from benchmarks.types import Budget, UserError, ValidatedBudget
from methods import registry
from runners.grid import suite

GOOD = """
description = "d"
methods = ["finetune"]
scenarios = ["til"]
seeds = 2
[[benchmarks]]
name = "split-digits"
"""


def write(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


def test_every_shipped_suite_is_valid_and_names_what_exists():
    assert {"quick", "mnist", "permuted", "rotated"} <= suite.shipped().keys()
    for found in suite.find(["all"]):
        assert set(found.methods) <= registry.available().keys()
        assert all(catalogue.find(entry.name) for entry in found.benchmarks)


def test_all_leaves_out_suites_that_stay_out():
    named = {found.name for found in suite.find(["all"])}
    assert "quick" in named
    assert "deviations" not in named
    assert [found.name for found in suite.find(["deviations"])] == ["deviations"]


def test_a_file_of_ones_own_takes_its_name_from_the_file(tmp_path):
    [found] = suite.find([str(write(tmp_path, GOOD))])
    assert (found.name, found.seeds, list(found.scenarios)) == ("mine", 2, ["til"])


@pytest.mark.parametrize(
    "change, answer",
    [
        (("seeds = 2", "sedes = 2"), "unknown key sedes = 2. Did you mean seeds? Permitted keys: description, methods"),
        (("seeds = 2", "seeds = 0"), "seeds = 0: input should be greater than or equal to 1"),
        (("seeds = 2", 'seeds = "two"'), "seeds = 'two': input should be a valid integer"),
        (("seeds = 2", "seeds = true"), "seeds = True: input should be a valid integer"),
        (('["til"]', '["tli"]'), "scenarios[0] = 'tli': permitted are til, dil, cil. Did you mean til?"),
        (('["til"]', '["til", "til"]'), "scenarios = ['til', 'til']: holds an entry twice"),
        (('["finetune"]', "[]"), "methods = []: list should have at least 1 item"),
        (('["finetune"]', '"finetune"'), "methods = 'finetune': input should be a valid list"),
        (('description = "d"', ""), "the key description is missing"),
        (('name = "split-digits"', 'nmae = "x"'), "unknown key benchmarks[0].nmae = 'x'. Did you mean name?"),
        (('digits"', 'digits"\nsteps = 1.5'), "benchmarks[0].steps = 1.5: input should be a valid integer"),
        (('digits"', 'digits"\nsteps = 1\nepochs = 1'), "benchmarks[0]: give steps or epochs, not both"),
        (('digits"', 'digits"\n[[settings]]\nmethod = "a"'), "the key settings[0].values is missing"),
        (
            ('digits"', 'digits"\n[[settings]]\nmethod = "a"\nvalues = {lr = {a = 1}}'),
            "settings[0].values.lr: {'a': 1} is not permitted: write true or false, a number, a text or a list of them",
        ),
    ],
)
def test_a_mistake_is_answered_with_file_key_value_and_what_is_permitted(tmp_path, change, answer):
    path = write(tmp_path, GOOD.replace(*change))
    with pytest.raises(UserError) as caught:
        suite.read(path)
    assert f"{path}: {answer}" in str(caught.value)


def test_a_file_that_is_not_toml_or_not_there(tmp_path):
    with pytest.raises(UserError, match="is not TOML"):
        suite.read(write(tmp_path, "seeds ="))
    with pytest.raises(UserError, match="there is no suite file"):
        suite.read(tmp_path / "none.toml")


def test_an_unknown_suite_is_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"--suite quik: .* Did you mean quick\?"):
        suite.find(["quik"])


def test_budget_replacements_keep_what_they_do_not_name():
    entry = suite.BenchmarkEntry(name="split-digits", epochs=2)
    assert entry.budget(Budget(32, steps=300)) == Budget(32, epochs=2)
    assert suite.BenchmarkEntry(name="x", batch_size=8).budget(Budget(32, steps=300)) == Budget(8, steps=300)
    driven = ValidatedBudget(64, epochs=50, patience=3)
    assert entry.budget(driven) == ValidatedBudget(64, epochs=2, patience=3)
