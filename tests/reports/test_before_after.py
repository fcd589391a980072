"""Two results folders side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pypdf import PdfReader

from benchmarks.types import UserError
from reports.before_after import change_table, changes
from reports.build import build_report
from reports.load import load
from reports.study import study
from reports.tables import Table
from tests.reports.synthetic import Synthetic


def write(results: Path, method: str, values: list[float]) -> None:
    for seed, value in enumerate(values):
        Synthetic(method, seed=seed, n_tasks=2, accuracy=np.full((3, 2), value)).write(results)


def test_changes_are_paired_by_seed_and_adjusted(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    write(old, "ewc", [0.5, 0.52, 0.54, 0.56, 0.58, 0.6, 0.62])
    write(new, "ewc", [0.6, 0.63, 0.64, 0.67, 0.68, 0.71])  # one seed fewer
    write(old, "hnet", [0.9] * 6)
    write(new, "hnet", [0.9] * 6)
    ewc, hnet = changes(study(load(old)), study(load(new)))
    assert (ewc.label, ewc.comparison.n) == ("ewc", 6)
    assert ewc.before == pytest.approx(0.55)
    assert ewc.comparison.difference == pytest.approx(np.mean([0.1, 0.11, 0.1, 0.11, 0.1, 0.11]))
    assert ewc.comparison.p == pytest.approx(2 / 64)
    assert ewc.adjusted == pytest.approx(4 / 64)
    assert (hnet.comparison.difference, hnet.adjusted) == (0.0, 1.0)


def test_what_only_one_folder_has_is_named(tmp_path: Path) -> None:
    write(tmp_path / "old", "ewc", [0.5])
    write(tmp_path / "old", "si", [0.5])
    write(tmp_path / "new", "ewc", [0.6])
    write(tmp_path / "new", "hnet", [0.6])
    table = change_table(study(load(tmp_path / "old")), study(load(tmp_path / "new")), "old")
    assert [row[1].key for row in table.rows] == ["ewc"]
    assert table.notes == ("Only before: si (Split Digits, TIL).", "Only after: hnet (Split Digits, TIL).")


def pair(folder: Path, before: Sequence[Synthetic], after: Sequence[Synthetic]) -> Table:
    for name, cells in (("old", before), ("new", after)):
        for cell in cells:
            for seed in range(2):
                replace(cell, seed=seed, n_tasks=2, accuracy=np.full((3, 2), 0.5)).write(folder / name)
    return change_table(study(load(folder / "old")), study(load(folder / "new")), "old")


def test_a_further_setting_in_one_folder_hides_no_pair(tmp_path: Path) -> None:
    """It extends the name of the benchmark in that folder only."""
    small = Synthetic("ewc", network="mlp-10")
    table = pair(tmp_path, [Synthetic("ewc")], [Synthetic("ewc", source="bb"), small])
    assert len(table.rows) == 1 and table.rows[0][1].mark == ""
    assert table.notes == ("Only after: ewc (Split Digits (mlp-10), TIL).",)


def test_what_differs_in_a_pair_is_said(tmp_path: Path) -> None:
    before = Synthetic("ewc", "toy", budget={"steps": 300, "batch_size": 32}, config={"strength": 1.0, "new": 2})
    after = replace(before, budget={"steps": 30, "batch_size": 32}, config={"strength": 100.0})
    table = pair(tmp_path, [before], [after])
    assert [row[1].mark for row in table.rows] == ["a"]
    assert table.notes == ("(a) steps 300 before, 30 after; strength 1 before, 100 after",)


def test_variants_that_differ_are_no_pair(tmp_path: Path) -> None:
    """Which strength replaced which is unknown; code that has one more hyperparameter changes nothing about it."""
    old = [Synthetic("ewc", config={"strength": value}) for value in (1, 10, 20)]
    new = [Synthetic("ewc", config={"strength": value, "more": 0}) for value in (10, 1, 30, 40)]
    table = pair(tmp_path, old, new)
    assert [row[1].key for row in table.rows] == ["ewc (strength=1)", "ewc (strength=10)"]
    assert table.notes == (
        "Only before: ewc (strength=20) (Split Digits, TIL).",
        "Only after: ewc (strength=30) (Split Digits, TIL), ewc (strength=40) (Split Digits, TIL).",
    )


def test_a_pair_without_common_seeds_is_named(tmp_path: Path) -> None:
    for folder, seed in (("old", 0), ("new", 1)):
        Synthetic("ewc", seed=seed).write(tmp_path / folder)
    table = change_table(study(load(tmp_path / "old")), study(load(tmp_path / "new")), "old")
    assert not table.rows and table.notes == ("No seed in both: ewc (Split Digits, TIL).",)


def test_the_report_has_both(tmp_path: Path) -> None:
    write(tmp_path / "earlier", "ewc", [0.5, 0.51])
    write(tmp_path / "now", "ewc", [0.6, 0.62])
    report = build_report(tmp_path / "now", compare=tmp_path / "earlier")
    text = " ".join("".join(page.extract_text() + " " for page in PdfReader(report.pdf).pages).split())
    assert "Before (earlier) and after" in text and "+10.5" in text
    with pytest.raises(UserError, match="no results folder"):
        build_report(tmp_path / "now", compare=tmp_path / "nowhere")
