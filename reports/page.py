"""report.html: one self-contained file to explore the results, without network access."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from reports import metrics
from reports.hyperparameters import settings_text
from reports.metrics import Metric
from reports.study import METRICS, Group, Study, pretty
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
DIGITS = 4


def page(study: Study, document: dict[str, Any], figures: Sequence[dict[str, Any]], folder: Path) -> str:
    """Render the HTML. `document`: the paper's data (title, subtitle, summary); figures lie in `folder`/figures."""
    used = [m for m in METRICS if any(study.values(g, label, m) for g in study.groups for label in study.rows(g))]
    data = {
        "title": document["title"],
        "subtitle": document["subtitle"],
        "summary": document["summary"],
        "metrics": [{"key": metric.key, "short": metric.short} for metric in used],
        "rows": [row for group in study.groups for row in _rows(study, group, used)],
        "colours": COLOURS,
        "figures": [_figure(figure, folder) for figure in figures],
    }
    template = resources.files("reports").joinpath("page.html").read_text(encoding="utf-8")
    # `</` would end the script element; `<\/` is the same to JSON.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    return template.replace("/*DATA*/", text.replace("<!--", "<\\u0021--"))


def _rows(study: Study, group: Group, used: Sequence[Metric]) -> list[dict[str, Any]]:
    labels, notes = study.rows(group), Notes()
    columns = {metric.key: column(study, group, metric, labels, notes) for metric in used}
    rows = []
    for i, label in enumerate(labels):
        entries, done = study.at(group, label), study.done(group, label)
        values = {}
        for metric in used:
            cell = columns[metric.key][i]
            shown: dict[str, Any] = {"text": cell.text, "mean": cell.value, "best": cell.best}
            if cell.value is None:
                shown["reason"] = next((e.measures[metric.key].reason for e in entries), "")
            values[metric.key] = shown
        rows.append(
            {
                "benchmark": pretty(group.benchmark),
                "scenario": group.scenario.upper(),
                "method": label,
                "status": "done" if done else str(entries[0].record.status),
                "reason": "" if done else entries[0].record.reason,
                "n": len(done),
                "values": values,
                "settings": settings_text(entries[0].record.config),
                "accuracy": _mean(study.matrices(group, label)),
                "certified": _mean(study.matrices(group, label, "certified")),
                "cells": [
                    {
                        "seed": entry.seed,
                        "status": str(entry.record.status),
                        "acc": entry.measures[metrics.ACC.key].value,
                        "folder": entry.record.folder.as_posix(),
                    }
                    for entry in entries
                ],
            }
        )
    return rows


def _mean(matrices: Sequence[metrics.Matrix]) -> list[list[float | None]] | None:
    """Mean of the matrices, row 0 included; None where not measured."""
    if not matrices:
        return None
    mean = np.mean(np.stack(matrices), axis=0)
    return [[None if np.isnan(value) else round(float(value), DIGITS) for value in row] for row in mean]


def _figure(figure: dict[str, Any], folder: Path) -> dict[str, str]:
    svg = (folder / "figures" / f"{figure['stem']}.svg").read_bytes()
    return {"caption": figure["caption"], "svg": base64.b64encode(svg).decode("ascii")}
