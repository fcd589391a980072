"""Cells without a result: skipped, failed, unfinished."""

from __future__ import annotations

from reports.study import Study
from reports.tables import Cell, Notes, Table, shorten, text_cells


def left_out(study: Study) -> Table | None:
    """Table of unreadable folders and superseded records."""
    notes = Notes()
    rows = [(Cell(problem.folder), Cell(shorten(problem.reason))) for problem in study.source.problems]
    rows += [
        (Cell(r.folder.as_posix()), Cell(f"superseded by a newer record (source {r.source[:12] or 'unknown'})"))
        for r in study.source.superseded
    ]
    if not rows:
        return None
    return Table(
        "left-out",
        "Folders that no number above includes, with the reason.",
        ("folder", "reason"),
        tuple(rows),
        notes.lines(),
        text_columns=frozenset({0, 1}),
    )


def unfinished_table(study: Study) -> Table | None:
    """Table of the cells without results and their reasons; cells with the same reason share a line."""
    cells: dict[tuple[str, str, str, str], list[str]] = {}
    for entry in study.entries:
        record = entry.record
        if not record.done:
            key = (entry.group.title, entry.label, str(record.status), shorten(record.reason, 300))
            cells.setdefault(key, []).append(str(entry.seed))
    if not cells:
        return None
    rows = [
        text_cells((where, label, ", ".join(seeds), status, reason), 1)
        for (where, label, status, reason), seeds in cells.items()
    ]
    return Table(
        "without-results",
        "Cells without results, with the reason.",
        ("benchmark", "method", "seeds", "status", "reason"),
        tuple(rows),
        text_columns=frozenset(range(5)),
    )
