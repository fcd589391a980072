"""A notebook as a user would write it, executed by a Jupyter kernel: own class, progress, tables, figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.runners.helpers import ROOT, environment

CELLS = [
    """
import continual_intervals as ci
from dataclasses import dataclass
from torch.nn.functional import cross_entropy
from methods.base import *
from own_part import weight
""",
    """
FACTOR = 1e-4
def decay(parameters):
    return FACTOR * weight() * sum(p.square().sum() for p in parameters)
task = 1 / 0 if False else None  # a name that the class uses for something else
""",
    """
%matplotlib inline
@register("shrink")
class Shrink(Method):
    supports = frozenset({TIL, DIL, CIL})

    @dataclass(frozen=True)
    class Config:
        lr: float = 1e-3

    def build(self):
        self.net = self.network()

    def learn(self, task):
        def loss(batch):
            fit = cross_entropy(self.answerable(self.net(batch.x), batch.task), batch.y)
            return fit + decay(self.net.parameters())
        self.fit(task, loss, self.net.parameters(), lr=self.config.lr)

    def predict(self, x, task_id=None):
        return self.answerable(self.net(x), task_id)
""",
    'R = ci.run(Shrink, "split-digits", "til", budget_scale=0.1, workers=1, device="cpu", lr=0.01)',
    "print(R.shape, R.loc[0, 5].mean() > 0.5)",
    """
FACTOR = 1.0
few = dict(budget_scale=0.1, engine="inline", device="cpu")
from glob import glob
again = ci.run(Shrink, "split-digits", "til", lr=0.01, **few)
print(R.equals(again), len(glob("results/*/*/shrink/*")))
""",
    """
frames = ci.compare("quick", ["finetune", Shrink], benchmarks=["split-digits"], scenarios=["til"], seeds=1,
                    check=False, **few)
sorted(frames.cells.method)
""",
    "ci.plot.accuracy(frames)",
    'ci.run(Shrink, "split-digits", "til", factor=1)',
]
EXECUTE = """
import nbclient, nbformat, sys
notebook = nbformat.read(sys.argv[1], 4)
nbclient.NotebookClient(notebook, kernel_name="python3", timeout=240, allow_errors=True).execute()
nbformat.write(notebook, sys.argv[1])
"""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    """Outputs of each cell."""
    for module in ("nbclient", "nbformat", "ipykernel"):
        pytest.importorskip(module, reason=f"{module} executes the notebook; pip install '.[test]'")
    nbformat: Any = pytest.importorskip("nbformat")
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "own_part.py").write_text("def weight():\n    return 1.0\n")
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in CELLS])
    nbformat.write(made, folder / "own.ipynb")
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, "own.ipynb"],
        cwd=folder,
        env=environment(PYTHONPATH=path, HOME=str(folder)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [cell["outputs"] for cell in json.loads((folder / "own.ipynb").read_text())["cells"]]


def texts(shown: list[dict[str, Any]]) -> str:
    return "".join("".join(one.get("text", "")) + "".join(one.get("data", {}).get("text/plain", "")) for one in shown)


def errors(shown: list[dict[str, Any]]) -> list[str]:
    return [f"{one['ename']}: {one['evalue']}" for one in shown if one["output_type"] == "error"]


def test_every_cell_but_the_mistaken_one_runs(outputs: list[list[dict[str, Any]]]) -> None:
    assert [errors(shown) for shown in outputs[:-1]] == [[] for _ in outputs[:-1]]
    (said,) = errors(outputs[-1])
    assert said.startswith("UserError: run: shrink has no hyperparameter 'factor'")


def test_a_class_of_a_cell_runs_in_a_worker_with_what_it_uses(outputs: list[list[dict[str, Any]]]) -> None:
    assert texts(outputs[4]) == "(6, 5) True\n"


def test_a_value_changed_in_a_later_cell_gives_another_cell(outputs: list[list[dict[str, Any]]]) -> None:
    """Decay of 1 instead of 1e-4: another record, with other numbers."""
    assert texts(outputs[5]).endswith("False 2\n")


def test_progress_is_one_output_without_widgets(outputs: list[list[dict[str, Any]]]) -> None:
    (shown,) = [one for one in outputs[3] if one["output_type"] == "display_data"]
    assert "1/1 cell" in texts([shown]) and "1 done" in texts([shown]) and "text/html" in shown["data"]
    assert not [one for one in outputs[3] if one.get("name") == "stderr"]


def test_tables_and_figures_are_shown(outputs: list[list[dict[str, Any]]]) -> None:
    assert "['finetune', 'shrink']" in texts(outputs[6])
    (figure,) = outputs[7]
    page = "".join(figure["data"]["text/html"])
    assert page.count("data:image/png;base64,iVBOR") == 1 and "mean over seeds" in page
