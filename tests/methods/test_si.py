"""SI: parity with InterContiNet's baseline, and what the path integral means."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch.nn.functional import cross_entropy

from benchmarks.types import ALL_SCENARIOS, DIL, TIL, Scenario, UserError
from methods import base
from methods.registry import load as load_method
from methods.shared.anchor import flatten, trainable
from methods.si import SI
from tests.methods import regularised
from tests.methods.golden import assert_close, group, load
from tests.methods.regularised import learn_all, parameters_of, tiny_tasks, vector


def test_intercontinet_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = load("interval")
    recorded = group(arrays, "icn/base_si")
    config = SI.Config(
        lr=float(arrays["icn/base/lr"]), strength=float(recorded["lambda"]), style="intercontinet", optimizer="sgd"
    )
    run = regularised.intercontinet_baseline(SI, config)
    method, paths = run.method, []
    assert isinstance(method, SI)
    consolidate = method.consolidate
    monkeypatch.setattr(method, "consolidate", lambda path, moved: (paths.append(path), consolidate(path, moved)))
    for j in regularised.check_run(run, recorded, arrays["icn/base_log_columns"], monkeypatch):
        assert_close(-paths[j], vector(group(recorded, f"trajectory{j}")), 1e-6, f"path {j}")
        stored = vector(group(recorded, f"importance{j}"))
        assert_close(method.anchor.importance, stored, 1e-6, f"importance {j}")


def path_of(config: SI.Config, tasks: int, monkeypatch: pytest.MonkeyPatch) -> tuple[SI, torch.Tensor, torch.Tensor]:
    """The method, and the last task's path integral and way moved."""
    spec, stream = tiny_tasks(DIL, n_tasks=tasks)
    method, seen = SI(spec, config), []
    consolidate = method.consolidate
    monkeypatch.setattr(
        method, "consolidate", lambda path, moved: (seen.append((path, moved)), consolidate(path, moved))
    )
    learn_all(method, stream)
    return method, *seen[-1]


def test_path_integral_is_the_fall_of_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """With small full-batch steps the parameters' contributions add up to what the loss lost."""
    spec, (task,) = tiny_tasks(DIL, n_tasks=1)
    full = regularised.make_task(0, task.x, task.y, batch_size=len(task.x), steps=200)
    method, seen = SI(spec, SI.Config(lr=0.01, optimizer="sgd")), []
    monkeypatch.setattr(method, "consolidate", lambda path, moved: seen.append(path))
    before = cross_entropy(method.net(task.x), task.y)
    learn_all(method, [full])
    fall = (before - cross_entropy(method.net(task.x), task.y)).item()
    assert fall > 0.1
    assert float(seen[0].sum()) == pytest.approx(fall, rel=0.02)


def test_penalty_is_no_part_of_the_papers_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of the second task, recomputed step by step from the cross-entropy's own gradient."""
    spec, tasks = tiny_tasks(DIL, n_tasks=2)
    method, expected, trail, seen = SI(spec, SI.Config(strength=50.0)), [], [], []
    learn_all(method, tasks[:1])
    total_loss = method.loss

    def recorded(batch: base.Batch) -> torch.Tensor:
        error = cross_entropy(method.net(batch.x), batch.y)
        expected.append(flatten(torch.autograd.grad(error, trainable(method.net))))
        trail.append(parameters_of(method))
        return total_loss(batch)

    monkeypatch.setattr(method, "loss", recorded)
    monkeypatch.setattr(method, "consolidate", lambda path, moved: seen.append((path, moved)))
    learn_all(method, tasks[1:])
    trail.append(parameters_of(method))
    steps = [after - before for before, after in pairwise(trail)]
    path = -torch.stack([g * d for g, d in zip(expected, steps, strict=True)]).sum(0)
    assert_close(seen[0][0], path, 1e-5)
    assert_close(seen[0][1], trail[-1] - trail[0], 1e-6)


def test_importance_is_never_negative_in_the_paper_style(monkeypatch: pytest.MonkeyPatch) -> None:
    method, path, moved = path_of(SI.Config(lr=0.05), 2, monkeypatch)
    assert (path < 0).any()
    assert (method.anchor.importance >= 0).all()
    method.credit.zero_()
    method.consolidate(path, moved)
    assert_close(method.anchor.importance, path.clamp(min=0) / (moved**2 + 0.1), 1e-6)


def test_importance_adds_up_over_tasks() -> None:
    spec, tasks = tiny_tasks(TIL)
    method = SI(spec)
    learn_all(method, tasks[:1])
    first = method.anchor.importance.clone()
    learn_all(method, tasks[1:])
    assert (method.anchor.importance >= first).all() and (method.anchor.importance > first).any()
    assert torch.equal(method.anchor.centre, parameters_of(method))


@pytest.mark.parametrize("scenario", sorted(ALL_SCENARIOS))
def test_a_strong_penalty_holds_important_parameters(scenario: Scenario) -> None:
    spec, tasks = tiny_tasks(scenario, n_tasks=2)
    moved = []
    for strength in (0.0, 1e4):
        method = SI(spec, SI.Config(lr=0.01, strength=strength))
        learn_all(method, tasks[:1])
        before, importance = parameters_of(method), method.anchor.importance.clone()
        learn_all(method, tasks[1:])
        moved.append(float((importance * (parameters_of(method) - before).square()).sum()))
    assert moved[1] < 0.2 * moved[0]


def test_going_on_from_a_checkpoint_changes_nothing() -> None:
    spec, tasks = tiny_tasks(TIL)
    straight, first, second = SI(spec), SI(spec), SI(spec)
    learn_all(straight, tasks)
    learn_all(first, tasks[:2])
    second.load_state_dict(first.state_dict())
    learn_all(second, tasks[2:])
    assert torch.equal(parameters_of(straight), parameters_of(second))
    assert torch.equal(straight.credit, second.credit)


def test_registered_and_refuses_impossible_settings() -> None:
    assert load_method("si") is SI
    with pytest.raises(UserError, match="damping"):
        SI.Config(damping=0.0)
    with pytest.raises(UserError, match="strength"):
        SI.Config(strength=-0.1)
