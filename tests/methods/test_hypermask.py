"""What HyperMask does on a small stream."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.samples import Samples
from benchmarks.types import CIL, DIL, TIL, Budget, Scenario, StreamSpec, Task, UserError
from methods.hypermask import HyperMask, LossTerms
from tests.methods.masked_norm import with_norm

SMALL = {"embedding": 6, "hidden": (8,), "lr": 0.01}


def blobs(scenario: Scenario, index: int, n: int = 96) -> Samples:
    """Task `index` of three: two clouds of points, on axes of their own."""
    generator = torch.Generator().manual_seed(index)
    labels = torch.arange(n) % 2
    x = 0.3 * torch.randn(n, 6, generator=generator)
    x[torch.arange(n), 2 * index + labels] += 2.0
    shown = labels + 2 * index if scenario is CIL else labels
    return Samples(x, torch.arange(n), shown, index)


def small_task(scenario: Scenario, index: int, steps: int = 60, validation: Samples | None = None) -> Task:
    train = blobs(scenario, index)
    return Task(index, train, train if validation is None else validation, Budget(16, steps=steps), index)


def small_method(scenario: Scenario, **config: object) -> HyperMask:
    spec = StreamSpec("blobs", scenario, 3, 2, (6,), "mlp-20")
    return HyperMask(spec, HyperMask.Config(**{**SMALL, **config}))


def learnt(scenario: Scenario, n_tasks: int = 3, **config: object) -> HyperMask:
    method = small_method(scenario, **config)
    for index in range(n_tasks):
        task = small_task(scenario, index)
        method.begin(task)
        method.learn(task)
    return method


@pytest.mark.parametrize("scenario", [TIL, DIL, CIL])
def test_learns_three_tasks_and_answers_in_each_scenario(scenario: Scenario) -> None:
    method = learnt(scenario, beta=0.1)
    for index in range(3):
        samples = blobs(scenario, index)
        task_id = index if scenario is TIL else None
        assert method.predict(samples.x, task_id).shape == (96, 6 if scenario is CIL else 2)
        if scenario is TIL:
            assert method.accuracy(samples, task_id) > 0.85
    if scenario is CIL:
        right = [(method.infer_task(blobs(CIL, i).x) == i).float().mean() for i in range(3)]
        answered = [method.accuracy(blobs(CIL, i)) for i in range(3)]
        assert all(a <= r for a, r in zip(answered, right, strict=True))


@pytest.mark.parametrize("scenario", [TIL, DIL, CIL])
def test_answers_before_any_task_and_for_the_next_one(scenario: Scenario) -> None:
    method = small_method(scenario)
    x = blobs(scenario, 0).x
    assert method.predict(x, 2 if scenario is TIL else None).shape == (96, 2)
    with pytest.raises(UserError, match="task id"):
        small_method(TIL).predict(x)


def test_prediction_does_not_depend_on_the_batch_or_change_state() -> None:
    method = learnt(CIL, 2)
    x = blobs(CIL, 0).x
    state = method.state_dict()
    together = method.predict(x)
    alone = torch.cat([method.predict(row[None]) for row in x[:5]])
    torch.testing.assert_close(together[:5], alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(method.state_dict(), state, rtol=0, atol=0)


def test_masks_are_made_once_for_unchanged_parameters_only() -> None:
    method = learnt(TIL, 1)
    x = blobs(TIL, 0).x
    first = method.predict(x, 0)
    row = method.weights_of(0)
    assert method.weights_of(0) is row
    for parameter in (method.weights, method.embeddings, method.hypernetwork.output.weight):
        with torch.no_grad():
            parameter.mul_(1.1)
        assert method.weights_of(0) is not row
        row = method.weights_of(0)
    assert not torch.equal(method.predict(x, 0), first)
    learnt_more = small_task(TIL, 1)
    method.begin(learnt_more)
    method.learn(learnt_more)
    assert not torch.equal(method.weights_of(0), row)
    saved = method.state_dict()
    method.weights_of(0)
    saved["weights"] = saved["weights"] * 2
    method.load_state_dict(saved)
    fresh = small_method(TIL)
    fresh.load_state_dict(saved)
    assert torch.equal(method.weights_of(0), fresh.weights_of(0))


def test_state_put_into_a_fresh_method_continues_in_the_same_way() -> None:
    first = learnt(TIL, 2)
    second = small_method(TIL)
    second.load_state_dict(first.state_dict())
    for method in (first, second):
        task = small_task(TIL, 2)
        method.begin(task)
        method.learn(task)
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)
    assert second.parameters_trained() == sum(p.numel() for p in first.hypernetwork.parameters()) + 18 + 182


def test_huge_beta_keeps_the_masks_of_old_tasks_and_none_does_not() -> None:
    drifts = {}
    for beta in (0.0, 1e3):
        method = learnt(TIL, 1, beta=beta, lam=0.0)
        before = method.mask(method.hypernetwork(method.embeddings)[0], None)
        task = small_task(TIL, 1)
        method.begin(task)
        method.learn(task)
        after = method.mask(method.hypernetwork(method.embeddings)[0], None)
        drifts[beta] = (after - before).abs().max().item()
    assert drifts[1e3] < 0.02 < drifts[0.0]


def test_huge_lambda_keeps_the_target_weights() -> None:
    method = learnt(TIL, 1, lr=1e-3)
    before = method.weights.detach().clone()
    moved = []
    for lam in (0.0, 10.0):
        again = small_method(TIL, lr=1e-3, lam=lam, masked_norm=False)
        again.load_state_dict(method.state_dict())
        task = small_task(TIL, 1)
        again.begin(task)
        again.learn(task)
        moved.append((again.weights - before).abs().mean().item())
    assert moved[1] < 0.1 * moved[0]


@pytest.mark.parametrize(("normalisation", "factor"), [("mean", 1.0), ("official", 1 / 3), ("sum", 3.0)])
def test_regulariser_normalisations(normalisation: str, factor: float) -> None:
    method = small_method(TIL, beta=0.5, lam=0.25, regulariser_norm=normalisation)
    terms = LossTerms(*torch.tensor([1.0, 4.0, 8.0]))
    assert method.total(terms, 3).item() == pytest.approx(1.0 + 0.5 * 4.0 * factor + 0.25 * 8.0)


def gradients_of_second_task(**config: object) -> HyperMask:
    method = learnt(TIL, 1, **config)
    before = method.remember(1)
    with torch.no_grad():
        method.weights.add_(0.01)
    for p in (method.weights, method.embeddings, *method.hypernetwork.parameters()):
        p.grad = None
    method.begin(small_task(TIL, 1))
    method.statistics.append({})
    terms = method.loss_terms(small_task(TIL, 1).train.batch(slice(0, 8)), 1, before, method.sparsity())
    terms.weight_drift.backward(retain_graph=True)
    return method


def test_detached_masks_get_no_gradient_from_the_weight_regulariser() -> None:
    assert gradients_of_second_task(detach_mask=False).embeddings.grad[1].abs().sum() > 0
    detached = gradients_of_second_task(detach_mask=True)
    assert detached.embeddings.grad is None
    assert detached.weights.grad.abs().sum() > 0


def test_frozen_embeddings_of_old_tasks_do_not_move() -> None:
    for freeze in (False, True):
        first = learnt(TIL, 1, freeze_embeddings=freeze)
        before = first.embeddings.detach().clone()
        task = small_task(TIL, 1)
        first.begin(task)
        first.learn(task)
        moved = (first.embeddings.detach() - before).abs().amax(1)
        assert (moved[0] == 0) == freeze
        assert moved[1] > 0
        assert moved[2] == 0


@pytest.mark.parametrize(("unmasked", "n_open"), [("bias", 2), ("layer", 42), ("nothing", 0)])
def test_open_weights_pass_without_mask(unmasked: str, n_open: int) -> None:
    method = small_method(TIL, unmasked=unmasked, sparsity=60.0)
    equal = method.weights_of(0) == method.weights
    assert int(equal.sum()) == n_open
    assert equal[len(equal) - n_open :].all()


def test_validation_keeps_the_best_weights_and_judges_what_it_keeps() -> None:
    method = small_method(TIL, selection="val", check_every=5)
    wrong_way = blobs(TIL, 0)
    task = small_task(TIL, 0, validation=Samples(wrong_way.pixels, wrong_way.rows, 1 - wrong_way.labels, 0))
    seen = []
    accuracy = method.accuracy
    method.accuracy = lambda *args: seen.append(accuracy(*args)) or seen[-1]  # type: ignore[method-assign]
    method.begin(task)
    method.learn(task)
    assert accuracy(task.validation, 0) == max(seen) > seen[-1]  # learning makes inverted labels worse


def test_plateau_lowers_the_learning_rate() -> None:
    method = small_method(TIL, plateau=True)
    train = blobs(TIL, 0)
    rates = []
    task = Task(0, train, train, Budget(16, epochs=20), 0)
    method.progress = lambda _: rates.append(method.hypernetwork.output.update.lr)
    method.begin(task)
    method.learn(task)
    assert len(rates) == 20
    assert min(rates) == pytest.approx(0.01 * math.sqrt(0.1) ** (len(set(rates)) - 1))
    assert len(set(rates)) in (2, 3, 4)


@pytest.mark.parametrize("config", [{"selection": "val"}, {"plateau": True}])
def test_selection_without_validation_samples_says_so(config: dict[str, object]) -> None:
    nothing = torch.empty(0, dtype=torch.int64)
    empty = Samples(torch.empty(0, 6), nothing, nothing, 0)
    with pytest.raises(UserError, match="validation"):
        small_method(TIL, **config).learn(small_task(TIL, 0, validation=empty))


@pytest.mark.parametrize("config", [{"sparsity": 101.0}, {"sparsity": -1.0}, {"norm": 3}])
def test_impossible_settings_are_refused(config: dict[str, object]) -> None:
    with pytest.raises(UserError, match=next(iter(config))):
        HyperMask.Config(**config)


def test_statistics_of_batch_norm_are_kept_for_each_task() -> None:
    method = with_norm(lr=0.01)
    for index in range(2):
        x = torch.randn(64, 5, generator=torch.Generator().manual_seed(index)) + 4 * index
        samples = Samples(x, torch.arange(64), torch.arange(64) % 3, index)
        task = Task(index, samples, samples, Budget(16, steps=20), 0)
        method.begin(task)
        method.learn(task)
    first, second = (statistics["3.running_mean"] for statistics in method.statistics)
    assert not torch.allclose(first, second, atol=0.1)
    alone, together = method.predict(x[:1], 1), method.predict(x, 1)[:1]
    torch.testing.assert_close(alone, together)
    restored = with_norm(lr=0.01)
    restored.load_state_dict(method.state_dict())
    torch.testing.assert_close(restored.predict(x, 0), method.predict(x, 0), rtol=0, atol=0)


@pytest.mark.parametrize("answer", ["class", "task"])
@pytest.mark.parametrize("scenario", [DIL, CIL])
def test_fecam_infers_the_task_from_statistics_kept_with_each_task(scenario: Scenario, answer: str) -> None:
    method = learnt(scenario, beta=0.1, inference="fecam", fecam_answer=answer)
    assert len(method.classes) == 3
    inferred = [(method.infer_task(blobs(scenario, i).x) == i).float().mean().item() for i in range(3)]
    accuracies = [method.accuracy(blobs(scenario, i)).item() for i in range(3)]
    assert sum(inferred) / 3 > 0.7
    assert sum(accuracies) / 3 > 0.6
    restored = small_method(scenario, inference="fecam", fecam_answer=answer)
    restored.load_state_dict(method.state_dict())
    restored.tasks_seen = 3
    x = blobs(scenario, 0).x
    torch.testing.assert_close(restored.predict(x), method.predict(x), rtol=0, atol=0)
