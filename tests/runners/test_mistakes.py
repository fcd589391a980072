"""No mistake of a method's author ends `check_method` in a traceback: each is a sentence, with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.types import TIL, UserError
from runners import check_method
from runners.conformance import CHECKS, examine

SOUND = '''
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from methods.base import TIL, Method, register


@register("mine")
class Mine(Method):
    """Mine."""

    @dataclass(frozen=True)
    class Config:
        lr: float = 1e-2

    def build(self):
        self.net = self.network()

    def learn(self, task):
        self.fit(task, self.loss, self.net.parameters(), lr=self.config.lr, steps=12)

    def loss(self, batch):
        return cross_entropy(self.answerable(self.net(batch.x), batch.task), batch.y)

    def predict(self, x, task_id=None):
        return self.answerable(self.net(x), task_id)
'''
BUILD, ANSWER = "self.net = self.network()", "return self.answerable(self.net(x), task_id)"
FRAME, LOSS = "    @dataclass(frozen=True)\n", "        return cross_entropy"
HEAD = "    def learn(self, task):\n"
LEARN = f"{HEAD}        self.fit(task, self.loss, self.net.parameters(), lr=self.config.lr, steps=12)\n"
SKIP = "    @classmethod\n    def skip(cls, spec, config):\n        raise KeyError(spec.scenario)\n\n"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (FRAME, "", "Config is not a dataclass; write @dataclass(frozen=True) above it"),
        (f"{FRAME}    class Config:", "    class Config(Method.Config):", "so that lr cannot be set; write @dataclass"),
        ("lr: float = 1e-2", "lr: float", "the field lr of its Config has no default"),
        ("lr: float = 1e-2", "lr: 'Nope' = 1", "a type in its Config cannot be read (name 'Nope' is not defined)"),
        ("lr: float = 1e-2", "lr: float = 1e-2\n        search = 3", "Config.search is 3; write search = ranges(...)"),
        (BUILD, "self.net = undefined", "build raises NameError: name 'undefined' is not defined (mine.py, line 19)"),
        (BUILD, f"{BUILD}; self.f = lambda: 3", "'f' is of type function, which a checkpoint cannot keep"),
        ("def build(self)", "def __init__(self)", "__init__() takes 1 positional argument but 5 were given (mine.py"),
        ("def build(self)", "def __init__(self, *_)", "leave __init__ out and make networks in build"),
        ("def learn(self, task)", "def learn(self)", "takes 1 positional argument but 2 were given (mine.py"),
        (LEARN, "", "Mine lacks learn"),
        ("def predict(", "def predikt(", "Mine lacks predict"),
        ("x, task_id=None", "x", "Mine.predict() takes 2 positional arguments but 3 were given (mine.py, line 27)"),
        (ANSWER, "self.net(x)", "predict gives nothing (is a return missing?), not a tensor of logits"),
        (ANSWER, f"{ANSWER}.tolist()", "predict gives a list, not a tensor of logits"),
        (LOSS, "        1 / 0\n        return cross_entropy", "ZeroDivisionError: division by zero (mine.py, line 25)"),
        ("batch.y)", "batch.y, reduction='none')", "grad can be implicitly created only for scalar outputs (mine.py"),
        (LEARN, f"{HEAD}        raise SystemExit(3)\n", "SystemExit, which ends the process (exit code 3)"),
        (LEARN, f"{HEAD}        self.curve = [1.0]\n", "the curve has an entry that is no Progress"),
        (LEARN, f"{HEAD}        self.curve = None\n", "the curve is a NoneType, not a list of Progress"),
        (LEARN, SKIP + LEARN, "skip raises KeyError: <Scenario.TIL: 'til'> (mine.py, line 23)"),
        (LEARN, f"{LEARN}    def state_dict(self):\n        return None\n", "state_dict gives a NoneType, not a dict"),
        (LEARN, f"{LEARN}    def parameters_stored(self):\n        return 'x'\n", "gives 'x', which is not a"),
    ],
    ids=lambda part: "",
)  # fmt: skip
def test_a_mistake_is_a_sentence_of_the_check_runs(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    assert SOUND.count(old) == 1, old
    file = tmp_path / "mine.py"
    file.write_text(SOUND.replace(old, new))
    first, *rest = examine(check_method.load(f"{file}:Mine"), [TIL])
    assert first.check == "runs" and [sentence in str(finding) for finding in first.found] == [True], first.found
    assert len(rest) == len(CHECKS) + 1 and all(each.skipped and not each.found for each in rest)


@pytest.mark.parametrize(
    ("check", "old", "new", "sentence"),
    [
        ("memory", BUILD, f"{BUILD}; self.memory_samples = '9'", "gives '9', which is not a whole number"),
        ("configuration", "lr: float = 1e-2", "lr: type = int", "lr = <class 'int'> does not come back from JSON"),
        ("logits", ANSWER, f"{ANSWER}.argmax(1)", "have the shape (90,), not (90, 2)"),
        ("fields", LEARN, f"{LEARN}    def infer_task(self, x):\n        return 3\n", "no attribute 'detach'"),
    ],
)  # fmt: skip
def test_a_mistake_that_runs_is_a_sentence_of_its_check(
    tmp_path: Path, check: str, old: str, new: str, sentence: str
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(SOUND.replace(old, new).replace("lr=self.config.lr", "lr=0.01"))
    looked = examine(check_method.load(f"{file}:Mine"), [TIL], with_fields=check == "fields")
    assert any(sentence in str(finding) for each in looked if each.check == check for finding in each.found)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("import torch\n", "import torch, nosuchthing\n", r"No module named 'nosuchthing'.* \(mine.py, line 4\)"),
        ("import torch\n", "import torch\nraise SystemExit(2)\n", r"SystemExit: 2 \(mine.py, line 5\)"),
        ("def build(self):", "def build(self:", r"mine.py does not import: SyntaxError: .*line \d+"),
        ("lr: float = 1e-2", "lr: list = []", r"mutable default <class 'list'> .*\(mine.py, line 14\)"),
        ('@register("mine")\n', "", "has no name"),
        ('@register("mine")', "@register(7)", "cannot be loaded: TypeError"),
        ('"""Mine."""', 'supports = "til"', "supports is 'til', no set of scenarios"),
        ('"""Mine."""', "supports = frozenset()", "supports is empty"),
        ('"""Mine."""', 'supports = [TIL, "xil"]', "supports names 'xil', which is no scenario"),
    ],
    ids=lambda part: "",
)
def test_what_cannot_be_loaded_is_a_users_error(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(SOUND.replace(old, new))
    with pytest.raises(UserError, match=sentence):
        examine(check_method.load(f"{file}:Mine"), [TIL])


def test_the_checks_are_listed_without_a_method() -> None:
    done = CliRunner().invoke(check_method.app, ["--explain"])
    listed = _unwrapped(done.output)
    assert done.exit_code == 0 and all(_unwrapped(f"{check.name}: {check.holds}") in listed for check in CHECKS)
    assert isinstance(CliRunner().invoke(check_method.app, []).exception, UserError)


def test_a_note_tells_of_fewer_samples_than_declared_and_of_scenarios_left_out(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        SOUND.replace(BUILD, f"{BUILD}; self.memory_samples = 9").replace('"""Mine."""', "supports = {TIL}")
    )
    done = CliRunner().invoke(check_method.app, [f"{file}:Mine", "--scenarios", "til,dil"])
    told = _unwrapped(done.output)
    assert "note: memory (til): it declares 9 training samples (memory_samples); after two tasks 0 are" in told
    assert "note: not checked in dil: mine is not defined in dil" in told


def _unwrapped(text: str) -> str:
    return " ".join(text.split())
