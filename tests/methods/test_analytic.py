"""Analytic learning: joint ridge whatever the order, exact heads, its audit, its features and options."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.types import CIL, DIL, TIL, Scenario, StreamSpec, Task, UserError
from methods import analytic
from methods.analytic import Analytic
from methods.base import Certifying
from methods.intervals.interval import Interval
from methods.search import space
from methods.shared import expansions
from methods.shared.ridge import ClassSums, Direct, Recursion, Sums, balanced
from runners.plan.footprint import _tensors
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


# -- features and options ---------------------------------------------------------------------------


def test_the_network_of_the_first_task_is_trained_by_it_alone():
    method, tasks = made(CIL, features="first-task")
    start = method.fixed_numbers()
    learn_all(method, tasks[:1])
    first = method.fixed_numbers()
    assert method.curve[-1].step == 30 and not torch.equal(first, start)
    learn_all(method, tasks[1:])
    assert method.curve == [] and torch.equal(method.fixed_numbers(), first)


@pytest.mark.parametrize("scenario", [TIL, CIL])
def test_a_frozen_backbone_is_the_input(scenario):
    network = "timm:test_resnet+frozen"
    spec = StreamSpec("tiny", scenario, 2, 2, (3, 32, 32), network, nonnegative_inputs=False)
    torch.manual_seed(0)
    images = torch.rand(2, 12, 3, 32, 32)
    y = torch.arange(12) % 2
    tasks = [make_task(t, images[t], y + 2 * t * (scenario is CIL), 4, 1) for t in range(2)]
    method = Analytic(spec, Analytic.Config(width=30, features="none"))
    learn_all(method, tasks)
    backbone = method.network(2).backbone  # type: ignore[union-attr]
    assert method.base(images[0]).shape == backbone(images[0]).shape and not list(method.body.parameters())
    assert method.audit()[0].contained
    if scenario is TIL:
        lower, upper = method.bounds(images[0], 0)
        answer = method.predict(images[0], 0)
        assert bool(((lower <= answer) & (answer <= upper)).all())
    reason = Analytic.skip(spec, Analytic.Config(features="first-task"))
    assert reason is not None and "trains nothing in timm:test_resnet+frozen" in reason


def test_centres_are_samples_from_the_whole_first_task():
    method, tasks = made(DIL, features="gaussian", width=20)
    assert method.memory_samples == 20
    learn_all(method, tasks)
    x = tasks[0].x.double()
    places = [int((x == centre).all(1).nonzero()) for centre in method.centres]
    assert len(set(places)) == 20 and max(places) > 30
    official, _ = made(DIL, features="gaussian", width=20, centres="official")
    learn_all(official, tasks)
    assert {int((x == centre).all(1).nonzero()) for centre in official.centres} == set(range(20))


def test_weights_of_mixtures_sum_to_one():
    samples = torch.randn(6, 3).double() + 5
    assert torch.equal(expansions.completed(samples, 4, "drawn"), samples)
    mixed = expansions.completed(torch.cat([samples, torch.ones(6, 1)], 1), 9, "drawn")
    assert torch.equal(mixed[:6, :3], samples)
    assert torch.allclose(mixed[6:, 3], torch.ones(3).double())


def test_the_residual_of_the_second_stream_does_not_depend_on_batches(monkeypatch):
    found = []
    for size in (5, 48):
        monkeypatch.setattr(analytic, "SAMPLES_AT_ONCE", size)
        found.append(learnt(CIL, stream="dual")[0].weights)
    assert relative(*found) < 1e-9


def test_the_second_stream_learns_in_the_columns_of_the_labels_that_occur():
    """Not in the last ones, which a task may have left out."""
    method, tasks = made(CIL, stream="dual")
    learn_all(method, tasks[:2])
    before = method.second.cross.clone()
    again = replace(tasks[2], train=replace(tasks[2].train, labels=tasks[2].y - 4))
    learn_all(method, [again])
    changed = (method.second.cross != before).any(0).tolist()
    assert changed == [True, True, False, False, False, False]


def test_classes_count_alike():
    assert balanced(torch.tensor([30.0, 10.0, 0.0])).tolist() == pytest.approx([0.5, 1.5, 0.0])


def test_the_audits_sums_of_each_class_give_the_normal_equations():
    torch.manual_seed(0)
    h, y = torch.randn(9, 3).double(), torch.eye(2).double()[torch.tensor([0] * 7 + [1] * 2)]
    direct = Direct.zeros(3, 2, True, torch.device("cpu"))
    for part in (slice(0, 4), slice(4, 9)):
        direct.add(h[part], y[part])
    share = torch.tensor([4 / 9, 14 / 9]).double()
    matrix = (h * (y @ share)[:, None]).t() @ h + 0.5 * torch.eye(3)
    expected = torch.linalg.solve(matrix, h.t() @ y * share)
    assert torch.allclose(direct.distance(expected, 0.5).direct, expected, rtol=1e-12)


def test_the_random_matrix_comes_from_the_seed_and_is_no_state():
    method, tasks = learnt(CIL)
    d = 5
    assert float(method.matrix.values.abs().max()) <= d**-0.5 < 1.05 * float(method.matrix.values.abs().max())
    assert method.parameters_stored() == 40 * 40 + 2 * 40 * 6
    other = Analytic(method.spec, method.config, seed=7)
    assert not torch.equal(other.matrix.values, method.matrix.values)
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.predict(tasks[0].x), method.predict(tasks[0].x))


def test_own_heads_are_all_that_is_kept_of_a_task():
    method, tasks = made(TIL)
    stored = []
    for task in tasks:
        learn_all(method, [task])
        stored.append(method.parameters_stored())
    assert stored == [80, 160, 240]
    assert method.parameters_trained() == 240


@pytest.mark.parametrize(
    ("scenario", "options", "passing"),
    [
        (TIL, {}, 40 * 40 + 40 * 2),
        (TIL, {"features": "gaussian"}, 40 * 40 + 40 * 2),
        (CIL, {}, 0),
        (CIL, {"balance": True}, 0),
        (DIL, {"stream": "dual", "bias": True}, 40 * (41 + 2) + 40 * 40),
    ],
)
def test_the_declared_memory_is_what_is_held(scenario, options, passing, monkeypatch):
    """In 64 bits: the state, the random matrix, a matrix and its factor, what passes with a task, a batch."""
    monkeypatch.setattr(analytic, "SAMPLES_AT_ONCE", 1)
    method, tasks = made(scenario, **options)
    rows = len(method.weights)
    main = method.main_rows
    at_first = sum(t.numel() for t in _tensors(method.state_dict()))
    learn_all(method, tasks)
    held = sum(t.numel() * t.element_size() for t in _tensors(method.state_dict()))
    held += 8 * (method.config.width * 5 + 2 * main**2 + passing + 5 + 2 * rows)
    floats = method.needs(method.spec, method.config).floats_per_task
    assert 4 * (at_first + 3 * floats) == pytest.approx(held, rel=0.04)


def test_each_sample_is_read_once(monkeypatch):
    method, tasks = made(CIL, stream="dual")
    seen: list[int] = []
    streams = method.streams
    monkeypatch.setattr(method, "streams", lambda x: seen.append(len(x)) or streams(x))
    learn_all(method, tasks)
    assert sum(seen) == 3 * 48


def test_tuning_searches_what_has_an_effect():
    spec, _ = tiny_tasks(CIL)

    def searched(**options: Any) -> set[str]:
        return set(Analytic.searched(spec, Analytic.Config(**options), space("analytic", Analytic.Config)))

    assert searched() == searched(features="gaussian") == {"width", "gamma"}
    assert searched(features="none") == {"gamma"}
    assert searched(features="first-task") == {"width", "gamma", "lr"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 0}, "width = 0"),
        ({"gamma": 0.0}, "gamma = 0.0"),
        ({"sigma": 0.0}, "sigma = 0.0"),
        ({"compensation": -0.1}, "compensation = -0.1"),
        ({"balance": True, "solver": "recursive"}, "balance needs sums"),
        ({"balance": True, "stream": "dual"}, "balance needs sums"),
        ({"stream": "dual", "solver": "recursive"}, "residual of a whole task"),
        ({"stream": "dual", "features": "gaussian"}, "two activations of one random matrix"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        Analytic.Config(**options)
