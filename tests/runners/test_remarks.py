"""Before cells run, strengths in the papers' form are remarked where the network is not the paper's, and only there."""

from __future__ import annotations

import pytest

from benchmarks.types import DIL, TIL
from methods.search import Log
from runners.grid import build, remarks, suite
from runners.tuning import search
from tests.runners.helpers import call, cells

PAPERS = ("mnist", "permuted", "tinyimagenet", "permuted-trend", "cifar100-trend")
"""Suites with the networks that the strengths were published for, or with strengths converted from those."""
AS_PUBLISHED = (
    *((method, "strength_per", "network") for method in ("hnet", "hyperinterval", "hypermask")),
    ("hnet", "beta", "0.1"),
    ("hyperinterval", "beta", "0.01"),
    ("hypermask", "beta", "0.0005"),
    ("hypermask", "lam", "0.001"),
)
"""Strengths for Permuted MNIST in the papers' form."""
OWN = ("quick", "permuted-digits", "rotated", "cifar-mini", "deviations")
"""Suites of benchmarks that no paper has."""


def of_suite(name: str, *assignments: tuple[str, str, str]) -> list[str]:
    return remarks.of_cells(build.build(suite.find([name]), build.Choices(seeds=1, assignments=assignments)))


PER_WEIGHT = ("hyperinterval", "strength_per", "weight")


@pytest.mark.parametrize("name", PAPERS + OWN)
def test_suites_at_the_papers_networks_or_at_no_papers_benchmark_are_quiet(name):
    assert of_suite(name) == []


def test_the_suite_on_a_smaller_network_is_told_what_counts_as_much_there_once_for_scenarios_of_one_size():
    said = of_suite("permuted-trend", *AS_PUBLISHED)
    assert any(
        line.startswith("permuted-mnist-10 (til, dil) with mlp-100-100: hypermask.beta = 0.0005 multiplies a sum over "
                        "113,610 weights") and "beta = 0.008961, or beta = 1018 with strength_per" in line
        for line in said
    )  # fmt: skip
    about = [line.partition(": ")[2].partition(" = ")[0] for line in said]
    assert sorted(set(about)) == ["hnet.beta", "hyperinterval.beta", "hypermask.beta", "hypermask.lam"]
    assert about.count("hnet.beta") == 2, "with one head in DIL and ten in TIL the weights are others"


def test_a_row_that_is_another_one_over_again_is_told():
    """It has no cell and so no results of its own."""
    row = suite.Variant(label="again", method="finetune", values={"lr": 0.5})
    of = {"description": "d", "methods": ["finetune"], "scenarios": ["til", "dil"], "seeds": 2, "variants": [row]}
    mine = suite.made({"name": "s", "benchmarks": [{"name": "split-digits"}], **of}, "s")
    choices = build.Choices(assignments=(("finetune", "lr", "0.5"),))
    assert remarks.of_cells(build.build([mine], build.Choices())) == []
    assert remarks.of_cells(build.build([mine], choices)) == [
        "split-digits (til, dil) with mlp-100-100: again has the hyperparameters of finetune, so that only the row "
        "finetune is shown"
    ]


def small(*assignments: tuple[str, str, str], seeds: int = 2) -> list[build.Cell]:
    options = {"benchmark": "split-mnist", "network": "mlp-100", "seeds": seeds, "scenarios": ("til", "dil")}
    return cells("hyperinterval", assignments=assignments, **options)


def test_a_value_of_the_command_line_is_remarked_and_a_converted_one_is_not():
    (line,) = remarks.of_cells(small(("hyperinterval", "beta", "0.02")))
    assert line.startswith(f"split-mnist ({TIL}, {DIL}) with mlp-100: hyperinterval.beta = 0.02 multiplies")
    assert "beta = 9504.04 with strength_per" in line
    assert remarks.of_cells(small(("hyperinterval", "beta", "9504.04"), PER_WEIGHT)) == []


def test_a_value_found_on_validation_data_is_no_papers():
    found = small(("hyperinterval", "beta", "0.02"))
    for cell in found:
        cell.chosen["beta"] = "tuned on validation data: 20 trials at 0.5 of the training length, runners/tune.py"
    assert remarks.of_cells(found) == []


def test_the_command_prints_the_sentence_and_refuses_nothing(tmp_path):
    said = call("--suite", "permuted-trend", "--methods", "hyperinterval", "--scenarios", "dil", "--dry-run",
                "--set", "hyperinterval.strength_per=network", "--set", "hyperinterval.beta=0.005",
                "--results", tmp_path)  # fmt: skip
    assert said.returncode == 0, said.stderr
    notes = [line for line in said.stdout.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1 and "hyperinterval.beta = 0.005" in notes[0] and "beta = 0.08961" in notes[0]
    assert "1 cell, 0 finished, 1 to run" in said.stdout


def test_strengths_per_weight_of_which_none_is_given_are_an_error_with_the_suites_name():
    said = call("--suite", "quick", "--methods", "hnet", "--set", "hnet.strength_per=weight", "--dry-run")
    assert said.returncode == 2 and 'hnet: strength_per = "weight" needs a value per weight of beta' in said.stderr
    said = call("--suite", "quick", "--methods", "hnet", "--set", "hnet.strength_per=weights", "--dry-run")
    assert said.returncode == 2 and "permitted is one of 'network', 'weight'" in said.stderr


def test_tuning_searches_the_same_regularisers_in_both_forms():
    in_paper, weighted = (small(*some)[0] for some in ((), (("hyperinterval", "beta", "300.0"), PER_WEIGHT)))
    first, second = (search.study_of(cell, 1).ranges for cell in (in_paper, weighted))
    held = 784 * 100 + 100 + 100 * 2 + 2
    assert second["beta"] == Log(first["beta"].low * held, first["beta"].high * held)  # type: ignore[union-attr]
    assert {name: second[name] for name in first if name != "beta"} == {n: r for n, r in first.items() if n != "beta"}


def test_a_suite_may_give_the_form_in_one_block_and_the_values_in_others():
    blocks = [
        suite.Settings(method="hnet", values={"strength_per": "weight"}),
        *(suite.Settings(method="hnet", scenario=s, values={"beta": b}) for s, b in ((TIL, 300.0), (DIL, 30.0))),
    ]
    entry = suite.BenchmarkEntry(name="split-digits")
    made = suite.Suite(name="x", description="x", methods=["hnet"], scenarios=[TIL, DIL], seeds=1,
                       benchmarks=[entry], settings=blocks)  # fmt: skip
    found = build.build([made], build.Choices())
    assert [cell.config["beta"] for cell in found] == [300.0, 30.0] and remarks.of_cells(found) == []
