"""The whole report: files, the text in the PDF, and results that are hard to show."""

from __future__ import annotations

import csv
import itertools
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pypdf import PdfReader

from benchmarks.types import UserError
from reports import blocks, build, paper
from reports.build import Report, build_report
from reports.findings import findings
from reports.load import load
from reports.provenance import environment
from reports.setting import setting_table
from reports.study import study
from reports.tables import Cell, Table, percent
from tests.reports.synthetic import Synthetic, quick

WEIRD = "a_b & 50% $x$ #1 [y] *z* @w `v` <u> 方法 метод"


def text_of(pdf: Path) -> str:
    """All text, with any white space as one blank."""
    return " ".join(" ".join(page.extract_text() for page in PdfReader(pdf).pages).split())


@dataclass(frozen=True)
class Committed(Synthetic):
    """Of this commit."""

    commit: str = ""

    def cell(self) -> dict[str, Any]:
        found = super().cell()
        return {**found, "environment": {**found["environment"], "commit": self.commit}}


@pytest.fixture(scope="module")
def several_text(several_report: Report) -> str:
    return text_of(several_report.pdf)


def test_all_files_are_there(quick_report: Report) -> None:
    for path in (quick_report.pdf, quick_report.markdown, quick_report.cells, *quick_report.figures):
        assert path.stat().st_size > 200, path
    assert {path.suffix for path in quick_report.figures} == {".svg", ".pdf", ".png"}
    assert len(quick_report.csv) == len(quick_report.latex) >= 3
    stems = {path.stem for path in quick_report.figures}
    assert {"accuracy", "bwt", "per-task", "forgetting", "heat-split-digits", "certified"} <= stems


def test_numbers_in_the_pdf_are_those_of_the_csv(several_report: Report, several_text: str) -> None:
    checked = 0
    for scenario in ("til", "dil", "cil"):
        path = several_report.folder / "tables" / f"table-split-mnist-{scenario}.csv"
        with path.open(newline="") as file:
            for line in csv.DictReader(file):
                if line["ACC"]:
                    shown = f"{percent(float(line['ACC']) / 100)} ± {percent(float(line['ACC std']) / 100)}"
                    assert shown in several_text, (line["method"], shown)
                    checked += 1
    assert checked == 17


