"""Build the report of a results folder: tables, figures, PDF. Needs records only, no methods or benchmarks."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from benchmarks.types import UserError
from reports.figure_files import FORMATS, Studio, save_figures, studio
from reports.headline import headline_markdown
from reports.latex import to_latex
from reports.load import CELL_FOLDERS, load
from reports.page import page
from reports.paper import Paper, contents, paper
from reports.record import Problem, Records
from reports.render import no_formula, to_csv, to_markdown
from reports.study import Study, study
from reports.summary import summary
from reports.variants import compared

REFERENCE = re.compile(r"@\[(?:tab|fig|cite):([^]]+)\]")


@dataclass(frozen=True)
class Report:
    """Paths of the report's files."""

    folder: Path
    pdf: Path
    html: Path
    markdown: Path
    cells: Path
    """cells.csv: one line per cell with every metric and the folder of its record."""
    summary: Path
    """summary.csv: every mean with spread, confidence interval and n."""
    csv: tuple[Path, ...]
    latex: tuple[Path, ...]
    figures: tuple[Path, ...]
    problems: tuple[Problem, ...] = field(default=())
    """Folders that could not be read."""


def build_report(
    results: Path, out: Path | None = None, *, cells: Sequence[Path] | None = None, compare: Path | None = None
) -> Report:
    """Write the report of all records below `results`, or of the folders `cells` only, into `out`.

    Default `out`: results/report. compare: another results folder, from before a change; the report then adds a
    before-and-after table. The old report is replaced only once the new one is complete. Raises UserError if there is
    no record, or if `out` cannot be written.
    """
    results = Path(results)
    out = results / "report" if out is None else Path(out)
    number = len(cells) if cells is not None else sum(1 for _ in results.glob(CELL_FOLDERS))
    with studio(number) as drawing:
        records = load(results, cells, drawing.read if drawing else None)
        before = None if compare is None else study(load(Path(compare)))
        with _replacing(out) as folder:
            _write(study(records), folder, before, drawing)
    return _report(out, records)


def _write(found: Study, folder: Path, before: Study | None, drawing: Studio | None) -> None:
    drawn = save_figures(found, folder / "figures", drawing)
    found.frame.map(no_formula).to_csv(folder / "cells.csv", index=False)
    summary(found).map(no_formula).to_csv(folder / "summary.csv", index=False, float_format="%.6g")
    content = contents(found, before)
    figures = drawn()
    document = paper(content, figures)
    _write_tables(document, folder)
    source = folder / "source"
    source.mkdir()
    (source / "report.json").write_text(json.dumps(document.data, ensure_ascii=False, indent=1), encoding="utf-8")
    template = resources.files("reports").joinpath("paper.typ").read_text(encoding="utf-8")
    (source / "report.typ").write_text(template, encoding="utf-8")
    library = resources.files("reports").joinpath("references.bib").read_text(encoding="utf-8")
    (source / "references.bib").write_text(library, encoding="utf-8")
    with ThreadPoolExecutor(1) as other:
        typeset = other.submit(compile_pdf, source / "report.typ", folder / "report.pdf")
        (folder / "report.html").write_text(page(found, document.data, figures, folder), encoding="utf-8")
        typeset.result()


def headline(results: Path) -> str:
    """Headline table of the records below a folder, in Markdown."""
    return headline_markdown(compared(study(load(Path(results)))))


def compile_pdf(template: Path, pdf: Path) -> None:
    """Typeset `template`, which reads report.json from its own folder and figures from ../figures."""
    import typst

    typst.compile(str(template), output=str(pdf), root=str(template.parent.parent))


def _write_tables(document: Paper, folder: Path) -> None:
    tables = folder / "tables"
    tables.mkdir()
    for table in document.tables:
        for suffix, text in (("csv", to_csv(table)), ("md", to_markdown(table)), ("tex", to_latex(table))):
            (tables / f"{table.stem}.{suffix}").write_text(text, encoding="utf-8")
    (folder / "report.md").write_text(_markdown(document), encoding="utf-8")


def _markdown(document: Paper) -> str:
    parts = [f"# {document.data['title']}", document.data["subtitle"], " ".join(document.data["abstract"])]
    by_stem = {table.stem: table for table in document.tables}
    written: set[str] = set()
    for block in (*document.data["body"], *document.data["appendix"]):
        if block["kind"] == "heading":
            parts.append(f"{'#' * (block['level'] + 1)} {block['text']}")
        elif block["kind"] == "paragraph":
            parts.append(REFERENCE.sub(r"\1", block["text"]))
        elif block["kind"] == "formula":
            parts.append(f"- **{block['name']}** {block['title']}: `{block['formula']}` ({block['source']})")
        elif block["kind"] == "code":
            parts.append(f"    {block['text']}\n\n{block['note']}")
        elif block["kind"] == "figure":
            stem = Path(block["path"]).stem
            parts.append(f"![{block['caption']}](figures/{stem}.png)\n\n{block['caption']}")
        elif block["stem"] not in written:
            written.add(block["stem"])
            parts.append(to_markdown(by_stem[block["stem"]]).rstrip())
    return "\n\n".join(parts) + "\n"


@contextmanager
def _replacing(out: Path):
    """Provide a temporary folder that replaces `out` at the end; an error leaves no trace."""
    if out.exists() and not _earlier_report(out):
        raise UserError(f"{out} holds other files than an earlier report; name an empty or a new folder")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise UserError(f"the report cannot be written to {out}: {error.strerror}") from error
    try:
        yield scratch
        old = scratch.with_name(scratch.name + "-old")
        if out.exists():
            os.replace(out, old)
        # mkdtemp makes folders that only their owner can read.
        scratch.chmod(0o755)
        os.replace(scratch, out)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise UserError(f"the report cannot be written to {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _earlier_report(out: Path) -> bool:
    """Check whether `out` may be replaced: an empty folder, or one with a report's files only."""
    own = {"report.pdf", "report.md", "report.html", "cells.csv", "summary.csv", "tables", "figures", "source"}
    return out.is_dir() and all(path.name in own for path in out.iterdir())


def _report(out: Path, records: Records) -> Report:
    def every(pattern: str) -> tuple[Path, ...]:
        return tuple(sorted(out.glob(pattern)))

    return Report(
        folder=out,
        pdf=out / "report.pdf",
        html=out / "report.html",
        markdown=out / "report.md",
        cells=out / "cells.csv",
        summary=out / "summary.csv",
        csv=every("tables/*.csv"),
        latex=every("tables/*.tex"),
        figures=_flat(every(f"figures/*.{kind}") for kind in FORMATS),
        problems=records.problems,
    )


def _flat(parts: Iterable[tuple[Path, ...]]) -> tuple[Path, ...]:
    return tuple(path for part in parts for path in part)
