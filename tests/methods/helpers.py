"""Small runs of registered methods, on two tasks of the digits."""

import dataclasses
from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter
from typing import Any

import pytest
import torch

from benchmarks.catalogue import find
from benchmarks.stream import open_stream
from benchmarks.types import TIL, Budget, Scenario
from methods import registry
from methods.base import Method

CASES = [(name, scenario) for name, info in registry.available().items() for scenario in info.scenarios]
STEPS = 12


def in_turn(cases: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Parameters of a long test: of each method one case, the scenarios in turn; the marker slow has the others."""
    found: list[Any] = []
    for turn, (_, some) in enumerate(groupby(sorted(cases, key=itemgetter(0)), key=itemgetter(0))):
        group = list(some)
        kept = group[turn % len(group)]
        found += [case if case is kept else pytest.param(*case, marks=pytest.mark.slow) for case in group]
    return found


def opened(scenario: Scenario, seed: int = 0, device: str = "cpu"):
    benchmark = dataclasses.replace(find("split-digits"), n_tasks=2, network="mlp-20")
    return open_stream(benchmark, scenario, seed, budget=Budget(16, steps=STEPS), device=device)


def made(name: str, stream, seed: int = 0, device: str = "cpu", **settings) -> Method:
    cls = registry.load(name)
    config = cls.Config()
    smaller = {"chunk": 500, "select_every": 4, "width": 100, **settings}
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


def assert_equal(a, b) -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list | tuple):
        for left, right in zip(a, b, strict=True):
            assert_equal(left, right)
    else:
        assert a == b
