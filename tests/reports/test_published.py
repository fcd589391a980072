"""Published values: only trusted ones, next to the right cells, with every known difference named."""

from __future__ import annotations

import csv
import io
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import t, ttest_ind_from_stats

import reports
from benchmarks import catalogue
from benchmarks.types import Scenario
from methods import registry
from reports.load import load
from reports.paper import contents, paper
from reports.published import READ, TRUSTED, _deviation, differences, orientation_table, published, published_table
from reports.published_whole import WHOLE
from reports.render import to_csv
from reports.study import study
from reports.tables import Table
from runners.grid import suite
from tests.reports.synthetic import Synthetic

FILE = Path(reports.__file__).parent / "published.csv"
BUDGET = {"batch_size": 128, "steps": 2000, "epochs": None}


NOT_HERE = {"La-MAML", "FS-DGPM", "GEM", "iCaRL", "ER"}
"""Methods of tables that are shown whole, next to which nothing of ours stands."""


def test_the_file_holds_trusted_values_of_things_we_have() -> None:
    (wsn,) = suite.find(["wsn-permuted"])
    known = {*registry.available(), "ewc-online", *(variant.label for variant in wsn.variants)}
    with FILE.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(published()) > 50
    for row in rows:
        assert row["trust"] in TRUSTED
        assert (
            catalogue.find(row["benchmark"])
            and row["scenario"] in set(Scenario)
            and (row["method"] in known or (row["method"] in NOT_HERE and row["benchmark"] in WHOLE))
        )
        capacity = row["metric"] == "cap"  # masks count too, so that it exceeds 100
        assert capacity or (row["metric"] in {"acc", "bwt", "la", "certified"} and -100 <= float(row["value"]) <= 100)
        assert row["source"] and row["where"]
        assert row["spread_kind"] in ({"std", "std0", "sem"} if row["spread"] else {""})
        assert row["resolution"] in {"", ".1", "1"}
        for number in (row["value"], row["spread"]) if row["resolution"] else ():
            steps = float(number or 0) / float(row["resolution"])
            assert steps == pytest.approx(round(steps), abs=1e-9)


def test_values_rounded_by_their_source_are_known_as_such() -> None:
    """Kang et al. print the transfer on Permuted MNIST in hundredths of one, elsewhere in hundredths of a percent."""
    coarse = {(one.source.split()[0], one.where) for one in published() if one.resolution == 1}
    assert coarse == {
        ("Kang", "Table 1"),
        ("Krukowski", "README table"),
        ("ContinualAI", "table of results; script of the experiment"),
        ("van", "Table 5"),
    }
    kang = [one for one in published() if one.source.startswith("Kang") and one.metric == "bwt"]
    assert {(one.where, one.resolution) for one in kang} == {("Table 1", 1.0), ("Table 2", 0.01), ("Table 6", 0.01)}
    assert all(one.resolution == 0.1 for one in published() if one.trust == "digitised-figure")


def test_logs_divide_by_n() -> None:
    logs = [one for one in published() if "lukinio/CLB" in one.source]
    assert len(logs) > 20 and all(one.spread_text.endswith(" (n)") for one in logs)


def both(results: Path) -> list[Table]:
    found = study(load(results))
    return [table for table in (published_table(found), orientation_table(found)) if table]


def line(results: Path, source: str) -> dict[str, str]:
    ((table, row),) = [(one, row) for one in both(results) for row in one.rows if source in row[9].key]
    names = (*table.columns[:3], "published", "n", "ours", "our n", "diff", "interval", "source", "protocol")
    return {name: cell.text + (f"[{cell.mark}]" if cell.mark else "") for name, cell in zip(names, row, strict=True)}


def test_ours_stands_beside_the_published_value(tmp_path: Path) -> None:
    for seed, value in enumerate((0.194, 0.200, 0.197)):
        r = np.full((6, 5), value)
        Synthetic("ewc-online", "split-mnist", "cil", seed, budget=BUDGET, accuracy=r).write(tmp_path)
    found = line(tmp_path, "van de Ven")
    assert found["published"] == "19.96 ± 0.07 (SEM)[q]" and found["n"] == "20"
    assert found["ours"] == "19.70 ± 0.30" and found["our n"] == "3"
    assert found["diff"] == "+0.26"
    theirs, ours = 0.07 * 20**0.5, 0.3
    expected: Any = ttest_ind_from_stats(19.96, theirs, 20, 19.70, ours, 3, equal_var=False)
    low, high = (float(x.replace("−", "-")) for x in found["interval"].split(" to "))
    assert low < 0 < high and expected.pvalue > 0.05
    assert (low + high) / 2 == pytest.approx(0.26, abs=0.006)
    assert "steps" not in found["protocol"] and "network" not in found["protocol"]
    other = line(tmp_path, "Hsu")
    assert other["published"] == "19.77 ± 0.04"
    assert "4 epochs" in other["protocol"]


