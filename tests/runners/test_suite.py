from __future__ import annotations

import pytest

from benchmarks import catalogue
from benchmarks.types import CIL, TIL, Budget, UserError, ValidatedBudget
from methods import registry
from runners.grid import build, hyperparameters, remarks, suite

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


def test_every_block_of_a_shipped_suite_has_values_of_its_method():
    """Also those of methods that only `--methods` adds, which no command loads before."""
    for found in map(suite.read, suite.shipped().values()):
        methods = {variant.label: variant.method for variant in found.variants}
        for block in found.settings:
            name = methods.get(block.method, block.method)
            hyperparameters.configure(name, registry.load(name).Config, block.values, found.name)


def of_ones_own(more):
    given = {"description": "d", "methods": ["ewc"], "scenarios": ["til"], "benchmarks": [{"name": "split-digits"}]}
    return suite.made({"name": "mine", **given, **more}, "mine")


@pytest.mark.parametrize(
    "block, remark",
    [
        ({"method": "si"}, "settings[0] (si)"),
        ({"method": "ewc", "scenario": "cil"}, "settings[0] (ewc, cil)"),
        ({"method": "ewc", "benchmark": "split-mnist"}, "settings[0] (ewc, split-mnist)"),
        ({"method": "low", "scenario": "til"}, ""),
    ],
)
def test_a_block_that_meets_no_row_is_told_and_checked(block, remark):
    row = {"label": "low", "method": "ewc", "values": {"strength": 1.0}}
    mine = of_ones_own({"settings": [{**block, "values": {"lr": 0.5}}], "variants": [row]})
    for choices in (build.Choices(seeds=1), build.Choices(seeds=1, methods=("finetune",))):
        said = [f"suite mine: {remark} meets no row of this suite"] if remark else []
        assert remarks.of_cells(build.build([mine], choices)) == said
    choices = build.Choices(
        seeds=1, methods=("ewc", "si"), benchmarks=("split-digits", "split-mnist"), scenarios=(TIL, CIL)
    )
    assert remarks.of_cells(build.build([mine], choices)) == []
    wrong = of_ones_own({"settings": [{**block, "values": {"nonsense": 5.0}}], "variants": [row]})
    with pytest.raises(UserError, match=r"settings\[0\]: \w+ has no hyperparameter 'nonsense'"):
        build.build([wrong], build.Choices(methods=("finetune",)))


def test_a_variant_of_other_scenarios_than_the_suites_is_told():
    row = {"label": "low", "method": "ewc", "values": {"strength": 1.0}, "scenarios": ["cil"]}
    (said,) = remarks.of_cells(build.build([of_ones_own({"variants": [row]})], build.Choices(seeds=1)))
    assert said == "suite mine: the variant low has no cells, since its scenarios (cil) are none of the suite's (til)"


def test_a_label_that_is_another_methods_name_is_refused():
    row = {"label": "si", "method": "ewc", "values": {"strength": 1.0}}
    with pytest.raises(UserError, match="suite mine: a variant of ewc is called 'si', as another method is"):
        build.build([of_ones_own({"variants": [row]})], build.Choices())


