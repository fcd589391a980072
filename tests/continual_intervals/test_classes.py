"""Classes without a file: what is written of a session, and what is refused."""

from __future__ import annotations

import importlib
import linecache
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from benchmarks import catalogue, plugins
from benchmarks.types import UserError
from continual_intervals import classes, values
from methods import registry
from methods.ewc import EWC
from runners.grid.loading import load_method
from tests.runners.foreign import Good
from tests.runners.helpers import ROOT, environment, foreign

METHOD = """
@register("drawn")
class Drawn(Method):
    supports = frozenset({{TIL}})
    def learn(self, task): ...
    def predict(self, x, task_id=None):
        loss = 1
        return {value}
"""
START = "from methods.base import TIL, Method, register\n"


def session(*cells: str) -> dict[str, Any]:
    """Names after cells were executed as a notebook does it."""
    names: dict[str, Any] = {"__name__": "a_session", "In": []}
    for number, cell in enumerate(cells):
        source = f"<cell {number} {hash(cells)}>"
        linecache.cache[source] = (len(cell), None, cell.splitlines(keepends=True), source)
        names["In"].append(cell)
        exec(compile(cell, source, "exec"), names)
    return names


def answer(folder: Path, *cells: str) -> Any:
    """Predictions of the written class, without the session's memory."""
    written = classes.reference(session(*cells)["Drawn"], folder)
    return registry.load(written.text).predict(None, None)  # type: ignore[arg-type]


def method(value: str) -> str:
    return METHOD.format(value=value)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([START + "A = 2", method("A")], 2),
        ([START + "A = 2", method("A"), "A = 3"], 3),
        ([START + "A = 2\nA += 5", method("A")], 7),
        ([START, "def f(): return g() + 1\ndef g(): return 4", method("f()")], 5),
        ([START, "import math as m\nfrom math import pi as p", method("m.floor(p)")], 3),
        (["from methods.base import *", "from math import *", method("floor(3.5)")], 3),
        ([START + "L = [1, 2]\nn = len(L); k = n + 1", method("k + L[0]")], 4),
        ([START + "loss = 1 / 1\nraise_later = 0", method("loss")], 1),
        (
            [
                START,
                "try:\n    import nothing_of_that_name as found\nexcept ImportError:\n    found = 4",
                method("found"),
            ],
            4,
        ),
        ([START, "class Base: value = 8", method("Base.value")], 8),
    ],
    ids=["value", "later", "added", "functions", "imports", "stars", "line", "local", "try", "class"],
)
def test_a_class_is_written_with_what_it_uses(tmp_path: Path, cells: list[str], expected: int) -> None:
    assert answer(tmp_path, *cells) == expected


CHANGED = """
import collections, functools, math, re
import numpy as np
import torch
LIST = [1.0]
LIST.append(5.0)
LIST += [2]
TABLE = {"x": [{3, 1}, (None,), float("inf")]}
TABLE["lr"] = 0.5
NAMES, scaled = [], lambda x: x * len(NAMES)
for i in range(3):
    NAMES = NAMES + [i]
EMPTY = [(), set(), math.nan]
LOSS, GATES = torch.nn.CrossEntropyLoss(), torch.tensor([1.0, math.nan])
BOUND = functools.partial(max, 2)
WORD, COUNTS, ROWS = re.compile("a+"), collections.Counter("aab"), np.arange(3)
@functools.cache
def kept(x): return x
class Own:
    size = 3
    def __init__(self): self.size = self.half()
    def half(self): return self.size / 2
ONE = Own()
"""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("LIST", [1.0, 5.0, 2]),
        ("TABLE", {"x": [{3, 1}, (None,), float("inf")], "lr": 0.5}),
        ("scaled(2), NAMES", (6, [0, 1, 2])),
        ("str(EMPTY)", "[(), set(), nan]"),
        ("LOSS.reduction, BOUND(1), len(GATES), WORD.pattern, COUNTS['a'], ROWS[2]", ("mean", 2, 2, "a+", 2, 2)),
        ("kept(ONE.size) + math.floor(2.5)", 3.5),
    ],
)
def test_values_are_written_as_the_session_has_them_now(tmp_path: Path, value: str, expected: Any) -> None:
    assert answer(tmp_path, START + CHANGED, method(value)) == expected


