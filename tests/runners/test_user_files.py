"""A user's file loads as Python would load it, whatever lies around it; names that clash get a sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import user_files
from benchmarks.types import UserError
from methods import registry
from runners.grid.loading import load_method
from tests.runners.helpers import ROOT, call, environment

CODE = '''{imports}
from methods.base import register
from methods.finetune import Finetune


@register("{name}")
class Mine(Finetune):
    """Mine."""

    factor = {factor}
'''


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    """Nothing that a test loads is there for the next one."""
    modules, path = dict(sys.modules), list(sys.path)
    monkeypatch.setattr(user_files._FINDER, "homes", {})
    yield
    sys.path[:] = path
    for name in sys.modules.keys() - modules.keys():
        if name.partition(".")[0] not in ("methods", "benchmarks", "runners", "torch"):
            del sys.modules[name]


def written(place: Path, files: dict[str, str]) -> Path:
    """The files of a folder; the first one of them."""
    for name, text in files.items():
        file = place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return place / next(iter(files))


def code(imports: str, factor: str = "FACTOR", name: str = "mine") -> str:
    return CODE.format(imports=imports, factor=factor, name=name)


def factor_of(file: Path) -> float:
    return vars(load_method(f"{file}:Mine").cls)["factor"]


@pytest.mark.parametrize(
    "files",
    [
        {"mine.py": code("from helper_of_mine import FACTOR"), "helper_of_mine.py": "FACTOR = 2.5\n"},
        {"pkg_a/mine.py": code("from .parts import FACTOR"), "pkg_a/__init__.py": "", "pkg_a/parts.py": "FACTOR = 2.5"},
        {
            "pkg_b/sub/mine.py": code("from ..parts import FACTOR\nfrom pkg_b import parts"),
            "pkg_b/__init__.py": "",
            "pkg_b/sub/__init__.py": "",
            "pkg_b/parts.py": "FACTOR = 2.5",
        },
        {
            "mine.py": code("import helper_in_a_folder.parts as parts", "parts.FACTOR"),
            "helper_in_a_folder/__init__.py": "",
            "helper_in_a_folder/parts.py": "from .more import FACTOR",
            "helper_in_a_folder/more.py": "FACTOR = 2.5",
        },
        {"mine.py": code("import importlib as i", "i.import_module('a_late' + '_one').F"), "a_late_one.py": "F = 2.5"},
        {
            "mine.py": code("", "2.5"),
            "methods/__init__.py": "raise RuntimeError",
            "random.py": "raise RuntimeError",
        },
    ],
    ids=["beside", "package", "above", "package beside", "computed", "names not imported"],
)
def test_what_a_file_imports_is_found(tmp_path, files):
    assert factor_of(written(tmp_path, files)) == 2.5


def test_a_file_of_a_package_is_that_module_of_the_package(tmp_path):
    """An import of it from elsewhere in the package gives the same class, and not a second one."""
    files = {
        "pkg_c/mine.py": code("from . import twin", "1"),
        "pkg_c/__init__.py": "",
        "pkg_c/twin.py": "def mine():\n    from pkg_c.mine import Mine\n    return Mine\n",
    }
    cls = registry.load(f"{written(tmp_path, files)}:Mine")
    assert sys.modules["pkg_c.twin"].mine() is cls


def test_two_files_of_one_name_load_beside_each_other(tmp_path):
    one = written(tmp_path / "a", {"mine.py": code("from one_part import FACTOR"), "one_part.py": "FACTOR = 1.0"})
    two = written(
        tmp_path / "b",
        {"mine.py": code("from two_part import FACTOR"), "two_part.py": "FACTOR = 2.0", "one_part.py": "raise OSError"},
    )
    assert [factor_of(one), factor_of(two), factor_of(one)] == [1.0, 2.0, 1.0]


LATE = code("", "1") + "\n    def late(self):\n        from same_part import FACTOR\n        return FACTOR\n"


@pytest.mark.parametrize("text", [code("from same_part import FACTOR"), LATE], ids=["at once", "when it runs"])
def test_two_folders_whose_modules_have_one_name_are_refused(tmp_path, text):
    one, two = (
        written(tmp_path / name, {"mine.py": text, "same_part.py": f"FACTOR = {k}"}) for k, name in enumerate("ab")
    )
    load_method(f"{one}:Mine")
    with pytest.raises(UserError, match=r"imports same_part.*but .*a/same_part.py is loaded as same_part already; re"):
        load_method(f"{two}:Mine")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"methods/mine.py": code("from .parts import FACTOR"), "methods/__init__.py": "", "methods/parts.py": ""},
            "this project has a package called methods too; rename yours",
        ),
        (
            {"mine.py": code("from runners.parts import FACTOR"), "runners/__init__.py": "", "runners/parts.py": "F=1"},
            "imports runners.parts .*this project has a package called runners too; rename yours",
        ),
        (
            {"mine.py": code("from statistics import FACTOR"), "statistics.py": "FACTOR = 1"},
            "imports statistics .*Python's own library has a module called statistics too; rename yours",
        ),
        (
            {"mine.py": code("from .parts import FACTOR"), "parts.py": "FACTOR = 1"},
            "put an empty __init__.py into",
        ),
        ({"mine.py": "caf\xe9 = 1".encode("latin-1").decode("latin-1") + "\n\x00"}, "does not import"),
    ],
    ids=["package", "module of a package", "standard library", "relative", "not Python"],
)
def test_clashes_of_names_get_a_sentence(tmp_path, files, said):
    with pytest.raises(UserError, match=said):
        load_method(f"{written(tmp_path, files)}:Mine")


def test_files_are_read_as_python_reads_them(tmp_path):
    """With a byte order mark, or in the encoding that they declare."""
    text = code("from the_part import FACTOR  # f\xfcnf", name="bytes")
    for encoding, mark in (("utf-8-sig", ""), ("latin-1", "# -*- coding: latin-1 -*-\n")):
        file = written(tmp_path / encoding, {"mine.py": "", "the_part.py": ""})
        file.write_bytes((mark + text).encode(encoding))
        file.with_name("the_part.py").write_bytes((mark + "FACTOR = len('\xfc')\n").encode(encoding))
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                f"from runners.grid.loading import load_method as l; print(l({str(file)!r}).cls.factor)",
            ],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert done.stdout == "1\n", done.stderr
        assert [info.name for info in registry.describe(file)] == ["bytes"]


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_packages_in_the_working_directory_are_not_taken_for_the_projects(tmp_path, engine):
    """The command runs in a folder with packages called `methods` and `runners`, and a file needs another package."""
    if engine == "ray":
        pytest.importorskip("ray")
    names = ("methods", "runners", "benchmarks", "reports")
    files = {
        "pkg_d/mine.py": code("from pkg_d.parts import FACTOR"),
        "pkg_d/__init__.py": "",
        "pkg_d/parts.py": "FACTOR=1",
    }
    written(tmp_path, {**files, **{f"{name}/__init__.py": "raise RuntimeError('theirs')" for name in names}})
    grid = ("--suite", "quick", "--methods", "finetune", "--scenarios", "til", "--seeds", "1", "--budget-scale", "0.02")
    how = ("--engine", engine, "--workers", "1", "--device", "cpu", "--no-report", "--no-reference", "--results", "out")
    done = call(*grid, *how, "--method", "pkg_d/mine.py:Mine", cwd=tmp_path)
    assert done.returncode == 0 and "2 done" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("command", ["check_method", "data", "report", "tune"])
def test_with_m_too_the_rooms_are_the_projects(tmp_path, command):
    """`python -m runners.NAME` puts the working directory first, which may hold packages of the same names."""
    rooms = ("methods", "benchmarks", "reports")
    written(tmp_path, {f"{name}/__init__.py": "raise RuntimeError('theirs')" for name in rooms})
    done = subprocess.run(
        [sys.executable, "-m", f"runners.{command}", "--help"],
        cwd=tmp_path,
        env={**environment(), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "Usage" in done.stdout, done.stdout + done.stderr


def test_with_m_a_run_is_that_of_the_script(tmp_path):
    written(tmp_path, {f"{name}/__init__.py": "" for name in ("methods", "benchmarks", "reports")})
    grid = "--suite quick --methods finetune --scenarios til --seeds 1 --budget-scale 0.02 --no-report --results out"
    done = subprocess.run(
        [sys.executable, "-m", "runners.compare", *grid.split(), "--workers", "1", "--device", "cpu"],
        cwd=tmp_path,
        env={**environment(), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "1 done" in done.stdout, done.stdout + done.stderr


def test_the_defaults_of_a_methods_config_are_checked_when_it_is_loaded(tmp_path):
    config = "\n    @dataclass(frozen=True)\n    class Config:\n        place: Path = Path('x')\n"
    text = code("from dataclasses import dataclass\nfrom pathlib import Path", "1") + config
    with pytest.raises(UserError, match=r"defaults of its Config: mine\.place: .*PosixPath .*; permitted are true"):
        load_method(f"{written(tmp_path, {'mine.py': text})}:Mine")


def test_a_badly_named_class_does_not_block_the_others_of_its_file(tmp_path):
    text = code("", "2.5") + '\n\n@register("not so")\nclass Other(Finetune):\n    """Other."""\n'
    file = written(tmp_path, {"mine.py": text})
    assert factor_of(file) == 2.5
    with pytest.raises(UserError, match=r"mine.py:Other is registered as 'not so'; use letters, digits"):
        load_method(f"{file}:Other")
