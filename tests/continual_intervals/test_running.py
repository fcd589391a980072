"""Cells, comparisons, tables and figures from Python: the same records as the commands', in other shapes."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import continual_intervals as ci
from benchmarks.types import UserError
from continual_intervals import running
from methods import registry
from runners.records.record import Record
from tests.runners.helpers import compare_here

FEW: dict[str, Any] = {"budget_scale": 0.02, "engine": "inline", "device": "cpu", "progress": False}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finetuning and HyperInterval, two seeds, by the command's own code."""
    folder = tmp_path_factory.mktemp("results")
    grid = {"methods": ("finetune", "hyperinterval"), "seeds": 2, "benchmarks": ("split-digits",)}
    assert compare_here(folder, **grid)[0] == 0
    return folder


def csv_of(results: Path, pattern: str) -> pd.DataFrame:
    (file,) = results.glob(pattern)
    return pd.read_csv(file, index_col=0)


def test_run_gives_the_matrix_of_the_record(tmp_path: Path) -> None:
    found = ci.run("finetune", "split-digits", "til", seeds=[1], results=tmp_path, lr=0.01, **FEW)
    written = csv_of(tmp_path, "split-digits/til/finetune/seed1-*/accuracy.csv")
    assert np.array_equal(found.loc[1].to_numpy(), written.to_numpy(), equal_nan=True)
    (record,) = tmp_path.rglob("cell.json")
    record = Record.from_json(record.read_text())
    assert record.config["lr"] == 0.01 and record.chosen == {"lr": "Python"}
    assert record.command.startswith("continual_intervals.run('finetune', 'split-digits', 'til'")


def test_a_finished_cell_is_read_and_not_run_again(tmp_path: Path) -> None:
    first = ci.run("finetune", "split-digits", "til", results=tmp_path, **FEW)
    (record,) = tmp_path.rglob("cell.json")
    before = record.read_text()
    again = ci.run("finetune", "split-digits", "til", seeds=2, results=tmp_path, **FEW)
    assert again.loc[0].equals(first.loc[0]) and record.read_text() == before
    assert list(again.index.get_level_values("seed").unique()) == [0, 1]


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [
        (np.int64(2), [0, 1]),
        (np.arange(1, 3), [1, 2]),
        ([np.uint8(4)], [4]),
        (1, [0]),
        ((3, 0), [3, 0]),
        (10**6, range(10**6)),
    ],
)
def test_seeds_are_whole_numbers_of_numpy_too(seeds: Any, expected: Any) -> None:
    found = running._seeds(seeds)
    assert found == list(expected) and {type(seed) for seed in found} == {int}


def test_compare_shares_the_cells_of_the_command(results: Path) -> None:
    written = {file: file.read_text() for file in results.rglob("cell.json")}
    found = ci.compare(
        methods=["finetune", "hyperinterval"],
        results=results,
        benchmarks=["split-digits"],
        scenarios=["til"],
        **FEW,
        seeds=2,
    )
    assert {file: file.read_text() for file in results.rglob("cell.json")} == written
    assert len(found.cells) == 4 and set(found.cells.status) == {"done"}


def test_compare_sets_hyperparameters(tmp_path: Path) -> None:
    narrow = {"benchmarks": ["split-digits"], "scenarios": ["til"], "seeds": 1}
    found = ci.compare(methods=["ewc"], results=tmp_path, settings={"ewc.lr": 0.5}, **narrow, **FEW)
    (entry,) = found.study.entries
    assert entry.record.config["lr"] == 0.5


def test_tables_have_what_the_records_have(results: Path) -> None:
    found = ci.load(results)
    til = found.where(scenario="til", method="hyperinterval", seed=1)
    place = "split-digits/til/hyperinterval/seed1-*/"
    for table, file, column in (
        (til.R, "accuracy.csv", "accuracy"),
        (til.C, "certified.csv", "certified"),
    ):
        written = csv_of(results, place + file)
        assert len(table) == written.notna().to_numpy().sum()
        for row in table.itertuples():
            assert getattr(row, column) == written.to_numpy()[row.after, row.task]
    claims = pd.read_csv(*results.glob(place + "claims.csv"))
    assert til.claims.drift.round(9).tolist() == claims.drift.round(9).tolist() and len(claims)
    (record,) = results.glob(place + "cell.json")
    seconds = Record.from_json(record.read_text()).seconds
    assert til.costs.train_seconds.tolist() == pytest.approx(seconds["train"])
    assert set(found.inferred.scenario) <= {"cil"} and found.where(label="finetune").C.empty


