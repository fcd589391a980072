"""HNET's variants of the regulariser at work, on two tasks of the digits."""

import pytest
import torch

from benchmarks.catalogue import find
from benchmarks.types import CIL, DIL, TIL, UserError
from methods.hnet import HNET
from methods.hypernetworks.network import ChunkedHypernetwork
from tests.methods.helpers import learn, opened


def learnt(scenario, tasks=(0, 1), **options):
    stream = opened(scenario)
    method = HNET(stream.spec, HNET.Config(chunk=500, **options), "cpu", 0)
    learn(method, stream, tasks)
    return method, stream


def weights(method, task):
    with torch.no_grad():
        return method.hypernetwork(method.embeddings[task : task + 1])[0]


@pytest.mark.parametrize("look_ahead", [False, True])
def test_stored_targets_targets_computed_when_needed_and_none_lead_to_the_same_network(monkeypatch, look_ahead):
    without, _ = learnt(DIL, look_ahead=look_ahead, beta=1.0)
    monkeypatch.setattr(ChunkedHypernetwork, "of_low_rank", lambda *_: False)
    stored, _ = learnt(DIL, look_ahead=look_ahead, beta=1.0)
    online, _ = learnt(DIL, look_ahead=look_ahead, beta=1.0, online_targets=True)
    for method in (online, without):
        torch.testing.assert_close(weights(method, 0), weights(stored, 0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("online", [False, True])
def test_memory_of_targets_computed_when_needed_does_not_grow_with_the_tasks(online):
    method, _ = learnt(DIL, held_weights="fisher", online_targets=online)
    one, two = (sum(tensor.numel() for tensor in targets_of(method.held(t))) for t in (1, 2))
    assert two == (one if online else 2 * one)


def targets_of(held):
    """What a task's regulariser keeps to have its targets: outputs, or a copy of the hypernetwork."""
    return list(held.network.parameters()) if held.targets is None else [held.targets]


def test_fisher_information_holds_only_what_the_old_task_needs():
    method, _ = learnt(TIL, held_weights="fisher", beta=100.0)
    assert len(method.importances) == 2
    named = method.target.named(method.importances[0])
    head = list(named)[-2]
    assert (named[head][:2] > 0).any()
    assert not named[head][2:].any()


def test_rows_of_other_heads_are_free_when_only_own_heads_are_held():
    method, _ = learnt(CIL, tasks=[0], held_heads="own")
    held = method.held(1)
    outputs = torch.zeros(1, method.target.n_weights, requires_grad=True)
    held.drift(outputs, held.draw()).backward()
    pulled = {name: part != 0 for name, part in method.target.named(outputs.grad[0]).items()}
    *hidden, weight, bias = pulled
    assert all(pulled[name].all() for name in hidden)
    assert pulled[weight][:2].all() and pulled[bias][:2].all()
    assert not pulled[weight][2:].any() and not pulled[bias][2:].any()


def test_an_old_task_that_counts_nothing_is_not_held():
    held, _ = learnt(DIL, task_scaling=(1.0,))
    plain, _ = learnt(DIL)
    free, _ = learnt(DIL, task_scaling=(0.0,))
    unheld, _ = learnt(DIL, beta=0.0)
    torch.testing.assert_close(weights(held, 0), weights(plain, 0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weights(free, 0), weights(unheld, 0), rtol=1e-4, atol=1e-5)


def test_embeddings_start_at_the_previous_and_old_ones_move_only_if_asked_to():
    fixed, stream = learnt(DIL, tasks=[0], start_at_previous=True)
    first = fixed.embeddings[0].clone()
    learn(fixed, stream, [1])
    assert torch.equal(fixed.embeddings[0], first)
    assert (fixed.embeddings[1] - first).abs().max() < 0.1  # 12 steps of 1e-3 from there
    moving, _ = learnt(DIL, train_old_embeddings=True)
    assert not torch.equal(moving.embeddings[0], first)


def test_mistakes_are_named():
    with pytest.raises(UserError, match="task_scaling has 1 factors for 4"):
        HNET(find("split-digits").spec(TIL), HNET.Config(task_scaling=(1.0,)))
    with pytest.raises(UserError, match="held_tasks = -1"):
        HNET.Config(held_tasks=-1)
