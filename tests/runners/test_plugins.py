"""A package from elsewhere brings a method, a benchmark and a suite by entry points; nothing here is edited."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import plugins
from methods import registry
from runners import completion, listing
from tests.runners.helpers import command, environment

MODULE = '''
from pathlib import Path

import torch

from benchmarks.catalogue import Benchmark, Kind
from benchmarks.data import DataSet
from benchmarks.types import Budget
from methods.base import register
from methods.finetune import Finetune

SUITE = Path(__file__).with_name("stripes.toml")


def stripes() -> DataSet:
    """Three tasks: is the bright half left or right, top or bottom, of a picture of this task's grey?"""
    images, labels, tasks = [], [], []
    generator = torch.Generator().manual_seed(0)
    for task in range(3):
        for label in range(2):
            part = torch.rand(60, 1, 4, 4, generator=generator) * 0.2
            (part[..., 2 * label : 2 * label + 2] if task % 2 else part[..., 2 * label : 2 * label + 2, :]).add_(0.7)
            images.append(part)
            labels += [label] * 60
            tasks += [task] * 60
    x, y, t = torch.cat(images), torch.tensor(labels), torch.tensor(tasks)
    held_out = torch.arange(len(y)) % 3 == 0
    rest = ~held_out
    names = ("rows", "columns", "rows again")
    return DataSet("stripes", x[rest], y[rest], x[held_out], y[held_out], t[rest], t[held_out], names)


STRIPES = Benchmark(
    "stripes", "Stripes", "stripes_package:stripes", Kind.GIVEN, 3, 2, (1, 4, 4), validation=8,
    network="mlp-10", budget=Budget(16, steps=60), description="Where the bright half is.",
)


@register("theirs")
class Theirs(Finetune):
    """Finetune from another package."""
'''
SUITE = """
description = "A suite from elsewhere"
methods = ["theirs", "ewc"]
seeds = 1
scenarios = ["til", "cil"]

[[benchmarks]]
name = "stripes"
"""
POINTS = """
[continual_intervals.methods]
theirs = stripes_package:Theirs
[continual_intervals.benchmarks]
stripes = stripes_package:STRIPES
[continual_intervals.suites]
stripes = stripes_package:SUITE
"""


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that has the package installed."""
    site = tmp_path / "site"
    about = site / "stripes_package-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: stripes-package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(POINTS)
    (site / "stripes_package.py").write_text(MODULE)
    (site / "stripes.toml").write_text(SUITE)
    return environment(PYTHONPATH=str(site))


def test_method_benchmark_and_suite_of_a_package(installed: dict[str, str], tmp_path: Path) -> None:
    def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command(*arguments), capture_output=True, text=True, env=installed, timeout=300)

    listed = call("--list").stdout
    assert "Finetune from another package." in listed and "A suite from elsewhere" in listed and "mlp-10" in listed
    results = tmp_path / "results"
    done = call("--suite", "stripes", "--results", results, "--workers", "1", "--no-report", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "4 done" in done.stdout
    records = [json.loads(file.read_text()) for file in sorted(results.glob("stripes/*/theirs/seed0-*/cell.json"))]
    assert [record["scenario"] for record in records] == ["cil", "til"]
    assert records[0]["task_names"] == ["rows", "columns", "rows again"]
    til = next(results.glob("stripes/til/theirs/seed0-*/accuracy.csv")).read_text().splitlines()
    assert float(til[2].split(",")[1]) > 0.9  # the first task is learnt, so labels and tasks arrive as given


def test_what_is_wrong_with_an_entry_point_is_said(installed: dict[str, str], tmp_path: Path) -> None:
    points = tmp_path / "site" / "stripes_package-1.0.dist-info" / "entry_points.txt"
    for old, new, sentence in (
        ("stripes_package:STRIPES", "stripes_package:stripes", "is a function, not a Benchmark"),
        ("stripes_package:STRIPES", "stripes_package:NOTHING", "cannot be imported"),
        ("stripes_package:SUITE", "stripes_package:NOTHING", "gives no path of a file"),
    ):
        points.write_text(POINTS.replace(old, new))
        call = command("--suite", "stripes", "--results", tmp_path / "results", "--dry-run")
        said = subprocess.run(call, capture_output=True, text=True, env=installed, timeout=300)
        assert said.returncode == 2 and sentence in said.stderr and "Traceback" not in said.stderr


SLOW = """
raise RuntimeError("this package takes long to import")
"""


def forget_points() -> None:
    for module in (plugins, registry):
        module.points.cache_clear()


def test_lists_and_completion_import_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lists show is read from the source; a package that makes its benchmark in another way is named only."""
    about, package = tmp_path / "slow_package-1.0.dist-info", tmp_path / "slow_package"
    about.mkdir()
    package.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: slow-package\nVersion: 1.0\n")
    points = POINTS.replace("stripes_package:", "slow_package.parts:").replace("theirs =", "slow-theirs =")
    points = points.replace(
        "[continual_intervals.suites]", "made = slow_package.parts:MADE\n[continual_intervals.suites]"
    )
    (about / "entry_points.txt").write_text(points + "unread = slow_package.parts:MADE\n")
    (package / "__init__.py").write_text(SLOW)
    made = "\nMADE = stripes()\n"
    (package / "parts.py").write_text(SLOW + MODULE.replace('"theirs"', '"slow-theirs"') + made)
    (package / "stripes.toml").write_text(SUITE)
    monkeypatch.syspath_prepend(tmp_path)
    forget_points()
    try:
        methods, benchmarks, suites = ({row[0]: row for row in table.rows} for table in listing.tables())
        completed = [completion.suites("stri"), completion.benchmarks("stri"), completion.methods("slow")]
    finally:
        forget_points()
    assert "Finetune from another package." in methods["slow-theirs"][-1]
    assert benchmarks["stripes"] == ("stripes", "til dil cil", "3 x 2 classes", "60 steps of 16", "mlp-10")
    assert suites["stripes"] == ("stripes", "2", "4", "A suite from elsewhere")
    assert benchmarks["made"][2] == suites["unread"][3] == "from slow_package.parts:MADE"
    assert completed == [["stripes"], ["stripes"], ["slow-theirs"]]
    assert not [name for name in sys.modules if name.startswith("slow_package")]
