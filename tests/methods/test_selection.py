"""Model selection and the learning rate on a plateau."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy

from benchmarks.catalogue import find
from benchmarks.stream import Stream, open_stream
from benchmarks.types import TIL, UserError
from methods import registry
from methods.shared.selection import Selection, WithinOneError
from tests.methods import test_subnetworks as subnetworks


def test_keeps_what_it_judged_best_and_the_earlier_of_equals() -> None:
    weights = torch.zeros(2)
    scores = iter([0.5, 0.9, 0.9, 0.7])
    selection = Selection(lambda: torch.tensor(next(scores)), [weights])
    for step in range(4):
        weights.fill_(step)
        selection.look(step)
    selection.restore()
    assert weights.tolist() == [1.0, 1.0]
    weights.fill_(7.0)
    selection.restore()
    assert weights.tolist() == [7.0, 7.0], "the copy is given up, for it may be large"


def test_without_tensors_or_optimizer_nothing_is_judged_or_changed() -> None:
    def judge() -> torch.Tensor:
        raise AssertionError("judged")

    selection = Selection(judge, [])
    selection.look()
    selection.restore()


@pytest.mark.parametrize(
    ("accuracies", "costs", "kept"),
    [
        ([0.80, 0.81, 0.82], [5, 3, 4], 1),  # all within 0.1 * sqrt(p (1 - p)) = 0.04 of the best: the least cost
        ([0.80, 0.90, 0.89], [0, 9, 8], 2),  # the first lies more than an error behind the second
        ([0.90, 0.85, 0.88], [9, 0, 8], 2),  # a cheap candidate that is too inaccurate
        ([0.90, 0.92, 0.91], [7, 7, 7], 1),  # equal costs: the accuracy decides
        ([0.0, 0.0, 0.0], [3, 2, 2], 1),  # the earlier of equals
        ([1.0, 0.99, 1.0], [5, 1, 4], 2),  # no error at an accuracy of 1: only its equals compete
    ],
)
def test_least_cost_within_one_standard_error(accuracies: list[float], costs: list[int], kept: int) -> None:
    weights, at = torch.zeros(1), [0]
    selection = WithinOneError(
        lambda: torch.tensor(accuracies[at[0]], dtype=torch.float64), [weights], 100, lambda: torch.tensor(costs[at[0]])
    )
    for at[0] in range(len(accuracies)):
        weights.fill_(at[0])
        selection.look()
    selection.restore()
    assert weights.tolist() == [kept]


def test_without_a_cost_the_best_accuracy_is_kept() -> None:
    weights, scores = torch.zeros(1), iter([0.80, 0.81, 0.805])
    selection = WithinOneError(lambda: torch.tensor(next(scores)), [weights], 100, None)
    for step in range(3):
        weights.fill_(step)
        selection.look()
    selection.restore()
    assert weights.tolist() == [1.0]


def test_the_validation_loss_is_the_mean_over_samples_of_batches_of_any_size() -> None:
    method, samples = subnetworks.made("wsn", network=subnetworks.Small), subnetworks.images(TIL, 0, 2050)
    task, point = replace(subnetworks.task_of(TIL, 0, 1), validation=samples), method.live()
    expected = cross_entropy(method.target(point, samples.x), samples.labels)
    assert float(method.validation_loss(task, point)) == pytest.approx(expected.item(), rel=1e-6)


def noisy() -> list[float]:
    generator = torch.Generator().manual_seed(0)
    return [0.6 + 0.05 * torch.rand((), generator=generator).item() for _ in range(80)]


RISING = [0.5 * (1 + 1.01e-4) ** (n // 5) for n in range(40)]
"""Every fifth look is better by just enough."""
CREEPING = [0.5 * (1 + 0.6e-4) ** n for n in range(40)]
"""Every second one is: each by too little."""


@pytest.mark.parametrize(
    ("scores", "falls"), [(noisy(), True), ([0.0] * 9 + [0.5] * 40, True), (RISING + [0.5] * 20, True), (RISING, False),
                          (CREEPING, False), ([0.5 * (1 + 0.1e-4) ** n for n in range(8)] * 4, True)],
)  # fmt: skip
def test_rate_follows_torchs_plateau_scheduler(scores: list[float], falls: bool) -> None:
    reference = torch.optim.SGD([torch.zeros(1)], lr=1e-3)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        reference, "max", factor=math.sqrt(0.1), patience=5, min_lr=5e-7
    )
    optimizer = SimpleNamespace(lr=1e-3)
    left = iter(scores)
    selection = Selection(lambda: torch.tensor(next(left), dtype=torch.float64), [], optimizer)
    for score in scores:
        selection.look()
        scheduler.step(score)
        assert math.isclose(optimizer.lr, reference.param_groups[0]["lr"], rel_tol=1e-9)
    assert (optimizer.lr < 1e-3) is falls
    assert not falls or optimizer.lr >= 5e-7


@pytest.mark.parametrize(
    "name, options",
    [
        ("hyperinterval", {"plateau": True, "select": "last"}),
        ("hyperinterval", {"select": "val"}),
        ("hyperinterval", {"select": "claims"}),
        ("hyperinterval", {"select": "official"}),
        ("hypermask", {"plateau": True}),
        ("hypermask", {"selection": "val"}),
    ],
)
def test_nothing_is_judged_without_validation_samples(name, options) -> None:
    """An accuracy over no samples is 0 / 0, which is never better: the learning rate would fall all the time."""
    digits = open_stream(find("split-digits"), "til", 0)
    stream = Stream(replace(digits.benchmark, validation=0), digits.spec, 0, digits.data)
    cls = registry.load(name)
    method = cls(stream.spec, replace(cls.Config(), **options))
    task = stream.task(0)
    method.begin(task)
    with pytest.raises(UserError, match=f"{name}: .* need validation samples; this stream has none"):
        method.learn(task)
    with pytest.raises(UserError, match="no accuracy over no samples"):
        method.accuracy(task.validation, 0)