def test_sets_are_written_in_one_order() -> None:
    """Otherwise each process would have cells of its own."""
    assert values.literal({"b", "a", "c"}) == "{'a', 'b', 'c'}"


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("kept.scale = 3.0", "kept"),
        ("Own.size = 4", "Own"),
        ("Own.half = lambda self: self.size * 2", "ONE"),
        ("ONE.size += 1", "ONE"),
        ("GATES[0] = 2", "GATES"),
        ("COUNTS['b'] += 4", "COUNTS"),
        ("ROWS[1] = 7", "ROWS"),
        ("DRAWN = torch.randn(3)", "DRAWN"),
        ("NETS = [LOSS]; NETS.append(Own)", "NETS"),
        ("Drawn.more = 1", "1"),
        ("GATES += 1", "GATES"),
        ("if __name__ == 'a_session': LAYER = torch.nn.ReLU()", "LAYER"),
        ("NETS = [LOSS]; NETS.append(NETS)", "NETS"),
    ],
)
def test_values_that_a_file_cannot_make_again_are_refused_by_name(tmp_path: Path, change: str, value: str) -> None:
    names = session(START + CHANGED, method(value), change)
    name = "Drawn" if value == "1" else value
    with pytest.raises(UserError, match=f"{name}.*; run that statement again, or put the class with what it uses in"):
        classes.reference(names["Drawn"], tmp_path)
    assert not [made for made in tmp_path.iterdir() if made.name != "__pycache__"]


def test_a_logger_of_the_module_may_be_used(tmp_path: Path) -> None:
    """It has the name of the written file there."""
    assert answer(tmp_path, START + "import logging\nLOG = logging.getLogger(__name__)", method("LOG.level")) == 0


def test_what_was_read_from_a_file_is_read_again_and_not_written_out(tmp_path: Path) -> None:
    cells = (START + "BIG = list(range(100_000))", method("len(BIG)"))
    assert answer(tmp_path, *cells) == 100_000
    assert max(file.stat().st_size for file in tmp_path.glob("*.py")) < 1000
    with pytest.raises(UserError, match="BIG, which Drawn uses, was changed"):
        classes.reference(session(*cells, "BIG.append(1)")["Drawn"], tmp_path)


def test_a_cell_that_was_no_python_is_passed_over(tmp_path: Path) -> None:
    names = session(START, method("6"))
    names["In"].insert(1, "1 +")
    written = classes.reference(names["Drawn"], tmp_path)
    assert registry.load(written.text).predict(None, None) == 6  # type: ignore[arg-type]


def test_what_the_class_does_not_use_is_not_written(tmp_path: Path) -> None:
    """A name of its functions' own does not bring in the session's value of that name, which may be hours of work."""
    names = session(START, "loss = sorted([2, 1])\nother = sorted([2, 1])", method("4"))
    text = Path(classes.reference(names["Drawn"], tmp_path).text.partition(".py:")[0] + ".py").read_text()
    assert "sorted" not in text


def test_comments_do_not_change_the_code_that_counts_and_values_do(tmp_path: Path) -> None:
    one, same, other = (
        load_method(classes.reference(session(START, f"A = {a}  # {c}", method("A"))["Drawn"], tmp_path).text).source
        for a, c in ((1, "one"), (1, "two"), (2, "one"))
    )
    assert one == same != other


def test_classes_with_a_file_or_a_name_are_referred_to_by_it(tmp_path: Path) -> None:
    assert classes.reference(EWC, tmp_path).text == "ewc"
    assert classes.reference(registry.load("avalanche:EWC"), tmp_path).text == "avalanche:EWC"
    assert classes.reference(Good, tmp_path).text == foreign("Good")
    assert not [made for made in tmp_path.iterdir() if made.name != "__pycache__"]


