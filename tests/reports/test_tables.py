"""Tables: right numbers in the right cells, the best marked, every gap explained; and the four renderings."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import data
from benchmarks.catalogue import BENCHMARKS, Kind
from benchmarks.files import FILES
from reports.distinct_names import pretty
from reports.latex import latex_text, to_latex
from reports.load import load
from reports.metrics import ACC, BWT
from reports.render import to_csv, to_markdown
from reports.resolution import TEST_IMAGES, images_of
from reports.setting import setting_table
from reports.study import Group, Study, study
from reports.summary import summary
from reports.tables import Cell, Table, detail, letter, main_tables, overview
from reports.words import percent
from tests.reports.synthetic import Synthetic

GROUP = Group("split-digits", "til")
WEIRD = "a_b & 50% $x$ #1 {z} ~^\\ |方法"


def flat(value: float, tasks: int = 2) -> np.ndarray:
    """R with the same accuracy everywhere."""
    return np.full((tasks + 1, tasks), value)


def table(results: Path, group: Group = GROUP) -> Table:
    return detail(study(load(results)), group)


def cells(found: Table, method: str) -> dict[str, Cell]:
    (row,) = [row for row in found.rows if row[0].key == method]
    return {name.rstrip(" ↑↓"): cell for name, cell in zip(found.columns, row, strict=True)}


def test_mean_and_sample_standard_deviation_over_seeds(tmp_path: Path) -> None:
    for seed, value in enumerate((0.90, 0.92, 0.97)):
        Synthetic("ewc", seed=seed, n_tasks=2, accuracy=flat(value)).write(tmp_path)
    found = table(tmp_path)
    acc = cells(found, "ewc")["ACC"]
    assert acc.value == pytest.approx(0.93)
    assert acc.spread == pytest.approx(np.std([0.90, 0.92, 0.97], ddof=1))
    assert (acc.n, acc.text) == (3, "93.0 ± 3.6")
    assert "sample standard deviation over 3 seeds" in found.caption


def test_task_inference_stands_next_to_acc_where_a_method_infers(tmp_path: Path) -> None:
    for method in ("ewc", "hnet"):
        for scenario in ("til", "cil"):
            Synthetic(method, scenario=scenario, n_tasks=2, accuracy=flat(0.8)).write(tmp_path)
    found = table(tmp_path, Group("split-digits", "cil"))
    assert found.columns[:3] == ("method", "ACC ↑", "task inf. ↑")
    assert (cells(found, "hnet")["ACC"].text, cells(found, "hnet")["task inf."].text) == ("80.0", "81.0")
    assert cells(found, "ewc")["task inf."].text == "–" and any("infers no task" in note for note in found.notes)
    without = table(tmp_path)
    assert "task inf. ↑" not in without.columns and not any("infers no task" in note for note in without.notes)


def flats(results: Path, values: dict[str, float], seeds: int = 2, benchmark: str = "split-digits") -> Path:
    """Cells with one accuracy everywhere, the same on every seed."""
    for method, value in values.items():
        for seed in range(seeds):
            Synthetic(method, benchmark, seed=seed, n_tasks=2, accuracy=flat(value)).write(results)
    return results


def bold(found: Table, column: str = "ACC") -> list[str]:
    return [row[0].key for row in found.rows if cells(found, row[0].key)[column].best]


def test_the_best_is_bold_and_joint_is_not_ranked(tmp_path: Path) -> None:
    found = table(flats(tmp_path, {"finetune": 0.6, "ewc": 0.8, "hnet": 0.9, "joint": 0.99}))
    assert bold(found) == bold(found, "AIA") == ["hnet"]
    assert [row[0].key for row in found.rows] == ["finetune", "ewc", "hnet", "joint"]
    assert "Joint, trained on all tasks so far, is not ranked" in found.caption


def test_methods_level_in_print_are_both_best(tmp_path: Path) -> None:
    values = {"ewc": 0.90001, "hnet": 0.90003, "finetune": 0.5}
    assert bold(table(flats(tmp_path, values, benchmark="a"), Group("a", "til"))) == ["ewc", "hnet"]


def test_means_less_than_one_test_image_apart_are_both_best(tmp_path: Path) -> None:
    """Two tasks of Split Digits have 180 test images: one is 0.56 points. Of a data set without a known size, 89.5 and
    90.0 are no tie."""
    values = {"hnet": 0.9, "ewc": 0.895, "mas": 0.894}
    assert bold(table(flats(tmp_path / "known", values))) == ["ewc", "hnet"]
    assert bold(table(flats(tmp_path / "other", values, benchmark="a"), Group("a", "til"))) == ["hnet"]


def test_one_seed_is_never_bold(tmp_path: Path) -> None:
    found = table(flats(tmp_path, {"ewc": 0.8, "hnet": 0.9}, seeds=1))
    assert bold(found) == [] and "Bold" not in found.caption
    Synthetic("ewc", seed=1, n_tasks=2, accuracy=flat(0.8)).write(tmp_path)
    assert bold(table(tmp_path)) == [], "nor is a lower mean of more seeds bold in its place"


def test_all_methods_level_are_not_bold(tmp_path: Path) -> None:
    assert bold(table(flats(tmp_path, {"ewc": 0.2, "hnet": 0.2, "mas": 0.2}))) == []


def test_transfer_and_forgetting_of_a_method_at_chance_are_not_bold(tmp_path: Path) -> None:
    """It learns nothing, so it forgets nothing."""
    for seed in range(2):
        Synthetic("ewc", seed=seed, n_tasks=2, accuracy=flat(0.5)).write(tmp_path)
        r = np.array([[0.5, 0.5], [0.95, 0.5], [0.9, 0.9]])
        Synthetic("hnet", seed=seed, n_tasks=2, accuracy=r).write(tmp_path)
    found = table(tmp_path)
    assert (cells(found, "ewc")["F"].value, cells(found, "ewc")["BWT"].value) == (0, 0)
    assert bold(found) == bold(found, "AIA") == ["hnet"]
    assert not any(bold(found, name) for name in ("BWT", "F", "FWT", "LA"))
    overviews = overview(study(load(tmp_path)), "til", BWT)
    assert not any(cell.best or cell.level for part in overviews for row in part.rows for cell in row)


def test_forgetting_is_the_loss_since_the_best(tmp_path: Path) -> None:
    r = np.array([[0.5, 0.5], [0.9, 0.5], [0.8, 0.9]])
    Synthetic("hnet", n_tasks=2, accuracy=r).write(tmp_path)
    assert cells(table(tmp_path), "hnet")["F"].value == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("benchmark", "scenario", "tasks", "classes", "images"),
    [
        ("split-digits", "til", 5, 2, 450),
        ("permuted-digits", "til", 10, 10, 4500),
        ("split-mnist-shuffled", "til", 5, 2, 10_000),
        ("cifar-mini", "til", 3, 4, 1200),
        ("birds", "til", 5, 2, None),
    ],
)
def test_numbers_of_test_images(
    tmp_path: Path, benchmark: str, scenario: str, tasks: int, classes: int, images: int | None
) -> None:
    Synthetic("ewc", benchmark, scenario, 0, tasks, classes).write(tmp_path)
    found = study(load(tmp_path))
    assert images_of(found, found.groups[0]) == images
    shown = setting_table(found)
    assert shown.rows[0][shown.columns.index("test images")].text == ("–" if images is None else f"{images:,}")


def test_every_shipped_data_set_has_a_number_of_test_images() -> None:
    assert {b.dataset for b in BENCHMARKS.values() if b.kind is not Kind.GIVEN} <= set(TEST_IMAGES)
    for name in ("mnist", "fashion-mnist"):
        (file,) = [file for file in FILES[name] if file.path.endswith("t10k-images-idx3-ubyte")]
        assert ((file.size or 0) - 16) / 28**2 == TEST_IMAGES[name][0]


def test_the_digits_have_as_many_test_images_as_the_table_says() -> None:
    images, classes = TEST_IMAGES["digits"]
    labels = data.load("digits").test_labels
    assert (len(labels), len(labels.unique())) == (images, classes)


def test_a_mean_over_fewer_seeds_says_so_and_why(tmp_path: Path) -> None:
    for seed in range(3):
        Synthetic("hnet", seed=seed).write(tmp_path)
        failed = seed == 2
        Synthetic(
            "ewc", seed=seed, status="failed" if failed else "done", reason="no memory" if failed else None
        ).write(tmp_path)
    found = table(tmp_path)
    acc = cells(found, "ewc")["ACC"]
    assert acc.n == 2 and acc.text.endswith("(n=2)")
    assert found.notes[ord(acc.mark) - ord("a")] == f"({acc.mark}) seed 2 failed: no memory"


def test_a_row_without_results_says_which_seeds_were_not_run(tmp_path: Path) -> None:
    for seed in range(3):
        Synthetic("hnet", seed=seed).write(tmp_path)
    Synthetic("ewc", status="diverged", reason="the loss is nan").write(tmp_path)
    found = table(tmp_path)
    assert cells(found, "ewc")["ACC"].text == "diverged"
    assert "(a) seed 0 diverged: the loss is nan; seeds 1, 2 not run" in found.notes


@pytest.mark.parametrize("status", ["skipped", "failed", "diverged", "oom", "running"])
def test_a_cell_without_a_number_names_its_status_and_reason(tmp_path: Path, status: str) -> None:
    Synthetic("ewc", status=status, reason="for this & that").write(tmp_path)
    Synthetic("hnet").write(tmp_path)
    found = table(tmp_path)
    acc = cells(found, "ewc")["ACC"]
    assert (acc.text, acc.value) == (status, None)
    assert f"({acc.mark}) for this & that" in found.notes


def test_forward_transfer_is_a_note_and_no_column_in_cil(quick_results: Path) -> None:
    found = table(quick_results, Group("split-digits", "cil"))
    assert not any(name.startswith("FWT") for name in found.columns)
    assert any("FWT is not defined in CIL" in note for note in found.notes)


def test_one_task_leaves_transfer_out_with_the_reason(tmp_path: Path) -> None:
    Synthetic("ewc", n_tasks=1).write(tmp_path)
    found = table(tmp_path)
    assert [name.rstrip(" ↑↓") for name in found.columns] == ["method", "ACC", "LA", "AIA", "keeps"]
    assert "BWT: undefined: needs 2 tasks" in found.notes


def test_nothing_is_underlined_where_no_difference_can_be_significant(quick_results: Path) -> None:
    assert not any(
        cell.level for found in main_tables(study(load(quick_results))) for row in found.rows for cell in row
    )
    assert not any("Underlined" in found.caption for found in main_tables(study(load(quick_results))))


def test_methods_not_significantly_worse_are_marked(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for seed in range(9):
        luck = rng.normal(0, 0.01)
        for method, value in (("hnet", 0.9), ("ewc", 0.894 + luck), ("finetune", 0.5 + luck / 9)):
            Synthetic(method, seed=seed, n_tasks=5, accuracy=flat(value, 5)).write(tmp_path)
    rows = {row[0].key: row[1] for row in table(tmp_path).rows}
    assert rows["hnet"].best or rows["ewc"].best
    assert rows["hnet"].level or rows["ewc"].level
    assert not rows["finetune"].level
    assert "Underlined: not shown to be worse" in table(tmp_path).caption


def test_the_overview_ranks_methods_over_benchmarks(several_results: Path) -> None:
    (found,) = overview(study(load(several_results)), "dil", ACC)
    ranks = {row[0].key: row[-1].text for row in found.rows}
    assert ranks["hyperinterval"] == "1.0"
    assert ranks["hnet"] == "–"  # diverged on one of three
    assert ranks["hypermask"] == ranks["joint"] == "–"


def test_many_benchmarks_are_split_over_tables(tmp_path: Path) -> None:
    for i in range(10):
        for method in ("ewc", "si"):
            Synthetic(method, f"bench-{i}").write(tmp_path)
    parts = overview(study(load(tmp_path)), "til", ACC)
    assert [len(part.columns) for part in parts] == [7, 8]  # method, 5 benchmarks and keeps; and the rank
    assert len({part.stem for part in parts}) == 2


def test_the_same_seeds_in_another_order_give_the_same_tables(tmp_path: Path) -> None:
    values = [0.9, 0.7, 0.8]
    for order in ("up", "down"):
        for seed, value in enumerate(values if order == "up" else reversed(values)):
            Synthetic("ewc", seed=seed, n_tasks=2, accuracy=flat(value)).write(tmp_path / order)
    assert to_csv(table(tmp_path / "up")) == to_csv(table(tmp_path / "down"))


def test_csv_has_the_numbers_of_the_text(several_results: Path) -> None:
    found: Study = study(load(several_results))
    for one in main_tables(found):
        lines = list(csv.DictReader(io.StringIO(to_csv(one))))
        assert len(lines) == len(one.rows)
        for line, row in zip(lines, one.rows, strict=True):
            for name, cell in zip(one.columns, row, strict=True):
                name = name.rstrip(" ↑↓")
                if cell.value is not None:
                    signed = cell.text.startswith("+")
                    assert cell.text.startswith(percent(float(line[name]) / 100, signed))
                    assert int(line[f"{name} n"]) == cell.n
                    assert line[f"{name} best"] == str(int(cell.best))


def test_weird_names_survive_markdown_and_latex(tmp_path: Path) -> None:
    Synthetic(label=WEIRD).write(tmp_path)
    found = table(tmp_path)
    markdown = next(line for line in to_markdown(found).splitlines() if "方法" in line)
    assert len(re.findall(r"(?<!\\)\|", markdown)) == len(found.columns) + 1
    latex = to_latex(found)
    row = next(line for line in latex.splitlines() if "方法" in line)
    assert len(re.findall(r"(?<!\\)&", row)) == len(found.columns) - 1
    assert latex_text("_&%$#{}") == r"\_\&\%\$\#\{\}"


def test_the_frame_leads_from_every_number_to_its_record(several_results: Path) -> None:
    frame = study(load(several_results)).frame
    assert len(frame) == 324
    lines = frame.to_dict("records")
    for line in [line for line in lines if line["status"] == "done"][:20]:
        assert (several_results / line["folder"] / "cell.json").is_file()
        assert 0 <= line["acc"] <= 1
    assert all(np.isnan(line["acc"]) for line in lines if line["status"] != "done")


def test_the_summary_has_every_mean_with_interval_and_reason(several_results: Path) -> None:
    found = study(load(several_results))
    lines = {(x["benchmark"], x["scenario"], x["method"], x["metric"]): x for x in summary(found).to_dict("records")}
    line = lines["split-mnist", "cil", "ewc", "acc"]
    values = found.values(Group("split-mnist", "cil"), "ewc", ACC)
    assert (line["n"], line["seeds_run"]) == (5, 6)
    assert line["mean"] == pytest.approx(100 * np.mean(list(values.values())))
    half = 2.776 * line["std"] / 5**0.5  # t with four degrees of freedom
    assert line["ci95_high"] - line["mean"] == pytest.approx(half, rel=1e-3) == line["mean"] - line["ci95_low"]
    assert "the machine said no" in line["reason"]
    undefined = lines["split-mnist", "cil", "ewc", "fwt"]
    assert undefined["n"] == 0 and np.isnan(undefined["mean"]) and "CIL" in undefined["reason"]


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [(0.1236, False, "12.4"), (-0.00001, True, "0.0"), (-0.5, True, "−50.0"), (0.5, True, "+50.0")],
)
def test_percent(value: float, signed: bool, text: str) -> None:
    assert percent(value, signed) == text


def test_letters_go_on_after_z() -> None:
    assert [letter(i) for i in (0, 25, 26, 27, 52)] == ["a", "z", "aa", "ab", "ba"]


def test_titles() -> None:
    assert pretty("permuted-mnist-100") == "Permuted MNIST-100"
    assert pretty("split-mnist (20 steps)") == "Split MNIST (20 steps)"
    assert pretty("split-fashion-mnist") == "Split FashionMNIST"
    assert pretty("split-cifar-100-5x20-fecam") == "Split CIFAR-100 5 × 20 (FeCAM order)"
    assert pretty("split-tiny-imagenet") == "Split Tiny ImageNet"
