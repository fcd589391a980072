"""The page of the methods is the one their source gives."""

from dataclasses import fields

import pytest

from methods import registry
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
