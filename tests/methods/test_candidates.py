"""HyperInterval's candidates: what is kept with their weights, whose claims they break, when the rate is lowered."""

import math
from dataclasses import replace

import pytest
import torch

from benchmarks.types import DIL, TIL, Budget, StreamSpec
from methods.hyperinterval import HyperInterval
from methods.hypernetworks.candidates import RULES
from methods.hypernetworks.output_layer import FusedAdam
from tests.methods.helpers import opened
from tests.methods.test_hyperinterval import Normed, shifted_task

MEAN = "1.running_mean"


def normed(scenario, **options) -> Normed:
    config = Normed.Config(embedding=4, hidden=(6,), **options)
    return Normed(StreamSpec("normed", scenario, 2, 2, (5,), "mlp-6", nonnegative_inputs=False), config)


def learn(method: HyperInterval, j: int) -> None:
    task = shifted_task(j, method.spec.scenario)
    method.begin(task)
    method.learn(task)


def test_in_dil_the_statistics_are_those_of_the_first_task_for_ever():
    """One network answers for all tasks, and certificates of the first one hold with its statistics alone."""
    method = normed(DIL, select="last")
    learn(method, 0)
    first = method.statistics_of(0)[MEAN].clone()
    learn(method, 1)
    assert first.any() and all(torch.equal(method.statistics_of(j)[MEAN], first) for j in (0, 1))


@pytest.mark.parametrize("scenario", [TIL, DIL])
def test_the_statistics_kept_are_those_of_the_candidate_that_is_kept(scenario, monkeypatch):
    """Of two candidates the earlier one is better, by scores by hand."""
    method, seen = normed(scenario), {}

    def judged(_) -> torch.Tensor:
        done = int(method.step) + 1
        seen[done] = method.statistics_of(0)[MEAN].clone()
        return torch.tensor({20: 0.9, 30: 0.5}[done])

    monkeypatch.setattr(RULES["val"], "judge", judged)
    learn(method, 0)
    assert list(seen) == [20, 30] and not torch.equal(seen[20], seen[30])
    assert torch.equal(method.statistics_of(0)[MEAN], seen[20])


def test_in_dil_the_claims_of_a_candidate_are_those_of_the_embedding_in_training():
    """The method's own embedding of the task is still the one drawn at the beginning, here far away."""
    stream = opened(DIL)
    method = HyperInterval(stream.spec, HyperInterval.Config(hidden=(10,), eps=10.0, select="claims"), "cpu", 0)
    for t in range(2):
        method.begin(stream.task(t))
        if not t:
            method.learn(stream.task(t))
    with torch.no_grad():
        method.hypernetwork.output.bias += 0.1 * torch.randn_like(method.hypernetwork.output.bias)
    own, shape = method.embeddings[1:2].clone(), method.shapes[1:2].clone()
    wanted = int(method.outside().sum())
    method.embeddings[1] = 7.0
    with FusedAdam(method.hypernetwork.output, [], 1e-3) as optimizer:
        candidates = RULES["claims"](method, stream.task(1), own, shape, optimizer)
        assert int(candidates.selection.cost()) == wanted != int(method.outside().sum())


@pytest.mark.parametrize("select", ["val", "last"])
def test_the_rate_falls_after_six_epochs_without_better_accuracy(select, monkeypatch):
    """Four steps an epoch. The first epoch's accuracy stays the best, so that the seventh's end lowers the rate."""
    stream, rates = opened(TIL), {}
    config = HyperInterval.Config(hidden=(10,), lr=1e-3, select=select, select_every=2, plateau=True)
    method = HyperInterval(stream.spec, config, "cpu", 0)
    task = stream.task(0)

    def judged(_) -> torch.Tensor:
        rates.setdefault(int(method.step) + 1, method.hypernetwork.output.update.lr)
        return torch.tensor(0.5)

    monkeypatch.setattr(RULES[select], "judge", judged)
    method.begin(task)
    method.learn(replace(task, budget=Budget(-(-len(task.train) // 4), epochs=8)))
    assert {4, 8, 28, 32} <= rates.keys()
    wanted = {done: 1e-3 if done <= 28 else 1e-3 * math.sqrt(0.1) for done in rates}
    assert rates == pytest.approx(wanted)
