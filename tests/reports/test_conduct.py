"""What was measured reaches the report: the table, marks of what deviates, and no rank for what keeps data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reports.conduct import conduct_table
from reports.conformance import conformance_table
from reports.front import methods_table
from reports.headline import headline_table
from reports.keeping import WORDS
from reports.load import load
from reports.names import METHODS
from reports.page_rows import columns, rows
from reports.paper import contents, paper
from reports.study import Group, Study, study
from reports.summary import summary
from reports.tables import detail
from tests.reports.synthetic import Synthetic

GROUP = Group("split-digits", "til")
VERDICT = {
    "scenarios": ["til", "cil"],
    "passed": [{"check": "runs", "scenario": "til", "sentence": ""}],
    "failed": [
        {"check": "memory", "scenario": "til", "sentence": "it keeps 40 training samples"},
        {"check": "learns", "scenario": "cil", "sentence": "it does not learn"},
    ],
    "skipped": [{"check": "bounds", "scenario": "til", "sentence": "the method certifies nothing"}],
    "not_checked": "",
}


def taken(*, held: dict[str, Any] | None = None, **changed: int) -> dict[str, Any]:
    task = {"steps": 10, "samples": 320, "aside": 0, "steps_allowed": 10, "samples_allowed": 320, "available": 240}
    holds = {"rehearses": False, "declared": 0, "found": 0, "network_parameters": 1426, "module_parameters": 1426}
    return {"tasks": [{**task, **changed}] * 2, "held": {**holds, **(held or {})}}


def written(results: Path, **fairness: dict[str, Any]) -> Study:
    """Two cells a method; the later ones are better."""
    for i, (method, measured) in enumerate(fairness.items()):
        accuracy = np.full((3, 2), 0.5 + i / 10)
        for seed in range(2):
            Synthetic(method, seed=seed, n_tasks=2, accuracy=accuracy, fairness=measured).write(results)
    return study(load(results))


def notes_of(found: Study, label: str) -> str:
    table = detail(found, GROUP)
    (row,) = [row for row in table.rows if row[0].key == label]
    return next((note for note in table.notes if row[1].mark and note.startswith(f"({row[1].mark})")), "")


@pytest.mark.parametrize("held", [{"rehearses": True}, {"declared": 200}, {"found": 150}])
def test_what_keeps_data_is_marked_and_neither_bold_nor_ranked(tmp_path: Path, held: dict[str, Any]) -> None:
    found = written(tmp_path, finetune=taken(), ewc=taken(), clone=taken(held=held))
    table = detail(found, GROUP)
    assert [row[0].key for row in table.rows if row[1].best] == ["ewc"]
    assert "keeps training data of earlier tasks" in notes_of(found, "clone")
    assert "clone" not in found.run(GROUP)
    assert "clone, which keeps training data of earlier tasks, is not ranked" in table.caption


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ({"rehearses": True}, "all samples"),
        ({"declared": 1200, "found": 1200}, "1,200 samples"),
        ({"declared": 3, "found": 150}, "150 samples"),
        ({}, "no samples"),
        (None, "–"),
    ],
)
def test_every_table_of_results_says_what_is_kept(tmp_path: Path, held: dict[str, Any] | None, words: str) -> None:
    """A shipped method has its word, also in records of earlier versions, which measured nothing."""
    found = written(tmp_path, wsn=taken(), joint={}, clone={} if held is None else taken(held=held))
    for table in (detail(found, GROUP), headline_table(found)):
        column = table.columns.index("keeps")
        kept = {row[0].key: row[column].text for row in table.rows}
        assert kept == {"wsn": "masks", "joint": "all samples", "clone": words}
        assert "Keeps: what is kept of earlier tasks" in table.caption
    stored = {row[1].key: row[2].text for row in methods_table(found).rows}["clone"]
    assert stored == (words if any(c.isdigit() for c in words) or words == "all samples" else "not described")
    assert {row["texts"]["keeps"] for row in rows(found, columns(found), ())} == {"masks", "all samples", words}
    assert set(summary(found)["keeps"]) == set(found.frame["keeps"]) == {"masks", "all samples", words}


def test_every_shipped_method_has_a_word_for_what_it_keeps() -> None:
    assert WORDS.keys() == METHODS.keys()


def test_an_amount_that_is_not_the_declared_one_is_told(tmp_path: Path) -> None:
    held = {"more": {"declared": 50, "found": 60}, "less": {"declared": 50, "found": 40}}
    found = written(
        tmp_path,
        **{name: taken(held=some) for name, some in held.items()},
        same=taken(held={"declared": 50, "found": 50}),
    )
    assert "keeps 60 training images, 10 of which it does not declare" in notes_of(found, "more")
    assert "declares 50 training samples; its state holds 40" in notes_of(found, "less")
    assert "declare" not in notes_of(found, "same")


def test_a_cell_that_diverged_is_not_ranked_where_it_declared_samples(tmp_path: Path) -> None:
    declared = {"tasks": [], "held": {"rehearses": False, "declared": 200}}
    Synthetic("clone", n_tasks=2, status="diverged", fairness=declared).write(tmp_path)
    found = written(tmp_path, finetune=taken(), ewc=taken())
    assert "clone" in found.unranked and conduct_table(found) is not None


def test_a_method_in_closed_form_is_not_marked(tmp_path: Path) -> None:
    closed = taken(steps=0, aside=240, held={"module_parameters": 0})
    found = written(tmp_path, by_hand=taken(steps=0, aside=240), closed=closed)
    assert "no optimiser step" in notes_of(found, "by_hand") and not notes_of(found, "closed")


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        (taken(steps=11), "more optimiser steps"),
        (taken(samples=3200), "more samples"),
        (taken(aside=241), "more than once"),
        (taken(steps=0), "no optimiser step"),
        (taken(held={"found": 3}), "does not declare"),
        (taken(held={"answers_with": 3000}), "2.1 times the parameters"),
        (taken(held={"answers_with_all": 3000}), "2.1 times the parameters"),
        (taken(held={"independence": {"asked": 400, "differ": 3}}), "0.8% of 400 test samples otherwise"),
        (taken(held={"independence": {"asked": 0, "differ": 0, "error": "no batch of 1"}}), "(no batch of 1)"),
        (taken() | {"conformance": VERDICT}, "fails checks of the conformance suite: memory"),
    ],
)
def test_what_lies_beyond_the_budget_is_marked(tmp_path: Path, measured: dict[str, Any], words: str) -> None:
    usual = {"answers_with": 2800, "answers_with_all": 2800, "independence": {"asked": 400, "differ": 2}}
    found = written(tmp_path, finetune=taken(aside=240, held=usual), ewc=measured)
    assert words in notes_of(found, "ewc") and not notes_of(found, "finetune")
    setting = " ".join(b["text"] for b in paper(contents(found), []).data["appendix"] if b["kind"] == "paragraph")
    assert "EWC went beyond the budget" in setting or "Of EWC notes under the tables" in setting


def test_the_table_says_what_was_taken(tmp_path: Path) -> None:
    table = conduct_table(written(tmp_path, finetune=taken(), ewc=taken(steps=12)))
    assert table is not None
    assert {row[1].key: row[2].text for row in table.rows} == {"finetune": "20 / 20", "ewc": "24 / 20"}


def test_rows_without_measurements_are_counted_and_left_out(tmp_path: Path) -> None:
    table = conduct_table(written(tmp_path, finetune=taken(), ewc={}, mas={}))
    assert table is not None
    assert [row[1].key for row in table.rows] == ["finetune"] and " 2 rows of records" in table.caption
    assert conduct_table(written(tmp_path / "old", ewc={})) is None


def test_nothing_is_said_of_a_budget_that_was_not_measured(tmp_path: Path) -> None:
    found = written(tmp_path, finetune={}, ewc={})
    setting = " ".join(b["text"] for b in paper(contents(found), []).data["appendix"] if b["kind"] == "paragraph")
    assert "were not measured" in setting and "same training budget" not in setting


def test_the_report_lists_what_the_conformance_suite_found(tmp_path: Path) -> None:
    late = {**VERDICT, "passed": [], "failed": [], "skipped": [], "not_checked": "took longer than 180 s"}
    found = written(tmp_path, finetune=taken(), mine=taken() | {"conformance": VERDICT}, slow={"conformance": late})
    table = conformance_table(found)
    assert table is not None
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["mine", "til", "1", "1", "1", "memory", "it keeps 40 training samples"],
        ["slow", "til", "", "", "", "", "not checked: took longer than 180 s"],
    ]
    drawn = paper(contents(found), []).data["body"]
    assert any("conformance" in str(block) for block in drawn)
    assert conformance_table(written(tmp_path / "shipped", finetune=taken())) is None
