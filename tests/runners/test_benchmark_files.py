"""A benchmark in a user's file runs like any other, on the command line, in suites and in workers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import catalogue, plugins, user_files
from benchmarks.types import UserError
from runners.cell.execution import run_cell
from runners.engines import shipping
from runners.grid import build, suite
from runners.grid.cells import Cell
from tests.runners.helpers import compare_here, job, silent

FILE = """
import torch
from benchmarks.catalogue import Benchmark, Kind
from benchmarks.data import DataSet
from benchmarks.types import Budget
from noise import NOISE

def squares():
    generator = torch.Generator().manual_seed(0)
    y, tasks = torch.arange(120) % 2, torch.arange(120) // 60
    x = NOISE * torch.rand(120, 1, 4, 4, generator=generator) + y[:, None, None, None] / 2
    test = torch.arange(120) % 3 == 0
    return DataSet("squares", x[~test], y[~test], x[test], y[test], tasks[~test], tasks[test])

SQUARES = Benchmark(
    "squares", "Squares", squares, Kind.GIVEN, 2, 2, (1, 4, 4), validation=8, network="mlp-5",
    budget=Budget(16, steps=40), description="Dark or light.",
)
"""
METHOD = '''
from methods.base import register
from methods.finetune import Finetune

@register("neighbour")
class Neighbour(Finetune):
    """Finetune from a file next to the suite."""
'''
SUITE = """
description = "A method and a benchmark next to the suite file"
methods = ["method_neighbour.py:Neighbour", "finetune"]
scenarios = ["til"]
seeds = 1
[[benchmarks]]
name = "squares.py:SQUARES"
steps = 3
[[settings]]
method = "finetune"
benchmark = "squares"
values = { lr = 0.01 }
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(user_files._FINDER, "homes", {})
    monkeypatch.delitem(sys.modules, "noise", raising=False)
    files = {"squares.py": FILE, "noise.py": "NOISE = 0.25\n", "method_neighbour.py": METHOD, "mine.toml": SUITE}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def cells_of(place: Path, **choices: object) -> list[Cell]:
    return build.build([suite.read(place / "mine.toml")], build.Choices(**choices))  # type: ignore[arg-type]


def test_a_suite_names_the_files_next_to_it(place, monkeypatch):
    monkeypatch.chdir("/")
    found = {cell.label: cell for cell in cells_of(place)}
    assert found.keys() == {"neighbour", "finetune"}
    assert {cell.benchmark for cell in found.values()} == {"squares"}
    assert found["finetune"].config["lr"] == 0.01 != found["neighbour"].config["lr"]
    code, said = compare_here(place / "results", suites=(str(place / "mine.toml"),), budget_scale=1.0, check=False)
    assert code == 0 and "2 done" in said, said
    record = json.loads(next(place.glob("results/squares/til/finetune/*/cell.json")).read_text())
    assert record["budget"]["steps"] == 3 and record["definition"]["dataset"] == "squares"


def test_the_command_line_adds_and_chooses_a_file(place):
    reference = str(place / "squares.py")
    options = {"methods": ("finetune",), "budget_scale": 1.0, "scenarios": ("dil",), "seeds": 1}
    quick = suite.find(["quick"])
    both = build.build(quick, build.Choices(own_benchmarks=(reference,), **options))
    only = build.build(quick, build.Choices(benchmarks=(f"{reference}:SQUARES",), **options))
    assert {cell.benchmark for cell in both} > {"squares"} == {cell.benchmark for cell in only}
    assert {cell.key for cell in only} < {cell.key for cell in both}
    assert [cell.benchmark for cell in cells_of(place, benchmarks=("squares",), methods=("finetune",))] == ["squares"]


def test_a_worker_finds_the_file_from_the_cell_alone(place):
    [cell] = cells_of(place, methods=("finetune",))
    sent = Cell.from_json(json.loads(json.dumps(cell.to_json())))
    plugins._of_file.cache_clear()
    assert sent.key == cell.key and str(run_cell(job(sent, place / "there"), silent)) == "done"


def test_a_key_follows_the_code_of_the_data_and_not_its_place(place, tmp_path_factory):
    [before] = cells_of(place, methods=("finetune",))
    (place / "squares.py").write_text(FILE.replace("/ 2\n", "/ 3\n"))
    [after] = cells_of(place, methods=("finetune",))
    assert after.key != before.key and after.definition["source"] != before.definition["source"]
    assert after.definition["content"] != before.definition["content"]
    (place / "squares.py").write_text(FILE + "\n# a comment\n")
    [again] = cells_of(place, methods=("finetune",))
    assert again.key == before.key
    (place / "noise.py").write_text("NOISE = 0.125\n")
    [louder] = cells_of(place, methods=("finetune",))  # a module next to it, loaded anew in this process
    assert louder.definition["source"] != before.definition["source"]
    assert louder.definition["content"] != before.definition["content"]
    moved = "/elsewhere/squares.py:SQUARES"
    assert Cell.from_json({**before.to_json(), "benchmark_file": moved}).key == before.key


def test_code_of_a_cluster_takes_the_file_along(place):
    [cell] = cells_of(place, methods=("finetune",))
    at_home = job(cell, place)
    assert shipping.foreign_of(at_home) == [f"{place / 'squares.py'}:SQUARES"]
    there = shipping.stage(place / "staged", shipping.foreign_of(at_home))
    sent = shipping.readdressed(at_home, there).cell
    assert sent.benchmark_file == "foreign/0/squares.py:SQUARES" and sent.reference == "finetune"
    assert (place / "staged" / "foreign" / "0" / "noise.py").is_file()


@pytest.mark.parametrize(
    "name, change, sentence",
    [
        ("nowhere.py:X", ("", ""), r"benchmark .*nowhere\.py:X: there is no file"),
        ("squares.py:OTHER", ("", ""), "holds no Benchmark 'OTHER'; it holds: SQUARES"),
        ("squares.py:squares", ("", ""), "holds no Benchmark 'squares'; squares is a function; it holds: SQUARES"),
        ("squares.py", ("import torch", "import torchh"), "does not import: ModuleNotFoundError"),
        ("squares.py", ('"squares", "Squares"', '"split-mnist", "S"'), "called 'split-mnist', as another benchmark is"),
    ],
)
def test_mistakes_in_a_reference(place, name, change, sentence):
    (place / "squares.py").write_text(FILE.replace(*change))
    with pytest.raises(UserError, match=sentence):
        catalogue.find(str(place / name))


def test_data_that_no_key_can_follow_are_refused(place):
    (place / "squares.py").write_text(FILE.replace('"Squares", squares,', '"Squares", lambda: squares(),'))
    benchmark = catalogue.find(str(place / "squares.py"))
    with pytest.raises(UserError, match="write a function without arguments at the top level of a file"):
        plugins.file_of(benchmark.dataset)


def test_two_files_may_not_share_a_name(place):
    (place / "again.py").write_text(FILE)
    with pytest.raises(UserError, match=r"again\.py:SQUARES and .*squares\.py:SQUARES are both called 'squares'"):
        cells_of(place, own_benchmarks=(str(place / "again.py"),))


def test_a_suite_runs_no_file_outside_its_folder(place):
    for name in ("../squares.py:SQUARES", "/squares.py:SQUARES"):
        (place / "mine.toml").write_text(SUITE.replace("squares.py:SQUARES", name))
        with pytest.raises(UserError, match=r"mine\.toml: benchmarks: .* would leave its folder|is empty"):
            suite.read(place / "mine.toml")
