"""What the README shows works as shown."""

import re
from pathlib import Path

import torch

from benchmarks.catalogue import BENCHMARKS, find
from benchmarks.stream import open_stream
from benchmarks.types import CIL, Budget, ValidatedBudget
from methods import registry

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()


def test_the_example_method_learns(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n# my_method\.py\n(.*?)```", README, flags=re.DOTALL)
    file = tmp_path / "my_method.py"
    file.write_text(code)
    method_class = registry.load(f"{file}:Shrink")
    stream = open_stream(find("split-digits"), CIL, 0, budget=Budget(32, steps=100))
    method = method_class(stream.spec)
    method.begin(stream.task(0))
    method.learn(stream.task(0))
    with torch.no_grad():
        assert method.accuracy(stream.test(0)) > 0.9


def test_every_benchmark_named_in_the_table_exists() -> None:
    table = README.split("## Benchmarks")[1].split("\n- ")[0]
    names = [name for name in re.findall(r"`([a-z0-9-]+)`", table) if not name.startswith("-")]
    assert len(names) >= 6
    assert all(find(name).name == name for name in names)


def test_tasks_budgets_and_validation_samples_are_those_of_the_table() -> None:
    table = README.split("## Benchmarks")[1].split("\n- ")[0]
    checked = set()
    for row in table.strip().splitlines()[2:]:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        names = whole_names(cells[0])
        amount, unit, batch = re.fullmatch(r"(?:at most )?(\d+) (steps|epochs) of (\d+)", cells[4]).groups()
        first, each = re.fullmatch(r"first (\d+)( a class)?", cells[5]).groups()
        for name in names:
            found = find(name)
            assert isinstance(found.budget, ValidatedBudget) == cells[4].startswith("at most")
            assert (found.budget.batch_size, getattr(found.budget, unit)) == (int(batch), int(amount)), name
            assert found.validation == int(first) * (found.largest_task if each else 1), name
        if division := re.match(r"(\d+) x (\d+)", cells[1]):
            assert (find(names[0]).n_tasks, find(names[0]).largest_task) == tuple(map(int, division.groups()))
        checked |= set(names)
    assert checked == set(BENCHMARKS)
    assert "have `resnet-20` and 10 epochs of 32 a task by default" in README
    folder = find("images-birds-5x2")
    assert (folder.network, folder.budget) == ("resnet-20", Budget(32, epochs=10))


def whole_names(cell: str) -> list[str]:
    """Names of benchmarks, of which later ones may be given by their endings alone."""
    found: list[str] = []
    for name in re.findall(r"`([a-z0-9-]+)`", cell):
        stem = found[-1] if name.startswith("-") else ""
        while stem and stem + name not in BENCHMARKS:
            stem = stem.rpartition("-")[0]
        found.append(stem + name)
    return found


def test_every_option_named_exists() -> None:
    from typer.main import get_command

    from runners.compare import app

    known = {option for parameter in get_command(app).params for option in parameter.opts}
    blocks = [line for line in README.splitlines() if "runners/compare.py" in line]
    named = {option for line in blocks for option in re.findall(r"(?<= )--[a-z-]+", line)}
    assert named and named <= known
