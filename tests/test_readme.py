"""What the README shows works as shown."""

import re
from pathlib import Path

import torch

from benchmarks.catalogue import find
from benchmarks.stream import open_stream
from benchmarks.types import CIL, Budget
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


def test_every_option_named_exists() -> None:
    from typer.main import get_command

    from runners.compare import app

    known = {option for parameter in get_command(app).params for option in parameter.opts}
    blocks = [line for line in README.splitlines() if "runners/compare.py" in line]
    named = {option for line in blocks for option in re.findall(r"(?<= )--[a-z-]+", line)}
    assert named and named <= known
