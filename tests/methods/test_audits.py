"""What an audit compares: every number from which a task's answers and certificates come, not its weights alone."""

import dataclasses
import math
from typing import Any

import pytest

from benchmarks.catalogue import find
from benchmarks.stream import open_stream
from benchmarks.types import CIL, DIL, TIL, Budget, Scenario
from methods.base import Claim
from tests.methods.helpers import learn, made, opened


def learnt(name: str, scenario: Scenario, **settings):
    stream = opened(scenario)
    method: Any = made(name, stream, **settings)
    learn(method, stream, range(2))
    return method


def restored(method, name: str, scenario: Scenario, **settings):
    """The same state in another object."""
    other: Any = made(name, opened(scenario), **settings)
    other.load_state_dict(method.state_dict())
    other.tasks_seen = method.tasks_seen
    return other


def test_moved_batch_norm_statistics_void_the_claim_of_hyperinterval() -> None:
    benchmark = dataclasses.replace(find("split-digits"), n_tasks=2, network="resnet-8")
    stream = open_stream(benchmark, TIL, 0, budget=Budget(8, steps=2))
    method: Any = made("hyperinterval", stream, eps=0.0, chunk=0, hidden=(2,), embedding=2)
    learn(method, stream, range(2))
    before = method.audit()[1]
    assert (before.contained, before.reason) == (True, "")
    next(iter(method.statistics[1].values())).add_(1.0)
    after = method.audit()
    assert (after[1].contained, after[1].outside, after[1].reason) == (False, 0, "batch-norm statistics moved")
    assert "statistics" not in after[0].reason


def test_weights_that_are_no_numbers_lie_outside_of_the_box() -> None:
    method = learnt("hyperinterval", TIL)
    method.embeddings[1] = math.nan
    claim = method.audit()[1]
    assert not claim.contained and claim.outside == method.target.n_weights
    assert method.outside()[1] == method.target.n_weights


@pytest.mark.parametrize("name", ["intercontinet", "lid"])
def test_a_box_changed_between_tasks_voids_every_claim(name: str) -> None:
    method = restored(learnt(name, TIL), name, TIL)
    assert all(claim.contained and not claim.reason for claim in method.audit())
    method.model.lower -= 5
    method.model.upper += 5
    assert [claim.contained for claim in method.audit()] == [False, False]
    assert all("the box is not the one that the latest task left" in claim.reason for claim in method.audit())


@pytest.mark.parametrize("scenario", [DIL, CIL])
@pytest.mark.parametrize("name", ["wsn", "separate"])
def test_the_latest_claim_needs_all_networks_from_which_the_task_is_inferred(name: str, scenario: Scenario) -> None:
    method = restored(learnt(name, scenario), name, scenario)
    assert [(claim.contained, claim.reason) for claim in method.audit()] == [
        (True, "tasks learnt later take part in the task inference"),
        (True, ""),
    ]
    moved = method.masks if name == "wsn" else method.kept
    moved[0] = moved[0].clone()
    moved[0][0] += 1
    first, latest = method.audit()
    assert not first.contained and not latest.contained
    assert latest.reason == "the networks of other tasks, from which the task is inferred, changed"


def test_the_latest_claim_of_hyperinterval_needs_the_boxes_of_all_tasks() -> None:
    method = restored(learnt("hyperinterval", CIL), "hyperinterval", CIL)
    assert method.audit()[1][1:3] == (True, 0) and method.audit()[1].reason == ""
    method.embeddings[0] += 3.0
    first, latest = method.audit()
    assert first.outside and (latest.contained, latest.outside) == (False, 0)
    assert latest.reason == "the networks of other tasks, from which the task is inferred, changed"


@pytest.mark.parametrize(
    ("name", "scenario", "entries"),
    [
        ("intercontinet", TIL, ["recorded_boxes"]),
        ("hyperinterval", CIL, ["audit_statistics", "audit_latest"]),
        ("wsn", CIL, ["audit_latest"]),
    ],
)
def test_a_state_without_digests_is_compared_without_them(name: str, scenario: Scenario, entries: list[str]) -> None:
    method = learnt(name, scenario)
    saved = method.state_dict()
    for entry in entries:
        del saved[entry]
    other: Any = made(name, opened(scenario))
    other.load_state_dict(saved)
    assert [tuple(a) for a in other.audit()] == [tuple(b) for b in method.audit()]


@pytest.mark.parametrize("name", ["separate", "hyperinterval"])
def test_with_fecam_no_claim_stands(name: str) -> None:
    claims: list[Claim] = learnt(name, CIL, inference="fecam").audit()
    assert claims[-1].reason == "nothing is certified where FeCAM infers the task"
