"""Every code block of docs/ and the README is executed: Python and suite files always, shell lines by `-m slow`.

Without `-m slow` the shell lines are compared with the commands' own options. What needs a cluster, a GPU or the net,
and what would write into the repository, is not run; hours of training become a dry run.
The figures of speed in both texts are compared with reports/speed.csv.
"""

import csv
import importlib
import linecache
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from benchmarks.types import CIL
from methods import registry
from runners.conformance import conform
from runners.console import COMMANDS
from runners.grid import build, suite
from tests.runners.helpers import ROOT, environment

DOCS = sorted((ROOT / "docs").glob("*.md"))
IN_ORDER = ("adding-a-method", "adding-a-benchmark", "suite-files", "tuning", "reading-the-report", "records", "faq")
"""Pages whose commands build on each other, in one folder."""
README, CLUSTER = ROOT / "README.md", ROOT / "docs" / "cluster.md"
NOT_RUN = {"cuda", "ray", "--prepare", "--watch", "runners/reference.py", "results-a", "results-b"}
HOURS = {"mnist", "all"}
"""Suites that are only planned here."""
SHORTER = {
    "compare.py": "--budget-scale 0.02 --workers 1 --device cpu",
    "tune.py": "--budget-scale 0.02 --engine inline",
    "speed.py": "--steps 2",
}
"""Added to commands, so that trying them all takes minutes."""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def lines(page: Path) -> list[str]:
    return [line for block in blocks(page, "sh") for line in block.splitlines() if line.startswith("python runners/")]


def write_files(page: Path, folder: Path) -> None:
    """The blocks that begin with `# file: NAME`."""
    for language in ("python", "toml"):
        for block in blocks(page, language):
            if block.startswith("# file: "):
                (folder / block.splitlines()[0].removeprefix("# file: ")).write_text(block)


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.stem)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, block in enumerate(blocks(page, "python")):
        names: dict[str, object] = {"__name__": "docs_block"}
        if not block.startswith("# file: "):
            source = f"<block {number} of {page.name}>"
            linecache.cache[source] = (len(block), None, block.splitlines(keepends=True), source)  # as a notebook does
            exec(compile(block, source, "exec"), names)


