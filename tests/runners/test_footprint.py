"""The memory estimate: it covers what a method really holds, and refuses what cannot fit."""

from __future__ import annotations

import pytest
import torch

from benchmarks import catalogue
from benchmarks.stream import open_stream
from methods import registry
from runners.grid import build, hyperparameters
from runners.grid.suite import BenchmarkEntry, Suite
from runners.plan import footprint
from runners.records.record import Status
from tests.runners.helpers import cells, compare_here, foreign

SHIPPED = [name for name in registry.available() if "/" not in name]


def cell(method: str, benchmark: str, network: str, values: dict | None = None):
    suite = Suite(
        name="test",
        description="test",
        methods=[method],
        scenarios=["til"],  # type: ignore[list-item]
        seeds=1,
        benchmarks=[BenchmarkEntry(name=benchmark, network=network)],
    )
    assignments = tuple((method, key, value) for key, value in (values or {}).items())
    return build.build([suite], build.Choices(assignments=assignments))[0]


COVERED = [
    "analytic",
    "finetune",
    "ewc",
    "gpm",
    "hnet",
    "hnet-lstm",
    "hypermask",
    "hat",
    "hyperinterval",
    "intact",
    "intercontinet",
    "lid",
    "lwf",
    "packnet",
    "separate",
    "supsup",
    "wsn",
]
GROWN = [
    ("hnet-lstm", (("hnet-lstm", "growth", "freeze-hidden"),)),
    ("analytic", (("analytic", "til", "joint"), ("analytic", "balance", "true"), ("analytic", "width", "300"))),
]


@pytest.mark.parametrize(("name", "settings"), [*((name, ()) for name in COVERED), *GROWN])
def test_it_covers_what_a_method_holds_after_all_tasks(name, settings) -> None:
    made = cells(name, steps=3, assignments=settings)[0]
    needed = footprint.of_cell(made)
    assert needed is not None
    stream = open_stream(catalogue.find(made.benchmark), "til", 0, budget=made.budget)
    cls = registry.load(name)
    method = cls(stream.spec, hyperparameters.configure(name, cls.Config, made.config))
    begin = sum(t.numel() for t in footprint._tensors(method.state_dict()))
    assert needed.state == 4 * begin
    for j in range(len(stream)):
        method.begin(stream.task(j))
        method.learn(stream.task(j))
    end = sum(t.numel() for t in footprint._tensors(method.state_dict()))
    assert 4 * end <= 1.05 * (needed.state + needed.tasks)
    assert needed.training >= 4 * 2 * method.parameters_trained(), "Adam's moments at least"


@pytest.mark.parametrize("name", ["hnet", "hyperinterval", "hypermask"])
def test_it_covers_the_statistics_of_classes_that_task_inference_remembers(name) -> None:
    settings = ((name, "inference", "fecam"), *([(name, "chunk", "500")] if name == "hnet" else []))
    made, plain = (cells(name, scenarios=("cil",), steps=3, assignments=some)[0] for some in (settings, settings[1:]))
    needed, without = footprint.of_cell(made), footprint.of_cell(plain)
    assert needed is not None and without is not None
    assert needed.tasks - without.tasks == 4 * 5 * 2 * 100 * 101, "five tasks of two classes, 100 features"
    stream = open_stream(catalogue.find(made.benchmark), "cil", 0, budget=made.budget)
    cls = registry.load(name)
    method = cls(stream.spec, hyperparameters.configure(name, cls.Config, made.config))
    for j in range(len(stream)):
        method.begin(stream.task(j))
        method.learn(stream.task(j))
    end = sum(t.numel() for t in footprint._tensors(method.state_dict()))
    assert 4 * end <= 1.05 * (needed.state + needed.tasks)


def test_a_full_hypernetwork_for_alexnet_is_told_from_a_chunked_one() -> None:
    full = cell("hyperinterval", "split-cifar-100", "alexnet")
    chunked = cell("hyperinterval", "split-cifar-100", "alexnet", {"chunk": "50000"})
    a, b = footprint.of_cell(full), footprint.of_cell(chunked)
    assert a is not None and b is not None
    assert 30e9 < a.total < 80e9 and b.total < 10e9
    frozen = footprint.of_cell(cell("hyperinterval", "split-cifar-100", "timm:test_resnet+frozen"))
    assert frozen is not None and frozen.state < 20e6


def test_the_estimate_changes_no_random_number() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    footprint._estimate.cache_clear()
    footprint.of_cell(cells("ewc")[0])
    assert torch.equal(torch.rand(1), expected)


