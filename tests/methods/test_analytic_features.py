"""Analytic learning: its features, its options, and what it keeps of a task."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmarks.types import CIL, DIL, TIL, StreamSpec, UserError
from methods import analytic
from methods.analytic import Analytic
from methods.search import space
from methods.shared import expansions
from methods.shared.ridge import Direct, balanced
from runners.plan.footprint import _tensors
from tests.methods.regularised import learn_all, make_task, tiny_tasks
from tests.methods.test_analytic import learnt, made, relative


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
    assert method.parameters_stored() == 2 * (40 * 40 + 2 * 40 * 6)  # of 64 bits each
    other = Analytic(method.spec, method.config, seed=7)
    assert not torch.equal(other.matrix.values, method.matrix.values)
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.predict(tasks[0].x), method.predict(tasks[0].x))


def test_entries_of_the_random_matrix_are_uniform_on_both_sides_of_zero():
    """U(+-1/sqrt d) has the mean 0 and the variance 1/(3 d); the draw leaves the generator alone."""
    before = torch.get_rng_state()
    values = expansions.RandomMatrix(2000, 9, 5, torch.device("cpu")).values
    assert torch.equal(torch.get_rng_state(), before)
    assert values.shape == (2000, 9) and values.dtype == torch.float64
    assert -1 / 3 <= float(values.min()) < -0.333 and 0.333 < float(values.max()) <= 1 / 3
    assert abs(float(values.mean())) < 0.005 and float(values.var()) == pytest.approx(1 / 27, rel=0.02)


def test_own_heads_are_all_that_is_kept_of_a_task():
    method, tasks = made(TIL)
    stored = []
    for task in tasks:
        learn_all(method, [task])
        stored.append(method.parameters_stored())
    assert stored == [160, 320, 480]  # 80 of 64 bits a task
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
