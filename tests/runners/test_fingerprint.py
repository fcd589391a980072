from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from benchmarks.catalogue import Augmentation, Normalisation, find
from methods import registry
from runners.grid import fingerprint
from runners.grid.fingerprint import ROOT, Sources, source_hash
from runners.grid.loading import parts_of

CODE = '''
"""Docstring."""
import helper

class A:
    """What it is."""
    lr: float = 0.1
    """Rate."""
    def f(self, x):
        # why
        return helper.g(x) + 1
'''


@pytest.fixture
def file(tmp_path):
    (tmp_path / "helper.py").write_text("def g(x):\n    return x\n")
    (tmp_path / "mine.py").write_text(CODE)
    return tmp_path / "mine.py"


@pytest.mark.parametrize(
    "old, new",
    [
        ("# why", "# because"),
        ('"""Rate."""', '"""Another."""'),
        ("helper.g(x) + 1", "(helper.g( x )\n            + 1)"),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(file, old, new):
    before = source_hash(file)
    file.write_text(CODE.replace(old, new))
    assert source_hash(file) == before


@pytest.mark.parametrize("old, new", [("+ 1", "+ 2"), ("0.1", "0.2"), ("def f", "def h"), ("(self, x)", "(self, x=0)")])
def test_code_counts(file, old, new):
    before = source_hash(file)
    file.write_text(CODE.replace(old, new))
    assert source_hash(file) != before


def test_the_ranges_of_the_search_do_not_count(file):
    before = source_hash(file)
    imported = CODE.replace("import helper", "import helper\nfrom methods.search import Log, ranges")
    file.write_text(imported.replace("lr: float = 0.1", "lr: float = 0.1\n    search = ranges(lr=Log(1e-4, 1.0))"))
    assert source_hash(file) == before
    file.write_text(imported.replace("lr: float = 0.1", "lr: float = 0.1\n    search = 3"))
    assert source_hash(file) != before


@pytest.mark.parametrize(
    "line",
    [
        "from methods.shared.optimizers import make",
        "from methods.base import Method",
        "from benchmarks.types import Budget",
        "import methods.base",
        "from methods.searching import Log",
        "from math import pi",
    ],
)
def test_every_import_counts_but_those_that_find_things(file, line):
    before = source_hash(file)
    file.write_text(CODE.replace("import helper", f"import helper\n{line}"))
    assert source_hash(file) != before


@pytest.mark.parametrize(
    "line",
    [
        "search = limits(lr=Log(1e-4, 1.0))",
        "search = [ranges(lr=1.0)]",
        "searched = ranges(lr=1.0)",
        "search = self.ranges(lr=1.0)",
        "ranges(lr=1.0)",
        "search += ranges(lr=1.0)",
        "register(A)",
        "0.5",
        "assert A.lr",
    ],
)
def test_every_statement_counts_but_the_ranges_of_the_search_and_bare_strings(file, line):
    before = source_hash(file)
    file.write_text(CODE.replace("    def f", f"    {line}\n    def f"))
    assert source_hash(file) != before
    file.write_text(CODE.replace("    def f", "    'A bare string'\n    search = ranges(lr=1.0)\n    def f"))
    assert source_hash(file) == before


def test_a_module_beside_the_file_counts(file):
    before = source_hash(file)
    (file.parent / "helper.py").write_text("def g(x):\n    return -x\n")
    assert source_hash(file) != before


def test_the_place_of_the_file_does_not_count(file, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(file.parent, elsewhere, ignore=shutil.ignore_patterns("elsewhere"))
    assert source_hash(elsewhere / "mine.py") == source_hash(file)


def test_what_a_method_imports_from_the_project_counts_directly_or_not(monkeypatch, tmp_path):
    for package in ("methods", "benchmarks"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(fingerprint, "ROOT", tmp_path.resolve())
    finetune = tmp_path.resolve() / "methods" / "finetune.py"
    before = source_hash(finetune)
    neutral = (
        "methods/registry.py",
        "methods/networks/targets.py",
        "methods/networks/convolutional.py",
        "methods/networks/mlp.py",
    )
    for name in (*neutral, "methods/joint.py", "benchmarks/catalogue.py"):
        (tmp_path / name).write_text((tmp_path / name).read_text() + "\nEXTRA = 1\n")
    assert source_hash(finetune) == before
    for name in ("methods/base.py", "methods/shared/state.py", "benchmarks/samples.py"):
        (tmp_path / name).write_text((tmp_path / name).read_text() + "\nEXTRA = 1\n")
        after = source_hash(finetune)
        assert after != before
        before = after


def test_a_cell_depends_on_its_own_network_and_on_no_other(monkeypatch, tmp_path):
    for package in ("methods", "benchmarks"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(fingerprint, "ROOT", tmp_path.resolve())
    digits = find("split-digits")
    mlp, alexnet = parts_of(digits, "mlp-20"), parts_of(digits, "alexnet")
    assert mlp != alexnet
    file = tmp_path / "methods/networks/convolutional.py"
    file.write_text(file.read_text() + "\nEXTRA = 1\n")
    assert parts_of(digits, "mlp-20") == mlp
    assert parts_of(digits, "alexnet") != alexnet


def test_only_cells_that_augment_or_transform_depend_on_that_code():
    plain = find("split-mnist")
    augmented = replace(plain, augmentation=Augmentation.FLIP_CROP)
    normalised = replace(plain, normalisation=Normalisation((0.5,), (0.5,)))
    added = {"plain": plain, "augmented": augmented, "normalised": normalised, "rotated": find("rotated-mnist")}
    parts = {name: set(parts_of(benchmark, "mlp-20")) - {"network"} for name, benchmark in added.items()}
    assert parts == {
        "plain": set(),
        "augmented": {"augmentation"},
        "normalised": {"transforms"},
        "rotated": {"transforms"},
    }


def test_methods_differ_and_two_of_one_file_share_a_hash():
    hashes = {name: source_hash(info.file) for name, info in registry.available().items() if info.file}
    assert hashes["finetune"] != hashes["joint"] != hashes["ewc"]
    assert hashes["ewc"] == hashes["ewc-online"]


def test_hashes_that_are_taken_together_are_those_taken_alone(tmp_path):
    """Also of modules that import each other, from whichever of them the first hash starts."""
    (tmp_path / "one.py").write_text("import two\nimport ending\n\ndef f():\n    return two.g()\n")
    (tmp_path / "two.py").write_text("import one\nimport three\n\ndef g():\n    return one.f() + three.h()\n")
    (tmp_path / "three.py").write_text("import two\n\ndef h():\n    return two\n")
    (tmp_path / "ending.py").write_text("VALUE = 1\n")
    own = [tmp_path / f"{name}.py" for name in ("one", "two", "three", "ending")]
    shipped = [info.file for name in ("hyperinterval", "ewc", "finetune") if (info := registry.available()[name]).file]
    files = [*own, *shipped, ROOT / "benchmarks/transforms.py"]
    alone = {file: source_hash(file) for file in files}
    assert len(set(alone.values())) == len(files)
    for order in (files, files[::-1], [own[1], *files]):
        sources = Sources()
        assert {file: sources.hash(file) for file in order} == alone


def test_a_hash_that_failed_is_taken_anew(monkeypatch, tmp_path):
    file = tmp_path / "one.py"
    file.write_text("TABLE = 'numbers.csv'\n")
    (tmp_path / "numbers.csv").write_text("1")
    sources = Sources()

    def unreadable(path, _):
        raise OSError(f"{path} cannot be read")

    with monkeypatch.context() as broken:
        broken.setattr(fingerprint, "_content", unreadable)
        with pytest.raises(OSError, match=r"numbers\.csv cannot be read"):
            sources.hash(file)
    assert sources.hash(file) == source_hash(file)