def test_what_cannot_fit_is_refused_with_the_numbers_and_the_rest_runs(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(footprint, "capacity_of", lambda _device: 615e6)
    options = {"methods": ("finetune", "hyperinterval"), "scenarios": ("til",), "seeds": 1, "budget_scale": 0.01}
    code, printed = compare_here(tmp_path, dry_run=True, verbose=True, **options)
    assert code == 0 and "refused: hyperinterval with mlp-100-100 on split-digits needs about" in printed
    assert "split-digits til finetune: 1 seed, 0 finished, memory at least about 60" in printed
    code, printed = compare_here(tmp_path, **options)
    assert code == 1 and "but cpu has 615 MB; a chunked hypernetwork needs less" in printed
    assert f"1 {Status.DONE}" in printed and f"1 {Status.FAILED}" in printed


def test_a_method_that_looks_at_values_when_built_has_no_estimate_and_runs(tmp_path) -> None:
    made = cells(foreign("Looks"))[0]
    assert footprint.of_cell(made) is None
    assert footprint.refusals([made], "cpu") == {}


def test_a_method_whose_state_no_checkpoint_keeps_has_an_estimate_too(tmp_path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from methods.base import register\nfrom methods.finetune import Finetune\n\n\n"
        '@register("mine")\nclass Mine(Finetune):\n    def build(self):\n        super().build()\n'
        "        self.kept = [self.net, {1: self.net}]\n        self.function = lambda: 1\n"
    )
    theirs, mine = cells("finetune", f"{file}:Mine")
    assert footprint.of_cell(mine) == footprint.of_cell(theirs) is not None


REFUSING = """
from benchmarks.types import UserError
from methods.base import register
from methods.finetune import Finetune


@register("refusing")
class Refusing(Finetune):
    def build(self):
        raise UserError("it takes no digits")


@register("failing")
class Failing(Finetune):
    @classmethod
    def skip(cls, spec, config):
        raise KeyError("lr")
"""


def test_what_a_method_refuses_or_fails_at_concerns_its_cells_alone(tmp_path) -> None:
    (tmp_path / "mine.py").write_text(REFUSING)
    files = tuple(f"{tmp_path / 'mine.py'}:{name}" for name in ("Refusing", "Failing"))
    options = {"methods": ("finetune",), "foreign": files, "scenarios": ("til",), "seeds": 1, "check": False}
    _, printed = compare_here(tmp_path / "results", dry_run=True, reference=False, **options)
    refused = [line for line in printed.splitlines() if line.startswith("refused: ")]
    assert refused == ["refused: refusing with mlp-100-100 on split-digits: it takes no digits"]
    code, printed = compare_here(tmp_path / "results", reference=False, **options)
    assert code == 1 and f"1 {Status.DONE}, 2 {Status.FAILED}" in printed


def test_a_method_that_was_mended_in_this_process_is_refused_no_more(tmp_path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(REFUSING)
    (refused,) = cells(f"{file}:Refusing")
    assert footprint.refusals([refused], "cpu").keys() == {refused.key}
    file.write_text(REFUSING.replace('raise UserError("it takes no digits")', "super().build()"))
    (mended,) = cells(f"{file}:Refusing")
    assert mended.key != refused.key and not footprint.refusals([mended], "cpu")
    assert footprint.of_cell(mended) == footprint.of_cell(cells("finetune")[0])


@pytest.mark.parametrize("network", ["mlp-999999999-999999999", "mlp-99999-99999"])
def test_a_network_beyond_all_memory_is_refused_alone(network) -> None:
    large, small = cells("finetune", network=network)[0], cells("finetune")[0]
    ((key, sentence),) = footprint.refusals([large, small], "cpu").items()
    assert key == large.key and sentence.startswith(f"finetune with {network} on split-digits needs about ")


def test_a_subclass_needs_what_its_base_does(tmp_path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from methods.base import register\nfrom methods.hyperinterval import HyperInterval\n\n\n"
        '@register("mine")\nclass Mine(HyperInterval):\n    """HyperInterval under another name."""\n'
    )
    suite = Suite(
        name="test", description="test", methods=["hyperinterval"], scenarios=["dil"], seeds=1,  # type: ignore[list-item]
        benchmarks=[BenchmarkEntry(name="split-mnist", network="mlp-400-400")],
    )  # fmt: skip
    theirs, mine = build.build([suite], build.Choices(foreign=(f"{file}:Mine",)))
    assert (theirs.method, mine.method) == ("hyperinterval", "mine")
    assert footprint.of_cell(mine) == footprint.of_cell(theirs) is not None
