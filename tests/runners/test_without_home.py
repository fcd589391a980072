"""A user id without a home, as a container or a batch job may have it: only what needs the cache asks for one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.files import DataError, cache_folder, locate
from tests.runners.helpers import ROOT

NOBODY = """
import pwd

def _unknown(_):
    raise KeyError("getpwuid(): uid not found")

pwd.getpwuid = _unknown
"""


@pytest.fixture
def homeless(tmp_path) -> dict[str, str]:
    """The environment of a user without HOME and without a line in /etc/passwd."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NOBODY)
    hidden = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "CONTINUAL_DATA", "USER", "LOGNAME")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return {**kept, "PYTHONPATH": str(tmp_path / "site"), "OMP_NUM_THREADS": "1"}


def called(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_the_digits_run_and_are_reported(homeless, tmp_path):
    grid = "--suite quick --methods finetune,hnet --benchmarks split-digits --scenarios til --seeds 1 --workers 1"
    results = tmp_path / "results"
    more = ["--budget-scale", "0.02", "--results", str(results)]
    done = called(homeless, "runners/compare.py", *grid.split(), *more)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout + done.stderr
    assert (results / "report" / "report.pdf").is_file()


@pytest.mark.parametrize(
    "arguments",
    [
        "runners/compare.py --methods finetune --benchmarks split-mnist --engine inline",
        "runners/data.py --list",
        "runners/data.py --prepare mnist",
    ],
)
def test_what_needs_the_cache_says_what_to_set(homeless, tmp_path, arguments):
    more = ["--results", str(tmp_path / "results")] if "compare" in arguments else []
    done = called(homeless, *arguments.split(), *more)
    assert "Traceback" not in done.stdout + done.stderr
    assert "XDG_CACHE_HOME" in done.stdout + done.stderr


def test_with_a_cache_folder_nobody_asks_for_a_home(monkeypatch, tmp_path):
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    monkeypatch.delenv("CONTINUAL_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert locate(None).folder == cache_folder() == tmp_path / "continual-intervals"
    monkeypatch.delenv("XDG_CACHE_HOME")
    place = locate(None)
    with pytest.raises(DataError, match="--data"):
        _ = place.folder
    with pytest.raises(DataError, match="XDG_CACHE_HOME"):
        cache_folder()
    with pytest.raises(DataError, match="~nobody-of-this-name"):
        locate(Path("~nobody-of-this-name/data"))
