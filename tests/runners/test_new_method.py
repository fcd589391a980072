"""The file that a new method starts from is sound as it is, and the commands around it speak plainly."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.types import CIL, UserError
from methods import registry
from runners import check_method, new_method
from runners.conformance import conform
from tests.runners.helpers import ROOT, call, environment

RUN = CliRunner()


def test_the_new_file_holds_to_every_check(tmp_path: Path) -> None:
    file = new_method.write("my-idea", tmp_path)
    assert file == tmp_path / "my_idea.py"
    cls = registry.load(f"{file}:MyIdea")
    assert cls.name == "my-idea" and list(cls.Config.search) == ["lr"]
    assert not conform(cls, [CIL])


def test_the_new_file_is_compared_by_the_command_that_is_shown(tmp_path: Path) -> None:
    written = RUN.invoke(new_method.app, ["fresh", "--into", str(tmp_path)])
    assert written.exit_code == 0
    line = next(line for line in written.output.splitlines() if "continual-intervals compare" in line)
    reference = line.split("--method ")[1].strip()
    options = ("--methods", "finetune", "--seeds", "1", "--scenarios", "til", "--budget-scale", "0.02", "--no-report")
    results = ("--results", tmp_path / "results", "--workers", "1")
    done = call("--suite", "quick", "--method", reference, *options, *results)
    assert done.returncode == 0 and "2 done" in done.stdout


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("My Method", "lower case"),
        ("ewc", "existing method"),
        ("taken", "exists and is not overwritten"),
        ("a" * 250, "has at most 200 letters"),
        ("none", "is a word of Python"),
        ("dataclasses", "the name of a module that methods import"),
    ],
)
def test_names_that_cannot_be(name: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "taken.py").write_text("x = 1\n")
    with pytest.raises(UserError, match=sentence):
        new_method.write(name, tmp_path)
    assert (tmp_path / "taken.py").read_text() == "x = 1\n"


def test_a_folder_that_cannot_be_written_gets_a_sentence_and_no_empty_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="cannot be written: No space left on device"):
        new_method.write("mine", tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_check_command_says_what_is_wrong_and_exits_with_1() -> None:
    broken = Path(__file__).with_name("broken.py")
    done = RUN.invoke(check_method.app, [f"{broken}:ExtraColumn", "--scenarios", "til"])
    assert done.exit_code == 1 and "findings" in done.output
    assert "have the shape (90, 3), not (90, 2)" in " ".join(done.output.split())


def test_pytest_takes_a_method_and_runs_nothing_else(tmp_path: Path) -> None:
    file = new_method.write("tested", tmp_path)
    options = ["-q", "-p", "no:cacheprovider", "--collect-only", "--method", f"{file}:Tested"]
    files = ("tests/methods/test_conformance.py", "tests/benchmarks/test_catalogue.py")
    command = [sys.executable, "-m", "pytest", *options, *files]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment(), timeout=300)
    lines = [line for line in done.stdout.splitlines() if "::" in line]
    assert len(lines) == 4 and all("test_conformance.py" in line and "tested.py" in line for line in lines)
