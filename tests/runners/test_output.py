"""What the commands print: in every encoding and width, into a pipe, and to a reader that leaves early."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from benchmarks.catalogue import BENCHMARKS
from methods import registry
from runners import listing, streams
from runners.command_line import ignore_useless_columns
from runners.grid import suite
from runners.session import Options, build_cells
from runners.streams import EXIT_READER_GONE
from tests.runners.helpers import ROOT

LIST = ("runners/compare.py", "--list")
GRID = "--methods finetune --benchmarks split-digits --scenarios til --seeds 2 --budget-scale 0.01 --engine inline"


def rarely(*values: object) -> list:
    """Values for `-m slow`: every one starts a process, and little is left to go wrong where the others pass."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def printed(*arguments: str, encoding: str = "utf-8", **variables: str) -> str:
    """What a command writes into a pipe; it must end well."""
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "PYTHONIOENCODING", "LC_ALL")}
    environment = {**kept, "PYTHONIOENCODING": encoding, **variables}
    done = subprocess.run([sys.executable, *arguments], env=environment, cwd=ROOT, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode(encoding)


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("columns", [None, "30", "80", *rarely("40", "60", "120", "200")])
def test_the_list_is_whole_at_every_width(columns):
    text = printed(*LIST, **({"COLUMNS": columns} if columns else {}))
    assert "…" not in text
    for benchmark in BENCHMARKS.values():
        assert {benchmark.name, benchmark.network} <= set(text.split())
    assert {"avalanche:NAME", "images-FOLDER-TASKSxCLASSES", "SPLIT-shuffled"} <= set(text.split())
    for info in registry.available().values():
        assert words(info.summary) in words(text)
    for name, path in suite.shipped().items():
        assert name in text.split() and words(suite.read(path).description) in words(text)
    longest = max(len(line.rstrip()) for line in text.splitlines())
    assert columns is None or longest <= int(columns)


def test_in_a_pipe_every_row_is_one_line():
    lines = printed(*LIST).splitlines()
    assert [line for line in lines if line.startswith("permuted-mnist-100 ") and "mlp-1000-1000" in line]
    summary = registry.available()["ewc"].summary
    assert [line for line in lines if line.startswith("ewc ") and summary in line]


@pytest.mark.parametrize("encoding", ["ascii", *rarely("utf-16", "latin-1", "cp1252")])
@pytest.mark.parametrize("arguments", ["--list", f"{GRID} --dry-run", "--help"])
def test_every_encoding_will_do(encoding, arguments, tmp_path):
    more = ["--results", str(tmp_path)] if "dry" in arguments else []
    assert printed("runners/compare.py", *arguments.split(), *more, encoding=encoding, COLUMNS="60").strip()


def test_a_run_with_a_label_that_the_encoding_lacks_goes_through(tmp_path):
    file = tmp_path / "suite.toml"
    text = 'description = "x"\nmethods = ["finetune"]\nscenarios = ["til"]\nseeds = 1\n'
    text += '[[benchmarks]]\nname = "split-digits"\nsteps = 3\n'
    text += '[[variants]]\nlabel = "方法 [/x] [bold] … é"\nmethod = "finetune"\nvalues = { lr = 0.1 }\n'
    file.write_text(text, encoding="utf-8")
    call = ("runners/compare.py", "--suite", str(file), "--engine", "inline", "--results", str(tmp_path / "results"))
    shown = r"\u65b9\u6cd5 [/x] [bold] ... \xe9"
    assert shown in printed(*call, "--dry-run", "--verbose", encoding="ascii")
    assert shown in printed(*call, "--no-report", encoding="ascii")
    assert "2 done" in printed("runners/compare.py", "--status", str(tmp_path / "results"), encoding="ascii")


def test_the_list_counts_the_cells_of_every_suite_that_has_rows_in_some_scenarios():
    (found,) = (table for table in listing.tables() if table.title == "Suites")
    cells = {row[0]: row[2] for row in found.rows}
    for name in ("deviations", "hint"):
        assert cells[name] == str(len(build_cells(Options(suites=(name,))))), name


@pytest.mark.parametrize(("given", "kept"), [("0", None), ("wide", None), ("", None), ("80", "80"), ("100", "100")])
def test_columns_of_no_width_count_as_unset(given, kept, monkeypatch):
    monkeypatch.setenv("COLUMNS", given)
    ignore_useless_columns()
    assert os.environ.get("COLUMNS") == kept


def test_a_stream_that_cannot_be_written_to_ends_the_command_with_a_sentence():
    with streams.Stream(open("/dev/full", "wb"), "utf-8") as stream:
        with pytest.raises(streams.Unwritable) as caught:
            stream.write("x" * 100_000)
            stream.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    assert caught.value.code == 2 and "cannot be written: No space left on device" in caught.value.sentence
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, *LIST], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, timeout=300)
    assert done.returncode == 2 and done.stderr.decode().splitlines() == [f"error: {caught.value.sentence}"]


def ended(command: str, lines: int) -> tuple[int, bytes]:
    """Exit code and standard error of a command whose reader leaves after some lines."""
    process = subprocess.Popen(
        [sys.executable, *command.split()], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout and process.stderr
    for _ in range(lines):
        process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    return process.wait(timeout=300), said


@pytest.mark.parametrize("lines", [0, *rarely(1)])
@pytest.mark.parametrize(
    "command",
    [
        "runners/compare.py --list",
        "runners/compare.py --help",
        f"runners/compare.py --suite quick {GRID} --dry-run",
        f"runners/compare.py --suite quick {GRID} --no-report",
        "runners/data.py --list",
        "runners/tune.py --help",
        "runners/report.py --help",
        "runners/check_method.py --explain finetune --scenarios til",
    ],
)
def test_where_the_reader_leaves_a_command_ends_without_a_word(command, lines, tmp_path):
    more = f" --results {tmp_path}" if "--suite" in command else ""
    code, said = ended(command + more, lines)
    assert said == b""
    assert code in (0, EXIT_READER_GONE)  # 0 where all was written into the pipe before
