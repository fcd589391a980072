"""report.html: one self-contained file to explore the results, without network access."""

from __future__ import annotations

import base64
import gzip
import json
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from reports.marks import MARKED, marks_words
from reports.page_rows import columns, rows
from reports.study import Study
from reports.tables import Notes, column

COLOURS = (
    (68, 1, 84),
    (72, 40, 120),
    (62, 74, 137),
    (49, 104, 142),
    (38, 130, 142),
    (31, 158, 137),
    (53, 183, 121),
    (110, 206, 88),
    (181, 222, 43),
    (253, 231, 37),
)
"""Viridis colours (red, green, blue) at even steps."""
SCRIPTS = ("page.js", "page_detail.js")
FILES = (
    "report.pdf",
    "report.md",
    "cells.csv",
    "summary.csv",
    *(f"tables/{name}.csv" for name in ("guarantees", "cost", "comparisons", "hyperparameters", "tuning-effort")),
)
"""Files of the report that the page links, where they exist."""


def page(study: Study, document: dict[str, Any], figures: Sequence[dict[str, Any]], folder: Path) -> str:
    """Render the HTML. `document`: the paper's data (title, subtitle, summary); `folder` has the figures and tables."""
    used = columns(study)
    data = {
        "title": document["title"],
        "subtitle": document["subtitle"],
        "summary": document["summary"],
        "legend": _legend(study),
        "columns": used,
        "rows": rows(study, used, {name for name in FILES if (folder / name).is_file()}),
        "records": _records(study.source.root, folder),
        # The PDF is typeset while this page is written.
        "files": [_file(name) for name in FILES if name == "report.pdf" or (folder / name).is_file()],
        "colours": COLOURS,
        "figures": [_figure(figure, folder) for figure in figures],
    }
    # `</` would end the script element; `<\/` is the same to JSON.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    script = "\n".join(map(_asset, SCRIPTS))
    filled = _asset("page.html").replace("/*STYLE*/", _asset("page.css")).replace("/*SCRIPT*/", script)
    return filled.replace("/*DATA*/", text.replace("<!--", "<\\u0021--"))


def _asset(name: str) -> str:
    return resources.files("reports").joinpath(name).read_text(encoding="utf-8")


def _file(name: str) -> dict[str, str]:
    return {"text": name.removeprefix("tables/"), "href": name}


def _records(root: Path, folder: Path) -> str | None:
    """Address of the results folder as seen from the page; None if the report lies elsewhere, perhaps without it."""
    if not folder.resolve().is_relative_to(root.resolve()):
        return None
    return quote(Path(os.path.relpath(root.resolve(), folder.resolve())).as_posix())


def _legend(study: Study) -> str:
    shown = [column(study, group, metric, study.rows(group), Notes()) for group in study.groups for metric in MARKED]
    return (
        "Percent: mean ± sample standard deviation over seeds. Standing: certified when an old task was learnt, 0 "
        "where the claim about it no longer holds after the last task; old claims: those about old tasks (all but "
        f"the last) that hold, of all, over seeds.{marks_words(study, shown)} Click a heading to sort; open a row for "
        "its certificates, costs, test against the best, accuracy matrix, records and the reasons of what is missing."
    )


def _figure(figure: dict[str, Any], folder: Path) -> dict[str, str]:
    svg = (folder / "figures" / f"{figure['stem']}.svg").read_bytes()
    # mtime: the same figure gives the same page.
    packed = gzip.compress(svg, compresslevel=9, mtime=0)
    return {"caption": figure["caption"], "packed": base64.b64encode(packed).decode("ascii")}