@pytest.mark.parametrize("reverse", [False, True])
def test_a_value_set_for_a_label_wins_over_its_methods_in_any_order(reverse):
    row = {"label": "low", "method": "ewc", "values": {"strength": 1.0}}
    assigned = [("low", "strength", "100"), ("ewc", "strength", "50")]
    choices = build.Choices(seeds=1, assignments=tuple(reversed(assigned) if reverse else assigned))
    found = {cell.label: cell.config["strength"] for cell in build.build([of_ones_own({"variants": [row]})], choices)}
    assert found == {"ewc": 50.0, "low": 100.0}


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
        (
            ('digits"', 'digits"\n[[benchmarks]]\nname = "b"\nvalues_of = "split-digit"'),
            "values_of = 'split-digit' of 'b' has to be another benchmark of the suite that has no values_of itself. "
            "Did you mean split-digits?",
        ),
        (('digits"', 'digits"\nvalues_of = "split-digits"'), "of 'split-digits' has to be another benchmark"),
        (('digits"', 'digits"\n[[settings]]\nmethod = "a"'), "the key settings[0].values is missing"),
        (
            ('digits"', 'digits"\n[[settings]]\nmethod = "a"\nvalues = {lr = {a = 1}}'),
            "settings[0].values.lr: {'a': 1} is not permitted: write true or false, a number, a text or a list of them",
        ),
        (("seeds = 2", "seeds = 1000001"), "seeds = 1000001: seeds from 1,000,000 on are kept for tuning"),
        (('"d"', '"d"\nname = "../../up"'), "name = '../../up': the name '../../up' would leave its folder"),
        (('"d"', '"d"\nname = "a\\u001b"'), r"name = 'a\x1b': the name 'a\x1b' holds the character U+001B"),
        (('"d"', '"a\u2028b"'), r"description = 'a\u2028b': the text 'a\u2028b' holds the character U+2028"),
        (('digits"', f'digits"\nsteps = {2**63}'), "has more than 63 bits"),
        *(
            (('digits"', f'digits"\n[[{kind}]]\nmethod = "finetune"\nvalues = {{}}\n{more}source = "a\u2028b"'), said)
            for kind, more, said in (
                ("settings", "", r"settings[0].source = 'a\u2028b': the text 'a\u2028b' holds"),
                ("variants", 'label = "l"\n', r"variants[0].source = 'a\u2028b': the text 'a\u2028b' holds"),
            )
        ),
        *(
            (('digits"', f'digits"\n[[settings]]\nmethod = "finetune"\nvalues = {{ lr = {value} }}'), said)
            for value, said in (
                ('"a\u2028b"', r"settings[0].values.lr = 'a\u2028b': the text 'a\u2028b' holds"),
                ("1" + 400 * "0", "more than 63 bits"),
                ("nan", "settings[0].values.lr = nan: the number nan is not finite"),
            )
        ),
    ],
)
def test_a_mistake_is_answered_with_file_key_value_and_what_is_permitted(tmp_path, change, answer):
    path = write(tmp_path, GOOD.replace(*change))
    with pytest.raises(UserError) as caught:
        suite.read(path)
    assert str(caught.value).startswith(f"{path}: ") and answer in str(caught.value)


@pytest.mark.parametrize(
    "more, text, answer",
    [
        ("settings = 5\n", "", "mine.toml: settings = 5: input should be a valid list"),
        ('in_all = "no"\n', "", "mine.toml: in_all = 'no': input should be a valid boolean"),
        ("", "settings = 5", "tuned.toml: settings = 5: input should be a valid list"),
        ("", '[settings]\nmethod = "finetune"\nvalues = {}', "tuned.toml: settings: input should be a valid list"),
        ("", '[[setings]]\nmethod = "a"', "tuned.toml: unknown key setings"),
        ("", "lr = ", "the file of tuned values"),
    ],
)
def test_a_mistake_is_looked_for_in_the_file_that_has_it(tmp_path, more, text, answer):
    path = write(tmp_path, f'tuned = "tuned.toml"\n{more}{GOOD}')
    (tmp_path / "tuned.toml").write_text(text)
    with pytest.raises(UserError, match=answer):
        suite.read(path)


def test_tuned_values_follow_the_suites_own(tmp_path):
    block = '\n[[settings]]\nmethod = "finetune"\nvalues = {{ lr = {} }}\n'
    path = write(tmp_path, f'tuned = "tuned.toml"\n{GOOD}{block.format(0.5)}')
    (tmp_path / "tuned.toml").write_text(f"{block.format(0.25)}[[provenance]]\ntrials = 3\n")
    assert [each.values for each in suite.read(path).settings] == [{"lr": 0.5}, {"lr": 0.25}]


def test_a_number_of_thousands_of_digits_is_a_mistake_in_the_file(tmp_path):
    with pytest.raises(UserError, match=r"mine\.toml is not TOML: .*4300 digits"):
        suite.read(write(tmp_path, GOOD.replace("seeds = 2", f"seeds = 0x{5000 * 'f'}")))


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
