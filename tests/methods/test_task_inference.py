"""HNET, HyperInterval and HyperMask infer tasks as a hand does, by each rule that is defined for them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.types import CIL, DIL, TIL, Scenario, UserError
from methods import registry
from methods.shared import features, fecam, inference
from methods.shared.fecam import statistics
from runners.grid import hyperparameters
from tests.methods.helpers import assert_equal, learn, made, opened

CASES = [
    ("hnet", CIL), ("hnet", DIL), ("hnet-lstm", CIL), ("hyperinterval", CIL), ("hypermask", CIL), ("hypermask", DIL),
]  # fmt: skip
FECAM = {"inference": "fecam"}


def learnt(name: str, scenario: Scenario, **options: Any) -> tuple[Any, Any]:
    stream = opened(scenario)
    method: Any = made(name, stream, **options)
    learn(method, stream, range(2))
    return method, stream


def flat_weights(method: Any, task: int) -> Tensor:
    """(N,) of the network that answers for a task."""
    with torch.no_grad():
        if method.name == "hypermask":
            return method.weights_of(task)
        if method.name == "hyperinterval":
            return method.weights(task, radii=False)[0][0]
        return method.hypernetwork(method.embeddings[task : task + 1])[0]


def by_hand(method: Any, x: Tensor, task: int) -> tuple[Tensor, Tensor]:
    """Features (b, 20) and logits on the task's own head (b, 2) of an MLP with 20 hidden units, in plain products."""
    flat, n_inputs = flat_weights(method, task), x[0].numel()
    w1, b1, rest = flat.split([20 * n_inputs, 20, len(flat) - 20 * (n_inputs + 1)])
    hidden = (x.flatten(1) @ w1.view(20, n_inputs).t() + b1).relu()
    outputs = len(rest) // 21
    logits = hidden @ rest[: 20 * outputs].view(outputs, 20).t() + rest[20 * outputs :]
    return hidden, logits[:, 2 * task : 2 * task + 2] if outputs > 2 else logits


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True).clamp_min(1e-12)


@pytest.mark.parametrize("answer", ["class", "task"])
@pytest.mark.parametrize(("name", "scenario"), CASES)
def test_the_nearest_class_in_the_feature_space_of_its_task_decides(name, scenario, answer):
    method, stream = learnt(name, scenario, **FECAM, fecam_answer=answer)
    assert len(method.classes) == 2
    x = torch.cat([stream.test(0).x[:30], stream.test(1).x[:30]])
    distances = torch.zeros(2, len(x), 2)
    for task, (prototypes, precisions) in enumerate(method.classes):
        found, _ = by_hand(method, x, task)
        for c in range(2):
            for i, apart in enumerate(unit(found) - prototypes[c]):
                distances[task, i, c] = apart @ precisions[c] @ apart
    task = torch.where(distances[0].amin(1) <= distances[1].amin(1), 0, 1)
    with torch.no_grad():
        inferred, answers = method.infer_task(x), method.predict(x)
    assert torch.equal(inferred, task)
    assert 0 < task.sum() < len(task), "both are inferred, or the test says nothing"
    chosen = torch.arange(len(x))
    own = distances[task, chosen].argmin(1)
    if answer == "task":
        own = torch.stack([by_hand(method, x, t)[1] for t in range(2)])[task, chosen].argmax(1)
    assert torch.equal(answers.argmax(1), own + 2 * task if scenario is CIL else own)


@pytest.mark.parametrize(("name", "scenario"), CASES)
def test_statistics_are_of_the_networks_features_at_the_end_of_their_task_and_stay(name, scenario):
    stream = opened(scenario)
    method: Any = made(name, stream, **FECAM, fecam_tukey=True)
    learn(method, stream, [0])
    task = stream.task(0)
    found, _ = by_hand(method, task.x, 0)
    wanted = statistics(found.sign() * found.abs().sqrt(), task.y, 2)
    torch.testing.assert_close(method.classes[0][0], wanted.prototypes, rtol=1e-4, atol=1e-5)
    first = copy.deepcopy(method.classes[0])
    learn(method, stream, [1])
    assert_equal(method.classes[0], first)