def test_single_values_of_thousands_of_cells_are_left_to_cells_csv(
    quick_results: Path, quick_report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the limit below the number of cells: no table of seeds, a sentence that says where the values are."""
    for module in ("contents", "appendix"):
        monkeypatch.setattr(f"reports.{module}.CELLS_PRINTED_AT_MOST", 1)
    found = paper.paper(paper.contents(study(load(quick_results))), [])
    stems = {path.stem for path in quick_report.csv}
    left_out = {stem for stem in stems if stem.startswith("seeds-")}
    assert left_out and {table.stem for table in found.tables} == stems - left_out
    texts = [block["text"] for block in found.data["appendix"] if block["kind"] == "paragraph"]
    assert any("cells would fill many pages: cells.csv has one line per cell" in text for text in texts)


def test_the_pdf_says_what_was_done_and_what_failed(several_text: str) -> None:
    for expected in (
        "python runners/compare.py --suite quick",
        "the loss of task 3 is nan at step 50",
        "the machine said no",
        "hypermask is not defined in dil",
        "mlp-400-400",
        "300 steps, batch 32",
        "lr = 0.001",
        "2.12.0",
        "the region has drifted",
        "Friedman p",
    ):
        assert expected in several_text, expected


def test_the_markdown_holds_every_table_and_picture(several_report: Report) -> None:
    text = several_report.markdown.read_text(encoding="utf-8")
    for name in re.findall(r"\]\((figures/[^)]+)\)", text):
        assert (several_report.folder / name).is_file()
    assert text.count("![") == len([path for path in several_report.figures if path.suffix == ".png"])
    assert "@[" not in text


def test_a_second_report_replaces_the_first(tmp_path: Path) -> None:
    results = quick(tmp_path / "results", seeds=1)
    first = build_report(results)
    assert first.folder == results / "report"
    Synthetic("ewc-again").write(results)
    second = build_report(results)
    assert "ewc-again" in second.cells.read_text() and second.problems == ()
    assert [path.name for path in results.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    "name", ["figures/my_drawing.svg", "tables/my_table.tex", "chapter1.tex", "source/a/b", "tables/"]
)
def test_a_folder_with_other_files_is_not_replaced(quick_results: Path, tmp_path: Path, name: str) -> None:
    for folder in ("figures", "tables", "source/a"):
        (tmp_path / "thesis" / folder).mkdir(parents=True)
    mine = tmp_path / "thesis" / name
    if not name.endswith("/"):
        mine.write_text("years of work")
    with pytest.raises(UserError, match=r"thesis/.* is no part of an earlier report and would be lost"):
        build_report(quick_results, tmp_path / "thesis")
    assert mine.exists() and [path.name for path in tmp_path.iterdir()] == ["thesis"]


@pytest.mark.parametrize("listed", [True, False], ids=["", "of a version without a list"])
@pytest.mark.parametrize("kind", ["quick", "several"])
def test_only_its_own_files_may_be_in_an_earlier_report(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, listed: bool
) -> None:
    report: Report = request.getfixturevalue(f"{kind}_report")
    folder = Path(shutil.copytree(report.folder, tmp_path / "report"))
    if not listed:
        (folder / build.WRITTEN).unlink()
    for litter in (".DS_Store", "figures/Thumbs.db"):
        (folder / litter).write_text("of the system")
    build._check(folder)
    for mine in ("figures/my_drawing.svg", "tables/my_table.tex", "notes.md", "source/report.pdf", "figures/link"):
        (folder / mine).symlink_to(tmp_path)
        with pytest.raises(UserError, match=f"report/{mine} is no part of an earlier report"):
            build._check(folder)
        (folder / mine).unlink()


@pytest.mark.parametrize("text", ["", "1", "{}", "[[1]]", '["figures", "/"]', "\udcff"])
def test_a_damaged_list_names_no_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / build.WRITTEN).write_text(text, errors="surrogateescape")
    with pytest.raises(UserError, match="source is no part of an earlier report"):
        build._check(tmp_path)


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    Synthetic(n_tasks=1).write(tmp_path / "results")
    target, link = tmp_path / "target", tmp_path / "link"
    target.mkdir()
    link.symlink_to(target)
    for _ in range(2):
        assert build_report(tmp_path / "results", link).pdf == link / "report.pdf"
    assert link.readlink() == target and (target / "report.pdf").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"results", "target", "link"}


def test_a_place_that_takes_no_report_is_said_before_records_are_read(tmp_path: Path) -> None:
    """Typst panics at a path that is no UTF-8."""
    (tmp_path / "file").write_text("mine")
    for out, words in (("file", "is a file"), ("r\udcff", "is no UTF-8")):
        with pytest.raises(UserError, match=words):
            build_report(tmp_path / "no results", tmp_path / out)


def test_folders_with_names_that_are_no_text_are_left_out(tmp_path: Path) -> None:
    folder = Synthetic("ewc").write(tmp_path / "before")
    Synthetic().write(tmp_path / "before")
    folder.parent.rename(folder.parent.with_name("ewc\udcff"))
    before = (tmp_path / "before").rename(tmp_path / "before\udcff")
    report = build_report(before, tmp_path / "report", compare=before)
    (problem,) = report.problems
    assert "cannot be printed" in problem.reason and "ewc\\udcff" in problem.folder
    assert problem.folder in (report.folder / "tables" / "left-out.csv").read_text()


def test_unreadable_folders_are_listed(tmp_path: Path) -> None:
    Synthetic().write(tmp_path)
    (Synthetic(seed=1).write(tmp_path) / "accuracy.csv").write_text("after,task0\n0,0.1\n")
    report = build_report(tmp_path)
    (problem,) = report.problems
    assert "truncated" in problem.reason
    assert "truncated" in text_of(report.pdf)
    assert "1 folder could not be read" in report.markdown.read_text()


def test_one_method_one_seed_one_task(tmp_path: Path) -> None:
    Synthetic("ewc", n_tasks=1).write(tmp_path)
    report = build_report(tmp_path)
    text = text_of(report.pdf)
    assert "undefined: needs 2 tasks" in text
    assert "one seed, so no spread" in text
    assert "±" not in text.replace("± one sample standard deviation", "")
    assert "per-task" in {path.stem for path in report.figures} and "no figures" not in text
    assert "has all methods in one table" in text


def test_the_headline_is_said_to_have_all_methods_only_if_it_has(several_text: str, tmp_path: Path) -> None:
    assert "has all methods in one table" in several_text
    Synthetic("ewc").write(tmp_path)
    Synthetic("hnet", status="diverged", reason="the loss is nan").write(tmp_path)
    found = paper.paper(paper.contents(study(load(tmp_path))), [])
    text = " ".join(block["text"] for block in found.data["body"] if block["kind"] == "paragraph")
    assert "@[tab:headline] has the methods with results in one table" in text


def test_nothing_finished_still_gives_a_report(tmp_path: Path) -> None:
    Synthetic("ewc", status="failed", reason="RuntimeError: out of luck").write(tmp_path)
    Synthetic("hnet", status="oom", reason="device memory").write(tmp_path)
    report = build_report(tmp_path)
    text = text_of(report.pdf)
    assert "out of luck" in text and "There are no figures of results, because no cell has a result." in text
    assert report.figures == ()
    blocks = [json.loads((report.folder / "source" / "report.json").read_text())[part] for part in ("body", "appendix")]
    assert all(item["rows"] for items in blocks for item in items if item["kind"] == "table"), "a table without rows"
    for items in blocks:
        for item, after in itertools.pairwise(items):
            empty = item["kind"] == after["kind"] == "heading" and after["level"] <= item["level"]
            assert not empty, f"nothing stands below {item['text']}"
    assert "tab:headline" not in json.dumps(blocks) and "certificate" not in text


def test_names_that_mean_something_to_typesetters(tmp_path: Path) -> None:
    for seed in range(2):
        odd = {"path": "C:\\temp_$1", "#": [1, {"a": None}]}
        Synthetic(WEIRD, seed=seed, config=odd, chosen=dict.fromkeys(odd, "by $hand_")).write(tmp_path)
        Synthetic("_hidden", seed=seed).write(tmp_path)
    text = text_of(build_report(tmp_path).pdf)
    assert "a_b & 50% $x$ #1 [y] *z* @w `v` <u>" in text
    assert "метод" in text
    assert "C:\\temp_$1" in text


def test_thirty_methods_and_a_hundred_tasks(tmp_path: Path) -> None:
    r = np.tril(np.full((101, 100), 0.8), 0)
    for i in range(30):
        Synthetic(f"method-{i}", n_tasks=100, accuracy=r).write(tmp_path)
    text = text_of(build_report(tmp_path).pdf)
    assert all(f"method-{i} " in text for i in range(30))


def test_the_same_records_give_the_same_report(tmp_path: Path) -> None:
    quick(tmp_path / "results", seeds=1)
    first, second = (build_report(tmp_path / "results", tmp_path / name) for name in ("a", "b"))
    for path in sorted(first.folder.rglob("*")):
        if path.is_file() and path.suffix != ".pdf":
            assert path.read_bytes() == (second.folder / path.relative_to(first.folder)).read_bytes(), path.name


def test_the_template_reads_plain_data(quick_report: Report) -> None:
    data = json.loads((quick_report.folder / "source" / "report.json").read_text(encoding="utf-8"))
    assert data["summary"]
    assert {block["kind"] for block in data["body"]} == {"heading", "paragraph", "table", "figure"}


def test_too_few_seeds_are_called_so(quick_results: Path) -> None:
    words = " ".join(findings(study(load(quick_results))))
    assert "no difference can be significant" in words and "p = 0.25 at best" in words
    assert "5 methods on Split Digits" in words and "42 of 45 cells" in words
    assert "18 of 24 claims about old tasks" in words


def test_too_few_seeds_for_so_many_comparisons_are_called_so(several_results: Path) -> None:
    words = " ".join(findings(study(load(several_results))))
    assert "9 comparisons need p < 0.0056 (Holm), and 6 paired seeds give 0.031 at best" in words


def test_findings_name_the_winner_of_the_data(tmp_path: Path) -> None:
    for seed in range(8):
        for method, value in (("ewc", 0.7), ("hnet", 0.9)):
            r = np.full((3, 2), value + seed / 1000)
            Synthetic(method, seed=seed, n_tasks=2, accuracy=r).write(tmp_path)
    words = " ".join(findings(study(load(tmp_path))))
    assert "In TIL, HNET is best on Split Digits (90.3 %, 20.0 points ahead of EWC)." in words
    assert "significant in 1 of 1 comparison" in words
    assert "HNET over EWC on Split Digits, TIL (adjusted p = 0.0078" in words  # 2 of 2^8
    assert "claim" not in words and "inferred" not in words and "Plain fine-tuning" not in words


def test_the_summary_prints_the_adjusted_p_that_it_speaks_of(tmp_path: Path) -> None:
    """Two benchmarks with eight seeds each: the p of each pair alone is 2 / 2^8, Holm's twice that."""
    for benchmark in ("split-digits", "permuted-digits"):
        for seed in range(8):
            for method, value in (("ewc", 0.7), ("hnet", 0.9)):
                r = np.full((3, 2), value + seed / 1000)
                Synthetic(method, benchmark, seed=seed, n_tasks=2, accuracy=r).write(tmp_path)
    words = " ".join(findings(study(load(tmp_path))))
    assert words.count("(adjusted p = 0.016") == 2 and "0.0078" not in words


def test_means_less_than_one_test_image_apart_are_tied(tmp_path: Path) -> None:
    """Split Digits has 450 test images, 180 of them in two tasks: one is 0.56 points, so 0.5 is no lead and 0.6 is."""
    for method, value in (("hnet", 0.9), ("ewc", 0.895), ("mas", 0.894)):
        Synthetic(method, n_tasks=2, accuracy=np.full((3, 2), value)).write(tmp_path)
    words = " ".join(findings(study(load(tmp_path))))
    assert "EWC and HNET are tied" in words or "HNET and EWC are tied" in words
    assert "0.6 points ahead of MAS" in words


def test_methods_are_counted_as_methods_not_as_rows(tmp_path: Path) -> None:
    for label in ("ewc", "ewc-weak", "ewc-strong", "hnet"):
        Synthetic(label.split("-")[0], label=label, config={"lr": len(label)}).write(tmp_path)
    found = study(load(tmp_path))
    table = setting_table(found)
    assert table.rows[0][table.columns.index("methods")].text == "2"
    assert "2 methods (4 rows" in " ".join(findings(found))


def test_the_environment_says_how_many_values_it_leaves_out(tmp_path: Path) -> None:
    for seed in range(9):
        Committed("ewc", seed=seed, commit=f"{seed}" * 40).write(tmp_path)
    Committed("hnet", commit="0" * 40).write(tmp_path)
    rows = {row[0].text: row[1].text for row in environment(study(load(tmp_path))).rows}
    assert rows["commit"].startswith("6 of 9 values: " + "0" * 40 + " (2 cells); ")
    assert rows["commit"].endswith("3 others (3 cells), see the records")
    assert rows["torch"] == "2.12.0"


def test_methods_that_are_printed_alike_are_called_level(tmp_path: Path) -> None:
    for method, value in (("ewc", 0.9), ("hnet", 0.90001), ("mas", 0.8)):
        Synthetic(method, n_tasks=2, accuracy=np.full((3, 2), value)).write(tmp_path)
        same = np.full((3, 2), 0.7)
        Synthetic(method, n_tasks=2, accuracy=same, benchmark="permuted-digits").write(tmp_path)
    words = " ".join(findings(study(load(tmp_path))))
    assert "HNET and EWC are tied for best on Split Digits (90.0 %, 10.0 points ahead of MAS)" in words
    assert "EWC, HNET and MAS are tied for best on Permuted Digits (70.0 %)" in words


def test_records_of_earlier_code_are_said_to_be_so(tmp_path: Path) -> None:
    for seed in range(3):
        Synthetic("hnet", seed=seed, carried="computed by source abc, as 7 cells show" if seed else None).write(
            tmp_path
        )
    found = study(load(tmp_path))
    assert "2 records of earlier code that was shown to give the same numbers" in " ".join(findings(found))
    rows = {row[0].text: row[1].text for row in environment(found).rows}
    assert rows["earlier code of HNET"] == "2 cells: computed by source abc, as 7 cells show"


def test_wrapped_text_counts_by_its_lines() -> None:
    """By them a table may be broken over pages or not; the environment's, long texts in few lines, may not."""
    rows = (Cell("name"), Cell("x" * 250)), (Cell("other"), Cell("short"))
    table = Table("t", "A table.", ("property", "value"), rows, text_columns=frozenset({0, 1}))
    assert blocks._lines(table, [0, 0]) == 1 + 3
    assert blocks._lines(table, [0, 5.0]) == 1 + 3, "118 characters less those of the first column"
    assert blocks._lines(table, [5.0, 5.0]) == 1 + 5


def test_reports_import_neither_torch_nor_methods() -> None:
    code = (
        "import sys, reports.build, reports.figures, reports.paper; "
        "bad = [m for m in sys.modules if m.split('.')[0] in ('torch', 'methods', 'runners')]; "
        "heavy = [m for m in ('matplotlib', 'seaborn', 'scipy') if m in sys.modules]; "
        "sys.exit(f'{bad} {heavy}' if bad or heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
