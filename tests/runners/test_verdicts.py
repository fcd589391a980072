"""Foreign methods of a comparison are checked for conformance once; records hold the verdict; nothing stops a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.types import UserError
from runners.conformance import apart, verdicts
from runners.records.record import Record
from tests.runners.helpers import ROOT, cells, compare_here, foreign

CHEATS = ROOT / "tests" / "runners" / "cheats.py"
GRID: dict[str, Any] = {"benchmarks": ("split-digits",), "scenarios": ("til",), "seeds": 1, "reference": False}


def records(results: Path) -> dict[str, Record]:
    found = (Record.from_json(file.read_text()) for file in results.rglob("cell.json"))
    return {record.method: record for record in found}


def test_records_hold_the_verdict_and_a_finding_stops_nothing(tmp_path: Path) -> None:
    methods = (f"{CHEATS}:BatchStatistics", foreign("Good"))
    code, said = compare_here(tmp_path, methods=("finetune",), foreign=methods, **GRID)
    found = {name: record.fairness.get("conformance") for name, record in records(tmp_path).items()}
    assert code == 0 and found["finetune"] is None
    cheat, good = found["sound"], found["good"]
    assert cheat and {row["check"] for row in cheat["failed"]} == {"independence"}
    assert "a sample alone gets other logits" in cheat["failed"][0]["sentence"]
    assert good and not good["failed"] and not good["not_checked"] and len(good["passed"]) > 10
    assert {row["check"]: row["sentence"] for row in good["skipped"]}["bounds"] == "the method certifies nothing"
    assert "sound: " in said and "fails independence" in said


def test_a_verdict_is_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    found = {**apart.unchecked("", ["til"]), "passed": [{"check": "learns", "scenario": "til", "sentence": ""}]}
    monkeypatch.setattr(verdicts, "examined", lambda *given: asked.append(given) or found)
    compare_here(tmp_path, methods=("finetune",), foreign=(foreign("Good"),), **GRID)
    compare_here(tmp_path, methods=("finetune",), foreign=(foreign("Good"),), **{**GRID, "seeds": 2})
    assert len(asked) == 1
    compare_here(tmp_path, methods=("finetune",), foreign=(foreign("Good"),), **{**GRID, "scenarios": ("til", "cil")})
    assert len(asked) == 2  # of another set of scenarios


def test_what_was_not_checked_is_checked_the_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [cell] = [cell for cell in cells(foreign("Good")) if cell.method == "good"]
    found = {**apart.unchecked("", ["til"]), "passed": [{"check": "learns", "scenario": "til", "sentence": ""}]}
    answers = [apart.unchecked("the suite ended early: exit code -9", ["til"]), found]
    monkeypatch.setattr(verdicts, "examined", lambda *_: answers.pop(0))
    given = [verdicts.of_cells([cell], tmp_path, lambda _: None)["good"] for _ in range(3)]
    assert given[0]["not_checked"] and given[1:] == [found, found] and not answers


def test_a_file_in_the_place_of_the_verdicts_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [cell] = [cell for cell in cells(foreign("Good")) if cell.method == "good"]
    (tmp_path / verdicts.FOLDER).touch()
    monkeypatch.setattr(verdicts, "examined", lambda *_: apart.unchecked("", ["til"]))
    with pytest.raises(UserError, match="conformance cannot be written: File exists"):
        verdicts.of_cells([cell], tmp_path, lambda _: None)


def test_shipped_methods_are_not_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "examined", None)
    code, _ = compare_here(tmp_path, methods=("finetune",), **GRID)
    assert code == 0


def test_a_record_says_that_no_check_was_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "examined", None)
    compare_here(tmp_path, methods=("finetune",), foreign=(foreign("Good"),), check=False, **GRID)
    assert "--no-check" in records(tmp_path)["good"].fairness["conformance"]["not_checked"]


def test_a_suite_that_takes_too_long_is_ended() -> None:
    [cell] = [cell for cell in cells(foreign("Good")) if cell.method == "good"]
    verdict = apart.examined(cell.reference, cell.source, ["til"], 0.01)
    assert verdict["not_checked"] == "took longer than 0.01 s" and not verdict["passed"]


def test_code_that_changed_meanwhile_is_not_judged() -> None:
    verdict = apart.examined(foreign("Good"), "another hash", ["til"], 100)
    assert "changed" in verdict["not_checked"]
