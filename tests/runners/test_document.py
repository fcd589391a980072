"""The page of the methods is the one their source gives."""

from dataclasses import fields

import pytest

from benchmarks.types import UserError
from methods import registry
from runners import document
from runners.document import PAGE, page


@pytest.fixture(scope="module")
def text() -> str:
    return page()


def test_the_page_is_current(text):
    assert PAGE.read_text() == text, "run python runners/document.py"


def test_every_method_and_option_is_on_the_page(text):
    for name in registry.available():
        assert f"**`{name}`**" in text
    assert "| `kappa` | `0.5` |  | Final weight of the ordinary loss" in text
    assert "| `strength` | `1000.0` | `Log(0.1, 10000000.0)` |" in text


@pytest.mark.parametrize("name", list(registry.available()))
def test_every_field_of_a_methods_config_stands_in_its_section(text, name):
    """Also those that it has from a base."""
    sections = text.split("\n## ")
    (section,) = (text for text in sections if f"**`{name}`**" in text)
    for field in fields(registry.load(name).Config):
        assert f"| `{field.name}` |" in section


ROW = "b,til,ewc,acc,94.2,4.06,3\n"


@pytest.mark.parametrize(
    "rows, line",
    [
        ("b,til,x,certified,1,,3\n", 2),
        (ROW + "b,dil,ewc,certified,1,,3\n", 3),
        (ROW + "b,til,ewc,acc,high,4.06,3\n", 3),
        (ROW + "b,til,ewc,acc,94.2,4.06\n", 3),
        (ROW + "b,tix,ewc,acc,94.2,4.06,3\n", 3),
        (ROW + "b\n", 3),
        ("b,til,ewc,acc,94.2,4.06,3\0,\n", 2),
    ],
)
def test_an_odd_row_of_the_deviations_is_said_with_its_line(tmp_path, monkeypatch, rows, line):
    monkeypatch.setattr(document, "MEASURED", tmp_path / "deviations.csv")
    document.MEASURED.write_text("benchmark,scenario,method,metric,mean,std,n\n" + rows)
    with pytest.raises(UserError, match=rf"deviations\.csv, line {line}: this is no row of"):
        document._deviations()


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"\xff\n"])
def test_deviations_that_are_no_such_table_are_refused(tmp_path, monkeypatch, content):
    monkeypatch.setattr(document, "MEASURED", tmp_path / "deviations.csv")
    document.MEASURED.write_bytes(content)
    with pytest.raises(UserError, match=r"deviations\.csv"):
        document._deviations()
