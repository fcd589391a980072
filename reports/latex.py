"""Render a table in LaTeX (booktabs): a float, or a `longtable` where it fills more than a page; never scaled."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from reports.latex_layout import FONTS, GAP, LINE, THIN, Column, Layout, layout, measured, pieces, thin, width
from reports.tables import Cell, Table, without_repeats

PACKAGES = r"% \usepackage{array,booktabs,longtable}"
FLOAT_AT_MOST = 440.0
"""Largest height of a float in points, its caption and notes included; longer tables are a `longtable`."""
# In brackets: directly after a row's end, `[` would start an argument of it and `*` would belong to it.
SPECIAL = {
    "\\": r"\textbackslash{}",
    "[": "{[}",
    "*": "{*}",
    "{": r"\{",
    "}": r"\}",
    "_": r"\_",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": r"\`{}",
    THIN: r"\,",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "…": r"\dots{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "×": r"$\times$",
}


CODE = re.compile("`([^`]+)`")


def latex_text(text: str) -> str:
    """Escape a text for LaTeX; non-Latin characters need an engine that supports them (XeLaTeX, LuaLaTeX)."""
    return _escaped(" ".join(text.split()))


def _escaped(text: str) -> str:
    return "".join(SPECIAL.get(sign, sign) for sign in thin(text))


def _words(text: str) -> str:
    """Escape a caption or a note, in which backticks enclose code."""
    parts = CODE.split(" ".join(text.split()))
    return "".join(_code(part) if i % 2 else _escaped(part) for i, part in enumerate(parts))


def _code(text: str) -> str:
    broken = r"\allowbreak{}".join(map(_escaped, pieces(text)))
    return rf"\texttt{{{broken}}}"


def to_latex(table: Table) -> str:
    """Render as `table` or `longtable` with label `tab:<stem>`; needs array, booktabs and longtable."""
    parts = _parts(table)
    labels = [f"tab:{table.stem}" + (f"-{i + 1}" if i else "") for i in range(len(parts))]
    shown = [_part(part, label) for part, label in zip(parts, labels, strict=True)]
    return "\n".join([PACKAGES, *shown])


def _parts(table: Table) -> list[Table]:
    """Split by columns into tables that fit the line; the leading texts stand in each, the notes under the last."""
    keys = next((i for i in range(len(table.columns)) if i not in table.text_columns), 0)
    found = [[*range(keys), *some] for some in _shares(measured(table), keys)]
    if len(found) == 1:
        return [table]
    head = table.caption.split(":")[0].rstrip(".")
    parts = [_chosen(table, columns) for columns in found]
    return [
        replace(
            part,
            caption=f"{head}, continued ({i + 1} of {len(parts)})." if i else table.caption,
            notes=table.notes if i == len(parts) - 1 else (),
        )
        for i, part in enumerate(parts)
    ]


def _shares(columns: Sequence[Column], keys: int) -> list[list[int]]:
    """Columns of each part but the first `keys`: as few parts as possible, of even numbers where these fit."""

    def fit(some: Sequence[int]) -> bool:
        return len(some) == 1 or layout([*columns[:keys], *(columns[i] for i in some)]) is not None

    others, found = range(keys, len(columns)), [[]]
    for column in others:
        if not found[-1] or fit([*found[-1], column]):
            found[-1].append(column)
        else:
            found.append([column])
    even = [list(some) for some in np.array_split(others, len(found))]
    return even if all(map(fit, even)) else found


def _chosen(table: Table, columns: Sequence[int]) -> Table:
    return replace(
        table,
        columns=tuple(table.columns[i] for i in columns),
        rows=tuple(tuple(row[i] for i in columns) for row in table.rows),
        text_columns=frozenset(k for k, i in enumerate(columns) if i in table.text_columns),
        named_once=min(table.named_once, len(columns)),
    )


def _part(table: Table, label: str) -> str:
    # A table whose key and one column do not fit even so has the smallest font and all its paragraphs.
    found = layout(measured(table)) or Layout(FONTS[-1], tuple((name,) for name in table.columns), {})
    lines = list(_rows(table, found))
    return "\n".join((_float if _height(table, found) <= FLOAT_AT_MOST else _long)(table, found, label, lines)) + "\n"


def _float(table: Table, found: Layout, label: str, lines: list[str]) -> Iterator[str]:
    star = "*" if table.wide else ""
    yield rf"\begin{{table{star}}}[t]"
    yield rf"  \centering\setlength{{\tabcolsep}}{{{GAP:g}pt}}"
    yield rf"  \caption{{{_words(table.caption)}}}"
    yield rf"  \label{{{label}}}"
    yield rf"  {_font(found.font)}\begin{{tabular}}{{{_columns(table, found)}}}"
    yield from (r"    \toprule", _head(found, table), r"    \midrule", *lines, r"    \bottomrule", r"  \end{tabular}")
    if table.notes:
        yield rf"  \par\smallskip\raggedright{_font(8)}{' '.join(map(_words, table.notes))}\par"
    yield rf"\end{{table{star}}}"


def _long(table: Table, found: Layout, label: str, lines: list[str]) -> Iterator[str]:
    # A longtable needs a page of one column; a text in two columns goes on in two after it.
    yield r"\ifdim\columnwidth<\textwidth\onecolumn\let\aftertable\twocolumn\else\let\aftertable\relax\fi"
    yield rf"\begingroup\setlength{{\tabcolsep}}{{{GAP:g}pt}}\setlength{{\LTcapwidth}}{{\linewidth}}"
    yield rf"{_font(found.font)}\begin{{longtable}}{{{_columns(table, found)}}}"
    yield rf"  \caption{{{_words(table.caption)}}}\label{{{label}}}\\"
    head = (r"    \toprule", _head(found, table), r"    \midrule")
    again = rf"  \multicolumn{{{len(table.columns)}}}{{@{{}}l}}{{\tablename~\thetable, continued}}\\"
    yield from (*head, r"  \endfirsthead", again, *head, r"  \endhead", r"    \bottomrule", r"  \endfoot")
    yield from (*lines, r"\end{longtable}")
    if table.notes:
        yield rf"\noindent{_font(8)}{' '.join(map(_words, table.notes))}\par"
    yield r"\endgroup\aftertable"


def _font(size: int) -> str:
    """Command of a font size; those of a class depend on its options."""
    return rf"\fontsize{{{size}}}{{{1.2 * size:g}}}\selectfont "


def _columns(table: Table, found: Layout) -> str:
    """Column specification."""
    paragraph = r">{{\raggedright\arraybackslash\hspace{{0pt}}}}p{{{:.4f}\linewidth}}"
    kinds = (
        paragraph.format(found.paragraphs[i]) if i in found.paragraphs else "l" if i in table.text_columns else "r"
        for i in range(len(table.columns))
    )
    return f"@{{}}{''.join(kinds)}@{{}}"


def _head(found: Layout, table: Table) -> str:
    return (
        "    " + " & ".join(_heading(lines, i in table.text_columns) for i, lines in enumerate(found.headings)) + r" \\"
    )


def _heading(lines: Sequence[str], left: bool) -> str:
    texts = list(map(latex_text, lines))
    if len(texts) == 1:
        return texts[0]
    # `\\` without a space before it ends a line of a heading, not a row.
    return rf"\begin{{tabular}}[b]{{@{{}}{'l' if left else 'r'}@{{}}}}" + r"\\".join(texts) + r"\end{tabular}"


def _rows(table: Table, found: Layout) -> Iterator[str]:
    for row in without_repeats(table):
        yield "    " + " & ".join(_shown(cell, i in found.paragraphs) for i, cell in enumerate(row)) + r" \\"


def _shown(cell: Cell, paragraph: bool) -> str:
    text = latex_text(cell.text)
    if paragraph:
        words = (r"\allowbreak{}".join(map(latex_text, pieces(word))) for word in cell.text.split())
        text = " ".join(words)
    text = rf"\textbf{{{text}}}" if cell.best else rf"\underline{{{text}}}" if cell.level else text
    return text + (rf"\textsuperscript{{{cell.mark}}}" if cell.mark else "")


def _height(table: Table, found: Layout) -> float:
    """Estimate of the height in points, not below the true one."""

    def lines(row: Sequence[Cell]) -> int:
        # 1.3: ragged lines are not full.
        sizes = (1.3 * width(row[i].text, found.font) / (share * LINE) for i, share in found.paragraphs.items())
        return max([1, *(int(size) + 1 for size in sizes)])

    caption = 12 * (1 + width(table.caption, 9) * 1.15 / LINE)
    notes = sum(9.6 * (1 + width(note, 8) / LINE) for note in table.notes)
    heads = max(map(len, found.headings))
    return caption + notes + 1.2 * found.font * (heads + sum(map(lines, without_repeats(table)))) + 30