def test_features_are_scaled_at_the_answers_as_in_the_statistics():
    rule = inference.TaskInference("fecam", "class", tukey=True)
    found, labels = 9 * torch.rand(40, 3, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2
    known = [rule.describe(found, labels, 2)]
    answers, task = rule.decide(known, 1, lambda: (torch.empty(0), None), lambda j: found)
    assert torch.allclose(answers[0], -fecam.distances(found.sqrt(), *statistics(found.sqrt(), labels, 2)))
    assert task.tolist() == [0] * 40
    answers, _ = rule.decide(known * 2, 1, lambda: (torch.empty(0), None), lambda j: found)
    assert answers.shape == (1, 40, 2), "answers of the first tasks alone"


@pytest.mark.parametrize(("name", "scenario"), CASES)
def test_the_least_entropy_decides_by_default(name, scenario):
    method, stream = learnt(name, scenario)
    assert method.classes == []
    x = stream.test(1).x[:40]
    p = torch.stack([by_hand(method, x, task)[1].softmax(1) for task in range(2)])
    with torch.no_grad():
        assert torch.equal(method.infer_task(x), (-(p * p.log()).sum(2)).argmin(0))


def test_sure_classes_count_more_in_the_entropy_weighted_by_intervals():
    method, stream = learnt("hyperinterval", CIL, inference="interval", eps=5.0)
    x = torch.cat([stream.test(0).x[:40], stream.test(1).x[:40]])
    scores, plain = torch.zeros(2, len(x)), torch.zeros(2, len(x))
    for task in range(2):
        theta, rho = method.weights(task)
        with torch.no_grad():
            middle, bounds = method.interval_logits(theta[0], rho[0], x, task)
        p = middle.softmax(1)
        scores[task] = -(p * p.log() / (0.001 + bounds.upper - bounds.lower)).sum(1)
        plain[task] = -(p * p.log()).sum(1)
    with torch.no_grad():
        assert torch.equal(method.infer_task(x), scores.argmin(0))
    assert not torch.equal(scores.argmin(0), plain.argmin(0)), "the widths matter, or the test says nothing"


def test_the_middle_network_answers_however_bounds_are_computed():
    """With endpoints the middle of the three exchanged networks is a mixture, and no network that is ever kept."""
    options: dict[str, Any] = {"inference": "interval", "bounds": "endpoints", "eps": 5.0}
    method, stream = learnt("hyperinterval", CIL, **options)
    x = torch.cat([stream.test(0).x[:40], stream.test(1).x[:40]])
    with torch.no_grad():
        answers, _ = method.every_task(x)
        theta, rho = method.weights(slice(0, 2))
        mixture = torch.stack([method.interval_logits(theta[j], rho[j], x, j)[0] for j in range(2)])
        middles = torch.stack([method.logits(x, j) for j in range(2)])
    torch.testing.assert_close(answers, middles)
    assert (mixture - middles).abs().max() > 1e-3, "the exchange matters, or the test says nothing"


@pytest.mark.parametrize(("name", "scenario"), CASES)
def test_what_is_remembered_survives_a_checkpoint_and_is_declared(name, scenario, tmp_path):
    method, stream = learnt(name, scenario, **FECAM)
    torch.save(method.state_dict(), tmp_path / "state.pt")
    again: Any = made(name, stream, **FECAM)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    again.tasks_seen = 2
    x = stream.test(0).x[:20]
    with torch.no_grad():
        assert torch.equal(again.predict(x), method.predict(x))
        assert torch.equal(again.infer_task(x), method.infer_task(x))
    declared = method.needs(stream.spec, method.config).floats_per_task
    assert declared == sum(part.numel() for part in method.classes[0]) == 2 * 20 * 21
    assert method.needs(stream.spec, type(method).Config()).floats_per_task == 0
    assert features.width(stream.spec) == 20


@pytest.mark.parametrize(("name", "scenario"), [("hnet", TIL), ("hyperinterval", TIL), ("hyperinterval", DIL)])
def test_nothing_is_remembered_where_no_task_is_inferred(name, scenario):
    method, stream = learnt(name, scenario, **FECAM)
    assert method.classes == [] and method.needs(stream.spec, method.config).floats_per_task == 0


def test_fecam_leaves_no_certificate_in_cil_and_those_of_til_as_they_are():
    method, stream = learnt("hyperinterval", CIL, **FECAM)
    with pytest.raises(NotImplementedError, match="nearest"):
        method.bounds(stream.test(0).x[:5], 0)
    method, stream = learnt("hyperinterval", TIL, **FECAM)
    lower, upper = method.bounds(stream.test(0).x[:5], 0)
    assert (lower <= upper).all()


@pytest.mark.parametrize("name", ["hnet", "hypermask"])
def test_an_inference_by_intervals_is_refused_where_there_are_none(name):
    cls: Any = registry.load(name)
    with pytest.raises(UserError, match=f'{name}: inference = "interval" .* answers of {name} are points; write "ent'):
        cls.Config(inference="interval")


def test_the_former_name_of_the_option_is_answered_with_the_present_one():
    cls: Any = registry.load("hyperinterval")
    with pytest.raises(UserError, match=r"suite x: hyperinterval\.entropy is now hyperinterval\.inference; write"):
        hyperparameters.configure("hyperinterval", cls.Config, {"entropy": "interval"}, "suite x")
