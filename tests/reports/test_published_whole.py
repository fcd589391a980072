"""Published tables as a whole: every published row, ours next to it, and no cell of another size or length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import catalogue
from reports.load import load
from reports.published import published
from reports.published_whole import WHOLE, whole_tables
from reports.study import study
from reports.tables import MISSING
from runners.grid import suite as suites
from tests.reports.synthetic import Synthetic

BENCHMARK = "permuted-mnist-10-wsn"
SUITES = ("wsn-permuted", "wsn-cifar100", "wsn-superclass", "wsn-tiny")


def write(folder: Path, method: str, values: tuple[float, ...], cap: float | None = None, **fields: str) -> None:
    for seed, value in enumerate(values):
        r = np.full((11, 10), value)
        cell = Synthetic(method, BENCHMARK, "til", seed, n_tasks=10, classes_per_task=10, accuracy=r, **fields).write(
            folder
        )
        if cap is not None:
            text = f"task,union,published\n0,0.1,0.2\n9,0.9,{cap}\n"
            (cell / "exhibit-capacity.csv").write_text(text, encoding="utf-8")


def lines(folder: Path) -> dict[str, dict[str, str]]:
    (table,) = whole_tables(study(load(folder)))
    return {row[0].key: dict(zip(table.columns, (cell.text for cell in row), strict=True)) for row in table.rows}


def test_a_mean_of_fewer_seeds_than_its_row_says_so(tmp_path: Path) -> None:
    write(tmp_path, "packnet", (0.96,), cap=0.96)
    write(tmp_path, "packnet", (0.96, 0.97))
    row = lines(tmp_path)["packnet"]
    assert (row["n"], row["ACC ours"], row["CAP ours"]) == ("2", "96.50 ± 0.71", "96.00 (n=1)")


def test_ours_stands_next_to_every_published_row(tmp_path: Path) -> None:
    write(tmp_path, "wsn", (0.961, 0.962, 0.963), cap=0.975, label="wsn-0.3")
    write(tmp_path, "hat", (0.95,))
    found = lines(tmp_path)
    assert set(found) == {one.method for one in published() if one.benchmark == BENCHMARK} | {"hat"}
    assert found["wsn-0.3"] | {"method": ""} == {
        "method": "",
        "ACC published": "96.41 ± 0.07",
        "ACC ours": "96.20 ± 0.10",
        "BWT published": "0",
        "BWT ours": "0.00 ± 0.00",
        "CAP published": "77.73",
        "CAP ours": "97.50 ± 0.00",  # the last row of the column `published`, not `union` and not the first task's
        "n": "3",
        "interval of ACC": found["wsn-0.3"]["interval of ACC"],
    }
    low, high = (float(end.replace("−", "-")) for end in found["wsn-0.3"]["interval of ACC"].split(" to "))
    assert low < 96.41 - 96.20 < high and high - low < 1
    assert set(found["packnet"].values()) == {"PackNet", "96.37 ± 0.04", "0", "96.38", MISSING}  # not run
    assert found["hat"]["ACC ours"] == "95.00" and found["hat"]["ACC published"] == MISSING


@pytest.mark.parametrize(
    "other", [{"network": "mlp-100-100"}, {"budget": {"batch_size": 10, "steps": None, "epochs": 1}}]
)
def test_a_cell_of_another_size_or_length_is_left_out(tmp_path: Path, other: dict[str, str]) -> None:
    write(tmp_path, "packnet", (0.9,), **other)
    assert whole_tables(study(load(tmp_path))) == []
    write(tmp_path, "wsn", (0.96,))
    assert lines(tmp_path)["packnet"]["ACC ours"] == MISSING


def test_a_row_that_the_paper_took_over_says_from_where(tmp_path: Path) -> None:
    write(tmp_path, "packnet", (0.9,))
    (table,) = whole_tables(study(load(tmp_path)))
    marks = {row[0].key: row[0].mark for row in table.rows}
    notes = {line[1]: line[4:] for line in table.notes}
    assert notes[marks["joint"]] == "taken over from Saha et al. 2021"
    assert notes[marks["ewc"]] == "SGD 0.03, strength 1000"
    assert notes[marks["wsn"]] == "c = 0.5"  # the other values of c are in the labels
    assert not marks["packnet"] and not marks["wsn-0.3"]
    assert table.caption.endswith("Table 1; multi-head.")  # of every row, so no note


def test_rows_of_ours_alone_make_no_table(tmp_path: Path) -> None:
    write(tmp_path, "hat", (0.9,))
    assert whole_tables(study(load(tmp_path))) == []


def test_the_published_protocol_is_that_of_the_benchmark() -> None:
    for one in published():
        if one.benchmark in WHOLE:
            own = catalogue.find(one.benchmark)
            assert (one.network, one.epochs, one.batch_size) == (own.network, own.budget.epochs, own.budget.batch_size)


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_has_the_published_rows_of_its_table(name: str) -> None:
    (found,) = suites.find([name])
    (benchmark,) = [chosen.name for chosen in found.benchmarks]
    rows = {*found.methods, *(variant.label for variant in found.variants)}
    missing = [one for one in published() if one.benchmark == benchmark and one.method not in rows]
    assert benchmark in WHOLE and all("taken over from" in one.other for one in missing)
