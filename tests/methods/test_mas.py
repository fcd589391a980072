"""MAS: parity with InterContiNet's baseline, and the paper's importance."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.types import ALL_SCENARIOS, DIL, TIL, Scenario, UserError
from methods.mas import MAS
from methods.registry import load as load_method
from methods.shared.anchor import flatten, trainable
from tests.methods import regularised
from tests.methods.golden import assert_close, group, load
from tests.methods.regularised import learn_all, parameters_of, tiny_tasks, vector


def test_intercontinet_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = load("interval")
    recorded = group(arrays, "icn/base_mas")
    config = MAS.Config(
        lr=float(arrays["icn/base/lr"]),
        strength=float(recorded["lambda"]),
        decay=float(recorded["decay"]),
        style="intercontinet",
        optimizer="sgd",
    )
    run = regularised.intercontinet_baseline(MAS, config)
    assert isinstance(run.method, MAS)
    for j in regularised.check_run(run, recorded, arrays["icn/base_log_columns"], monkeypatch):
        stored = vector(group(recorded, f"importance{j}"))
        assert_close(run.method.anchor.importance, stored, 1e-6, f"importance {j}")


def test_importance_at_recorded_parameters() -> None:
    recorded = group(load("interval"), "icn/base_mas")
    run = regularised.intercontinet_baseline(MAS, MAS.Config(style="intercontinet"))
    assert isinstance(run.method, MAS)
    nn.utils.vector_to_parameters(vector(group(recorded, "end0")), trainable(run.method.net))
    assert_close(run.method.importance(run.tasks[0]), vector(group(recorded, "importance0")), 1e-9)


@pytest.mark.parametrize("scenario", sorted(ALL_SCENARIOS))
def test_importance_is_the_papers(scenario: Scenario) -> None:
    """Mean over samples of the absolute gradient of the squared norm of what may be answered."""
    spec, tasks = tiny_tasks(scenario, n_tasks=2, steps=5)
    method = MAS(spec)
    learn_all(method, tasks)
    parameters, x = trainable(method.net), tasks[1].x
    expected = torch.zeros_like(flatten(parameters))
    for n in range(len(x)):
        value = method.predict(x[n : n + 1], 1 if scenario is TIL else None).square().sum()
        expected += flatten(torch.autograd.grad(value, parameters)).abs() / len(x)
    assert_close(method.importance(tasks[1]), expected, 1e-5)


def test_importance_of_some_samples_is_their_mean() -> None:
    spec, tasks = tiny_tasks(DIL, n_tasks=1, steps=5)
    method = MAS(spec, MAS.Config(samples=7))
    learn_all(method, tasks)
    torch.manual_seed(3)
    found = method.importance(tasks[0])
    torch.manual_seed(3)
    x = tasks[0].x[torch.randperm(48)[:7]]
    parameters = trainable(method.net)
    each = [flatten(torch.autograd.grad(method.net(one[None]).square().sum(), parameters)).abs() for one in x]
    assert_close(found, torch.stack(each).mean(0), 1e-5)


def test_importance_needs_no_labels() -> None:
    spec, tasks = tiny_tasks(TIL, n_tasks=1, steps=5)
    method = MAS(spec)
    learn_all(method, tasks)
    relabelled = regularised.make_task(0, tasks[0].x, 1 - tasks[0].y, 16, 5)
    assert torch.equal(method.importance(tasks[0]), method.importance(relabelled))


def test_importance_accumulates_and_decays() -> None:
    spec, tasks = tiny_tasks(TIL, n_tasks=2)
    method = MAS(spec, MAS.Config(decay=0.25))
    learn_all(method, tasks[:1])
    first = method.anchor.importance.clone()
    learn_all(method, tasks[1:])
    assert_close(method.anchor.importance, 0.25 * first + method.importance(tasks[1]), 1e-5)
    assert torch.equal(method.anchor.centre, parameters_of(method))


@pytest.mark.parametrize("scenario", sorted(ALL_SCENARIOS))
def test_a_strong_penalty_keeps_the_old_answers(scenario: Scenario) -> None:
    spec, tasks = tiny_tasks(scenario, n_tasks=2)
    moved = []
    for strength in (0.0, 1e4):
        method = MAS(spec, MAS.Config(lr=0.01, strength=strength))
        learn_all(method, tasks[:1])
        before = method.net(tasks[0].x)[:, :2].detach()
        learn_all(method, tasks[1:])
        moved.append(float((method.net(tasks[0].x)[:, :2] - before).detach().abs().mean()))
    assert moved[1] < 0.2 * moved[0]


def test_registered_and_refuses_impossible_settings() -> None:
    assert load_method("mas") is MAS
    with pytest.raises(UserError, match="strength"):
        MAS.Config(strength=-1.0)
    with pytest.raises(UserError, match="samples"):
        MAS.Config(samples=0)
