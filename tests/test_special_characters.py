"""Labels and names with signs that LaTeX, CSV, HTML, typst, matplotlib or `--set` treat specially."""

from __future__ import annotations

import csv
import io
from importlib import resources

import pytest

from benchmarks import catalogue
from benchmarks.types import UserError
from reports.build import build_report
from reports.latex import latex_text
from reports.render import no_formula
from runners.command_line import names
from runners.grid import suite
from runners.grid.hyperparameters import configure, convert, parse_assignment
from tests.reports.synthetic import Synthetic
from tests.runners.helpers import compare_here

LABELS = [
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "[0.5] x",
    "* y",
    "$\\frac{1}$",
    "@[tab:none] @[x",
    "</script><script>alert(1)</script><!-- ",
    '"quoted", comma; and | pipe',
    "#set page(width: 1pt) $x^",
    "naïve é ß",
]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    for label in LABELS:
        for seed in range(2):
            Synthetic(label=label, seed=seed, source=label, reason=label).write(results)
    Synthetic("ewc", label=LABELS[0] + "b", status="failed", reason=LABELS[7]).write(results)
    return build_report(results)


def test_no_table_holds_a_formula(report):
    tables = [*report.csv, report.cells, report.summary]
    for file in tables:
        for row in csv.reader(io.StringIO(file.read_text(encoding="utf-8"))):
            for cell in row:
                assert no_formula(cell) == cell, (file.name, cell)
    assert "'" + LABELS[0] in report.cells.read_text(encoding="utf-8")


def test_no_row_of_latex_begins_with_an_argument_of_the_row_before(report):
    for file in report.latex:
        for line in file.read_text(encoding="utf-8").splitlines():
            assert not line.lstrip().startswith(("[", "*"))
    assert latex_text("[a] *") == "{[}a] {*}"


def test_the_page_holds_no_script_of_a_label(report):
    text = report.html.read_text(encoding="utf-8")
    template = resources.files("reports").joinpath("page.html").read_text(encoding="utf-8")
    for end in ("</script", "<!--"):
        assert text.count(end) == template.count(end)


@pytest.mark.parametrize("text", ["-0.5", "+3", "1e-3", "−0.5", "", "a=b", "-inf"])
def test_numbers_and_plain_words_stay_as_they_are(text):
    assert no_formula(text) == text


@pytest.mark.parametrize(
    "text, labels, parts",
    [
        ("ewc.lr=0.1", (), ("ewc", "lr", "0.1")),
        ("ewc, strength=1.5.lr=0.1", ("ewc, strength=1.5",), ("ewc, strength=1.5", "lr", "0.1")),
        ("a.b.lr=0.1", ("a", "a.b"), ("a.b", "lr", "0.1")),
        ("ewc.name=a.b=c", ("ewc.x",), ("ewc", "name", "a.b=c")),
    ],
)
def test_a_label_with_dots_and_equals_signs_is_set(text, labels, parts):
    assert parse_assignment(text, labels) == parts


def test_a_row_with_such_a_label_is_chosen_and_set_from_the_command_line(tmp_path):
    file = tmp_path / "suite.toml"
    file.write_text(
        'description = "x"\nmethods = ["finetune", "l2"]\nscenarios = ["til"]\nseeds = 1\n'
        '[[benchmarks]]\nname = "split-digits"\nsteps = 3\n'
        '[[variants]]\nlabel = "=fine, lr=0.5 [b]"\nmethod = "finetune"\nvalues = { lr = 0.5 }\n'
    )
    code, said = compare_here(
        tmp_path / "results",
        suites=(str(file),),
        methods=names('"=fine, lr=0.5 [b]",l2'),
        assignments=("=fine, lr=0.5 [b].lr=0.25",),
        dry_run=True,
        verbose=True,
    )
    assert code == 0
    assert "=fine, lr=0.5 [b]: 1 seed" in said


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", float("nan"), float("inf")])
def test_a_setting_is_a_finite_number(value):
    """A record holds no other, so the cell would never be finished."""
    with pytest.raises(ValueError):
        convert(float, value)


@pytest.mark.parametrize("folder", ["my birds", "birds (1)", "[x]", "学习", "a_b.c", "x-2x2", "a,b"])
def test_a_folder_of_images_may_have_any_name(folder):
    found = catalogue.find(f"images-{folder}-3x2-32px")
    assert (found.dataset, found.n_tasks, found.classes_per_task) == (f"folder/{folder}/32", 3, 2)
    assert catalogue.find(f"images-{folder}-3x2").input_shape == (3, 64, 64)


@pytest.mark.parametrize("name", ["images-..-2x2", "images-../up-2x2", "images-a\\..\\b-2x2", "images-C:-2x2"])
def test_a_folder_of_images_lies_in_the_data_folder(name):
    with pytest.raises(UserError, match="would leave its folder"):
        catalogue.find(name)


@pytest.mark.parametrize("name", ["images-birds-0x2", "images-birds-2 x 2", "images-birds", "images-birds-64px-2x2 "])
def test_a_name_of_another_form_is_told_the_form(name):
    with pytest.raises(UserError, match="write images-FOLDER-TASKSxCLASSES"):
        catalogue.find(name)


def test_a_label_that_no_terminal_can_show_is_refused(tmp_path):
    file = tmp_path / "suite.toml"
    text = 'description = "x"\nmethods = ["finetune"]\n[[benchmarks]]\nname = "split-digits"\n'
    file.write_text(text + '[[variants]]\nlabel = "a\\u001b[31m"\nmethod = "finetune"\nvalues = {}\n')
    with pytest.raises(UserError, match=r"variants\[0\]\.label.*U\+001B") as refusal:
        compare_here(tmp_path / "results", suites=(str(file),))
    assert str(refusal.value).isprintable()


def test_configure_says_what_a_number_is():
    from methods.finetune import Finetune

    with pytest.raises(UserError, match=r"finetune\.lr = 'nan': permitted is a number"):
        configure("finetune", Finetune.Config, {"lr": "nan"})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_suite_saved_by_an_editor_of_windows_is_read(tmp_path, encoding, end):
    text = 'description = "é"\nmethods = ["finetune"]\n[[benchmarks]]\nname = "split-digits"\n'
    (tmp_path / "suite.toml").write_bytes(text.replace("\n", end).encode(encoding))
    assert suite.read(tmp_path / "suite.toml").description == "é"