def test_a_deviation_divided_by_n_is_converted(tmp_path: Path) -> None:
    """The log of L2 in CIL has 26.24 ± 1.3374 over 10 repeats, by numpy's std."""
    for seed, value in enumerate((0.254, 0.255, 0.256)):
        Synthetic("l2", "split-mnist", "cil", seed, accuracy=np.full((6, 5), value)).write(tmp_path)
    found = line(tmp_path, "lukinio")
    assert found["published"] == "26.24 ± 1.34 (n)[l]"
    low, high = (float(x.replace("−", "-")) for x in found["interval"].split(" to "))
    parts = (1.3374**2 / 9, 0.1**2 / 3)  # 1.3374^2 * 10 / 9, of ten
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 9 + parts[1] ** 2 / 2)
    half = t.ppf(0.975, freedom) * sum(parts) ** 0.5
    assert (low, high) == pytest.approx((0.74 - half, 0.74 + half), abs=0.0051)
    assert half == pytest.approx(1.012, abs=0.001)  # 0.961 if not converted


def test_a_standard_error_is_converted(tmp_path: Path) -> None:
    """Van de Ven et al. have 19.96 ± 0.07 (SEM) over 20 runs, a deviation of 0.313; ours has 0.03 over three."""
    for seed, value in enumerate((0.1967, 0.1970, 0.1973)):
        cell = {"budget": BUDGET, "accuracy": np.full((6, 5), value)}
        Synthetic("ewc-online", "split-mnist", "cil", seed, **cell).write(tmp_path)
    low, high = (float(x.replace("−", "-")) for x in line(tmp_path, "van de Ven")["interval"].split(" to "))
    parts = (0.07**2, 0.03**2 / 3)
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 19 + parts[1] ** 2 / 2)
    half = t.ppf(0.975, freedom) * sum(parts) ** 0.5
    assert (low, high) == pytest.approx((0.26 - half, 0.26 + half), abs=0.0051)
    assert half > 0.14  # 0.07 if not converted


def test_kinds_of_spread_give_the_sample_deviation_where_n_is_known() -> None:
    assert _deviation(0.07, "std", None) == 0.07
    assert _deviation(0.07, "sem", 20) == pytest.approx(0.07 * 20**0.5)
    assert _deviation(0.07, "std0", 20) == pytest.approx(0.07 * (20 / 19) ** 0.5)
    assert _deviation(0.07, "sem", None) is _deviation(0.07, "std0", None) is _deviation(0.07, "sem", 1) is None


def test_a_value_rounded_to_points_is_printed_so_and_has_no_interval(tmp_path: Path) -> None:
    """-0.03 ± 0.00 of one: the value may be half a point off, and the spread up to half a point."""
    for seed, lost in enumerate((0.0280, 0.0282, 0.0281)):
        r = np.full((11, 10), 0.95)
        for task in range(10):
            r[task + 2 :, task] -= lost
        cell = {"network": "mlp-100-100-nobias", "budget": {"batch_size": 10, "steps": None, "epochs": 5}}
        Synthetic("ewc", "permuted-mnist-10-wsn", "til", seed, n_tasks=10, accuracy=r, **cell).write(tmp_path)
    (table,) = both(tmp_path)
    (row,) = [[cell.text for cell in row] for row in table.rows if row[2].text == "BWT"]
    assert row[3:9] == ["−3 ± 0", "5", "−2.81 ± 0.01", "3", "0", "–"]
    (row,) = [[cell.text for cell in row] for row in table.rows if row[2].text == "ACC"]
    assert row[3] == "92.01 ± 0.56" and " to " in row[8]
    assert "no interval" in table.caption


