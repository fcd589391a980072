"""What holds for every registered method in every scenario it supports, on two tasks of the digits."""

import dataclasses

import pytest
import torch

from benchmarks.catalogue import find
from benchmarks.stream import open_stream
from benchmarks.types import CIL, TIL, Budget, Scenario
from methods import registry
from methods.base import Method

CASES = [(name, scenario) for name, info in registry.available().items() for scenario in info.scenarios]
STEPS = 12


def opened(scenario: Scenario, seed: int = 0, device: str = "cpu"):
    benchmark = dataclasses.replace(find("split-digits"), n_tasks=2, network="mlp-20")
    return open_stream(benchmark, scenario, seed, budget=Budget(16, steps=STEPS), device=device)


def made(name: str, stream, seed: int = 0, device: str = "cpu", **settings) -> Method:
    cls = registry.load(name)
    config = cls.Config()
    smaller = {"chunk": 500, "select_every": 4, **settings}
    fields = {field.name for field in dataclasses.fields(config)}
    return cls(
        stream.spec, dataclasses.replace(config, **{k: v for k, v in smaller.items() if k in fields}), device, seed
    )


def learn(method: Method, stream, tasks) -> None:
    for j in tasks:
        task = stream.task(j, previous=method.rehearses)
        method.begin(task)
        method.learn(task)


def answers(method: Method, stream) -> list[torch.Tensor]:
    with torch.no_grad():
        return [
            method.predict(stream.test(j).x, j if stream.spec.scenario is TIL else None) for j in range(len(stream))
        ]


@pytest.mark.parametrize(("name", "scenario"), CASES)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(name, scenario, tmp_path):
    stream = opened(scenario)
    whole = made(name, stream)
    learn(whole, stream, [0])
    torch.save(whole.state_dict(), tmp_path / "state.pt")
    learn(whole, stream, [1])
    resumed = made(name, stream)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    learn(resumed, stream, [1])
    for a, b in zip(answers(whole, stream), answers(resumed, stream), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("name", "scenario"), CASES)
def test_answers(name, scenario):
    """Shape, finite, the same for any batch, no effect on the state, others for another seed."""
    stream = opened(scenario)
    method = made(name, stream)
    learn(method, stream, [0, 1])
    before = method.state_dict()
    logits = answers(method, stream)
    n_classes = 4 if scenario is CIL else 2
    for j, values in enumerate(logits):
        assert values.shape == (len(stream.test(j)), n_classes)
        assert torch.isfinite(values).all()
    task_id = 0 if scenario is TIL else None
    x = stream.test(0).x
    with torch.no_grad():
        alone = torch.cat([method.predict(x[i : i + 1], task_id) for i in range(8)])
        backwards = method.predict(x.flip(0), task_id).flip(0)
    torch.testing.assert_close(alone, logits[0][:8], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(backwards, logits[0], rtol=1e-4, atol=1e-4)
    _equal(before, method.state_dict())
    other = made(name, stream, seed=1)
    learn(other, stream, [0, 1])
    assert not torch.equal(answers(other, stream)[0], logits[0])


def _equal(a, b) -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            _equal(a[key], b[key])
    elif isinstance(a, list | tuple):
        for left, right in zip(a, b, strict=True):
            _equal(left, right)
    else:
        assert a == b


@pytest.mark.parametrize("scenario", [TIL, CIL])
def test_early_answers_need_no_training(scenario):
    """Before the first task the network answers too: forward transfer is measured against it."""
    stream = opened(scenario)
    for name in registry.available():
        method = made(name, stream)
        with torch.no_grad():
            logits = method.predict(stream.test(0).x, 0 if scenario is TIL else None)
        assert logits.shape == (len(stream.test(0)), 2)
