"""What promises were worth, by hand: which claims hold, which violations a sound certificate excludes, what drifted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from reports import multiples
from reports.findings import findings
from reports.guarantee_figures import guarantee_figures
from reports.guarantees import Promise, guarantee_table, promises
from reports.load import load
from reports.metrics import STANDING
from reports.panels import Drawn
from reports.schema import ClaimRow
from reports.study import study
from reports.style import looks
from reports.summary import summary
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
    header: str = HEADER

    def _claims(self, path: Path) -> None:
        path.write_text("\n".join((self.header, *self.lines)) + "\n", encoding="utf-8")


def test_the_reasons_of_all_void_claims_are_in_the_note(tmp_path: Path) -> None:
    """Numbers have ranges over all claims, not those of the most frequent ones."""
    for seed, weights in enumerate((3, 90, 12, 7, 0)):
        why = f"{weights} of 90 weights have left the box" if seed < 4 else "the box has moved"
        lines = ("1,0,1,0,0,0.1,0.1,0,", f"2,0,0,9,0.3,0.1,0.1,0,{why}", "2,1,1,0,0,0.1,0.1,0,")
        Claiming("lid", seed=seed, n_tasks=2, certifies=True, lines=lines).write(tmp_path)
    found = study(load(tmp_path))
    assert promise(tmp_path).reasons == ("3 to 90 of 90 weights have left the box", "the box has moved")
    table = guarantee_table(found)
    assert table and "(a) void: 3 to 90 of 90 weights have left the box; or the box has moved" in table.notes


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for seed, lines in enumerate((FIRST, SECOND)):
        r = np.array([[0.5, 0.5], [0.9, 0.5], [0.7, 0.8]])
        Claiming("hyperinterval", seed=seed, n_tasks=2, certifies=True, accuracy=r, lines=lines).write(tmp_path)
    return tmp_path


def promise(results: Path) -> Promise:
    (found,) = promises(study(load(results)))
    return found


def test_only_claims_inside_their_region_and_without_a_reason_hold() -> None:
    claim = ClaimRow(1, 0, True, 0, 0.0, 0.1, 0.1, False, "")
    assert claim.holds
    assert not replace(claim, reason="tasks joined").holds and not replace(claim, contained=False).holds


def test_claims_of_the_last_task_are_not_counted(results: Path) -> None:
    """Nothing was learnt after it: counted, they would make 2 of 4, although no old task's claim holds."""
    found = promise(results)
    assert (found.holding, found.claims) == (0, 2)


def test_broken_are_the_violations_of_claims_that_still_held(results: Path) -> None:
    found = promise(results)
    assert (found.violations, found.broken) == (4, 2)


def test_the_drift_is_the_largest_of_the_claims_after_the_last_task(results: Path) -> None:
    found = promise(results)
    assert found.drift == pytest.approx(0.3)  # 0.5 was seen after the first task
    assert found.width == pytest.approx(np.median([0.02, 0.04, 0.06, 0.08]))
    assert found.logit_width == pytest.approx(np.median([0.3, 0.7, 0.5, 0.9]))


def test_the_certified_share_when_learnt_is_that_of_old_tasks_on_the_diagonal(results: Path) -> None:
    """Certified are 8 points less than answered rightly, of the synthetic records."""
    found = promise(results)
    assert found.when_learnt == pytest.approx(0.82)
    assert found.certified == pytest.approx((0.62 + 0.72) / 2)


def test_the_certified_share_of_training_samples_is_that_of_old_tasks(tmp_path: Path) -> None:
    """0.6 of the first task's when it was learnt, 0.9 of the last one's, which does not count."""
    lines = ("1,0,1,0,0,0.1,0.1,0,,0.6", "2,0,1,0,0,0.1,0.1,0,,", "2,1,1,0,0,0.1,0.1,0,,0.9")
    Claiming("ewc", n_tasks=2, certifies=True, header=f"{HEADER},certified_train", lines=lines).write(tmp_path)
    assert promise(tmp_path).on_training == pytest.approx(0.6)


def test_a_certificate_stands_where_the_claim_about_an_old_task_still_holds(tmp_path: Path) -> None:
    """Old tasks were certified at 0.92 and 0.82 when learnt; after the last one the first claim is void, and on the
    second seed both hold. What is certified anew at the end (0.42, 0.52) and the last task (0.72) do not count."""
    r = np.array([[0.5] * 3, [1.0, 0.5, 0.5], [0.7, 0.9, 0.5], [0.5, 0.6, 0.8]])
    void = ("3,0,0,9,0.3,0.1,0.1,0,drifted", "3,1,1,0,0,0.1,0.1,0,", "3,2,1,0,0,0.1,0.1,0,", "2,0,1,0,0,0.1,0.1,0,")
    hold = ("3,0,1,0,0,0.1,0.1,0,", "3,1,1,0,0,0.1,0.1,0,", "3,2,1,0,0,0.1,0.1,0,")
    for seed, lines in enumerate((void, hold)):
        Claiming("ewc", seed=seed, n_tasks=3, certifies=True, accuracy=r, lines=lines).write(tmp_path)
    found = promise(tmp_path)
    assert found.standing == pytest.approx(((0.82 / 2) + (0.92 + 0.82) / 2) / 2)
    measured = study(load(tmp_path))
    assert measured.entries[0].measures[STANDING.key].value == pytest.approx(0.41)
    lines = {line["metric"]: line for line in summary(measured).to_dict("records")}
    assert lines["standing"]["mean"] == pytest.approx(100 * (found.standing or 0)) and lines["standing"]["n"] == 2
    metrics = [metric for metric in lines if metric in ("standing", "certified")]
    assert metrics == ["standing", "certified"], "the headline comes first"