def test_the_interval_of_a_value_far_off_has_one_sign(tmp_path: Path) -> None:
    """Hsu et al. have 19.80 ± 0.05 over 10 runs; ours has 50.5 ± 0.5: almost only our spread counts, t(2) = 4.303."""
    for seed, value in enumerate((0.50, 0.505, 0.51)):
        Synthetic("ewc", "split-mnist", "cil", seed, accuracy=np.full((6, 5), value)).write(tmp_path)
    low, high = line(tmp_path, "Hsu")["interval"].split(" to ")
    half = 4.303 * 0.5 / 3**0.5
    assert low.startswith("−") and float(low[1:]) == pytest.approx(30.7 + half, abs=0.02)
    assert high.startswith("−") and float(high[1:]) == pytest.approx(30.7 - half, abs=0.02)


def test_two_seeds_have_no_interval(tmp_path: Path) -> None:
    for seed, value in enumerate((0.50, 0.51)):
        Synthetic("ewc", "split-mnist", "cil", seed, accuracy=np.full((6, 5), value)).write(tmp_path)
    assert line(tmp_path, "Hsu")["interval"] == "–"


def test_published_spreads_are_percent_as_published_values_are(tmp_path: Path) -> None:
    """1.05 points above 19.80 ± 0.05: in units of one, the spread would be five points."""
    for seed, value in enumerate((0.208, 0.209)):
        Synthetic("ewc", "split-mnist", "cil", seed, accuracy=np.full((6, 5), value)).write(tmp_path)
    found = line(tmp_path, "Hsu")
    assert (found["published"], found["ours"], found["diff"]) == ("19.80 ± 0.05", "20.85 ± 0.07", "−1.05")


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
    assert line(tmp_path, "Hsu")["interval"] == "–"


@pytest.mark.parametrize("benchmark", ["split-digits", "cifar-mini"])
def test_no_table_where_nothing_was_published(tmp_path: Path, benchmark: str) -> None:
    Synthetic("ewc", benchmark).write(tmp_path)
    assert published_table(study(load(tmp_path))) is None


def test_differences_name_network_and_budget(tmp_path: Path) -> None:
    Synthetic("ewc", "permuted-mnist-10", n_tasks=10, network="mlp-1000-1000", budget=BUDGET).write(tmp_path)
    (record,) = load(tmp_path).records
    ours = [p for p in published() if p.source.startswith("Kang") and p.benchmark == "permuted-mnist-10"]
    (one,) = [p for p in ours if (p.method, p.metric) == ("ewc", "acc")]
    assert differences(one, record)[:3] == ["network mlp-100-100-nobias", "5 epochs", "batch 10"]


def test_images_that_are_not_padded_are_named() -> None:
    """The benchmark pads to 32 x 32; the set-up of Kang et al. and Avalanche's PermutedMNIST do not."""
    here = [one for one in published() if one.benchmark == "permuted-mnist-10"]
    apart = [one for one in here if one.source.startswith(("Kang", "ContinualAI"))]
    assert len(apart) > 10 and all("images not padded" in one.other for one in apart)
    assert not any(one.network == "mlp-100-100" for one in apart)


def published_at(benchmark: str, scenario: str, method: str) -> dict[str, tuple[str, str]]:
    found = [p for p in published() if (p.benchmark, p.scenario, p.method) == (benchmark, scenario, method)]
    return {f"{p.metric} {p.value:g}": (p.network, p.other) for p in found}


def test_values_stand_next_to_the_network_and_the_method_that_gave_them() -> None:
    """85.24 are separate networks, which an earlier table called HNET's; the logs of InterContiNet are three."""
    hnet = published_at("split-cifar-100", "til", "hnet")
    assert {value: network for value, (network, _) in hnet.items()} == {
        "acc 84.57": "resnet-18",
        "acc 78.58": "resnet-32",
        "acc 85.43": "resnet-32",
        "acc 85.16": "resnet-18",
    }
    assert "much larger hypernetwork" in hnet["acc 85.43"][1]
    assert published_at("split-cifar-100", "til", "separate")["acc 85.24"][0] == "resnet-32"
    assert published_at("permuted-mnist-10", "til", "finetune")["acc 47.89"][0] == "mlp-100-100"
    assert published_at("permuted-mnist-10", "til", "hnet")["acc 95.05"][0] == "mlp-100-100"
    assert "not reproducing" in published_at("permuted-mnist-10", "dil", "ewc")["acc 83"][1]
    assert {"acc 82.3261", "acc 78.0165"} <= set(published_at("split-mnist", "dil", "intercontinet"))
    assert "acc 35.3057" in published_at("split-mnist", "cil", "intercontinet")
    assert not any(p.value == 79.23 for p in published()), "second-hand, and of unknown tasks"


