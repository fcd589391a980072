"""Published values: only trusted ones, beside the right cells, with every known difference named."""

from __future__ import annotations

import csv
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

import reports
from benchmarks.catalogue import BENCHMARKS
from benchmarks.types import Scenario
from methods import registry
from reports.load import load
from reports.published import TRUSTED, differences, published, published_table
from reports.study import study
from tests.reports.synthetic import Synthetic

FILE = Path(reports.__file__).parent / "published.csv"
BUDGET = {"batch_size": 128, "steps": 2000, "epochs": None}


def test_the_file_holds_trusted_values_of_things_we_have() -> None:
    known = {*registry.available(), "ewc-online"}
    with FILE.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(published()) > 50
    for row in rows:
        assert row["trust"] in TRUSTED
        assert row["benchmark"] in BENCHMARKS and row["scenario"] in set(Scenario) and row["method"] in known
        assert row["metric"] in {"acc", "bwt"} and -100 <= float(row["value"]) <= 100
        assert row["source"] and row["where"]


def line(results: Path, source: str) -> dict[str, str]:
    table = published_table(study(load(results)))
    assert table
    (row,) = [row for row in table.rows if source in row[9].text]
    names = ["benchmark", "method", "metric", "published", "n", "ours", "our n", "diff", "within", "source", "protocol"]
    return {name: cell.text + (f"[{cell.mark}]" if cell.mark else "") for name, cell in zip(names, row, strict=True)}


def test_ours_stands_beside_the_published_value(tmp_path: Path) -> None:
    for seed, value in enumerate((0.195, 0.199)):
        r = np.full((6, 5), value)
        Synthetic("ewc", "split-mnist", "cil", seed, budget=BUDGET, accuracy=r).write(tmp_path)
    found = line(tmp_path, "van de Ven")
    assert found["published"] == "20.01 ± 0.06 (SEM)[q]" and found["n"] == "20"
    assert found["ours"] == "19.70 ± 0.28" and found["our n"] == "2"
    assert found["diff"] == "−0.31"
    assert found["within"] == "yes"  # 0.31 against sqrt((0.06 sqrt(20))^2 + 0.28^2) = 0.39
    assert "steps" not in found["protocol"] and "network" not in found["protocol"]
    other = line(tmp_path, "Hsu")
    assert other["published"] == "19.80 ± 0.05" and other["within"] == "yes"
    assert "4 epochs" in other["protocol"]


def test_a_value_far_off_is_called_so(tmp_path: Path) -> None:
    for seed, value in enumerate((0.50, 0.51)):
        Synthetic("ewc", "split-mnist", "cil", seed, accuracy=np.full((6, 5), value)).write(tmp_path)
    assert line(tmp_path, "Hsu")["within"] == "no"


def test_published_spreads_are_percent_as_published_values_are(tmp_path: Path) -> None:
    """1.05 points above 19.80 ± 0.05: in units of one, the spread would be five points."""
    for seed, value in enumerate((0.208, 0.209)):
        Synthetic("ewc", "split-mnist", "cil", seed, accuracy=np.full((6, 5), value)).write(tmp_path)
    found = line(tmp_path, "Hsu")
    assert (found["published"], found["ours"], found["diff"]) == ("19.80 ± 0.05", "20.85 ± 0.07", "+1.05")
    assert found["within"] == "no"


def test_rows_that_nobody_has_read_are_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FILE.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rows[0]["trust"] = "remembered"
    for row in rows[2:5]:
        row["trust"] = ""
    with (tmp_path / FILE.name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    monkeypatch.setattr(resources, "files", lambda _package: tmp_path)
    shown = published.__wrapped__()
    assert len(shown) == len(rows) - 4 and {one.trust for one in shown} <= set(TRUSTED)


def test_without_a_spread_nothing_is_said_about_it(tmp_path: Path) -> None:
    Synthetic("ewc", "split-mnist", "cil").write(tmp_path)
    assert line(tmp_path, "Hsu")["within"] == "–"


@pytest.mark.parametrize("benchmark", ["split-digits", "rotated-mnist"])
def test_no_table_where_nothing_was_published(tmp_path: Path, benchmark: str) -> None:
    Synthetic("ewc", benchmark).write(tmp_path)
    assert published_table(study(load(tmp_path))) is None


def test_differences_name_network_and_budget(tmp_path: Path) -> None:
    Synthetic("ewc", "permuted-mnist-10", n_tasks=10, network="mlp-1000-1000", budget=BUDGET).write(tmp_path)
    (record,) = load(tmp_path).records
    (one,) = [p for p in published() if p.source.startswith("Kang") and (p.method, p.metric) == ("ewc", "acc")]
    assert differences(one, record)[:3] == ["network mlp-100-100", "5 epochs", "batch 10"]
