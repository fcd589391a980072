"""Separate networks: each as if its task were the only one, and copies that never change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmarks.catalogue import find
from benchmarks.stream import open_stream
from benchmarks.types import CIL, DIL, TIL, Budget, Scenario, UserError
from methods.finetune import Finetune
from methods.separate import Separate
from tests.methods.helpers import learn


def three_tasks(scenario: Scenario = TIL, network: str = "mlp-20") -> Any:
    benchmark = replace(find("split-digits"), n_tasks=3, network=network)
    return open_stream(benchmark, scenario, 0, budget=Budget(8, steps=30), device="cpu")


def made(stream: Any, **options: Any) -> Separate:
    return Separate(stream.spec, Separate.Config(lr=0.01, **options), "cpu", 0)


def logits(method: Separate, stream: Any, task: int) -> torch.Tensor:
    with torch.no_grad():
        return method.logits(stream.test(task).x[:50], task)


@pytest.mark.parametrize("scenario", [TIL, DIL, CIL])
@pytest.mark.parametrize("network", ["mlp-20", "resnet-8"])
def test_old_networks_answer_as_before_bit_for_bit(scenario, network):
    stream = three_tasks(scenario, network)
    method, answers = made(stream), []
    for t in range(3):
        learn(method, stream, [t])
        answers.append(logits(method, stream, t))
        assert all(torch.equal(logits(method, stream, j), answers[j]) for j in range(t))
        assert [claim[1:4] for claim in method.audit()] == [(True, 0, 0.0)] * (t + 1)
    reasons = [claim.reason for claim in method.audit()]
    joined = "tasks learnt later take part in the task inference"
    assert reasons == ["" if scenario is TIL else joined] * 2 + [""]


def test_the_first_network_is_the_one_of_finetuning_and_others_start_anew():
    """In DIL both have one head, so that they train the same first network."""
    stream = three_tasks(DIL)
    alone, tuned = made(stream), Finetune(stream.spec, Finetune.Config(lr=0.01), "cpu", 0)
    learn(alone, stream, [0])
    learn(tuned, stream, [0])
    with torch.no_grad():
        assert torch.equal(logits(alone, stream, 0), tuned.predict(stream.test(0).x[:50]))
    other = made(stream)
    learn(other, stream, [0])
    with torch.no_grad():
        for p in other.net.parameters():
            p.fill_(3.0)
    for method in (alone, other):
        learn(method, stream, [1])
    assert torch.equal(other.kept[1], alone.kept[1]), "a task's network knows nothing of the tasks before it"


@pytest.mark.parametrize("part", ["own", "statistics"])
def test_the_audit_notices_every_number_of_a_network(part):
    stream = three_tasks(network="resnet-8")
    method = made(stream)
    learn(method, stream, [0, 1])
    mean = next(s for name, s in method.statistics[0].items() if name.endswith("running_mean"))
    changed = method.kept[0] if part == "own" else mean
    changed[3] += 0.5
    first, second = method.audit()
    assert (first.outside, first.contained) == (1, False) and first.drift == pytest.approx(0.5)
    assert second.contained and "1 of" in first.reason


@pytest.mark.parametrize("scenario", [TIL, DIL, CIL])
def test_certificates_hold_the_answers_and_are_as_narrow_as_rounding(scenario):
    stream = three_tasks(scenario)
    method = made(stream)
    learn(method, stream, [0, 1])
    x = stream.test(1).x[:50]
    lower, upper = method.bounds(x, 1)
    answers = method.predict(x, 1 if scenario is TIL else None)
    assert lower.shape == answers.shape
    sure = ((upper - lower) < 1e-6).all(1)
    assert sure.float().mean() > 0.9, "but for samples whose task is open within the rounding"
    assert ((answers - lower).abs()[sure] <= 1e-4 * (1 + answers.abs()[sure])).all()


def test_stored_are_the_networks_of_the_learnt_tasks():
    stream = three_tasks()
    method = made(stream)
    size = sum(p.numel() for p in method.net.parameters())
    assert method.parameters_stored() == size == 64 * 20 + 20 + 20 * 2 + 2
    learn(method, stream, [0])
    assert method.parameters_stored() == size
    learn(method, stream, [1, 2])
    assert method.parameters_stored() == 3 * size


def test_interval_entropy_is_refused():
    with pytest.raises(UserError, match='separate: inference = "interval"'):
        Separate.Config(inference="interval")
