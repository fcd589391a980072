"""A wheel, unpacked into an empty folder, works from another empty folder: commands, suites, records, Python."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.runners.helpers import ROOT, environment

pytestmark = pytest.mark.slow
SHIPPED = (
    "benchmarks/suites/quick.toml",
    "benchmarks/suites/tuned/quick.toml",
    "reports/reference/README.md",
    "reports/paper.typ",
    "reports/references.bib",
    "reports/speed.csv",
    "runners/new_method.txt",
    "continual_intervals/running.py",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `site-packages` with the wheel alone; other packages are those of this environment."""
    made = tmp_path_factory.mktemp("wheel")
    source = made / "source"
    listed = subprocess.check_output(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, text=True)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    wheel = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(made), str(source)]
    done = subprocess.run(wheel, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = made.glob("*.whl")
    target = made / "lib" / "site-packages"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(target), str(file)],
        check=True,
        capture_output=True,
    )
    with zipfile.ZipFile(file) as archive:
        assert not [name for name in archive.namelist() if name.startswith(("tests/", "docs/"))]
    return target


def called(site: Path, folder: Path, *arguments: str) -> str:
    """Output of the console command of the wheel, in a folder from which the checkout is not found."""
    variables = environment(PYTHONPATH=str(site), HOME=str(folder))
    command = [sys.executable, "-P", str(site / "bin" / "continual-intervals"), *arguments]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_the_commands_read_is_in_the_wheel(site: Path) -> None:
    assert [name for name in SHIPPED if not (site / name).is_file()] == []
    for top in ("benchmarks", "reports", "runners", "methods"):
        files = (path.relative_to(ROOT) for path in (ROOT / top).rglob("*") if path.is_file())
        lacking = [str(path) for path in files if "__pycache__" not in path.parts and not (site / path).is_file()]
        assert lacking == []


def test_the_commands_work_from_an_empty_folder(site: Path, tmp_path: Path) -> None:
    assert "hyperinterval" in called(site, tmp_path, "--help") + called(site, tmp_path, "compare", "--list")
    assert "tuned on validation data" in called(site, tmp_path, "show", "ewc", "--suite", "quick")
    grid = ("--methods", "finetune,hyperinterval", "--benchmarks", "split-digits", "--scenarios", "til", "--seeds", "1")
    made = called(site, tmp_path, "compare", *grid, "--budget-scale", "0.05", "--workers", "1")
    assert "2 done" in made and (tmp_path / "results" / "report" / "report.pdf").stat().st_size > 10_000
    called(site, tmp_path, "new", "mine")
    assert "no findings" in called(site, tmp_path, "check", "mine.py:Mine", "--scenarios", "til")
    assert "cifar-100" in called(site, tmp_path, "data", "--list")


def test_reference_records_are_those_of_the_code_in_the_wheel(site: Path, tmp_path: Path) -> None:
    """Keys do not depend on the place of the code: the records that a checkout takes are taken here too."""
    grid = ("--methods", "finetune,ewc", "--seeds", "10", "--dry-run", "--reference")
    here = subprocess.run(
        [sys.executable, str(ROOT / "runners" / "compare.py"), *grid],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    there = called(site, tmp_path, "compare", *grid)
    taken = [line for line in here.stdout.splitlines() if "will be taken" in line]
    assert taken and taken == [line for line in there.splitlines() if "will be taken" in line]


def test_python_works_from_an_empty_folder(site: Path, tmp_path: Path) -> None:
    code = (
        "import continual_intervals as ci; "
        "R = ci.run('finetune', 'split-digits', 'til', workers=1, device='cpu', budget_scale=0.05); "
        "print(R.shape, ci.__file__)"
    )
    variables = environment(PYTHONPATH=str(site), HOME=str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"(6, 5) {site / 'continual_intervals' / '__init__.py'}\n")
    assert os.listdir(tmp_path) == ["results"]
