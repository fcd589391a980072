"""Render a table as CSV, Markdown, LaTeX (booktabs) and as data for the typst template."""

from __future__ import annotations

import csv
import io
from typing import Any

from reports.tables import Cell, Table, longest, split, without_repeats

LATEX_ROWS_AT_MOST, LATEX_PARAGRAPH_ROWS_AT_MOST = 40, 10
LATEX_CHARACTERS_IN_A_LINE, LATEX_CHARACTERS_IN_A_CELL = 95, 34
# In brackets: directly after a row's end, `[` would start an argument of it and `*` would belong to it.
FORMULA = ("=", "+", "-", "@", "\t", "\r")
LATEX_SPECIAL = {
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
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "…": r"\dots{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "×": r"$\times$",
}


def to_csv(table: Table) -> str:
    """Render as CSV with full precision, in percent: a measured column becomes value, std, n and best (1 or 0)."""
    measured = {i for row in table.rows for i, cell in enumerate(row) if cell.value is not None}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    header: list[str] = []
    for i, name in enumerate(table.columns):
        name = name.rstrip(" ↑↓")
        name = no_formula(name)
        header += [name, f"{name} std", f"{name} n", f"{name} best"] if i in measured else [name]
    writer.writerow(header)
    for row in table.rows:
        line: list[str] = []
        for i, cell in enumerate(row):
            line += _csv_measured(cell) if i in measured else [no_formula(cell.key or cell.text)]
        writer.writerow(line)
    return out.getvalue()


def no_formula(text: Any) -> Any:
    """Protect a text from spreadsheets: an apostrophe precedes what looks like a formula and is no number."""
    if not isinstance(text, str) or not text.lstrip().startswith(FORMULA):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


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


def latex_text(text: str) -> str:
    """Escape a text for LaTeX; non-Latin characters need an engine that supports them (XeLaTeX, LuaLaTeX)."""
    return "".join(LATEX_SPECIAL.get(sign, sign) for sign in " ".join(text.split()))


def to_latex(table: Table) -> str:
    """Render as a `table` environment with booktabs rules and label `tab:<stem>`; needs array, booktabs and graphicx.

    A table wider than the line is scaled down, one longer than a page is split, and long texts are paragraphs.
    """
    parts = split(table, LATEX_PARAGRAPH_ROWS_AT_MOST if _long_columns(table) else LATEX_ROWS_AT_MOST)
    labels = [f"tab:{table.stem}" + (f"-{i + 1}" if i else "") for i in range(len(parts))]
    return "% \\usepackage{array,booktabs,graphicx}\n" + "\n".join(
        _latex_part(part, label) for part, label in zip(parts, labels, strict=True)
    )


def _latex_part(table: Table, label: str) -> str:
    def show(cell: Cell) -> str:
        text = latex_text(cell.text)
        text = rf"\textbf{{{text}}}" if cell.best else rf"\underline{{{text}}}" if cell.level else text
        return text + (rf"\textsuperscript{{{cell.mark}}}" if cell.mark else "")

    star = "*" if table.wide else ""
    lines = [
        rf"\begin{{table{star}}}[t]",
        r"  \centering\small",
        rf"  \caption{{{latex_text(table.caption)}}}",
        rf"  \label{{{label}}}",
        r"  \resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"  \begin{{tabular}}{{{_latex_columns(table)}}}",
        r"    \toprule",
        "    " + " & ".join(map(latex_text, table.columns)) + r" \\",
        r"    \midrule",
        *("    " + " & ".join(map(show, row)) + r" \\" for row in without_repeats(table)),
        r"    \bottomrule",
        r"  \end{tabular}}",
    ]
    if table.notes:
        lines.append(rf"  \par\footnotesize {' '.join(map(latex_text, table.notes))}")
    return "\n".join([*lines, rf"\end{{table{star}}}"]) + "\n"


def _long_columns(table: Table) -> set[int]:
    return {i for i in table.text_columns if longest(table, i) > LATEX_CHARACTERS_IN_A_CELL}


def _latex_columns(table: Table) -> str:
    """Column specification; texts too long for a line share the remaining width in proportion to their length."""
    lengths = [longest(table, i) for i in range(len(table.columns))]
    long = _long_columns(table)
    free = max(0.6, 0.95 - sum(n + 2 for i, n in enumerate(lengths) if i not in long) / LATEX_CHARACTERS_IN_A_LINE)
    shares = {i: min(lengths[i], 120) for i in long}
    return "".join(
        rf">{{\raggedright\arraybackslash}}p{{{free * shares[i] / sum(shares.values()):.2f}\linewidth}}"
        if i in long
        else "l"
        if i in table.text_columns
        else "r"
        for i in range(len(lengths))
    )


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
