"""Two results folders side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pypdf import PdfReader

from benchmarks.types import UserError
from reports.before_after import change_table, changes
from reports.build import build_report
from reports.load import load
from reports.study import study
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


def test_the_report_has_both(tmp_path: Path) -> None:
    write(tmp_path / "earlier", "ewc", [0.5, 0.51])
    write(tmp_path / "now", "ewc", [0.6, 0.62])
    report = build_report(tmp_path / "now", compare=tmp_path / "earlier")
    text = " ".join("".join(page.extract_text() + " " for page in PdfReader(report.pdf).pages).split())
    assert "Before (earlier) and after" in text and "+10.5" in text
    with pytest.raises(UserError, match="no results folder"):
        build_report(tmp_path / "now", compare=tmp_path / "nowhere")
