"""What promises were worth, by hand: which claims hold, which violations a sound certificate excludes, what drifted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from reports.findings import findings
from reports.guarantees import Promise, guarantee_table, holds, promises
from reports.load import load
from reports.schema import ClaimRow
from reports.study import study
from tests.reports.synthetic import Synthetic

HEADER = "after,task,contained,outside,drift,median_width,median_logit_width,violation,reason"
FIRST = (
    "1,0,1,0,0.5,0.02,0.3,1,",  # broken: the claim held when it was violated
    "2,0,0,12,0.3,0.02,0.3,1,the region has drifted",  # void, so not broken
    "2,1,1,0,0.1,0.04,0.7,0,",
)
SECOND = (
    "1,0,1,0,0.0,0.02,0.3,0,",
    "2,0,1,0,0.2,0.06,0.5,1,tasks learnt later take part",  # inside the box, and void all the same
    "2,1,1,0,0.0,0.08,0.9,1,",  # broken
)


@dataclass(frozen=True)
class Claiming(Synthetic):
    """With these lines of claims.csv."""

    lines: tuple[str, ...] = ()

    def _claims(self, path: Path) -> None:
        path.write_text("\n".join((HEADER, *self.lines)) + "\n", encoding="utf-8")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for seed, lines in enumerate((FIRST, SECOND)):
        r = np.array([[0.5, 0.5], [0.9, 0.5], [0.7, 0.8]])
        Claiming("hyperinterval", seed=seed, n_tasks=2, certifies=True, accuracy=r, lines=lines).write(tmp_path)
    return tmp_path


def promise(results: Path) -> Promise:
    (found,) = promises(study(load(results)))
    return found


def test_only_claims_inside_their_region_and_without_a_reason_hold(results: Path) -> None:
    found = promise(results)
    assert (found.holding, found.claims) == (2, 4)
    claim = ClaimRow(1, 0, True, 0, 0.0, 0.1, 0.1, False, "")
    assert holds(claim)
    assert not holds(replace(claim, reason="tasks joined")) and not holds(replace(claim, contained=False))


def test_broken_are_the_violations_of_claims_that_still_held(results: Path) -> None:
    found = promise(results)
    assert (found.violations, found.broken) == (4, 2)


def test_the_drift_is_the_largest_of_the_claims_after_the_last_task(results: Path) -> None:
    found = promise(results)
    assert found.drift == pytest.approx(0.3)  # 0.5 was seen after the first task
    assert found.width == pytest.approx(np.median([0.02, 0.04, 0.06, 0.08]))
    assert found.logit_width == pytest.approx(np.median([0.3, 0.7, 0.5, 0.9]))


def test_the_certified_share_when_learnt_is_that_of_the_diagonal(results: Path) -> None:
    """Certified are 8 points less than answered rightly, of the synthetic records."""
    found = promise(results)
    assert found.when_learnt == pytest.approx((0.82 + 0.72) / 2)
    assert found.certified == pytest.approx((0.62 + 0.72) / 2)


def test_the_table_says_so(results: Path) -> None:
    table = guarantee_table(study(load(results)))
    assert table
    (row,) = table.rows
    cells = dict(zip(table.columns, row, strict=True))
    assert cells["claims hold"].text == "2/4" and cells["claims hold"].mark
    assert cells["violations"].text == "4 (2)"
    assert cells["drift"].text == "0.3"
    assert any("the region has drifted; tasks learnt later" in note for note in table.notes)


def test_claims_without_certificates_are_said_to_be_about_numbers(results: Path) -> None:
    """As of a head that equals joint ridge, whose answers to old tasks change."""
    lines = ("1,0,1,0,1e-12,0.0,,0,", "2,0,1,0,3e-12,0.0,,0,", "2,1,1,0,3e-12,0.0,,0,")
    Claiming("analytic", n_tasks=2, certifies=True, lines=lines).write(results)
    for file in results.glob("*/*/analytic/*/certified.csv"):
        file.unlink()
    found = study(load(results))
    table = guarantee_table(found)
    assert table
    by_method = {row[2].text: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    cell, other = by_method["analytic"]["claims hold"], by_method["hyperinterval"]["claims hold"]
    (note,) = [note for note in table.notes if "about the method's numbers" in note]
    assert cell.text == "2/2" and note.startswith(f"({cell.mark})") and other.mark != cell.mark
    (words,) = [sentence for sentence in findings(found) if "analytic's guarantee" in sentence]
    assert (
        words
        == "How well analytic's guarantee held: 2 of 2 claims about its numbers hold where no answer is certified."
    )
