"""`parameters_stored`: what must be kept between tasks, nothing of it twice."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.catalogue import find
from benchmarks.stream import open_stream
from benchmarks.types import Budget
from methods import registry
from methods.base import CIL, DIL, TIL, Method
from runners.grid import hyperparameters
from runners.records import reference_records
from runners.records.record import Record
from tests.methods.helpers import answers, assert_equal, learn, made, opened

COPIES_ALLOWED = 8
"""Tensors of fewer numbers may be equal by chance, or by construction (counters, heads that are zero)."""

NETWORK = 64 * 20 + 20
"""Of the network `mlp-20` without its output layer."""


@pytest.fixture(scope="module")
def reference() -> dict[str, Record]:
    """A shipped record of each method on Split Digits in TIL."""
    records = (cell.record for cell in reference_records.read().values())
    return {r.label: r for r in records if (r.benchmark, r.scenario) == ("split-digits", TIL)}


def kept(value: object) -> list[Tensor]:
    """All tensors of a saved state without the audit's."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [t for key, part in value.items() if not str(key).startswith("audit") for t in kept(part)]
    return [t for part in value for t in kept(part)] if isinstance(value, list | tuple) else []


def twice(method: Method) -> list[tuple[int, ...]]:
    """Shapes of the kept tensors that have the same values as another one, constants left out."""
    parts = {}
    for tensor in kept(method.state_dict()):
        if tensor.numel() >= COPIES_ALLOWED and len(tensor.unique()) > 1:
            parts.setdefault((tuple(tensor.shape), tensor.contiguous().numpy().tobytes()), []).append(tensor)
    for part in kept(list(method.rebuilt())):
        same = parts.get((tuple(part.shape), part.detach().contiguous().numpy().tobytes()))
        if same:
            same.pop()
    flat = {}
    for (shape, data), tensors in parts.items():
        for _ in tensors:
            flat.setdefault(data, []).append(shape)
    return [shapes[0] for shapes in flat.values() if len(shapes) > 1]


@pytest.mark.parametrize("name", [n for n in registry.available() if not n.startswith("avalanche:")])
def test_nothing_is_counted_twice(name):
    cls = registry.load(name)
    scenario = TIL if TIL in cls.supports else DIL
    stream = opened(scenario)
    method = made(name, stream)
    learn(method, stream, [0, 1])
    assert not twice(method)


@pytest.mark.parametrize(
    ("name", "networks", "more"),
    [
        ("finetune", 1, 0), ("lwf", 1, 0), ("ewc", 3, 1), ("l2", 3, 1), ("ewc-online", 2, 1), ("mas", 2, 1),
        ("si", 2, 1), ("intact", 1, 2 * 20), ("joint", 1, "samples"),
    ],
)  # fmt: skip
def test_sizes_in_networks(name, networks, more):
    stream = opened(DIL)
    method = made(name, stream)
    learn(method, stream, [0, 1])
    samples = sum(len(stream.task(j).train) for j in (0, 1)) * (64 + 1)
    size = NETWORK + 20 * 2 + 2
    assert method.parameters_stored() == networks * size + (samples if more == "samples" else more)


@pytest.mark.parametrize("name", ["lwf", "hat", "separate"])
def test_what_is_left_out_is_overwritten_before_it_is_read(name):
    stream = opened(TIL)
    found = []
    for poisoned in (False, True):
        method = made(name, stream)
        learn(method, stream, [0])
        for part in kept(list(method.rebuilt())) if poisoned else ():
            part.detach().fill_(torch.nan)
        learn(method, stream, [1])
        found.append(answers(method, stream))
    assert_equal(*found)


@pytest.mark.parametrize("name", ["hnet", "hyperinterval", "hypermask"])
def test_an_embedding_counts_once_its_task_is_learnt(name):
    stream = opened(CIL)
    method = made(name, stream)
    learn(method, stream, [0])
    first = method.parameters_stored()
    learn(method, stream, [1])
    assert method.parameters_stored() - first == method.config.embedding * (2 if name == "hyperinterval" else 1)


@pytest.mark.parametrize("name", ["lwf", "si", "intact", "joint", "hnet", "hyperinterval", "packnet", "wsn", "hat"])
def test_shipped_records_have_the_sizes_that_are_counted_now(name, reference):
    """They do not depend on the training length, so that a step a task shows them."""
    record = reference[name]
    stream = open_stream(find("split-digits"), TIL, 0, budget=Budget(16, steps=1))
    cls = registry.load(name)
    method = cls(stream.spec, hyperparameters.configure(name, cls.Config, record.config), "cpu", 0)
    sizes = []
    for j in range(len(stream)):
        learn(method, stream, [j])
        sizes.append(method.parameters_stored())
    assert record.stored_per_task == tuple(sizes)
