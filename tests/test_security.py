"""What is read from a results or data folder cannot run code; only files that a user names do, or lie by a suite."""

from __future__ import annotations

import ast
import os
import pickle
import tarfile
from pathlib import Path

import pytest
import torch

from benchmarks.types import UserError
from runners.cell import checkpoint
from runners.grid import suite
from runners.records.folder import CellFolder
from tests.runners.helpers import compare_here

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("benchmarks", "methods", "runners", "reports")
FORBIDDEN = {"eval", "exec", "compile", "read_pickle", "dill", "joblib", "shelve"}
PERMITTED = {
    "benchmarks/user_files.py": {"exec_module"},  # --method FILE.py, which says that it runs the file
    "reports/figure_files.py": {"pickle.loads"},  # from its own parent process, through a pipe
}


def calls(file: Path) -> list[tuple[str, ast.Call]]:
    """Every call in a file, as `name` or `object.name`."""
    tree = ast.parse(file.read_text())
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def complaint(name: str, call: ast.Call) -> str | None:
    """Why a call could run what a file holds."""
    words = {word.arg: ast.unparse(word.value) for word in call.keywords}
    last = name.rpartition(".")[2]
    if name in FORBIDDEN or (last in FORBIDDEN and last not in ("eval", "compile")):
        return "runs code or unpickles"
    if name.startswith("pickle.load") or name == "pickle.Unpickler" or last == "exec_module":
        return "unpickles" if last != "exec_module" else "runs a file"
    if name == "torch.load" and words.get("weights_only") != "True":
        return "torch.load without weights_only=True"
    if last == "load" and words.get("allow_pickle", "False") != "False":
        return "allows pickle"
    if last in ("extractall", "unpack_archive") and words.get("filter") != "'data'":
        return "unpacks without path checks"
    if name == "yaml.load":
        return "yaml.load makes objects"
    return None


@pytest.mark.parametrize("room", ROOMS)
def test_no_code_reads_pickles_or_unpacks_unchecked(room):
    found = []
    for file in sorted((ROOT / room).rglob("*.py")):
        place = str(file.relative_to(ROOT))
        for name, call in calls(file):
            problem = complaint(name, call)
            permitted = PERMITTED.get(place, set())
            if problem and name not in permitted and name.rpartition(".")[2] not in permitted:
                found.append(f"{place}:{call.lineno}: {name} {problem}")
    assert found == []


@pytest.mark.parametrize(
    "code, bad",
    [
        ("pickle.load(f)", True),
        ("torch.load(f)", True),
        ("torch.load(f, weights_only=False)", True),
        ("torch.load(f, weights_only=True)", False),
        ("np.load(f, allow_pickle=True)", True),
        ("np.load(f)", False),
        ("archive.extractall(p)", True),
        ("archive.extractall(p, filter='data')", False),
        ("eval(text)", True),
        ("model.eval()", False),
    ],
)
def test_the_search_finds_what_it_is_for(code, bad):
    call = ast.parse(code, mode="eval").body
    assert isinstance(call, ast.Call)
    assert bool(complaint(ast.unparse(call.func), call)) == bad


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_a_checkpoint_that_would_run_code_is_refused(tmp_path, form):
    folder, mark = CellFolder(tmp_path / "a" / "b" / "c"), tmp_path / "ran"
    folder.path.mkdir(parents=True)
    if form == "torch":
        torch.save({"layout": 1, "key": "k", "state": Touch(mark)}, tmp_path / "evil")
        folder.write_checkpoint((tmp_path / "evil").read_bytes())
    else:
        folder.write_checkpoint(pickle.dumps(Touch(mark)))
    assert checkpoint.load(folder, "k") is None
    assert not mark.exists()


def test_a_suite_file_runs_nothing_outside_its_folder(tmp_path):
    (tmp_path / "suite").mkdir()
    file = tmp_path / "suite" / "evil.toml"
    text = 'description = "x"\nmethods = ["{name}"]\n[[benchmarks]]\nname = "split-digits"\n'
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    file.write_text(text.format(name=f"{tmp_path / 'evil.py'}:X"))
    with pytest.raises(UserError, match=r"evil\.toml: methods: .*write a path below"):
        compare_here(tmp_path / "results", suites=(str(file),))
    file.write_text(text.format(name="../evil.py:X"))
    with pytest.raises(UserError, match=r"evil\.toml: methods: .* would leave its folder"):
        compare_here(tmp_path / "results", suites=(str(file),))
    with pytest.raises(UserError, match="is not TOML"):
        (tmp_path / "not.toml").write_text("import os")
        suite.read(tmp_path / "not.toml")
    assert not (tmp_path / "ran").exists()


def test_the_filter_refuses_paths_that_leave_the_folder(tmp_path):
    """What benchmarks/ relies on: the standard library's `data` filter."""
    evil = tmp_path / "evil.tar"
    (tmp_path / "file").write_text("x")
    with tarfile.open(evil, "w") as archive:
        archive.add(tmp_path / "file", arcname="../outside")
    with tarfile.open(evil) as archive, pytest.raises(tarfile.OutsideDestinationError):
        archive.extractall(tmp_path / "inside", filter="data")
