"""Data of the page: the numbers, marks and guarantees of the report, and nothing from outside."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reports.build import Report, build_report
from reports.comparisons import comparison_table
from reports.costs import cost_table
from reports.distinct_names import pretty
from reports.guarantees import promises
from reports.load import load
from reports.metrics import ACC
from reports.page_rows import columns, rows
from reports.study import METRICS, Group, study
from reports.tables import Notes, column
from tests.reports.synthetic import Synthetic
from tests.reports.test_costs import Costly


def data_of(report: Report) -> dict[str, Any]:
    text = report.html.read_text(encoding="utf-8")
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found.group(1))


def test_the_page_has_the_numbers_of_the_records(quick_report: Report, quick_results: Path) -> None:
    found = study(load(quick_results))
    rows = {(row["texts"]["scenario"], row["id"]): row for row in data_of(quick_report)["rows"]}
    assert len(rows) == 15
    for label in ("hnet", "joint"):
        values = found.values(Group("split-digits", "til"), label, ACC)
        row = rows["TIL", label]
        assert row["values"]["acc"]["mean"] == pytest.approx(100 * sum(values.values()) / 3, rel=1e-5)
        assert [cell["acc"] for cell in row["cells"]] == pytest.approx(list(values.values()))
        assert all((quick_results / cell["folder"] / "cell.json").is_file() for cell in row["cells"])
    assert rows["DIL", "hyperinterval"]["texts"]["status"] == "skipped"


def test_the_page_needs_nothing_from_outside(quick_report: Report) -> None:
    text = quick_report.html.read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:)""", text)
    assert "http://" not in text


def test_names_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    Synthetic("<!-- <script><img src=x> & 'q'").write(tmp_path)
    report = build_report(tmp_path)
    text = report.html.read_text(encoding="utf-8")
    assert "<!-- <script>" not in text  # which would let the page's own script element swallow its end
    assert data_of(report)["rows"][0]["texts"]["method"] == "<!-- <script><img src=x> & 'q'"


def test_the_marks_are_those_of_the_tables(several_report: Report, several_results: Path) -> None:
    found = study(load(several_results))
    rows = {
        (row["texts"]["scenario"], row["texts"]["benchmark"], row["id"]): row for row in data_of(several_report)["rows"]
    }
    marked = 0
    for group in found.groups:
        labels = found.rows(group)
        for metric in METRICS:
            for label, cell in zip(labels, column(found, group, metric, labels, Notes()), strict=True):
                shown = rows[group.scenario.upper(), pretty(group.benchmark), label]["values"].get(metric.key)
                if shown:
                    assert shown["text"] == cell.text
                    assert (shown.get("best", False), shown.get("level", False)) == (cell.best, cell.level)
                    marked += cell.best
    assert marked > 3


def test_what_stands_comes_before_what_is_certified_at_the_end(quick_report: Report, quick_results: Path) -> None:
    data = data_of(quick_report)
    keys = [column["key"] for column in data["columns"]]
    assert keys[3:7] == ["acc", "standing", "claims", "certified"]
    promise = next(p for p in promises(study(load(quick_results))) if p.group.scenario == "til")
    row = next(row for row in data["rows"] if row["texts"]["scenario"] == "TIL" and row["id"] == promise.label)
    assert row["values"]["claims"]["text"] == f"{promise.holding}/{promise.claims}"
    assert row["values"]["standing"]["mean"] == pytest.approx(100 * (promise.standing or 0), rel=1e-5)
    facts = {fact["term"]: fact for fact in row["facts"]}
    assert f"{promise.holding} of {promise.claims} about old tasks" in facts["claims"]["text"]
    assert facts["claims"]["file"] == "tables/guarantees.csv"
    other = next(row for row in data["rows"] if row["id"] == "ewc")
    assert other["values"]["claims"]["mean"] is None and "claims" not in {fact["term"] for fact in other["facts"]}


def test_rows_have_the_p_of_the_comparison_and_the_costs(quick_report: Report, quick_results: Path) -> None:
    found = study(load(quick_results))
    table = comparison_table(found)
    assert table
    rows = {(row["texts"]["scenario"], row["id"]): row for row in data_of(quick_report)["rows"]}
    for _, best, other, _, difference, _, p, _ in table.rows[:3]:  # of TIL
        text = next(fact["text"] for fact in rows["TIL", other.key]["facts"] if fact["term"] == "test")
        start = f"{best.text} less {other.text}: {difference.text} points"
        assert text.startswith(start) and f"p = {p.text}," in text
    costs = cost_table(found)
    assert costs
    line = next(row for row in costs.rows if row[0].text.endswith("TIL") and row[1].key == "ewc")
    texts = {name: cell.text for name, cell in zip(costs.columns, line, strict=True)}
    values = rows["TIL", "ewc"]["values"]
    assert [values[key]["text"] for key in ("train", "evaluate", "stored")] == [
        texts[key] for key in ("train", "evaluate", "stored")
    ]
    assert values["memory"]["text"] == f"{texts['memory MB']} MB"


