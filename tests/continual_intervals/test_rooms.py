"""Packages of the user's next to a script that have the names of the project's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.modules import PROJECT
from continual_intervals.rooms import ROOMS
from tests.runners.helpers import ROOT, environment

FIRST = "import continual_intervals as ci\nprint(ci.run.__name__)\n"


def script(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    for name in ("benchmarks", "methods"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").touch()
        (folder / name / "of_mine.py").touch()
    file = folder / "script.py"
    file.write_text(text)
    return subprocess.run(
        [sys.executable, str(file)], capture_output=True, text=True, env=environment(PYTHONPATH=str(ROOT)), cwd=folder
    )


def test_all_rooms_are_claimed():
    assert {*ROOMS, "continual_intervals"} == set(PROJECT)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (FIRST, ""),
        (FIRST + "from methods import of_mine\n", "has a package called methods, and so has this program: {}/methods"),
        ("import benchmarks.of_mine\n" + FIRST, "has a package called benchmarks, and so has this program: {}/bench"),
    ],
    ids=["not imported", "imported later", "imported before"],
)
def test_a_package_of_the_users_does_no_harm_or_is_named(tmp_path, text, said):
    done = script(tmp_path, text)
    last = (done.stderr.strip().splitlines() or [""])[-1]
    assert (done.returncode == 0) == (not said), done.stderr
    assert said.format(tmp_path) in last and (not said or last.endswith("; rename yours"))