def test_values_that_nobody_has_read_in_their_table_stand_apart(tmp_path: Path) -> None:
    for seed in range(3):
        Synthetic("intercontinet", "split-mnist", "dil", seed, certifies=True).write(tmp_path)
    (table,) = both(tmp_path)
    assert table.stem == "orientation" and table.columns[3] == "theirs" and table.caption.startswith("For orientation:")
    marks = {(row[2].text, row[3].text): row[3].mark for row in table.rows}
    assert marks["ACC", "82.33 ± 0.77 (n)"] == "l" and len({mark for (_, mark) in marks.items()} - {"l", "d"}) == 0
    assert {"l", "d"} == set(marks.values()) and any(metric == "certified ACC" for metric, _ in marks)
    listed = [note for note in table.notes if note.startswith("S")]
    assert [note[:4] for note in table.notes if note not in listed] == ["(l) ", "(d) "]
    assert {f"{row[9].text}: {row[9].key}" for row in table.rows} == set(listed)
    lines = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert {one["theirs note"] for one in lines} == {TRUSTED["authors-development-log"], TRUSTED["digitised-figure"]}


def test_only_values_read_in_their_source_stand_under_published(tmp_path: Path) -> None:
    Synthetic("ewc", "split-mnist", "cil").write(tmp_path)
    first, second = both(tmp_path)
    assert (first.columns[3], second.columns[3]) == ("published", "theirs")
    here = [one for one in published() if (one.method, one.benchmark, one.scenario) == ("ewc", "split-mnist", "cil")]
    for table, read in ((first, True), (second, False)):
        texts = {one.text for one in here if (one.trust in READ) is read}
        assert texts and {row[3].text for row in table.rows} == texts
        assert any(row[3].mark for row in table.rows) is not read


def test_no_batch_is_claimed_that_the_source_does_not_state(tmp_path: Path) -> None:
    found = [one for one in published() if one.benchmark == "split-mnist" and one.value in {99.67, 74.43, 99.77, 70.39}]
    assert len(found) == 4 and all(one.batch_size is None and one.steps == 5000 for one in found)
    Synthetic("hnet", "split-mnist", "til", budget=BUDGET).write(tmp_path)
    (table,) = both(tmp_path)
    assert "batch not noted" in next(row[10].text for row in table.rows if row[3].text == "99.67")


@pytest.mark.parametrize(
    ("method", "scenario", "stems"),
    [("ewc", "cil", ["published", "orientation"]), ("intercontinet", "dil", ["orientation"])],
)
def test_the_report_shows_both(tmp_path: Path, method: str, scenario: str, stems: list[str]) -> None:
    Synthetic(method, "split-mnist", scenario).write(tmp_path)
    found = [table.stem for table in paper(contents(study(load(tmp_path))), []).tables]
    assert [stem for stem in found if stem in {"published", "orientation"}] == stems


def test_rows_of_other_benchmarks_stand_where_they_belong(tmp_path: Path) -> None:
    assert published_at("split-cifar-10", "cil", "ewc")["acc 25.46"][0] == "resnet-32"
    assert "acc 75.889" in published_at("split-cifar-10", "dil", "intercontinet")
    assert set(published_at("permuted-mnist-100", "til", "hyperinterval")) == {"la 95.8", "acc 69.2"}
    assert set(published_at("split-cifar-100-20x5", "til", "gpm")) == {"acc 68.84"}
    r = np.full((101, 100), 0.7)
    r[range(1, 101), range(100)] = 0.96
    Synthetic("hyperinterval", "permuted-mnist-100", n_tasks=100, classes_per_task=10, accuracy=r).write(tmp_path)
    (table,) = both(tmp_path)
    shown = {row[2].text: (row[3].text, row[3].mark, row[7].text) for row in table.rows}
    assert shown == {"LA": ("95.8", "d", "−0.2"), "ACC": ("69.2", "d", "−1.1")}
