"""Blocks of the report for the typst template: headings, paragraphs, tables and figures in order."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from reports.glossary import glossed
from reports.render import to_data
from reports.tables import Table, longest, split

CHARACTERS_IN_A_LINE = 118
"""Characters across the whole page; the text columns of a table with longer rows are wrapped."""
HEADING_AT_LEAST = 11
"""Least number of characters of a line of a heading."""
HALF = 0.46
"""Share of the page's width up to which two tables stand side by side."""
ROWS_TOGETHER = 6
"""Largest number of lines (wrapped ones counted) of an appendix table that must not break across pages."""


class Blocks:
    """Ordered collection of the template's blocks."""

    def __init__(self, single: bool = False) -> None:
        self.single = single
        self.items: list[dict[str, Any]] = []
        self.tables: list[Table] = []

    def heading(self, text: str, level: int = 1, *, gallery: bool = False) -> None:
        """Add a heading. gallery: it stands above the figures at the end, which the template arranges."""
        self.items.append({"kind": "heading", "text": text, "level": level, "gallery": gallery})

    def paragraph(self, text: str) -> None:
        self.items.append({"kind": "paragraph", "text": text})

    def table(self, table: Table) -> None:
        table = glossed(table)
        self.tables.append(table)
        for i, part in enumerate([table] if self.single else split(table)):
            crowded = _width(part, part.columns) > CHARACTERS_IN_A_LINE
            headings = _broken(part) if crowded else part.columns
            still = crowded and _width(part, headings) > CHARACTERS_IN_A_LINE
            flexible = {i for i in part.text_columns if still and longest(part, i) > 26}
            widths = [round(longest(part, i) ** 0.5, 1) if i in flexible else 0 for i in range(len(part.columns))]
            label = f"tab:{table.stem}" + (f":{i + 1}" if i else "")
            long = self.single and _lines(part, widths) > ROWS_TOGETHER
            half = self.single and not any(widths) and _width(part, headings) <= CHARACTERS_IN_A_LINE * HALF
            placed = {"label": label, "widths": widths, "long": long, "half": half, "headings": list(headings)}
            self.items.append({"kind": "table", **to_data(part), **placed})

    def figures(self, figures: Any) -> None:
        self.items += [{"kind": "figure", "label": f"fig:{figure['stem']}", **figure} for figure in figures]


def _broken(table: Table) -> tuple[str, ...]:
    """Headings in lines as short as their columns allow."""
    return tuple(
        "\n".join(textwrap.wrap(name, max(HEADING_AT_LEAST, _body(table, i)), break_long_words=False)) or name
        for i, name in enumerate(table.columns)
    )


def _body(table: Table, column: int) -> int:
    """Length of the longest text in a column, without its heading."""
    return max((len(row[column].text) for row in table.rows), default=0)


def _width(table: Table, headings: Sequence[str]) -> int:
    """Width of the widest row in characters, with gaps between columns."""
    heads = [max(map(len, name.split("\n"))) for name in headings]
    return sum(max(head, _body(table, i)) + 2 for i, head in enumerate(heads))


def _lines(table: Table, widths: Sequence[float]) -> int:
    """Estimate the lines of the table's rows; columns with a width wrap and share the remaining space."""
    fixed = sum(longest(table, i) + 2 for i, width in enumerate(widths) if not width)
    room = max(1, CHARACTERS_IN_A_LINE - fixed)
    shares = [room * width / sum(widths) if width else CHARACTERS_IN_A_LINE for width in widths]
    return sum(
        max(-(-len(cell.text) // max(1, int(n))) for cell, n in zip(row, shares, strict=True)) or 1
        for row in table.rows
    )
