"""The headline of the README is that of the shipped records."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from statistics import fmean

import pytest
from typer.testing import CliRunner

from benchmarks.types import UserError
from runners.headline import BEGIN, END, README, app, renewed, rewrite, table
from runners.records.reference_records import FOLDER


@cache
def current() -> str:
    return table()


def test_the_readme_is_current() -> None:
    text = README.read_text(encoding="utf-8")
    assert text == renewed(text, current()), "run python runners/headline.py"


def records() -> Iterator[tuple[str, float]]:
    """Method and ACC of the shipped cells of Split Digits in CIL, from the files themselves."""
    for line in (FOLDER / "split-digits-cil.jsonl").read_text(encoding="utf-8").splitlines():
        found = json.loads(line)
        record, tables = found["record"], found["tables"]
        last = tables["accuracy.csv"].strip().splitlines()[-1].split(",")[1:]
        yield record["label"], fmean(map(float, last))


def test_the_headline_has_the_means_of_the_records() -> None:
    """Recomputed by hand from R's last rows."""
    values = defaultdict(list)
    for label, value in records():
        values[label].append(value)
    lines = [line.split(" | ") for line in current().splitlines() if line.startswith("| ")]
    rows = {line[0].removeprefix("| ").strip(): line for line in lines}
    column = lines[0].index("CIL ACC ↑")
    for label, name in {"hnet": "HNET", "ewc-online": "EWC online", "lid": "LID"}.items():
        assert len(values[label]) == 10
        assert rows[name][column].strip("*").startswith(f"{100 * fmean(values[label]):.1f} ± ")


def test_a_readme_without_the_marks_is_refused() -> None:
    with pytest.raises(UserError, match="needs the lines"):
        renewed("# title\n", "")
    assert renewed(f"a\n{BEGIN}old\n{END}b\n", "new\n") == f"a\n{BEGIN}\nnew\n\n{END}b\n"


@pytest.mark.parametrize("text", ["# title\n", None])
def test_the_page_is_checked_before_the_table_is_made(tmp_path, monkeypatch, text) -> None:
    page = tmp_path / "README.md"
    if text is not None:
        page.write_text(text)
    monkeypatch.setattr("runners.headline.README", page)
    monkeypatch.setattr("runners.headline.table", lambda: pytest.fail("the table was made"))
    ended = CliRunner().invoke(app)
    assert isinstance(ended.exception, UserError) and "README.md" in str(ended.exception)
    assert text is None or page.read_text() == text


def test_the_command_renews_the_page(tmp_path, monkeypatch) -> None:
    (tmp_path / "README.md").write_text(f"a\n{BEGIN}old\n{END}b\n")
    monkeypatch.setattr("runners.headline.README", tmp_path / "README.md")
    monkeypatch.setattr("runners.headline.table", lambda: "new\n")
    assert CliRunner().invoke(app).exit_code == 0
    assert (tmp_path / "README.md").read_text() == f"a\n{BEGIN}\nnew\n\n{END}b\n"
    with pytest.raises(UserError, match="cannot be written: No such file"):
        rewrite(tmp_path / "nowhere" / "README.md", "")


@pytest.mark.parametrize("word, code", [("--help", 0), ("foo", 2), ("--foo", 2)])
@pytest.mark.parametrize("name", ["headline", "document"])
def test_help_and_mistakes_write_no_page(monkeypatch, name, word, code) -> None:
    monkeypatch.setattr("runners.headline.write_atomically", lambda *_: pytest.fail("a page was written"))
    ended = CliRunner().invoke(import_module(f"runners.{name}").app, [word])
    assert ended.exit_code == code, ended.exception
