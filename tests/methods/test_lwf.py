"""LwF: parity with InterContiNet's baseline, and what is distilled in each scenario."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import kl_div

from benchmarks.types import ALL_SCENARIOS, CIL, DIL, TIL, Scenario, UserError
from methods.finetune import Finetune
from methods.lwf import LwF, divergence
from methods.registry import load as load_method
from tests.methods import regularised
from tests.methods.golden import assert_close, group, load
from tests.methods.regularised import learn_all, parameters_of, tiny_tasks


def test_intercontinet_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = load("interval")
    recorded = group(arrays, "icn/base_lwf")
    config = LwF.Config(
        lr=float(arrays["icn/base/lr"]),
        alpha=float(recorded["alpha"]),
        temperature=float(recorded["temperature"]),
        style="intercontinet",
        optimizer="sgd",
    )
    run = regularised.intercontinet_baseline(LwF, config)
    tasks = list(regularised.check_run(run, recorded, arrays["icn/base_log_columns"], monkeypatch))
    assert tasks == [0, 1, 2]


def logits_of(n_outputs: int) -> Tensor:
    return torch.randn(4, n_outputs, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def at_task(scenario: Scenario, index: int, **config: object) -> LwF:
    spec, _ = tiny_tasks(scenario)
    method = LwF(spec, LwF.Config(**config))  # type: ignore[arg-type]
    method.tasks_seen = index + 1
    return method


def test_til_distils_each_old_head_by_itself() -> None:
    z = logits_of(6)
    log_p = at_task(TIL, 2, temperature=2.0).old_log_probabilities(z)
    assert log_p.shape == (4, 2, 2)
    assert_close(log_p[:, 1], (z[:, 2:4] / 2).log_softmax(1), 1e-12)


def test_dil_distils_the_shared_head() -> None:
    z = logits_of(2)
    assert_close(at_task(DIL, 2, temperature=2.0).old_log_probabilities(z)[:, 0], (z / 2).log_softmax(1), 1e-12)


def test_cil_distils_all_old_classes_together() -> None:
    z = logits_of(6)
    paper = at_task(CIL, 2, temperature=2.0).old_log_probabilities(z)
    assert_close(paper[:, 0], (z[:, :4] / 2).log_softmax(1), 1e-12)
    assert_close(paper.exp().sum(2), torch.ones(4, 1, dtype=torch.float64), 1e-12)
    official = at_task(CIL, 2, temperature=2.0, style="intercontinet").old_log_probabilities(z)
    assert_close(official[:, 0], (z / 2).log_softmax(1)[:, :4], 1e-12)
    assert (official.exp().sum(2) < 1).all()


def test_divergence_is_kullback_leiblers_and_survives_certainty() -> None:
    q, p = logits_of(3).log_softmax(1), logits_of(3).flip(0).log_softmax(1)
    assert_close(divergence(q[:, None], p[:, None]), kl_div(p, q, reduction="batchmean", log_target=True), 1e-12)
    assert float(divergence(q[:, None], q[:, None])) == 0.0
    certain = torch.tensor([[[0.0, -1e4]]])
    uncertain = torch.tensor([[[1e4, 0.0]]], requires_grad=True)
    value = divergence(certain, uncertain.log_softmax(2))
    (gradient,) = torch.autograd.grad(value, uncertain)
    assert value.item() == 0.0 and torch.isfinite(gradient).all()


@pytest.mark.parametrize("scenario", sorted(ALL_SCENARIOS))
def test_alpha_zero_is_finetuning(scenario: Scenario) -> None:
    spec, tasks = tiny_tasks(scenario)
    lwf, finetune = LwF(spec, LwF.Config(alpha=0.0)), Finetune(spec)
    learn_all(lwf, tasks)
    learn_all(finetune, tasks)
    assert torch.equal(parameters_of(lwf), parameters_of(finetune))


@pytest.mark.parametrize("scenario", sorted(ALL_SCENARIOS))
def test_old_answers_on_new_data_are_kept(scenario: Scenario) -> None:
    spec, tasks = tiny_tasks(scenario, n_tasks=2)
    apart = []
    for alpha in (0.0, 100.0):
        method = LwF(spec, LwF.Config(lr=0.01, alpha=alpha))
        learn_all(method, tasks)
        taught, learnt = (method.old_log_probabilities(net(tasks[1].x)) for net in (method.teacher, method.net))
        apart.append(float(divergence(taught, learnt).detach()))
    assert apart[1] < 0.1 * apart[0]


def test_teacher_is_the_network_before_the_task_and_is_not_trained() -> None:
    spec, tasks = tiny_tasks(TIL)
    method = LwF(spec)
    learn_all(method, tasks[:1])
    before = parameters_of(method)
    learn_all(method, tasks[1:2])
    taught = torch.cat([p.flatten() for p in method.teacher.parameters()])
    assert torch.equal(taught, before) and not torch.equal(parameters_of(method), before)
    assert method.parameters_trained() == before.numel()


def test_going_on_from_a_checkpoint_changes_nothing() -> None:
    spec, tasks = tiny_tasks(CIL)
    straight, first, second = LwF(spec), LwF(spec), LwF(spec)
    learn_all(straight, tasks)
    learn_all(first, tasks[:2])
    second.load_state_dict(first.state_dict())
    learn_all(second, tasks[2:])
    assert torch.equal(parameters_of(straight), parameters_of(second))


def test_registered_and_refuses_impossible_settings() -> None:
    assert load_method("lwf") is LwF
    with pytest.raises(UserError, match="temperature"):
        LwF.Config(temperature=0.0)
    with pytest.raises(UserError, match="alpha"):
        LwF.Config(alpha=-1.0)
