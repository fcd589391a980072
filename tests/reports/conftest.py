"""Shared by the tests of reports: made-up results, and reports built from them once."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from reports.build import Report, build_report
from reports.load import load
from reports.page import page
from reports.study import study
from tests.reports import synthetic


@pytest.fixture(scope="session")
def quick_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One benchmark, three scenarios, five methods, three seeds; read only."""
    return synthetic.quick(tmp_path_factory.mktemp("quick"))


@pytest.fixture(scope="session")
def several_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three benchmarks with skipped, failed and diverged cells; read only."""
    return synthetic.several(tmp_path_factory.mktemp("several"))


@pytest.fixture(scope="session")
def quick_report(quick_results: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return build_report(quick_results, tmp_path_factory.mktemp("out") / "report")


@pytest.fixture(scope="session")
def several_report(several_results: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return build_report(several_results, tmp_path_factory.mktemp("out") / "report")


@pytest.fixture(scope="session")
def placed_report(quick_results: Path, quick_report: Report, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The quick report with its page rendered inside a copy of its results folder, so that records are linked."""
    results = tmp_path_factory.mktemp("placed") / "results"
    shutil.copytree(quick_results, results)
    folder = Path(shutil.copytree(quick_report.folder, results / "report"))
    document = json.loads((folder / "source" / "report.json").read_text(encoding="utf-8"))
    figures = [
        {"stem": Path(item["path"]).stem, "caption": item["caption"]}
        for item in (*document["body"], *document["appendix"])
        if item["kind"] == "figure"
    ]
    text = page(study(load(results)), document, figures, folder)
    (folder / "report.html").write_text(text, encoding="utf-8")
    return replace(quick_report, folder=folder, html=folder / "report.html")
