"""Analytic learning: joint ridge whatever the order, exact heads, its audit, its features and options."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.types import CIL, DIL, TIL, Scenario, Task, UserError
from methods import analytic
from methods.analytic import Analytic
from methods.base import Certifying
from methods.intervals.affine import propagation
from methods.intervals.interval import Interval
from methods.shared.ridge import ClassSums, Recursion, Sums, balanced
from tests.methods import exact
from tests.methods.regularised import learn_all, make_task, tiny_tasks

JOINT: list[tuple[Scenario, dict[str, Any]]] = [(TIL, {"til": "joint"}), (DIL, {}), (CIL, {})]
"""Scenarios with a joint head."""
SOLVERS: list[dict[str, Any]] = [{"solver": "gram"}, {"solver": "recursive"}, {"balance": True}]
WITH_MATRIX = [{}, {"features": "first-task"}, {"stream": "dual"}, {"bias": True, "stream": "dual"}]
OTHERS = [{"features": "none"}, {"features": "gaussian", "sigma": 2.0}, {"features": "gaussian", "width": 70}]


def made(scenario: Scenario, **options: Any) -> tuple[Analytic, list[Task]]:
    """Method of width 40 on three tasks of 48 samples in 5 dimensions."""
    spec, tasks = tiny_tasks(scenario)
    return Analytic(spec, Analytic.Config(**{"width": 40, **options})), tasks


def learnt(scenario: Scenario, **options: Any) -> tuple[Analytic, list[Task]]:
    method, tasks = made(scenario, **options)
    learn_all(method, tasks)
    return method, tasks


def answers(method: Analytic, x: Tensor, task: int) -> Tensor:
    return method.predict(x, task if method.spec.scenario is TIL else None)


def turned_round(tasks: list[Task], scenario: Scenario) -> list[Task]:
    """Tasks in reverse order, as a stream of their own: numbered and, in CIL, labelled by their new places."""
    found = []
    for index, task in enumerate(reversed(tasks)):
        y = task.y - 2 * task.index + 2 * index if scenario is CIL else task.y
        found.append(make_task(index, task.x, y, 16, 30))
    return found


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


# -- equality with joint ridge ----------------------------------------------------------------------


def by_least_squares(method: Analytic, tasks: list[Task], weights: Tensor | None = None) -> Tensor:
    """Ridge head of all tasks at once, by least squares on the rows [H; sqrt(gamma) I], not by normal equations."""
    h = torch.cat([method.streams(task.x)[0] for task in tasks])
    y = torch.cat([method.targets(task.y, task.index) for task in tasks])
    roots = torch.ones(len(h), 1).double() if weights is None else (y @ weights).sqrt()[:, None]
    penalty = method.config.gamma**0.5 * torch.eye(h.shape[1]).double()
    rows, right = torch.cat([roots * h, penalty]), torch.cat([roots * y, torch.zeros(len(penalty), y.shape[1])])
    return torch.linalg.lstsq(rows, right, driver="gelsd").solution


@pytest.mark.parametrize(("scenario", "options"), JOINT)
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_head_is_joint_ridge_of_the_tasks_so_far(scenario, options, solver, monkeypatch):
    monkeypatch.setattr(analytic, "SAMPLES_AT_ONCE", 7)
    method, tasks = made(scenario, **options, **solver)
    for t in range(3):
        learn_all(method, [tasks[t]])
        counts = sum(method.targets(task.y, task.index).sum(0) for task in tasks[: t + 1])
        weights = balanced(counts) if solver.get("balance") else None
        assert relative(method.weights, by_least_squares(method, tasks[: t + 1], weights)) < 1e-9


@pytest.mark.parametrize(("scenario", "options"), JOINT)
@pytest.mark.parametrize("solver", SOLVERS)
def test_reversed_tasks_give_the_same_answers(scenario, options, solver):
    method, tasks = learnt(scenario, **options, **solver)
    other, _ = made(scenario, **options, **solver)
    learn_all(other, turned_round(tasks, scenario))
    for task in tasks:
        ours, theirs = answers(method, task.x, task.index), answers(other, task.x, 2 - task.index)
        if scenario is CIL:
            theirs = theirs.unflatten(1, (3, 2)).flip(1).flatten(1)
        assert relative(theirs, ours) < 1e-9


@pytest.mark.parametrize("options", [{"til": "own"}, {"til": "own", "stream": "dual"}])
def test_reversed_tasks_give_the_same_heads_of_their_own(options):
    method, tasks = learnt(TIL, **options)
    other, _ = made(TIL, **options)
    learn_all(other, turned_round(tasks, TIL))
    assert all(torch.equal(method.heads[t], other.heads[2 - t]) for t in range(3))


def test_returning_classes_are_added_to_their_columns():
    """Tasks with classes of each other (GACL), and without one of their own."""
    method, tasks = made(CIL)
    mixed = [replace(t, train=replace(t.train, labels=(t.y + t.index) % 6)) for t in tasks]
    learn_all(method, mixed)
    assert relative(method.weights, by_least_squares(method, mixed)) < 1e-9


@pytest.mark.parametrize("kind", [Sums, Recursion, ClassSums])
def test_float32_is_refused(kind):
    ridge, single = kind.zeros(4, 2, 0.1, torch.device("cpu")), torch.ones(3, 4)
    for h, y in ((single, torch.ones(3, 2).double()), (single.double(), torch.ones(3, 2))):
        with pytest.raises(TypeError, match="takes float64"):
            ridge.add(h, y)


@pytest.mark.parametrize("options", [*WITH_MATRIX, *OTHERS])
def test_statistics_and_answers_have_64_bits_whatever_the_default_is(options):
    assert torch.get_default_dtype() is torch.float32
    method, tasks = learnt(CIL, **options)
    state = [method.main.gram, method.main.cross, method.weights, method.audit_sums.products]  # type: ignore[union-attr]
    assert {t.dtype for t in (*state, method.predict(tasks[0].x))} == {torch.float64}


def test_a_gamma_below_rounding_is_refused_in_a_sentence():
    method, tasks = made(DIL, features="none", gamma=1e-30)
    constant = make_task(0, torch.ones(50, 5) * 1e4, tasks[0].y[:48].repeat(2)[:50], 16, 30)
    with pytest.raises(UserError, match="gamma = 1e-30 is lost"):
        learn_all(method, [constant])


# -- promises ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [*WITH_MATRIX, *OTHERS, {"solver": "recursive"}, {"balance": True}])
def test_heads_of_their_own_answer_as_before_bit_for_bit(options):
    method, tasks = made(TIL, **options)
    before: list[Tensor] = []
    for t, task in enumerate(tasks):
        learn_all(method, [task])
        before.append(method.predict(task.x, t))
        assert all(torch.equal(method.predict(tasks[j].x, j), before[j]) for j in range(t + 1))
        assert [claim[1:] for claim in method.audit()] == [(True, 0, 0.0, 0.0, "")] * (t + 1)
    accuracy = [(before[t].argmax(1) == tasks[t].y).float().mean() for t in range(3)]
    assert min(accuracy) > 0.85


def test_the_audit_of_own_heads_notices_a_bit():
    method, _ = learnt(TIL)
    method.heads[1][3, 0] = torch.nextafter(method.heads[1][3, 0], torch.tensor(9.0).double())
    assert [claim.outside for claim in method.audit()] == [0, 1, 0]
    method.matrix.values[2, 1] += 1e-9
    assert [claim.outside for claim in method.audit()] == [1, 2, 1], "all tasks use the features"


@pytest.mark.parametrize(("scenario", "options"), JOINT)
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_audit_of_a_joint_head_measures_its_distance_from_joint_ridge(scenario, options, solver):
    method, tasks = learnt(scenario, **options, **solver)
    assert isinstance(method, Certifying)
    with pytest.raises(NotImplementedError):
        method.bounds(tasks[0].x, 0)
    claims = method.audit()
    assert [claim.task for claim in claims] == [0, 1, 2] and len({claim[1:] for claim in claims}) == 1
    assert claims[0].contained and not claims[0].outside and not claims[0].reason and 0 < claims[0].drift < 1e-9
    assert max(method.exhibits()["joint-ridge"]["residual"]) < 1e-9
    method.weights = method.weights.clone()
    method.weights[5, 1] += 0.5
    (claim, *_), table = method.audit(), method.exhibits()["joint-ridge"]
    assert not claim.contained and claim.outside >= 1 and claim.drift == pytest.approx(0.5, rel=1e-6)
    assert claim.reason.startswith("differs from joint ridge by ")
    assert [v > 0.4 for v in table["difference"]] == [c == 1 for c in table["class"]]


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_audit_notices_lost_samples_and_numbers_that_are_none(solver):
    method, tasks = made(CIL, **solver)
    learn_all(method, tasks[:1])
    method.main, _ = method.fresh()
    learn_all(method, tasks[1:])
    assert all(not claim.contained and claim.outside for claim in method.audit())
    method.weights = method.weights * torch.nan
    assert method.audit()[0].outside == method.weights.numel()


def test_the_second_stream_voids_the_claims_once_there_is_an_order():
    method, tasks = made(CIL, stream="dual")
    learn_all(method, tasks[:1])
    assert method.audit()[0].reason == ""
    learn_all(method, tasks[1:])
    assert {claim.reason for claim in method.audit()} == {"the second stream depends on the order of the tasks"}
    other, _ = made(CIL, stream="dual")
    learn_all(other, turned_round(tasks, CIL))
    turned = other.weights.unflatten(1, (3, 2)).flip(1).flatten(1)
    main, second = (method.weights - turned).abs().split([40, 40])
    assert float(main.max()) < 1e-9 and float(second.max()) > 1e-3


# -- bounds -----------------------------------------------------------------------------------------


def exactly(method: Analytic, x: Tensor, head: Tensor) -> exact.Array:
    """Answers without rounding."""
    z = exact.fractions(x.flatten(1))
    if method.config.features == "gaussian":
        centres, factor = exact.fractions(method.centres), Fraction(1 / (2 * method.config.sigma**2))
        squares = ((z[:, None] - centres[None]) ** 2).sum(2)
        found = [np.vectorize(lambda v: exact.elementary("elu", -v * factor) + 1, otypes=[object])(squares)]
    else:
        z = exact.linear(z, exact.fractions(method.matrix.values))
        found = [exact.relu(z)]
        if method.config.stream == "dual":
            found.append(np.vectorize(lambda v: exact.elementary("tanh", v), otypes=[object])(z))
    if method.config.bias:
        found.insert(1, np.full((len(x), 1), Fraction(1), dtype=object))
    return exact.linear(np.concatenate(found, 1), exact.fractions(head.t()))


@pytest.mark.parametrize(
    "options",
    [{}, {"stream": "dual", "bias": True}, {"features": "gaussian", "sigma": 2.0}, {"gamma": 1e-9}],
)
def test_bounds_hold_the_answers_without_rounding_and_little_else(options):
    method, tasks = learnt(TIL, **{"width": 12, **options})
    for t in range(3):
        x = tasks[t].x[:4]
        bounds = Interval(*method.bounds(x, t))
        assert exact.holds(bounds, exactly(method, x, method.heads[t]))
        answer = method.predict(x, t)
        assert bool(((bounds.lower <= answer) & (answer <= bounds.upper)).all())
        assert float(bounds.width.max()) < 1e-9 * float(method.heads[t].abs().sum())


@pytest.mark.parametrize("options", [{"features": "first-task"}, {"features": "none", "bias": True}])
def test_bounds_of_other_features_hold_the_answers(options):
    """A network's own rounding of 32 bits is not covered, by any method's bounds."""
    method, tasks = learnt(TIL, **options)
    slack = 1e-5 if options["features"] == "first-task" else 0.0
    for t in range(3):
        lower, upper = method.bounds(tasks[t].x, t)
        answer = method.predict(tasks[t].x, t)
        assert (
            bool(((lower - slack <= answer) & (answer <= upper + slack)).all()) and float((upper - lower).max()) < 1e-9
        )


@pytest.mark.parametrize(
    "options, gain", [({}, 0.5), ({"bias": True}, 0.5), ({"stream": "dual"}, 0.7), ({"features": "none"}, 1.0)]
)
def test_affine_forms_go_back_through_features_and_head_to_the_inputs(options, gain):
    """Pixels alone have one linear layer, whose interval bounds are exact already."""
    method, tasks = learnt(TIL, **{"width": 12, **options})
    x, radius = tasks[0].x[:4], 0.05
    ball: Any = Interval((x - radius).double(), (x + radius).double())
    plain = Interval(*method.bounds(ball, 0))
    with propagation("affine"):
        tight = Interval(*method.bounds(ball, 0))
    assert bool((tight.width <= plain.width).all())
    assert float(tight.width.mean()) < gain * float(plain.width.mean()) + 1e-9
    signs = torch.randint(-1, 2, (50, *x.shape), generator=torch.Generator().manual_seed(0))
    for moved in x + radius * signs:
        answer = method.predict(moved, 0)
        assert bool(((tight.lower <= answer) & (answer <= tight.upper)).all())
