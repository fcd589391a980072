"""The promises of the packaging files: one-line commands, pins for everything, the same command in CI."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
)
PARTS_OF_THE_TEST_COMMAND = ("-m venv .venv", "-c constraints.txt -e '.[test]'", ".venv/bin/pytest -n auto")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements() -> list[str]:
    extras = PROJECT["optional-dependencies"].values()
    texts = [*PROJECT["dependencies"], *(text for extra in extras for text in extra)]
    return [canonical(re.split(r"[\[<>=~! ]", text)[0]) for text in texts]


@pytest.mark.parametrize("name", requirements())
def test_every_requirement_is_pinned(name: str) -> None:
    assert name in {canonical(pinned) for pinned in PINS}


def test_pins_are_exact_and_name_no_host() -> None:
    assert all(re.fullmatch(r"[\w.+!]+", pin) for pin in PINS.values())
    text = (
        (ROOT / "constraints.txt").read_text() + (ROOT / "pyproject.toml").read_text() + (ROOT / "tox.ini").read_text()
    )
    assert "://" not in text and "--index" not in text and "find-links" not in text


def test_readme_has_both_commands_in_one_line_each() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    main = "python -m venv .venv && .venv/bin/pip install -c constraints.txt -e . && "
    assert main + ".venv/bin/python runners/compare.py --suite quick" in lines
    assert any(all(part in line for part in PARTS_OF_THE_TEST_COMMAND) for line in lines)


def test_ci_runs_what_the_readme_says() -> None:
    script = (ROOT / ".ci/run").read_text()
    assert all(part in script for part in PARTS_OF_THE_TEST_COMMAND)


def test_shipped_files_are_inside_the_packages() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert sorted(packages["packages"]) == ["benchmarks", "continual_intervals", "methods", "reports", "runners"]
    assert (ROOT / "benchmarks/suites/quick.toml").is_file() and list((ROOT / "reports").glob("*.typ"))


def test_installed_version_is_that_of_the_project() -> None:
    try:
        installed = version(PROJECT["name"])
    except PackageNotFoundError:
        pytest.skip("the suite runs from the source tree without an install")
    assert installed == PROJECT["version"]
