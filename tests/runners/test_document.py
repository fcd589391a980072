"""The page of the methods is the one their source gives."""

from methods import registry
from runners.document import PAGE, page


def test_the_page_is_current():
    assert PAGE.read_text() == page(), "run python runners/document.py"


def test_every_method_and_option_is_on_the_page():
    text = page()
    for name in registry.available():
        assert f"**`{name}`**" in text
    assert "| `kappa` | `0.5` |  | Final weight of the ordinary loss" in text
    assert "| `strength` | `1000.0` | `Log(0.1, 10000000.0)` |" in text
