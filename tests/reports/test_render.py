"""Renderings of a table: what a CSV keeps of the marks."""

from __future__ import annotations

import csv
import io

from reports.render import to_csv
from reports.tables import Cell, Table


def test_marks_are_notes_in_the_csv() -> None:
    rows = (
        (Cell("a"), Cell("97.0", 0.97, n=1, mark="b"), Cell("1", mark="z")),
        (Cell("b"), Cell("96.0", 0.96, n=1), Cell("2")),
    )
    table = Table("t", "caption", ("method", "ACC ↑", "k"), rows, ("(a) other", "(b) =1 task (of 5) too few", "S1: x"))
    first, second = csv.DictReader(io.StringIO(to_csv(table)))
    assert list(first) == ["method", "ACC", "ACC std", "ACC n", "ACC best", "ACC note", "k", "k note"]
    assert (first["ACC note"], second["ACC note"]) == ("'=1 task (of 5) too few", "")
    assert (first["k note"], second["k note"]) == ("z", "")  # a letter that the caption explains


def test_a_csv_has_numbers_that_programs_read() -> None:
    """ASCII minus signs, empty fields for what is missing, and no fraction that a spreadsheet takes for a date."""
    row = (Cell("ewc"), Cell("−8.87e−07"), Cell("–"), Cell("6/8", key="6 of 8"), Cell("−1.5 to −2.0"), Cell("A − B"))
    table = Table("t", "caption", ("method", "drift", "width", "claims", "interval", "gain"), (row,), ())
    (found,) = csv.reader(io.StringIO(to_csv(table).partition("\n")[2]))
    assert found == ["ewc", "-8.87e-07", "", "6 of 8", "'-1.5 to -2.0", "A − B"]