@pytest.mark.parametrize("page", [*DOCS, README], ids=lambda page: page.stem)
def test_commands_and_links_exist(page: Path) -> None:
    for line in lines(page):
        words = shlex.split(line, comments=True)
        script = ROOT / words[1]
        assert script.is_file(), line
        module = importlib.import_module(f"runners.{script.stem}")
        known = {option for parameter in get_command(module.app).params for option in parameter.opts}
        asked = {word for word in words[2:] if word.startswith("--")}
        assert asked <= known, f"{page.name}: {line}"
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def measured(benchmark: str, scenario: str, method: str, task: int, device: str = "") -> tuple[float, float, float]:
    """Milliseconds of the authors' step and of ours, and their ratio: the newest run in reports/speed.csv with both."""
    with (ROOT / "reports" / "speed.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    cell = {"benchmark": benchmark, "scenario": scenario, "task": str(task), "phase": "0"}
    same = [row for row in rows if all(row[key] == value for key, value in cell.items()) and device in row["device"]]
    theirs = max(i for i, row in enumerate(same) if row["method"] == f"{method} (official)")
    # A run times our step and then theirs; a later run may have ours alone.
    ours = max(i for i, row in enumerate(same[:theirs]) if row["method"] == method)
    assert same[ours]["commit"] == same[theirs]["commit"] and same[ours]["device"] == same[theirs]["device"]
    return float(same[theirs]["ms_per_step"]), float(same[ours]["ms_per_step"]), float(same[theirs]["ours_faster"])


def assert_rounded(text: str, value: float) -> None:
    """`text` is `value` to the digits that it gives."""
    assert text == f"{value:.{len(text.partition('.')[2])}f}", f"{text} is written, {value} was measured"


def numbers(text: str) -> list[str]:
    return re.findall(r"\d+(?:\.\d+)?", text)


def test_the_readmes_speed_is_the_measured_one() -> None:
    """The step after nine old tasks, in TIL and nested (DIL)."""
    said = re.search(
        r"takes (\S+) s\s+in TIL .*?\(the authors' (\S+) s.*?: (\S+) times\)"
        r" and (\S+) s\s+nested \((\S+) s: (\S+) times\)",
        README.read_text().replace("\n", " "),
    )
    assert said
    for scenario, (ours, theirs, times) in (("til", said.groups()[:3]), ("dil", said.groups()[3:])):
        measured_theirs, measured_ours, ratio = measured("split-mnist", scenario, "hyperinterval", 9)
        assert_rounded(ours, measured_ours / 1000)
        assert_rounded(theirs, measured_theirs / 1000)
        assert_rounded(times, ratio)


@pytest.mark.parametrize(
    ("row", "benchmark", "scenarios", "method", "tasks", "unit"),
    [
        ("HyperInterval, TIL", "split-mnist", ["til"], "hyperinterval", [0, 4, 9], 1000),
        ("nested (DIL)", "split-mnist", ["dil"], "hyperinterval", [0, 4, 9], 1000),
        ("Permuted MNIST-10's shapes", "permuted-mnist-10", ["til", "dil"], "hyperinterval", [9], 1000),
        ("HyperMask, after", "split-mnist", ["til"], "hypermask", [0, 1, 4], 1),
        ("HNET (chunked), after", "split-mnist", ["til"], "hnet", [0, 4, 9], 1),
        ("EPYC, HNET (chunked), after", "split-mnist", ["til"], "hnet", [0, 4, 9], 1),
    ],
)
def test_the_table_of_speed_is_the_measured_one(
    row: str, benchmark: str, scenarios: list[str], method: str, tasks: list[int], unit: int
) -> None:
    """Columns: what, theirs, ours, target, times; the last names each of the measurements or the last one only."""
    (line,) = (x for x in (ROOT / "docs" / "speed.md").read_text().splitlines() if x.startswith(f"| {row}"))
    _, _, theirs, ours, _, times, _ = line.split("|")
    device = "EPYC" if row.startswith("EPYC") else ""
    found = [measured(benchmark, scenario, method, task, device) for scenario in scenarios for task in tasks]
    for written, values in ((theirs, [a / unit for a, _, _ in found]), (ours, [b / unit for _, b, _ in found])):
        assert len(numbers(written)) == len(values)
        for text, value in zip(numbers(written), values, strict=True):
            assert_rounded(text, value)
    ratios = [ratio for _, _, ratio in found][-len(numbers(times)) :]
    for text, ratio in zip(numbers(times), ratios, strict=True):
        assert_rounded(text, ratio)


def test_subcommands_named_in_pages_exist() -> None:
    for page in [*DOCS, README]:
        for words in re.findall(r"`continual-intervals ([a-z|]+)[ `]", " ".join(page.read_text().split())):
            assert set(words.split("|")) <= COMMANDS.keys(), f"{page.name}: {words}"


def test_the_suite_file_shown_is_valid(tmp_path: Path) -> None:
    write_files(ROOT / "docs" / "suite-files.md", tmp_path)
    cells = build.build([suite.read(tmp_path / "mine.toml")], build.Choices())
    assert {cell.label for cell in cells} == {"finetune", "ewc", "avalanche:Replay", "ewc-batched"}
    assert {cell.config["mem_size"] for cell in cells if cell.method == "avalanche:Replay"} == {100}


def test_the_suite_of_tuned_values_shown_takes_them(tmp_path: Path) -> None:
    write_files(ROOT / "docs" / "adding-a-method.md", tmp_path)
    (tmp_path / "results" / "tuning").mkdir(parents=True)
    chosen = '[[settings]]\nmethod = "my-replay"\nscenario = "cil"\nvalues = { weight = 3.0 }\n'
    (tmp_path / "results" / "tuning" / "quick.toml").write_text(chosen)
    cells = build.build([suite.read(tmp_path / "own.toml")], build.Choices())
    assert {(cell.label, cell.config.get("weight")) for cell in cells} == {("ewc", None), ("my-replay", 3.0)}


def test_the_worked_example_is_sound_and_remembers(tmp_path: Path) -> None:
    write_files(ROOT / "docs" / "adding-a-method.md", tmp_path)
    cls = registry.load(f"{tmp_path / 'replay.py'}:Replay")
    assert not conform(cls, [CIL])


def test_the_benchmark_shown_gives_its_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.catalogue import find
    from benchmarks.stream import open_stream

    write_files(ROOT / "docs" / "adding-a-benchmark.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    flowers = open_stream(find("flowers.py:FLOWERS"), CIL, 0)
    assert [sorted(flowers.task(j).train.labels.unique().tolist()) for j in range(2)] == [[0], [1, 2]]
    stream = open_stream(find("stripes.py"), CIL, 0)
    assert stream.task_names == ["left or right", "top or bottom"]
    for j in range(2):
        x, y = stream.test(j).x, stream.test(j).labels - 2 * j
        halves = (x[..., :2].mean((1, 2, 3)), x[..., 2:].mean((1, 2, 3)))
        if j == 1:
            halves = (x[..., :2, :].mean((1, 2, 3)), x[..., 2:, :].mean((1, 2, 3)))
        assert ((halves[1] > halves[0]) == (y == 1)).all()


def shortened(line: str) -> list[str] | None:
    """A documented command as it is tried; None for one that is not."""
    words = shlex.split(line, comments=True)[1:]
    data = os.environ.get("CONTINUAL_DATA")
    if NOT_RUN & set(words) or ("DIR" in words and data is None):
        return None
    script = Path(words[0]).name
    if "--suite" in words and words[words.index("--suite") + 1] in HOURS:
        more = "" if "--dry-run" in words else "--dry-run"
    else:
        whole = {"--list", "--budget-scale", "--reference", "--status"} & set(words)
        more = "" if whole else SHORTER.get(script, "")
    return [data if word == "DIR" and data else word for word in [*words, *shlex.split(more)]]


def run_all(page: Path, folder: Path) -> None:
    write_files(page, folder)
    for line in lines(page):
        words = shortened(line)
        if words is None:
            continue
        command = [sys.executable, str(ROOT / words[0]), *words[1:]]
        done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, f"{page.name}: {line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.mark.slow
def test_all_commands_run_in_order(tmp_path: Path) -> None:
    """From an empty folder, as a reader would: a new file, the example, its check, tables, report, tuning."""
    for stem in IN_ORDER:
        run_all(ROOT / "docs" / f"{stem}.md", tmp_path)
    run_all(CLUSTER, tmp_path)
    assert (tmp_path / "results" / "report" / "report.pdf").stat().st_size > 10_000


@pytest.mark.slow
def test_the_readmes_commands_run(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n# my_method\.py\n(.*?)```", README.read_text(), flags=re.DOTALL)
    (tmp_path / "my_method.py").write_text(code)
    run_all(README, tmp_path)
    assert (tmp_path / "reference-report" / "report.pdf").stat().st_size > 10_000