def test_the_first_clause_of_the_summary_is_on_what_still_stands(results: Path) -> None:
    (sentence,) = [sentence for sentence in findings(study(load(results))) if "guarantee" in sentence]
    assert sentence.startswith("How much of HyperInterval's guarantee still stands: 0.0 % of old tasks' test samples")
    assert "0 of 2 claims about old tasks hold after the last one" in sentence


def test_the_figure_of_a_void_claim_falls_to_zero_and_has_no_last_task(results: Path) -> None:
    found = study(load(results))
    (job,) = [job for job in guarantee_figures(found) if job.func.__name__ == "_accuracies"]
    (ax,) = job(found, looks(found)).figure.axes
    measured, standing, certified = ax.lines
    assert standing.get_linestyle() == "--" and list(standing.get_ydata()) == [0.0]
    assert len(measured.get_ydata()) == len(certified.get_ydata()) == 2


def widths(results: Path) -> Drawn:
    found = study(load(results))
    (job,) = [job for job in guarantee_figures(found) if job.func.__name__ == "_widths"]
    return job(found, looks(found))


@pytest.mark.parametrize("methods_at_most", [1, 12])
def test_widths_of_zero_are_drawn_on_the_scale_of_the_widths_next_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, methods_at_most: int
) -> None:
    """The panels of two families share their axes, the first of which has no zero."""
    monkeypatch.setattr(multiples, "METHODS_AT_MOST", methods_at_most)
    for method, at in (("hyperinterval", "0.02"), ("packnet", "0")):
        lines = (f"2,0,1,0,0,{at},1e-10,0,", f"2,1,1,0,0,{at},1e3,0,")
        Claiming(method, n_tasks=2, certifies=True, lines=lines).write(tmp_path)
    drawn = widths(tmp_path)
    drawn.figure.canvas.draw()
    axes = drawn.figure.axes
    assert len(axes) == (2 if methods_at_most == 1 else 1)
    for ax in axes:
        low, high = ax.get_ylim()
        assert low < 0 and high > 1e3 and 0 in ax.get_yticks()
        places = (ax.transScale + ax.transLimits).transform([(1, 0), (1, 1e-10), (1, 0.02), (1, 1e3)])[:, 1]
        assert (np.diff(places) > 0.1).all() and places[0] > 0 and places[-1] < 1
    assert "0" in [text.get_text() for text in axes[0].get_yticklabels()]
    assert [0, 0] in [list(line.get_ydata()) for line in axes[-1].lines]
    assert "linear from 0" in drawn.caption


def test_widths_above_zero_have_a_log_scale(results: Path) -> None:
    drawn = widths(results)
    assert [ax.get_yscale() for ax in drawn.figure.axes] == ["log"] and "linear" not in drawn.caption


@pytest.mark.parametrize("reference", [True, False])
def test_a_caption_promises_the_references_that_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: bool
) -> None:
    monkeypatch.setattr(multiples, "METHODS_AT_MOST", 1)
    for method in ("hyperinterval", "packnet", *["finetune"][:reference]):
        Claiming(method, n_tasks=2, certifies=True, lines=SECOND).write(tmp_path)
    caption = widths(tmp_path).caption
    assert "One column for each family of methods" in caption and ("references" in caption) is reference


def test_the_constant_of_an_inference_is_no_width_of_logits(tmp_path: Path) -> None:
    """Logits of tasks not chosen are 1e4 lower there, whatever the intervals."""
    lines = ("2,0,1,0,0,0.1,10000,0,", "2,1,1,0,0,0.1,10000,0,")
    for scenario in ("til", "cil"):
        Claiming("hyperinterval", scenario=scenario, n_tasks=2, certifies=True, lines=lines).write(tmp_path)
    til, cil = promises(study(load(tmp_path)))
    assert (til.logit_width, cil.logit_width) == (10000, None)
    assert cil.width == pytest.approx(0.1)


def test_the_table_says_so(results: Path) -> None:
    table = guarantee_table(study(load(results)))
    assert table
    (row,) = table.rows
    cells = dict(zip(table.columns, row, strict=True))
    assert table.columns[2:4] == ("standing", "certified")
    assert cells["standing"].text == "0.0 ± 0.0"
    assert cells["old claims"].text == "0/2" and cells["old claims"].mark
    assert cells["violations"].text == "4 (2)"
    assert cells["drift"].text == "0.3"
    assert any("the region has drifted; or tasks learnt later" in note for note in table.notes)


def test_claims_without_certificates_are_said_to_be_about_numbers(results: Path) -> None:
    """As of a head that equals joint ridge, whose answers to old tasks change."""
    lines = ("1,0,1,0,1e-12,0.0,,0,", "2,0,1,0,3e-12,0.0,,0,", "2,1,1,0,3e-12,0.0,,0,")
    Claiming("analytic", n_tasks=2, certifies=True, lines=lines).write(results)
    for file in results.glob("*/*/analytic/*/certified.csv"):
        file.unlink()
    found = study(load(results))
    table = guarantee_table(found)
    assert table
    by_method = {row[1].key: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    cell, other = by_method["analytic"]["old claims"], by_method["hyperinterval"]["old claims"]
    (note,) = [note for note in table.notes if "about the method's numbers" in note]
    assert cell.text == "1/1" and note.startswith(f"({cell.mark})") and other.mark != cell.mark
    (words,) = [sentence for sentence in findings(found) if sentence.startswith("Analytic certifies")]
    assert words == "Analytic certifies no answer in TIL: claims about its numbers that hold: 1 of 1."
