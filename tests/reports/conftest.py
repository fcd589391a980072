"""Shared by the tests of reports: made-up results, and reports built from them once."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports.build import Report, build_report
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
