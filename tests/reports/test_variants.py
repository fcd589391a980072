"""Variants of one method: apart from the comparison of methods, where there is one, and nowhere lost."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from reports.build import build_report
from reports.figure_files import Artist
from reports.figures import plan
from reports.load import load
from reports.paper import contents, paper
from reports.study import Study, study
from reports.variants import apart, compared
from tests.reports.synthetic import Synthetic
from tests.reports.test_published_curves import write

VARIANT = "hyperinterval-beta-0.1"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two methods on Permuted MNIST-10 with a small network, and variants of one with the authors' network."""
    budget = {"batch_size": 128, "steps": 5000, "epochs": None}
    for method in ("ewc", "hyperinterval"):
        Synthetic(
            method, "permuted-mnist-10", "dil", n_tasks=10, classes_per_task=10, budget=budget, network="mlp-100-100"
        ).write(tmp_path)
    write(tmp_path)
    write(tmp_path, label=VARIANT, beta=0.1, other={"chosen": {"beta": "a value of the authors' figure"}})
    return tmp_path


def stems(found: Study) -> list[str]:
    return [table.stem for table in paper(contents(found), []).tables]


def test_variants_have_no_part_in_the_comparison_of_methods(results: Path) -> None:
    found = study(load(results))
    (group,) = apart(found)
    assert "mlp-1000-1000" in group.benchmark and VARIANT in found.labels
    content = contents(found)
    assert [table.stem for table in content.variants] == [f"table-{group.stem}"]
    assert {row[0].key for row in content.variants[0].rows} == {"hyperinterval", VARIANT}
    assert content.compared and content.cost
    assert content.effort is None  # the compared methods have their defaults
    shown = [*content.main, content.compared, content.cost, *([content.guarantee] if content.guarantee else [])]
    texts = [cell.text for table in shown for row in table.rows for cell in row]
    assert VARIANT not in texts and not any("1000-1000" in text for text in texts)
    assert not any(VARIANT in sentence or "1000-1000" in sentence for sentence in content.findings)
    assert "2 of 2 cells" in content.findings[0]
    assert content.findings[1] == "Variants of one method stand apart and are not counted here: 2 cells."
    everywhere = [row[0].key for table in (content.hyperparameters, *content.seeds) for row in table.rows]
    assert everywhere.count(VARIANT) == 3  # its settings, and ACC and BWT of its seed


def test_figures_compare_the_same_methods(results: Path, tmp_path: Path) -> None:
    found = study(load(results))
    artist = Artist(found, tmp_path)
    assert artist.looks.keys() == {"ewc", "hyperinterval"}
    drawn = {job(artist.study, artist.looks).stem for job in plan(found)}
    big = {stem for stem in drawn if "1000-1000" in stem}
    assert len(big) == 1 and next(iter(big)).startswith("authors-") and "accuracy" in drawn


def test_the_report_has_both_and_cells_csv_every_cell(results: Path) -> None:
    report = build_report(results)
    text = report.markdown.read_text(encoding="utf-8")
    headings = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    at = headings.index("Variants of one method")
    assert headings[at - 1 : at + 2] == ["Cost", "Variants of one method", "HINT by its authors and here"]
    assert "](figures/authors-permuted-mnist-10" in text.split("## HINT by its authors and here")[1].split("## ")[0]
    with report.cells.open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 4


def test_a_study_of_variants_alone_is_the_comparison(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, label=VARIANT, beta=0.1)
    found = study(load(tmp_path))
    assert apart(found) == [] and compared(found) is found
    assert len(contents(found).main) == 1 and contents(found).variants == []
    assert "published-curves" in stems(found)


def test_a_method_alone_or_variants_among_methods_stay_in_the_comparison(tmp_path: Path) -> None:
    Synthetic("ewc", "split-mnist").write(tmp_path)
    Synthetic("ewc", "split-digits").write(tmp_path)
    Synthetic("ewc", "split-digits", label="ewc-strong", config={"lr": 0.1}).write(tmp_path)
    Synthetic("hnet", "split-digits").write(tmp_path)
    assert apart(study(load(tmp_path))) == []