def test_modules_next_to_the_session_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "part_of_a_session.py").write_text("VALUE = 9\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    names = session(START + "import part_of_a_session as part", method("part.VALUE"))
    assert classes.reference(names["Drawn"], tmp_path / "out").folders == (str(tmp_path),)


INSIDE = "def f():\n" + textwrap.indent(method("1"), "    ") + "    return Drawn"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: 3, "3 is no method; give a name"),
        (lambda: int, "is no method; give a name"),
        (lambda: session(START + method("1").replace("drawn", "not so"))["Drawn"], "registered as 'not so'"),
        (lambda: session(START, INSIDE, "D = f()")["D"], "at the top level"),
        (lambda: unknown(), "uses data, which no cell of this session defines"),
    ],
    ids=["number", "type", "name", "inside", "unknown"],
)
def test_mistakes_get_a_sentence(tmp_path: Path, make: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        classes.reference(make(), tmp_path)
    assert "\n" not in str(error.value)


def unknown() -> type:
    names = session(START, method("data"))
    names["data"] = object()
    return names["Drawn"]


def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    """A script that runs its own class is not run again by the worker."""
    script = tmp_path / "script.py"
    script.write_text(
        f"from continual_intervals import run\n{START}print('once')\n{method('self.answerable(self.net(x), task_id)')}"
        "    def build(self):\n        self.net = self.network()\n"
        "R = run(Drawn, 'split-digits', 'til', workers=1, device='cpu', budget_scale=0.02)\nprint(R.shape)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("once") == 1 and done.stdout.endswith("(6, 5)\n")


DATA = """
import torch
from benchmarks.catalogue import Benchmark, Kind
from benchmarks.data import DataSet
from benchmarks.types import Budget
SIZE = 40

def dots():
    y = torch.arange(SIZE) % 2
    x = y[:, None].float().expand(-1, 3) + torch.rand(SIZE, 3) / 9
    return DataSet("dots", x[8:], y[8:], x[:8], y[:8])
"""
DOTS = """
DOTS = Benchmark("dots", "Dots", dots, Kind.PERMUTED, 2, 2, (3,), 4, "mlp-3", Budget(8, steps=3), "Dark or light.")
"""


def test_a_benchmark_of_a_cell_is_written_with_the_function_that_makes_its_data(tmp_path):
    names = session(DATA, DOTS, "SIZE = 80")
    written = classes.benchmark_reference(names["DOTS"], tmp_path)
    found = catalogue.find(written.text)
    assert found.name == "dots" and found is not names["DOTS"]
    assert len(plugins.make(found.dataset).train_labels) == 72  # the session's latest SIZE
    assert classes.benchmark_reference("split-digits", tmp_path).text == "split-digits"
    assert classes.benchmark_reference(catalogue.find("split-digits"), tmp_path).text == "split-digits"


def test_a_benchmark_of_a_module_is_named_by_its_file(tmp_path, monkeypatch):
    (tmp_path / "dots_module.py").write_text(DATA + DOTS)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("dots_module")
    found = classes.benchmark_reference(module.DOTS, tmp_path / "classes")
    assert found.text == f"{tmp_path / 'dots_module.py'}:DOTS" and not (tmp_path / "classes").exists()


def test_a_benchmark_without_a_name_or_of_another_type_is_refused(tmp_path):
    names = session(DATA, "ALL = [" + DOTS.partition("= ")[2] + "]")
    with pytest.raises(UserError, match="the benchmark 'dots' has no name at the top level of a cell or script"):
        classes.benchmark_reference(names["ALL"][0], tmp_path)
    with pytest.raises(UserError, match="is no benchmark; give a name, "):
        classes.benchmark_reference(names["dots"], tmp_path)
