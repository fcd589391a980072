"""The source hash follows imports to what is imported: its content and the name in it count, its place does not."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from runners.grid import fingerprint
from runners.grid.fingerprint import ROOT, Sources, foreign_files, installed_modules, source_hash

LOSSES = "FACTOR = 1.0\n\ndef loss(x):\n    return FACTOR * x\n\ndef other(x):\n    return x\n"

IMPORTS = {
    "beside": ("mine.py", "from .{} import loss", "loss(x)"),
    "absolute": ("mine.py", "from package.{} import loss", "loss(x)"),
    "up": ("sub/mine.py", "from ..{} import loss", "loss(x)"),
    "dotted": ("mine.py", "import package.{}", "package.{}.loss(x)"),
    "renamed": ("mine.py", "import package.{} as parts", "parts.loss(x)"),
    "in a function": ("mine.py", "def late(x):\n    from .{} import loss\n    return loss(x)", "late(x)"),
    "by a text": ("mine.py", "import importlib\nf = importlib.import_module('package.{}').loss", "f(x)"),
    "relative text": ("sub/mine.py", "import importlib as i", "i.import_module('..{}', __package__).loss(x)"),
    "star": ("mine.py", "from package.{} import *", "loss(x)"),
}
"""File, import and use of a module to be named; see `method`."""


def method(statement: str, use: str, module: str = "losses") -> str:
    return f"{statement}\n\nclass Mine:\n    def learn(self, x):\n        return {use}\n".replace("{}", module)


def package(place: Path, files: dict[str, str]) -> Path:
    """A package with these files; its folder."""
    for name, text in files.items():
        file = place / "package" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        for folder in file.relative_to(place).parents[:-1]:
            (place / folder / "__init__.py").touch()
    return place.resolve() / "package"


@pytest.mark.parametrize("how", IMPORTS)
def test_a_module_of_the_package_counts_however_it_is_imported(tmp_path, how):
    name, statement, use = IMPORTS[how]
    folder = package(tmp_path, {name: method(statement, use), "losses.py": LOSSES})
    before = source_hash(folder / name)
    (folder / "losses.py").write_text(LOSSES.replace("1.0", "1e6"))
    assert source_hash(folder / name) != before


@pytest.mark.parametrize("how", ["beside", "absolute", "up"])
def test_a_package_needs_no_init(tmp_path, how):
    name, statement, use = IMPORTS[how]
    folder = package(tmp_path, {name: method(statement, use), "losses.py": LOSSES})
    for init in folder.rglob("__init__.py"):
        init.unlink()
    before = source_hash(folder / name)
    (folder / "losses.py").write_text(LOSSES.replace("1.0", "1e6"))
    assert source_hash(folder / name) != before


@pytest.mark.parametrize("how", IMPORTS)
def test_a_module_may_be_moved_and_renamed(tmp_path, how):
    name, statement, use = IMPORTS[how]
    old = package(tmp_path / "old", {name: method(statement, use), "losses.py": LOSSES})
    moved = method(statement, use, "shared.loss_parts")
    new = package(tmp_path / "new", {name: moved, "shared/loss_parts.py": LOSSES})
    assert source_hash(new / name) == source_hash(old / name)


@pytest.mark.parametrize("statement", ["from . import {}", "from .{} import *", "from package import {}"])
def test_a_module_that_is_bound_by_its_name_may_be_renamed(tmp_path, statement):
    use = "loss(x)" if "*" in statement else "{}.loss(x)"
    hashes = set()
    for name in ("losses", "loss_parts"):
        folder = package(tmp_path / name, {"mine.py": method(statement, use, name), f"{name}.py": LOSSES})
        hashes.add(source_hash(folder / "mine.py"))
    assert len(hashes) == 1


TWO = {"losses.py": LOSSES, "further.py": LOSSES.replace("1.0", "2.0")}
LIKE = method("from .losses import loss", "loss(x)")


@pytest.mark.parametrize(
    ("one", "another"),
    [
        (LIKE, LIKE.replace(".losses", ".further")),
        (LIKE, LIKE.replace("import loss", "import other as loss")),
        (
            method("from .losses import loss, other", "loss(other(x))"),
            method("from .losses import loss as other, other as loss", "loss(other(x))"),
        ),
        (
            method("from . import losses, further", "losses.loss(x)"),
            method("from . import further as losses, losses as further", "losses.loss(x)"),
        ),
        (
            method("from . import losses", "losses.loss(x)"),
            method("from . import losses", "losses.other(x)"),
        ),
        (
            method("from .losses import loss\nfrom .further import *", "loss(x)"),
            method("from .further import *\nfrom .losses import loss", "loss(x)"),
        ),
        (
            method("from .losses import loss\nfrom .further import loss", "loss(x)"),
            method("from .further import loss\nfrom .losses import loss", "loss(x)"),
        ),
        (
            method("if 1:\n    from .losses import loss\nelse:\n    from .further import loss", "loss(x)"),
            method("if 1:\n    from .further import loss\nelse:\n    from .losses import loss", "loss(x)"),
        ),
        (
            method("from .losses import loss\ndef f(loss): return loss", "f(x)"),
            method("from .losses import loss\ndef f(y): return loss", "f(x)"),
        ),
        (
            method("from .losses import loss\ndef f():\n    loss = 1\n    return loss", "f()"),
            method("from .losses import loss\ndef f():\n    other = 1\n    return loss", "f()"),
        ),
        (
            method("from torch.nn import functional as f", "f.relu(x)"),
            method("from torch import special as f", "f.relu(x)"),
        ),
        (
            method("import a.b\nimport c", "a.b(x)"),
            method("import a.b\nimport c", "c.b(x)"),
        ),
        (
            "class Mine:\n    from .losses import loss as one, other as two\n",
            "class Mine:\n    from .losses import other as one, loss as two\n",
        ),
        (
            method("from .losses import loss\ndef f():\n    global loss\n    loss = abs", "loss(x)"),
            method("from .losses import loss\ndef f():\n    loss = abs", "loss(x)"),
        ),
    ],
    ids=[
        "module", "name", "names swapped", "modules swapped", "attribute", "star last", "last of two",
        "branches", "parameter", "local", "installed module", "which package", "class attributes", "global",
    ],
)  # fmt: skip
def test_what_is_imported_counts(tmp_path, one, another):
    folders = [package(tmp_path / str(k), {**TWO, "mine.py": text}) for k, text in enumerate((one, another))]
    assert source_hash(folders[0] / "mine.py") != source_hash(folders[1] / "mine.py")


@pytest.mark.parametrize(
    ("statement", "use"),
    [("from .hub import f", "f(x)"), ("from . import hub", "hub.f(x)"), ("from . import hub", "getattr(hub, 'f')(x)")],
)
def test_a_name_that_another_module_passes_on_counts(tmp_path, statement, use):
    """The hub has the same two imports in both cases; only their names are swapped."""
    hashes = set()
    for k, names in enumerate(("loss as f, other as g", "other as f, loss as g")):
        files = {**TWO, "hub.py": f"from .losses import {names}\n", "mine.py": method(statement, use)}
        hashes.add(source_hash(package(tmp_path / str(k), files) / "mine.py"))
    assert len(hashes) == 2


CIRCLE = {
    "mine.py": "from .one import f\n\ndef g(x):\n    return f(x)\n",
    "one.py": "from . import two\n\ndef f(x, n=3):\n    return x if n == 0 else two.g(x, n - 1)\n",
    "two.py": "def g(x, n):\n    from .one import f\n    return 2 * f(x, n)\n",
}


def test_modules_that_import_each_other_count_and_may_be_renamed(tmp_path):
    before = source_hash(package(tmp_path / "before", CIRCLE) / "mine.py")
    renamed = {
        "mine.py": CIRCLE["mine.py"].replace(".one", ".deep.first"),
        "deep/first.py": CIRCLE["one.py"].replace("from . import two", "from .. import zwei").replace("two.", "zwei."),
        "zwei.py": CIRCLE["two.py"].replace(".one", ".deep.first"),
    }
    assert source_hash(package(tmp_path / "renamed", renamed) / "mine.py") == before
    for name, old, new in (("two.py", "2 *", "3 *"), ("one.py", "n=3", "n=4"), ("one.py", "two.g", "two.f")):
        edited = {**CIRCLE, name: CIRCLE[name].replace(old, new)}
        assert source_hash(package(tmp_path / old, edited) / "mine.py") != before


def test_a_module_of_the_project_may_be_moved(monkeypatch, tmp_path):
    """`methods/shared/masks.py` becomes `methods/moved/mask_parts.py`: no method gets another hash."""
    for name in ("methods", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    root = tmp_path.resolve()
    monkeypatch.setattr(fingerprint, "ROOT", root)
    methods = sorted((root / "methods").glob("*.py"))
    before = {file: source_hash(file) for file in methods}
    (root / "methods/moved").mkdir()
    (root / "methods/moved/__init__.py").touch()
    (root / "methods/shared/masks.py").rename(root / "methods/moved/mask_parts.py")
    adapted = 0
    for file in (root / "methods").rglob("*.py"):
        text = file.read_text()
        new = text.replace("methods.shared.masks", "methods.moved.mask_parts")
        new = new.replace("from methods.shared import masks\n", "from methods.moved import mask_parts as masks\n")
        adapted += new != text
        file.write_text(new)
    assert adapted and {file: source_hash(file) for file in methods} == before
    moved = root / "methods/moved/mask_parts.py"
    moved.write_text(moved.read_text() + "\nEXTRA = 1\n")
    assert {file.stem for file in methods if source_hash(file) != before[file]} >= {"hypermask"}


def test_what_runs_with_the_package_counts(tmp_path):
    folder = package(tmp_path, {"sub/mine.py": LIKE.replace(".losses", "..losses"), "losses.py": LOSSES})
    before = source_hash(folder / "sub/mine.py")
    (folder / "__init__.py").write_text('"""Only words."""\n')
    assert source_hash(folder / "sub/mine.py") == before
    (folder / "__init__.py").write_text("from . import losses\nlosses.FACTOR = 3\n")
    assert source_hash(folder / "sub/mine.py") != before


def test_a_package_elsewhere_on_the_search_path_counts_unless_it_is_installed(monkeypatch, tmp_path):
    (tmp_path / "experiments").mkdir()
    mine = tmp_path / "experiments" / "mine.py"
    mine.write_text(method("from package.losses import loss", "loss(x)"))
    changed = []
    for place in ("editable", "lib/site-packages"):
        with monkeypatch.context() as patch:
            folder = package(tmp_path / place, {"losses.py": LOSSES})
            patch.syspath_prepend(folder.parent)
            before, known = source_hash(mine), installed_modules(mine)
            (folder / "losses.py").write_text(LOSSES.replace("1.0", "1e6"))
            changed.append((source_hash(mine) != before, known))
    assert changed == [(True, set()), (False, {"package"})]


def test_the_own_package_counts_where_it_is_installed_too(tmp_path):
    folder = package(tmp_path / "site-packages", {"mine.py": LIKE, "losses.py": LOSSES})
    before = source_hash(folder / "mine.py")
    (folder / "losses.py").write_text(LOSSES.replace("1.0", "1e6"))
    assert source_hash(folder / "mine.py") != before


def test_a_data_file_that_the_code_names_counts(tmp_path):
    code = method("from pathlib import Path", "Path(__file__).with_name('weights.csv')")
    folder = package(tmp_path, {"mine.py": code, "weights.csv": "1,2\n", "others.csv": "1\n"})
    before = source_hash(folder / "mine.py")
    (folder / "others.csv").write_text("2\n")
    assert source_hash(folder / "mine.py") == before
    (folder / "weights.csv").write_text("1,3\n")
    assert source_hash(folder / "mine.py") != before
    assert folder / "weights.csv" in foreign_files(folder / "mine.py")


def test_imports_by_computed_names_are_told(tmp_path):
    code = "import importlib as i\nname = 'a'\ni.import_module(name)\ni.import_module('json')\n__import__(name)\n"
    folder = package(tmp_path, {"mine.py": LIKE, "losses.py": code + LOSSES})
    assert Sources().not_followed(folder / "mine.py") == ["losses.py:3", "losses.py:5"]


def test_what_serves_type_checkers_only_does_not_count(tmp_path):
    guarded = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .further import Thing\n"
    folder = package(tmp_path, {**TWO, "mine.py": guarded + LIKE})
    before = source_hash(folder / "mine.py")
    (folder / "further.py").write_text("Thing = int\n")
    assert source_hash(folder / "mine.py") == before


def test_the_order_of_neighbouring_imports_does_not_count(tmp_path):
    code = method("from .further import other\nfrom .losses import loss", "loss(other(x))")
    swapped = method("from .losses import loss\nfrom .further import other", "loss(other(x))")
    hashes = {
        source_hash(package(tmp_path / str(k), {**TWO, "mine.py": text}) / "mine.py")
        for k, text in enumerate((code, swapped))
    }
    assert len(hashes) == 1


@pytest.mark.parametrize("python", ["python3.11", "python3.12", "python3.13"])
def test_all_python_versions_give_the_same_hash(python):
    found = shutil.which(python)
    code = (
        "import json, sys; from pathlib import Path; from runners.grid.fingerprint import source_hash\n"
        "print(json.dumps([source_hash(file) for file in sorted(Path('methods').rglob('*.py'))]))"
    )
    done = found and subprocess.run([found, "-c", code], cwd=ROOT, capture_output=True, text=True)
    if not done or "not found" in done.stderr or "not installed" in done.stderr:
        pytest.skip(f"there is no {python} here")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [source_hash(file) for file in sorted((ROOT / "methods").rglob("*.py"))]
