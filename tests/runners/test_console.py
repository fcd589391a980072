"""The console command: subcommands, completion, and `show`."""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from benchmarks.types import UserError
from methods import avalanche, registry
from runners import command_line, console, show
from tests.runners.helpers import ROOT, environment

START = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv[0] = 'continual-intervals'; "


def called(*arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command as its entry point runs it."""
    code = START + "from runners.console import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=300,
    )


def completed(line: str, cwd: Path | None = None) -> list[str]:
    """Offers of bash at the end of a line."""
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    return called(cwd=cwd, _CONTINUAL_INTERVALS_COMPLETE="complete_bash", **words).stdout.split()


def test_every_subcommand_is_a_command_of_this_folder() -> None:
    for module, summary in console.COMMANDS.values():
        command: Any = get_command(importlib.import_module(f"runners.{module}").app)
        assert command.help and summary.endswith(".")


def test_help_lists_the_subcommands_without_importing_them() -> None:
    code = START + (
        "from runners import console; from typer.testing import CliRunner; "
        "print(CliRunner().invoke(console.app, ['--help']).stdout, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert all(f" {name} " in done.stdout for name in console.COMMANDS) and done.stdout.endswith("False\n")


def test_a_subcommand_runs_and_is_recorded_as_called(tmp_path: Path) -> None:
    grid = "compare --suite quick --methods finetune --benchmarks split-digits --scenarios til --seeds 1"
    done = called(*grid.split(), "--budget-scale", "0.02", "--engine", "inline", "--no-report", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (record,) = tmp_path.rglob("cell.json")
    assert f'"command": "continual-intervals {grid}' in record.read_text()


def test_a_script_is_recorded_as_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["runners/compare.py", "--suite", "my suite.toml"])
    assert command_line.invocation("compare.py") == "python runners/compare.py --suite 'my suite.toml'"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compar"], "compare"),
        (["compare", "--suite", "quik"], "error: --suite quik: there is no such suite. Did you mean quick"),
        (["show", "ewcc"], "error: unknown method 'ewcc'. Did you mean ewc"),
        (["show", "ewc", "--suite", "quik"], "error: --suite quik: there is no such suite. Did you mean quick"),
    ],
)
def test_mistakes_get_a_sentence(arguments: list[str], said: str) -> None:
    done = called(*arguments)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_completion(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").touch()
    (tmp_path / "mine.py").write_text('@register("a")\nclass First: ...\n@register("b")\nclass Second: ...\n')
    for line, expected in (
        ("continual-intervals comp", ["compare"]),
        ("continual-intervals compare --suite permuted-t", ["permuted-trend"]),
        ("continual-intervals compare --suite mi", ["mine.toml"]),
        ("continual-intervals compare --methods ewc,ew", ["ewc,ewc-online"]),
        ("continual-intervals compare --benchmarks split-digits,rot", ["split-digits,rotated-mnist"]),
        ("continual-intervals compare --scenarios til,d", ["til,dil"]),
        ("continual-intervals tune --method hyperi", ["hyperinterval"]),
        ("continual-intervals check mine", ["mine.py"]),
        ("continual-intervals data --check tiny", ["tiny-imagenet"]),
    ):
        assert completed(line, tmp_path) == expected, line


def test_completion_of_classes_and_strategies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from runners import completion

    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text('@register("a")\nclass First: ...\n@register("b")\nclass Second: ...\n')
    assert completion.files("mine.py:") == ["mine.py:First", "mine.py:Second"]
    assert completion.files("mine.py:S") == ["mine.py:Second"] and completion.files("none.py:") == []
    assert completion.method("avalanche:Rep") == ["avalanche:Replay"]
    assert "avalanche:" in completion.methods("ewc,a") or "ewc,avalanche:" in completion.methods("ewc,a")


def shown(*arguments: str) -> str:
    done = CliRunner().invoke(show.app, arguments, catch_exceptions=False, env={"COLUMNS": "400"})
    assert done.exit_code == 0
    return done.output


@pytest.mark.parametrize("name", [*registry.available(), "avalanche:Replay"])
def test_show_has_every_hyperparameter_with_its_default(name: str) -> None:
    lines = {line.split()[0]: line for line in shown(name).splitlines() if line.strip()}
    config: Any = registry.load(name).Config
    for field in dataclasses.fields(config):
        assert str(getattr(config(), field.name)) in lines[field.name]


def test_show_has_range_and_source() -> None:
    (strength,) = (line for line in shown("ewc").splitlines() if line.startswith("strength"))
    assert "0.1 to 1e+07, log" in strength and "lambda, the weight of the penalty" in strength
    assert "tuned on validation data" in shown("ewc", "--suite", "quick")
    assert set(avalanche.names()) == set(shown("avalanche:").split())


def test_show_reads_a_file_of_the_users_with_what_it_inherits(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import dataclass\nfrom methods.base import register\nfrom methods.ewc import EWC\n"
        '@register("mine")\nclass Mine(EWC):\n    """My EWC."""\n    @dataclass(frozen=True)\n'
        '    class Config(EWC.Config):\n        share: float = 0.25\n        """Share of the importance (mine)."""\n'
    )
    text = shown(f"{file}:Mine")
    assert text.startswith("mine (til dil cil): My EWC.")
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "0.25" in lines["share"] and "Share of the importance (mine)." in lines["share"]
    assert "1000.0" in lines["strength"] and "lambda, the weight of the penalty" in lines["strength"]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("class Config:\n        lr: float", "the field lr of its Config has no default"),
        ("class Config:\n        lr: 'Nope' = 1", "a type in its Config cannot be read"),
        ("class Config:\n        lr: int = 1\n        def __post_init__(self): 1 / 0", "ZeroDivisionError"),
        ("class Config(EWC.Config):\n        search = 3", "Config.search is 3; write search = ranges(...)"),
    ],
    ids=["no default", "unknown type", "raises", "no ranges"],
)
def test_show_answers_a_mistake_in_the_config_with_a_sentence(tmp_path: Path, line: str, sentence: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import dataclass\nfrom methods.base import register\nfrom methods.ewc import EWC\n"
        f'@register("mine")\nclass Mine(EWC):\n    @dataclass(frozen=True)\n    {line}\n'
    )
    done = CliRunner().invoke(show.app, [f"{file}:Mine"])
    assert isinstance(done.exception, UserError) and sentence in str(done.exception) and not done.output
