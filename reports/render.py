"""Render a table as CSV, Markdown and as data for the typst template."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

from reports.tables import MISSING, Cell, Table, without_repeats

FORMULA = ("=", "+", "-", "@", "\t", "\r")


def to_csv(table: Table) -> str:
    """Render as CSV with full precision, in percent: a measured column becomes value, std, n and best (1 or 0).

    A column in which any cell has a mark is followed by one with the marks' notes. What is missing is empty.
    """
    measured = {i for row in table.rows for i, cell in enumerate(row) if cell.value is not None}
    noted = {i for row in table.rows for i, cell in enumerate(row) if cell.mark}
    notes = dict(_letter_and_note(note) for note in table.notes)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    header: list[str] = []
    for i, name in enumerate(table.columns):
        name = name.rstrip(" ↑↓")
        name = no_formula(name)
        header += [name, f"{name} std", f"{name} n", f"{name} best"] if i in measured else [name]
        header += [f"{name} note"] if i in noted else []
    writer.writerow(header)
    for row in table.rows:
        line: list[str] = []
        for i, cell in enumerate(row):
            line += _csv_measured(cell) if i in measured else [no_formula(_csv_text(cell))]
            line += [no_formula(notes.get(cell.mark, cell.mark))] if i in noted else []
        writer.writerow(line)
    return out.getvalue()


def _letter_and_note(note: str) -> tuple[str, str]:
    """Parts of a note `(a) why`; a line without a letter explains no mark."""
    letter, _, why = note.partition(") ")
    return (letter[1:], why) if why and letter.startswith("(") else ("", "")


def no_formula(text: Any) -> Any:
    """Protect a text from spreadsheets: an apostrophe precedes what looks like a formula and is no number."""
    if not isinstance(text, str) or not text.lstrip().startswith(FORMULA):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def _csv_text(cell: Cell) -> str:
    """Text of a cell for programs: numbers have the minus sign of ASCII, and what is missing is empty."""
    return cell.key if cell.key or cell.text == MISSING else re.sub(r"−(?=[0-9.])", "-", cell.text)


def _csv_measured(cell: Cell) -> list[str]:
    if cell.value is None:
        return ["", "", "0", "0"]
    deviation = "" if cell.spread is None else f"{100 * cell.spread:.6g}"
    return [f"{100 * cell.value:.6g}", deviation, str(cell.n), str(int(cell.best))]


def to_markdown(table: Table) -> str:
    """Render as a pipe table with caption and notes; the best is bold, values level with it are underlined."""

    def show(cell: Cell) -> str:
        text = cell.text.replace("\\", "\\\\")
        for sign in "|*_`<>[]#$":
            text = text.replace(sign, "\\" + sign)
        text = " ".join(text.split())
        text = f"**{text}**" if cell.best else f"<u>{text}</u>" if cell.level else text
        return text + (f" ({cell.mark})" if cell.mark else "")

    rule = [":--" if i in table.text_columns else "--:" for i in range(len(table.columns))]
    lines = [table.caption, "", _pipes(table.columns), _pipes(rule)]
    lines += [_pipes([show(cell) for cell in row]) for row in without_repeats(table)]
    if table.notes:
        lines += ["", *(f"{note}  " for note in table.notes)]
    return "\n".join(lines) + "\n"


def _pipes(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


def to_data(table: Table) -> dict[str, Any]:
    """Convert to the data that the typst template and the page read."""
    return {
        "stem": table.stem,
        "caption": table.caption,
        "columns": list(table.columns),
        "left": sorted(table.text_columns),
        "rows": [[_cell(cell) for cell in row] for row in without_repeats(table)],
        "notes": list(table.notes),
        "wide": table.wide,
        "small": table.small,
    }


def _cell(cell: Cell) -> dict[str, Any]:
    shown: dict[str, Any] = {"text": cell.text}
    if cell.best:
        shown["best"] = True
    if cell.level:
        shown["level"] = True
    if cell.mark:
        shown["mark"] = cell.mark
    if cell.cite:
        shown["cite"] = cell.cite
    if cell.value is not None:
        shown["value"] = cell.value
    return shown
