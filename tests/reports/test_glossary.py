"""Captions stand alone: each term that a table or figure uses is defined under or above it."""

from __future__ import annotations

import json
import re

import pytest

from reports.build import Report
from reports.glossary import complete

# Written apart from the glossary's own patterns: what uses a term, and what a caption says that defines it.
USES = {
    "↑": (r"↑", "↑: higher is better"),
    "↓": (r"↓", "↓: lower is better"),
    "F": (r"^F( ↓)?$", "F: forgetting, "),
    "I": (r"^I( ↓)?$", "I: intransigence, "),
    "LA": (r"^LA( ↑)?$", "LA: learning accuracy"),
    "AIA": (r"^AIA( ↑)?$", "AIA: average incremental accuracy"),
    "FWT": (r"^FWT( ↑)?$", "FWT: forward transfer"),
    "BWT": (r"\bBWT\b", r"BWT: backward transfer|\(BWT\)|ackward transfer"),
    "ACC": (r"\bACC\b", r"ACC: m|\(ACC\)|ACC: average"),
    "standing": (r"^[Ss]tand(s|ing)\b", r"[Ss]tand(s|ing)(:| is) the|Stands: share"),
    "claim": (r"\b[Cc]laims?\b|\bvoid\b", "A claim says"),
    "drift": (r"^[Dd]rift\b", "[Dd]rift(:| is) the"),
    "±": (r"±", "±|SEM"),
}


def items(report: Report) -> list[tuple[str, str, list[str]]]:
    """Label, caption with notes, and texts of each table and figure; a further part of a table has the first's."""
    data = json.loads((report.folder / "source" / "report.json").read_text(encoding="utf-8"))
    found = []
    for item in (*data["body"], *data["appendix"]):
        if item["kind"] == "figure":
            found.append((item["label"], item["caption"], [item["caption"]]))
        elif item["kind"] == "table" and "continued" not in item["caption"]:
            cells = [cell["text"] for row in item["rows"] for cell in row if len(cell["text"]) < 20]
            found.append((item["label"], " ".join([item["caption"], *item["notes"]]), [*item["columns"], *cells]))
    return found


@pytest.mark.parametrize("name", ["quick_report", "several_report"])
def test_every_term_is_defined_where_it_stands(name: str, request: pytest.FixtureRequest) -> None:
    report: Report = request.getfixturevalue(name)
    seen = set()
    for label, caption, texts in items(report):
        for term, (used, defined) in USES.items():
            if any(re.search(used, text) for text in texts):
                seen.add(term)
                assert re.search(defined, caption), f"{label} uses {term!r} and does not define it: {caption}"
    assert seen >= {"↑", "↓", "F", "I", "BWT", "ACC", "standing", "claim", "drift", "±"}


def test_the_files_of_a_table_have_the_same_caption(quick_report: Report) -> None:
    text = (quick_report.folder / "tables" / "table-split-digits-til.md").read_text(encoding="utf-8")
    assert "F: forgetting, " in text and "↓: lower is better" in text


def test_a_definition_that_uses_a_term_brings_its_definition() -> None:
    found = complete("Standing certificates.", [])
    assert "A claim says" in found and found.index("Standing:") < found.index("A claim says")


def test_what_a_caption_has_defined_is_not_defined_again() -> None:
    caption = "Backward transfer (BWT) in percent. ↑: higher is better."
    assert complete(caption, ["BWT ↑"]) == caption
    assert complete("BWT: points.", []).count("BWT: backward transfer") == 1


def test_a_letter_in_a_name_is_no_metric() -> None:
    assert complete("Methods.", ["SI", "L2", "F1", "I am"]) == "Methods."
