"""Tables in LaTeX: nothing is scaled or overruns the line; checked by estimates, and by TeX where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from reports.build import Report, build_report
from reports.latex import to_latex
from reports.latex_layout import FONTS, GAP, LINE, layout, measured, width
from reports.load import load
from reports.paper import contents, paper
from reports.render import to_markdown
from reports.study import study
from reports.tables import Cell, Table, main_tables
from tests.reports.synthetic import Synthetic

WEIRD = "a_b & 50% | é {x} #1 $\\alpha$ <b> ~^"
LATEX = shutil.which("pdflatex")
needs_latex = pytest.mark.skipif(LATEX is None, reason="no TeX here (Debian: apt install texlive-latex-recommended)")
both_classes = pytest.mark.parametrize("options", ["", "twocolumn"])


def numbers(columns: int, rows: int = 3, text: str = "100.0 ± 10.0", **more) -> Table:
    cells = tuple((Cell("hyperinterval"), *(Cell(text) for _ in range(columns))) for _ in range(rows))
    return Table("wide", "Caption: words", ("method", *(f"c{i}" for i in range(columns))), cells, **more)


def test_latex_has_balanced_braces_and_booktabs_rules(several_results: Path) -> None:
    for one in main_tables(study(load(several_results))):
        latex = to_latex(one)
        plain = re.sub(r"\\[{}]", "", latex)
        parts = latex.count(r"\begin{table*}")
        assert plain.count("{") == plain.count("}")
        assert [latex.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [parts] * 3
        assert latex.count(" \\\\\n") == parts * (len(one.rows) + 1)
        assert latex.isascii()


def test_no_table_is_scaled_or_below_seven_points(several_report: Report) -> None:
    for path in several_report.latex:
        latex = path.read_text(encoding="utf-8")
        assert "resizebox" not in latex and "scalebox" not in latex
        assert min(map(int, re.findall(r"\\fontsize\{(\d+)\}", latex))) >= min(FONTS) == 7


def test_columns_that_do_not_fit_go_to_further_parts_with_the_names_of_the_rows() -> None:
    latex = to_latex(numbers(14, notes=("(a) a note",)))
    parts = latex.split(r"\begin{table*}")[1:]
    assert len(parts) > 1
    assert all(part.count("hyperinterval") == 3 for part in parts)
    assert [int(name) for name in re.findall(r"c(\d+)", latex)] == list(range(14))
    assert [("a note" in part) for part in parts] == [False] * (len(parts) - 1) + [True]
    assert [f"tab:wide{end}" for end in ("", "-2")] == re.findall(r"\\label\{(.*?)\}", latex)[:2]


def test_the_columns_of_a_layout_fit_the_line() -> None:
    for columns in range(1, 12):
        table = numbers(columns)
        if found := layout(measured(table)):
            total = sum(width(cell.text, found.font) for cell in table.rows[0]) + 2 * GAP * columns
            assert total <= LINE


def test_a_long_heading_breaks_and_a_long_text_becomes_a_paragraph() -> None:
    headed = Table("t", "C", ("method", "Permuted MNIST-10 (5000 steps, mlp-100-100)"), ((Cell("a"), Cell("1")),))
    found = layout(measured(headed))
    assert found and found.font == 9  # it fits as it is
    wide = numbers(4)
    crowded = Table("t", "C", ("m", *[headed.columns[1]] * 4), wide.rows)
    found = layout(measured(crowded))
    assert found and len(found.headings[1]) > 1 and " ".join(found.headings[1]) == headed.columns[1]
    text = Table(
        "t", "C", ("method", "settings"), ((Cell("a"), Cell("lr=0.001, " * 40)),), text_columns=frozenset({0, 1})
    )
    found = layout(measured(text))
    assert found and set(found.paragraphs) == {1} and found.paragraphs[1] < 1


def test_a_word_longer_than_its_paragraph_may_break() -> None:
    word = "0123456789abcdef" * 4
    rows = ((Cell("source"), Cell(f"{word} " + "x " * 200)),)
    latex = to_latex(Table("t", "C", ("property", "value"), rows, text_columns=frozenset({0, 1})))
    assert word not in latex and word in latex.replace(r"\allowbreak{}", "")


@pytest.mark.parametrize("rows", [1, 100])
def test_code_in_captions_and_notes_has_a_typewriter_font(rows: int) -> None:
    words = "Bounds of `propagate_to` & `a`, not 5`"
    table = Table("t", words, ("m",), ((Cell("`v` x"),),) * rows, notes=(words,), text_columns=frozenset({0}))
    shown = r"Bounds of \texttt{propagate\_\allowbreak{}to} \& \texttt{a}, not 5"
    assert to_latex(table).count(shown) == 2 and "`" not in to_latex(table).replace(r"\`{}", "")
    assert r", not 5\`{}" in to_latex(table)
    assert r"\`{}v\`{} x" in to_latex(table), "a cell holds no code"
    assert to_markdown(table).count("`propagate_to`") == 2


def test_a_table_longer_than_a_page_is_one_longtable_with_its_heading_on_every_page() -> None:
    long = numbers(1, rows=100)
    latex = to_latex(long)
    assert latex.count(r"\begin{longtable}") == 1 and r"\begin{table" not in latex
    assert latex.count("hyperinterval") == 100
    head = latex[: latex.index(r"\endhead")]
    assert head.count("method & c0") == 2 and r"\endfirsthead" in head
    assert latex.count(r"\label{tab:wide}") == 1
    assert r"\begin{table*}" in to_latex(numbers(1, rows=20))


@needs_latex
@both_classes
def test_every_table_compiles_in_a_plain_article(several_report: Report, tmp_path: Path, options: str) -> None:
    weird = Synthetic(label=WEIRD, reason="a_b", config={"p_q": "C:\\x^2 {~}", "path": "a/b_c" * 40})
    weird.write(tmp_path / "r")
    made = [numbers(14), numbers(3, rows=100, notes=("(a) " + "words " * 300,)), numbers(1, rows=20)]
    for i, table in enumerate(made):
        (tmp_path / f"made-{i}.tex").write_text(to_latex(table), encoding="utf-8")
    tables = [*several_report.latex, *build_report(tmp_path / "r").latex, *tmp_path.glob("made-*.tex")]
    typeset(tables, tmp_path, options)


@needs_latex
@pytest.mark.slow
@both_classes
def test_every_table_of_the_reference_report_compiles(tmp_path: Path, options: str) -> None:
    from runners.records import reference_records

    results = tmp_path / "results"
    results.mkdir()
    reference_records.unpack(results)
    tables = []
    for table in paper(contents(study(load(results))), []).tables:
        tables.append(tmp_path / f"{table.stem}.tex")
        tables[-1].write_text(to_latex(table), encoding="utf-8")
    typeset(tables, tmp_path, options)


def typeset(tables: Sequence[Path], folder: Path, options: str) -> None:
    """Fail if pdflatex reports an error, or a table that overruns the line or the page."""
    lines = [rf"\documentclass[{options}]{{article}}", r"\usepackage{array,booktabs,longtable}", r"\begin{document}"]
    lines += [rf"\message{{FILE {path.stem}}}\input{{{path.with_suffix('')}}}\clearpage" for path in tables]
    (folder / "all.tex").write_text("\n".join([*lines, r"\end{document}"]), encoding="utf-8")
    command = [str(LATEX), "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    for _ in range(2):  # a longtable has its final widths in the second run
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
        assert done.returncode == 0, done.stdout[-2000:]
    for complaint in ("too large for page", r"Overfull \hbox", r"Overfull \vbox"):
        assert complaint not in done.stdout, done.stdout[done.stdout.index(complaint) - 500 :][:1000]