FIGURES = [
    name
    for name, f in vars(ci.plot).items()
    if inspect.isfunction(f) and f.__module__ == ci.plot.__name__ and name[0] != "_"
]


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn(results: Path, tmp_path: Path, name: str) -> None:
    found = getattr(ci.plot, name)(ci.load(results))
    assert len(found) and all(one.caption for one in found)
    shown = found._repr_html_()
    assert shown.count("data:image/png;base64,iVBOR") == len(found)
    if name == "accuracy":
        (path,) = found.save(tmp_path, "svg")
        assert path.name == "accuracy.svg" and "<svg" in path.read_text()


def test_figures_are_of_the_tables_given(results: Path) -> None:
    (axes,) = [a for a in ci.plot.accuracy(ci.load(results).where(scenario="til"))[0].figure.axes if a.lines]
    both = [a for a in ci.plot.accuracy(ci.load(results))[0].figure.axes if a.lines]
    assert len(both) == 3 and len(axes.lines) == 2


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: ci.run("finetun", "split-digits", "til"), "unknown method 'finetun'. Did you mean finetune"),
        (lambda: ci.run("ewc", "split-digit", "til"), "unknown benchmark 'split-digit'. Did you mean split-digits"),
        (lambda: ci.run("ewc", "split-digits", "TIL"), "there is no scenario 'TIL'. Did you mean til?"),
        (
            lambda: ci.run("ewc", "split-digits", "til", strenght=1),
            "run: ewc has no hyperparameter 'strenght'. Did you",
        ),
        (
            lambda: ci.run("ewc", "split-digits", "til", strength="much"),
            "run: ewc.strength = 'much': permitted is a num",
        ),
        (lambda: ci.run("ewc", "split-digits", "til", seeds=0), "seeds = 0: give their number"),
        (lambda: ci.run("ewc", "split-digits", "til", seeds=[0.5]), "seeds = [0.5]: give their number"),
        (lambda: ci.run("ewc", "split-digits", "til", seeds=[True]), "seeds = [True]: give their number"),
        (lambda: ci.compare(seeds=True), "seeds = True: give their number"),
        (lambda: ci.run("ewc", "split-digits", "til", seeds=2.0), "seeds = 2.0: give their number"),
        (lambda: ci.run("ewc", "split-digits", "til", seeds=[10**20]), "seeds from 1,000,000 on are kept for tuning"),
        (lambda: ci.compare(seeds=10**20), "seeds from 1,000,000 on are kept for tuning"),
        (lambda: ci.run("ewc", "split-digits", "til", workers=1.5), "workers = 1.5: give a whole number"),
        (lambda: ci.run("ewc", "split-digits", "til", budget_scale="1"), "budget_scale = '1': give a positive number"),
        (lambda: ci.run("ewc", "split-digits", "til", results=None), "results = None: give a folder"),
        (lambda: ci.compare(data=3), "data = 3: give a folder"),
        (lambda: ci.compare(methods=3), "3: give a list"),
        (lambda: ci.run("none.py:Mine", "split-digits", "til"), "none.py:Mine: there is no file"),
        (lambda: ci.run("ewc", "split-digits", "til", data="no folder"), "no folder: there is no such folder"),
        (lambda: ci.compare("quik"), "there is no such suite. Did you mean quick"),
        (lambda: ci.compare(methods="ewc"), "ewc: give a list, ['ewc']"),
        (lambda: ci.compare(settings={"ewc": 1}), "--set ewc=1: write it as method.key=value"),
        (lambda: ci.load("nothing"), "there is no results folder nothing"),
    ],
)
def test_mistakes_get_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Any, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        call()
    assert said in str(error.value) and "\n" not in str(error.value)


def test_mistakes_in_narrowing_get_a_sentence(results: Path) -> None:
    found = ci.load(results)
    for call, said in (
        (lambda: found.where(benchmarks="split-digits"), "cells have no 'benchmarks'. Did you mean benchmark?"),
        (lambda: found.where(seed=7), "no cell has {'seed': 7}; there are {'seed': [0, 1]}"),
        (lambda: ci.plot.guarantees(found.where(method="finetune")), "these records support no such figure"),
    ):
        with pytest.raises(UserError) as error:
            call()
        assert said in str(error.value)


def test_a_cell_without_numbers_is_an_error_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"split-digits til finetune seed 0 is diverged: .*loss"):
        ci.run("finetune", "split-digits", "til", results=tmp_path, lr=1e30, **FEW)


def test_no_hyperparameter_has_the_name_of_an_option() -> None:
    """Otherwise `run` could not set it."""
    options = inspect.signature(ci.run).parameters.keys()
    for name in registry.available():
        config: Any = registry.load(name).Config
        assert not options & config.__dataclass_fields__.keys()
