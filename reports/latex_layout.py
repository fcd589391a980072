"""Layout of a table in LaTeX, from upper estimates of widths in Computer Modern: fonts, broken headings, paragraphs.

It fits the narrowest usual page in fonts of at least 7 pt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from reports.tables import Table

LINE = 345.0
"""Width of the text in points: one-column `article` at 10 pt; two columns together are wider."""
GAP = 2.5
"""Space on both sides of a column in points; there is none at the ends of a line."""
FONTS = (9, 8, 7)
"""Font sizes in points."""
RELATIVE = {9: 1.03, 8: 1.07, 7: 1.15}
"""Width of Computer Modern at a size, relative to a scaled font of 10 pt."""
BOLD = 1.16
PARAGRAPH_AT_LEAST = 62.0
"""Least width of a column of paragraphs in points, where its text is longer."""
PIECE = 12
"""Longest run of characters without a chance to break, in a paragraph."""

THIN = "\N{THIN SPACE}"
WIDTHS = {
    0.17: THIN,
    0.29: "!',.:;<[]_`il",
    0.34: " ",
    0.40: "fj-I()rst",
    0.48: "cez>?",
    0.51: '"$*/0123456789\\^ago{}~J–',
    0.57: "kqvxySbdhnpu",
    0.70: "ZLFEPB",
    0.79: "CTwRAHNUVXYD&+=@GKOQ±−×",
}
"""Widths of characters in em, rounded up; all others take `WIDEST`."""
WIDEST = 1.04
EM = {sign: width for width, signs in WIDTHS.items() for sign in signs}


@dataclass(frozen=True)
class Layout:
    """Font and columns of a part of a table that fits the line."""

    font: int
    headings: tuple[tuple[str, ...], ...]
    """Lines of each heading."""
    paragraphs: dict[int, float]
    """Columns of paragraphs with their share of the line."""


def thin(text: str) -> str:
    return text.replace(" ± ", f"{THIN}±{THIN}")


def width(text: str, font: int, bold: bool = False) -> float:
    """Estimate of a text's width in points, not below the width in Computer Modern."""
    return _em(text) * font * RELATIVE[font] * (BOLD if bold else 1)


def _em(text: str) -> float:
    return sum(EM.get(sign, WIDEST) for sign in thin(text))


@dataclass(frozen=True)
class Column:
    """Sizes of a column in em of a regular font, without its heading; they are measured once for all layouts."""

    heading: str
    text: bool
    body: float
    piece: float
    """The widest part without a chance to break."""


def measured(table: Table) -> list[Column]:
    return [_column(table, i) for i in range(len(table.columns))]


def _column(table: Table, index: int) -> Column:
    cells = [row[index] for row in table.rows]
    mark = max([0.0, *(_em(cell.mark) for cell in cells)])
    texts = {(cell.text, cell.best) for cell in cells}
    parts = {(piece, best) for text, best in texts for word in text.split() for piece in pieces(word)}
    body, piece = (max([0.0, *(_em(text) * (BOLD if bold else 1) for text, bold in some)]) for some in (texts, parts))
    return Column(table.columns[index], index in table.text_columns, body + mark, piece + mark)


def layout(columns: Sequence[Column]) -> Layout | None:
    """Layout of the largest font that fits the line, None if there is none."""
    kinds = ((9, False, False), (8, False, False), (8, True, False), (7, True, False), (8, True, True), (7, True, True))
    return next((found for kind in kinds if (found := _layout(columns, *kind))), None)


def _layout(columns: Sequence[Column], font: int, broken: bool, paragraphs: bool) -> Layout | None:
    em = font * RELATIVE[font]
    headings = [
        _broken(one.heading, max(one.body * em, PARAGRAPH_AT_LEAST if one.text else 0), font)
        if broken
        else (one.heading,)
        for one in columns
    ]
    heads = [max(width(line, font) for line in lines) for lines in headings]
    natural = [max(one.body * em, head) for one, head in zip(columns, heads, strict=True)]
    room = LINE - 2 * GAP * (len(columns) - 1)
    if sum(natural) <= room:
        return Layout(font, tuple(headings), {})
    least = {
        i: max(heads[i], one.piece * em, PARAGRAPH_AT_LEAST)
        for i, one in enumerate(columns)
        if paragraphs and one.text and natural[i] > PARAGRAPH_AT_LEAST
    }
    spare = room - sum(size for i, size in enumerate(natural) if i not in least) - sum(least.values())
    if spare < 0 or not least:
        return None
    # What is left goes to the long texts; the square root keeps the longest from taking all of it.
    wants = {i: max(0.0, natural[i] - size) ** 0.5 for i, size in least.items()}
    total = sum(wants.values()) or 1.0
    return Layout(font, tuple(headings), {i: (least[i] + spare * wants[i] / total) / LINE for i in least})


def _broken(heading: str, limit: float, font: int) -> tuple[str, ...]:
    """Lines of a heading that is wider than its column."""
    words = heading.split()
    limit = max([limit, *(width(word, font) for word in words)])
    lines: list[str] = []
    for word in words:
        if lines and width(f"{lines[-1]} {word}", font) <= limit:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return tuple(lines or [""])


def pieces(word: str) -> list[str]:
    """Parts of a word between which a line may end."""
    parts = re.findall(r"[^/_=,:+@-]*[/_=,:+@-]+|[^/_=,:+@-]+", word)
    return [part[i : i + PIECE] for part in parts for i in range(0, len(part), PIECE)]
