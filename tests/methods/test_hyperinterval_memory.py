"""HyperInterval: what it keeps of a learnt task, in memory and in checkpoints."""

import gc
import weakref
from dataclasses import replace

import pytest

from benchmarks.types import DIL, TIL
from methods.hyperinterval import HyperInterval
from tests.methods.helpers import learn, opened


@pytest.mark.parametrize("config", [{}, {"select": "claims", "plateau": True}, {"select": "official"}])
def test_no_cycle_keeps_the_samples_of_a_learnt_task(config):
    stream = opened(TIL)
    method = HyperInterval(stream.spec, HyperInterval.Config(hidden=(10,), **config), "cpu", 0)
    learn(method, stream, [0])
    task = stream.task(1)
    task = replace(task, train=replace(task.train))
    samples = weakref.ref(task.train)
    method.begin(task)
    gc.disable()
    try:
        method.learn(task)
        del task
        assert samples() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("scenario", [TIL, DIL])
def test_boxes_of_the_audit_go_into_a_checkpoint_and_are_not_counted_as_stored(scenario):
    stream = opened(scenario)
    config = HyperInterval.Config(hidden=(10,), select="last")
    method, again = (HyperInterval(stream.spec, config, "cpu", 0) for _ in range(2))
    learn(method, stream, [0])
    first = method.parameters_stored()
    learn(method, stream, [1])
    assert method.parameters_stored() - first == config.embedding * (1 if scenario is DIL else 2)  # and its radii
    saved = method.state_dict()
    assert [tuple(box.shape) for box in saved["audit_boxes"]] == [(2, method.target.n_weights)] * 2
    saved["audit_boxes"][0] += 1  # a copy
    claims = method.audit()
    again.load_state_dict(method.state_dict())
    assert again.audit() == claims and claims[0].drift > 0
