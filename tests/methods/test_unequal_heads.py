"""Every method on tasks with unequal numbers of classes: shapes of answers, certificates, tasks of one class."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch

from benchmarks.catalogue import Benchmark, Kind
from benchmarks.data import DataSet
from benchmarks.stream import Stream
from benchmarks.types import CIL, DIL, TIL, Budget, Scenario
from methods import registry
from methods.base import Certifying, Inferring, Method
from methods.hyperinterval import HyperInterval
from methods.intervals.interval import Interval
from methods.shared import heads, inference
from runners.grid.hyperparameters import configure

SIZES = (2, 4, 3)
TABLES = Benchmark(
    "tables", "Tables", "m:f", Kind.SPLIT, 3, SIZES, (6,), 9, "mlp-12", Budget(16, steps=6), "Rows of a table."
)
SINGLES = replace(TABLES, n_tasks=4, classes_per_task=1, validation=3)
METHODS = tuple(registry.available())
QUICK = {"joint", "lwf", "hnet", "hyperinterval", "separate", "supsup", "analytic", "lid"}
"""A method of each way to arrange heads; the others are slow tests."""


@cache
def data() -> DataSet:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(30 * 9) % 9
    x = torch.rand(9, 6, generator=generator)[y] + 0.05 * torch.rand(len(y), 6, generator=generator)
    test = torch.arange(len(y)) // 9 % 3 == 0
    return DataSet("rows", x[~test], y[~test], x[test], y[test])


def stream_of(benchmark: Benchmark, scenario: Scenario) -> Stream:
    return Stream(benchmark, benchmark.spec(scenario), 0, data())


def learnt(name: str, stream: Stream, **values: object) -> Method:
    cls = registry.load(name)
    small = {"width": 50} if name == "analytic" else {}
    config = configure(name, cls.Config, {**small, **values})
    assert cls.skip(stream.spec, config) is None
    method = cls(stream.spec, config)
    for j in range(len(stream)):
        task = stream.task(j, previous=method.rehearses)
        method.begin(task)
        method.learn(task)
    return method


def check_answers(method: Method, stream: Stream) -> None:
    spec = stream.spec
    for j in range(len(stream)):
        x, task = stream.test(j).x, j if spec.scenario is TIL else None
        answers = method.predict(x, task)
        assert answers.shape == (len(x), spec.classes_of(j) if spec.scenario is TIL else spec.n_outputs)
        assert answers.isfinite().all()
        if isinstance(method, Inferring) and spec.scenario is CIL:
            chosen = torch.bucketize(answers.argmax(1), torch.tensor(SIZES).cumsum(0), right=True)
            assert torch.equal(method.infer_task(x), chosen)  # the answer is a class of the inferred task
        if not isinstance(method, Certifying):
            continue
        try:
            lower, upper = method.bounds(x, j)
        except NotImplementedError:
            continue
        slack = 1e-5 + 1e-6 * answers.abs()
        if spec.scenario is not DIL:
            assert (lower <= answers + slack).all() and (answers <= upper + slack).all()


@pytest.mark.parametrize("scenario", [TIL, CIL])
@pytest.mark.parametrize("name", [m if m in QUICK else pytest.param(m, marks=pytest.mark.slow) for m in METHODS])
def test_answers_range_over_the_classes_that_there_are(name, scenario):
    stream = stream_of(TABLES, scenario)
    if scenario in registry.available()[name].scenarios:
        check_answers(learnt(name, stream), stream)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_in_dil_one_head_is_as_wide_as_the_largest_task(name):
    stream = stream_of(TABLES, DIL)
    check_answers(learnt(name, stream), stream)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, scenario, values",
    [
        ("hyperinterval", CIL, {"inference": "interval"}),
        ("hyperinterval", TIL, {"bounds": "endpoints", "select": "val"}),
        ("hnet", TIL, {"held_heads": "own"}),
        ("hnet", CIL, {"held_weights": "fisher", "inference": "fecam"}),
        ("lid", TIL, {"heads": "boxed"}),
        ("analytic", TIL, {"til": "joint"}),
        ("analytic", TIL, {"features": "first-task"}),
        ("intercontinet", CIL, {"contraction": "primal-dual"}),
        ("intact", CIL, {"new_rows": "official"}),
        ("lwf", CIL, {"style": "intercontinet"}),
        ("supsup", CIL, {"inference": "entropy"}),
        ("supsup", CIL, {"inference": "binary", "superfluous": 3}),
        ("supsup", TIL, {"selection": "val"}),
        ("wsn", CIL, {"inference": "fecam", "selection": "val"}),
        ("avalanche:Naive", TIL, {}),
        ("avalanche:Replay", CIL, {}),
        ("avalanche:EWC", TIL, {}),
    ],
)
def test_options_with_heads_of_their_own(name, scenario, values):
    stream = stream_of(TABLES, scenario)
    check_answers(learnt(name, stream, **values), stream)


def test_joint_training_learns_every_unequal_head():
    """Batches mix tasks, each sample compared within its own head."""
    for scenario in (TIL, CIL):
        stream = stream_of(replace(TABLES, budget=Budget(32, steps=150)), scenario)
        method = learnt("joint", stream, lr=0.01)
        for j in range(3):
            assert method.accuracy(stream.test(j), j if scenario is TIL else None) > 0.9


def test_one_class_a_task_is_learnt_or_refused_with_a_sentence():
    stream = stream_of(SINGLES, CIL)
    method = learnt("analytic", stream)
    assert all(method.accuracy(stream.test(j)) == 1 for j in range(4))
    separate = learnt("separate", stream, inference="fecam")
    assert all(separate.accuracy(stream.test(j)) == 1 for j in range(4))
    for name in ("hnet", "hyperinterval", "hypermask", "wsn", "packnet", "hat", "separate"):
        cls = registry.load(name)
        sentence = cls.skip(stream.spec, cls.Config())
        assert sentence and "a task of one class is always certain; write inference" in sentence
    supsup = registry.load("supsup")
    assert "set superfluous" in (supsup.skip(stream.spec, supsup.Config()) or "")  # type: ignore[attr-defined]
    assert supsup.skip(stream.spec, configure("supsup", supsup.Config, {"superfluous": 4})) is None


SPEC = TABLES.spec(CIL)
EQUAL = replace(TABLES, classes_per_task=3).spec(CIL)


def test_a_gap_has_no_probability_and_no_place_among_the_answers():
    logits = torch.arange(24.0).view(3, 2, 4)
    wide = heads.without_gaps(logits, SPEC)
    assert torch.equal(
        wide.softmax(2) > 0, torch.tensor([[1, 1, 0, 0], [1] * 4, [1, 1, 1, 0]])[:, None].bool().expand(3, 2, 4)
    )
    row = heads.side_by_side(wide.transpose(0, 1).reshape(2, 12), SPEC)
    assert row[0].tolist() == [0, 1, 8, 9, 10, 11, 16, 17, 18]
    narrow = heads.without_gaps(logits[:1, :, :2], SPEC)  # the largest task has not come yet
    assert narrow.shape == (1, 2, 4) and narrow[0, :, 2:].eq(heads.VOID).all()


def test_each_sample_has_its_own_head():
    logits, tasks = torch.arange(18.0).view(2, 9), torch.tensor([2, 0])
    own = heads.each_own(logits, tasks, SPEC)
    assert own[0].tolist()[:3] == [6, 7, 8] and own[1].tolist()[:2] == [9, 10]
    assert own[0, 3] == own[1, 2] == own[1, 3] == heads.VOID
    assert heads.starts(tasks, tasks, SPEC).tolist() == [6, 0]  # type: ignore[union-attr]
    assert heads.starts(tasks, 1, SPEC) == 2


def test_equal_heads_are_plain_indexing():
    logits, tasks = torch.rand(4, 9), torch.tensor([0, 2, 1, 1])
    assert torch.equal(heads.each_own(logits, tasks, EQUAL), logits.view(4, 3, 3)[torch.arange(4), tasks])
    assert heads.side_by_side(logits, EQUAL) is logits
    assert heads.without_gaps(logits.view(1, 4, 9), EQUAL).data_ptr() == logits.data_ptr()
    assert heads.per_capacity(None, EQUAL, 3, logits) is None


def test_a_task_with_few_classes_is_not_taken_as_the_most_certain():
    """The entropy is over its largest value: uniform answers are equally uncertain, whatever the number of classes."""
    uniform = heads.without_gaps(torch.zeros(3, 5, 4), SPEC)
    weights = heads.per_capacity(None, SPEC, 3, uniform)
    assert torch.allclose(inference.entropy(uniform, weights), torch.ones(3, 5))
    uniform[1, 0, 2] = 2.0
    assert inference.least_entropy(uniform, weights)[0] == 1
    assert inference.least_entropy(uniform)[0] == 0


def test_bounds_choose_the_task_by_the_entropy_over_its_largest_value(monkeypatch):
    """Two classes level, and one of four ahead: by entropies alone the former task, with 0.69, would be certain."""
    method = HyperInterval(SPEC, HyperInterval.Config(hidden=(5,)))
    method.tasks_seen = 3
    logits = torch.zeros(3, 1, 4, dtype=torch.float64)
    logits[1, 0, 2] = 2.0
    monkeypatch.setattr(method, "_certified_logits", lambda x, tasks: [Interval(one, one) for one in logits])
    lower, upper = method.bounds(torch.rand(1, 6))
    assert lower.shape == (1, 9)
    assert bool((lower[0, 2:6] > -100).all()) and bool((upper[0, :2] < -5000).all())
