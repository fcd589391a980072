"""Build the report of a results folder: tables, figures, PDF. Needs records only, no methods or benchmarks."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path, PurePath

from benchmarks import paths, untrusted
from benchmarks.permissions import UMASK
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
DATA, WRITTEN = "source/report.json", "source/files.json"
"""In a report: the template's data, and the list of all files."""
TEMPLATE, LIBRARY = "source/report.typ", "source/references.bib"
ALWAYS = ("report.pdf", "report.md", "report.html", "cells.csv", "summary.csv", DATA, TEMPLATE, LIBRARY)
"""Files of every report; figures, tables and the list are the others."""
LITTER = (".DS_Store", "Thumbs.db", "desktop.ini")
"""Files that a system writes into each folder that its user looks at."""
TABLE_FORMATS = {"csv": to_csv, "md": to_markdown, "tex": to_latex}


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
    before-and-after table. An earlier report is replaced only once the new one is complete. Raises UserError if there
    is no record, or if `out` cannot be written or holds anything else.
    """
    results = Path(results)
    out = results / "report" if out is None else Path(out)
    place = Path(os.path.realpath(out))  # a link to a folder stays
    _check(place)
    number = len(cells) if cells is not None else sum(1 for _ in results.glob(CELL_FOLDERS))
    with studio(number) as drawing:
        records = load(results, cells, drawing.read if drawing else None)
        before = None if compare is None else study(load(Path(compare)))
        with _replacing(place) as folder:
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
    (folder / "source").mkdir()
    (folder / DATA).write_text(json.dumps(document.data, ensure_ascii=False, indent=1), encoding="utf-8")
    for name, shipped in ((TEMPLATE, "paper.typ"), (LIBRARY, "references.bib")):
        (folder / name).write_text(resources.files("reports").joinpath(shipped).read_text("utf-8"), encoding="utf-8")
    with ThreadPoolExecutor(1) as other:
        typeset = other.submit(compile_pdf, folder / TEMPLATE, folder / "report.pdf")
        (folder / "report.html").write_text(page(found, document.data, figures, folder), encoding="utf-8")
        typeset.result()
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    (folder / WRITTEN).write_text(json.dumps([*files, WRITTEN], indent=1), encoding="utf-8")


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
        for suffix, render in TABLE_FORMATS.items():
            (tables / f"{table.stem}.{suffix}").write_text(render(table), encoding="utf-8")
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
def _replacing(out: Path) -> Iterator[Path]:
    """Provide a temporary folder that replaces `out` at the end; an error leaves no trace."""
    with _said(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        try:
            yield scratch
            _check(out)
            old = scratch.with_name(scratch.name + "-old")
            if out.exists():
                os.replace(out, old)
            scratch.chmod(0o777 & ~UMASK)  # mkdtemp makes folders that only their owner can read
            os.replace(scratch, out)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _said(out: Path) -> Iterator[None]:
    """Turn an OSError into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"the report cannot be written to {out}: {error.strerror or error}") from error


def _check(out: Path) -> None:
    """Raise UserError if `out` has a name that typst cannot read, or if it holds anything but an earlier report."""
    elsewhere = "name an empty or a new folder with report.py --out"
    try:
        str(out).encode()
    except UnicodeEncodeError:
        raise UserError(f"the report cannot be written to {str(out)!a}: the name is no UTF-8; {elsewhere}") from None
    with _said(out):
        if not out.exists():
            return
        if not out.is_dir():
            raise UserError(f"{out} is a file; {elsewhere}")
        written = _written(out)
        for place, folders, files in os.walk(out, onerror=_raise):
            for path in (Path(place, name) for name in sorted([*folders, *files])):
                if path.relative_to(out).as_posix() not in written and path.name not in LITTER:
                    raise UserError(
                        f"{path} is no part of an earlier report and would be lost; move it, or {elsewhere}"
                    )


def _raise(error: OSError) -> None:
    raise error


def _written(folder: Path) -> set[str]:
    """Files and folders of the report in a folder, by its list; of an older version, by the stems in its data."""
    try:
        files = untrusted.parse(paths.read_text(folder / WRITTEN, paths.RECORD_BYTES))
    except FileNotFoundError:
        files = _older(folder)
    except (OSError, ValueError):
        files = []
    named = [PurePath(name) for name in files if isinstance(name, str)] if isinstance(files, list) else []
    return {path.as_posix() for name in named for path in (name, *name.parents)}


def _older(folder: Path) -> list[str]:
    """Files of a report without a list; none if there is no such report."""
    try:
        stems = re.findall(r'"stem": "([^"]+)"', paths.read_text(folder / DATA, paths.TABLE_BYTES))
    except (OSError, ValueError):
        return []
    kinds: tuple[tuple[str, Iterable[str]], ...] = (("figures", FORMATS), ("tables", TABLE_FORMATS))
    return [*ALWAYS, *(f"{place}/{stem}.{kind}" for place, formats in kinds for kind in formats for stem in stems)]


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