def rows_of(results: Path) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Columns by key and rows by id of records in one benchmark and scenario."""
    found = study(load(results))
    used = columns(found)
    return {one["key"]: one for one in used}, {row["id"]: row for row in rows(found, used, ())}


def test_the_status_of_a_row_is_that_of_all_its_cells(tmp_path: Path) -> None:
    """A failure of some seeds is no less to be found than one of all."""
    Synthetic("finetune").write(tmp_path)
    shown, _ = rows_of(tmp_path)
    assert shown["status"]["text"] and not shown["status"]["shown"]
    for seed, (status, reason) in enumerate([("failed", "died"), ("done", None), ("done", None)]):
        Synthetic("ewc", seed=seed, status=status, reason=reason).write(tmp_path)
    for seed, (status, reason) in enumerate([("diverged", "loss is nan"), ("failed", "boom")]):
        Synthetic("hnet", seed=seed, status=status, reason=reason).write(tmp_path)
    shown, found = rows_of(tmp_path)
    assert shown["status"]["shown"]
    assert {label: row["texts"]["status"] for label, row in found.items()} == {
        "finetune": "done",
        "ewc": "2 done, 1 failed",
        "hnet": "1 diverged, 1 failed",
    }
    assert [cell["reason"] for cell in found["ewc"]["cells"]] == ["died", "", ""]
    assert [cell["reason"] for cell in found["hnet"]["cells"]] == ["loss is nan", "boom"]
    assert found["hnet"]["values"]["acc"]["reason"] == "diverged: loss is nan; failed: boom"


def test_what_is_not_measured_has_its_reason_in_the_facts(tmp_path: Path) -> None:
    for seed in range(2):
        Synthetic("hyperinterval", seed=seed, certifies=True).write(tmp_path)
        accuracy = Synthetic("ewc").matrix()
        accuracy[-1, 2] = accuracy[-1, 2] if seed else np.nan
        Synthetic("ewc", seed=seed, accuracy=accuracy).write(tmp_path)
    _, found = rows_of(tmp_path)
    facts = {label: {fact["term"]: fact["text"] for fact in row["facts"]} for label, row in found.items()}
    text = facts["ewc"]["not measured"]
    assert "ACC (seed 0): the row after the last task" in text
    assert "standing cert. and certified ACC: the method certifies nothing" in text
    assert "not measured" not in facts["hyperinterval"]
    assert "over 1 paired seed;" in facts["ewc"]["test"]


def test_costs_have_a_value_of_each_machine_and_a_unit(tmp_path: Path) -> None:
    Costly("finetune", peak=500_000_000).write(tmp_path)
    Costly("ewc", peak=510_000_000).write(tmp_path)
    shown, found = rows_of(tmp_path)
    assert [(shown[key]["unit"], shown[key]["machines"]) for key in ("acc", "train", "memory")] == [
        ("%", []),
        ("s", []),
        ("MB", []),
    ]
    assert [found["ewc"]["values"][key]["exact"] for key in ("train", "memory")] == [123.4, 10.0]
    Costly("ewc", seed=1, peak=700_000_000, evaluation=2.0, machine="two").write(tmp_path)
    Costly("hnet", peak=720_000_000, machine="two").write(tmp_path)
    shown, found = rows_of(tmp_path)
    for key in ("train", "evaluate", "memory"):
        assert shown[key]["machines"] == ["A: one, 1 thread", "B: two, 1 thread"]
    assert shown["stored"]["machines"] == []
    assert found["ewc"]["values"]["evaluate"] == {"text": "1.0 s (A), 2.0 s (B)", "mean": 1.0, "exact": [1.0, 2.0]}
    assert found["ewc"]["values"]["memory"]["exact"] == [10.0, 0.0]
    assert found["hnet"]["values"]["memory"] == {"text": "20 MB (B)", "mean": 20_000_000, "exact": [None, 20.0]}
    text = next(fact["text"] for fact in found["ewc"]["facts"] if fact["term"] == "cost")
    assert "1.0 s (A), 2.0 s (B)" in text and "(A: one, 1 thread; B: two, 1 thread)" in text


def test_figures_are_packed_and_links_lead_to_files(quick_report: Report) -> None:
    data = data_of(quick_report)
    drawn = {path.read_bytes() for path in quick_report.figures if path.suffix == ".svg"}
    assert {gzip.decompress(base64.b64decode(figure["packed"])) for figure in data["figures"]} == drawn
    # Unpacked, figures are most of a page; a page that embeds them as they are is larger than all of them.
    assert quick_report.html.stat().st_size < sum(map(len, drawn)) / 2
    assert len(data["files"]) > 5
    assert all((quick_report.folder / file["href"]).is_file() for file in data["files"])
    facts = {fact["file"] for row in data["rows"] for fact in row["facts"]} - {""}
    assert facts and all((quick_report.folder / file).is_file() for file in facts)


def test_records_are_linked_only_where_the_report_lies_with_them(quick_report: Report, placed_report: Report) -> None:
    assert data_of(quick_report)["records"] is None
    data = data_of(placed_report)
    for row in data["rows"]:
        for cell in row["cells"]:
            assert (placed_report.folder / data["records"] / cell["folder"] / "cell.json").is_file()
