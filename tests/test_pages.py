"""Every page of the repository names files that exist, and describes its present state."""

import re
from pathlib import Path

import pytest

from tests.runners.helpers import ROOT

PAGES = [*ROOT.glob("*.md"), *(page for top in ("docs", "methods", "reports") for page in ROOT.glob(f"{top}/**/*.md"))]
MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
DIARY = re.compile(rf"\b(?:today|yesterday|tomorrow|until now|at present|\d{{1,2}} (?:{MONTHS})|20\d\d-\d\d-\d\d)\b")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_named_exist(page: Path) -> None:
    """Files, folders and patterns below the repository; a module may be named without its `.py`."""
    wrong = [name for name in paths_named(page.read_text()) if not found_in(name)]
    assert not wrong, f"{page.name} names {', '.join(wrong)}"


def paths_named(text: str) -> list[str]:
    """Paths that begin with a folder of the repository, and dotted names of its modules; not `methods/NAME.py`."""
    paths = re.findall(r"(?<![\w/.:~-])(?:\.ci|benchmarks|docs|methods|reports|runners|tests)/[\w./*-]*", text)
    dotted = re.findall(r"(?<![\w/.-])(?:benchmarks|methods|reports|runners|tests)(?:\.[A-Za-z_]\w*)+", text)
    named = [path.rstrip(".") for path in paths] + [name.replace(".", "/") for name in dotted]
    return [name for name in named if not re.search(r"[A-Z]{2}", name.removesuffix("README.md"))]


def found_in(name: str) -> bool:
    """Check whether the repository has the path, a module of that name, or one that defines its last part."""
    if any(ROOT.glob(name.rstrip("/"))) or (ROOT / f"{name}.py").is_file():
        return True
    module, _, member = name.rpartition("/")
    file = ROOT / f"{module}.py"
    return file.is_file() and re.search(rf"\b(?:def|class) {member}\b", file.read_text()) is not None


def test_a_path_that_is_gone_is_noticed() -> None:
    text = "`runners/grid.py`, methods/nets/ and methods.base.Nothing; but `runners/grid/`, methods.base.Method"
    assert [name for name in paths_named(text) if not found_in(name)] == [
        "runners/grid.py",
        "methods/nets/",
        "methods/base/Nothing",
    ]


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name)
def test_pages_are_no_diary(page: Path) -> None:
    """Only the changelog tells a history."""
    assert not DIARY.findall(page.read_text())


def test_a_diary_is_noticed() -> None:
    text = (
        "Until 26 November it was so, until now; today it is not, as of 2026-11-26. In May 2020 or in 10 Mayors' words."
    )
    assert DIARY.findall(text) == ["26 November", "until now", "today", "2026-11-26"]
