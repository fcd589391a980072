"""Empty space of the PDF: at most two pages over the whole report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reports.build import Report, build_report
from runners.records import reference_records
from tests.reports.empty_space import empty_pages, empty_share

PAGES_AT_MOST = 2.0


def test_a_strip_without_ink_is_empty_and_the_space_between_lines_is_not() -> None:
    page = np.full((297, 210), 255, np.uint8)
    page[20:278:4] = 0
    assert empty_share(page) == 0
    page[120:185] = 255
    assert empty_share(page) == pytest.approx(65 / 259, abs=0.03)
    assert empty_share(np.full((297, 210), 255, np.uint8)) == 1


def test_the_report_of_quick_leaves_at_most_two_pages_empty(quick_report: Report, tmp_path: Path) -> None:
    found = empty_pages(quick_report.folder, tmp_path)
    assert len(found) > 5 and sum(found) <= PAGES_AT_MOST, [f"{share:.2f}" for share in found]


def test_pages_between_the_front_and_the_last_are_full(several_report: Report, tmp_path: Path) -> None:
    """The front ends with a page of its own, and the last page holds what is left; six methods fill neither."""
    found = empty_pages(several_report.folder, tmp_path)[2:-1]
    assert len(found) > 10 and sum(found) <= PAGES_AT_MOST and max(found) < 0.3, [f"{share:.2f}" for share in found]


@pytest.mark.slow
def test_the_reference_report_leaves_at_most_two_pages_empty(tmp_path: Path) -> None:
    reference_records.unpack(tmp_path / "records")
    (tmp_path / "pages").mkdir()
    found = empty_pages(build_report(tmp_path / "records", tmp_path / "report").folder, tmp_path / "pages")
    assert sum(found) <= PAGES_AT_MOST, [f"{share:.2f}" for share in found]
