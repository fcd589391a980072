"""HNET with an LSTM as its generator: cells and regulariser by hand; growth leaves old answers as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.catalogue import find
from benchmarks.stream import open_stream
from benchmarks.types import CIL, DIL, TIL, Budget, Scenario, UserError
from methods import hnet_lstm
from methods.hnet_lstm import HNETLSTM
from methods.hypernetworks.lstm import HIDDEN_MAP, LSTMHypernetwork
from methods.search import LEARNING_RATE, Log
from runners.conformance import conform
from tests.methods.helpers import learn, made, opened
from tests.methods.regularised import tiny_tasks

SIZES = {"embedding": 5, "hidden": 6, "chunk": 50, "chunk_embedding": 3}
GROWTH = {"growth": "freeze-hidden"}


def cells_by_hand(p: Mapping[str, Tensor], embedding: Tensor, n_weights: int) -> Tensor:
    """Weights (N,) from an embedding (E,), gate by gate: in torch's order the rows are those of i, f, g and o."""
    size = p["cell.weight_hh"].shape[1]
    w, u, b, v = (p[f"cell.{n}"].split(size) for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    h = c = embedding.new_zeros(size)
    made = []
    for chunk in p["chunks"]:
        x = torch.cat([embedding, chunk])
        i, f, g, o = (w[j] @ x + b[j] + u[j] @ h + v[j] for j in range(4))
        c = 1 / (1 + (-f).exp()) * c + 1 / (1 + (-i).exp()) * g.tanh()
        h = 1 / (1 + (-o).exp()) * c.tanh()
        made.append(p["output.weight"] @ h + p["output.bias"])
    return torch.cat(made)[:n_weights]


@pytest.mark.parametrize(("n_weights", "chunk", "cells"), [(23, 7, 4), (21, 7, 3), (23, 100, 1)])
def test_the_generator_is_an_lstm_over_the_chunks(n_weights, chunk, cells):
    torch.manual_seed(0)
    net = LSTMHypernetwork(5, 6, n_weights, chunk, 3).double()
    embeddings = torch.randn(3, 5).double()
    assert len(net.chunks) == cells and net.output.out_features == min(chunk, n_weights)
    p = dict(net.named_parameters())
    expected = torch.stack([cells_by_hand(p, e, n_weights) for e in embeddings])
    torch.testing.assert_close(net(embeddings), expected, rtol=1e-12, atol=1e-14)


def tiny(scenario: Scenario = TIL, **options: Any) -> tuple[Any, list[Any]]:
    """A method in float64 with three tasks of a few samples, as if two had been learnt."""
    spec, tasks = tiny_tasks(scenario)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        method = HNETLSTM(replace(spec, network="mlp-7"), HNETLSTM.Config(**{**SIZES, **options}))
    finally:
        torch.set_default_dtype(default)
    method.statistics, method.tasks_seen = [{}, {}, {}], 3
    return method, tasks


def moved(method: Any) -> dict[str, Tensor]:
    """Move every parameter of the generator by a little of its own; return those from before."""
    before = {name: p.detach().clone() for name, p in method.hypernetwork.named_parameters()}
    with torch.no_grad():
        for p in method.hypernetwork.parameters():
            p += 0.05 * torch.randn_like(p)
    return before


def by_hand(method: Any, p: Mapping[str, Tensor], embedding: Tensor, batch: Any) -> Tensor:
    """The task's loss of the network that generator `p` makes of the embedding (1, E)."""
    flat, d = cells_by_hand(p, embedding[0], method.target.n_weights), batch.x[0].numel()
    w1, b1, rest = flat.split([7 * d, 7, len(flat) - 7 * (d + 1)])
    hidden = (batch.x.flatten(1) @ w1.view(7, d).t() + b1).relu()
    outputs = len(rest) // 8
    logits = hidden @ rest[: 7 * outputs].view(outputs, 7).t() + rest[7 * outputs :]
    per_task = method.spec.classes_per_task
    return cross_entropy(logits[:, per_task * 2 : per_task * 3], batch.y)


def third_task(method: Any, tasks: list[Any]) -> tuple[Any, nn.Parameter]:
    batch = tasks[2].train.batch(slice(0, 8))
    return batch._replace(x=batch.x.double()), nn.Parameter(method.embeddings[2:3].clone())


@pytest.mark.parametrize("per", ["network", "weight"])
def test_the_regulariser_by_hand(per):
    """CE + beta / 2 times the squared drift of two old tasks' networks, all by hand, with its gradient."""
    method, tasks = tiny(look_ahead=False, beta=0.3, strength_per=per)
    batch, embedding = third_task(method, tasks)
    loss = method.loss(embedding, method.held(2))
    before = moved(method)
    p, n = dict(method.hypernetwork.named_parameters()), method.target.n_weights
    old = [(cells_by_hand(p, e, n) - cells_by_hand(before, e, n)).square().sum() for e in method.embeddings[:2]]
    expected = by_hand(method, p, embedding, batch) + 0.3 / 2 * sum(old) / (n if per == "weight" else 1)
    assert min(old) > 1e-3
    torch.testing.assert_close(loss(batch), expected, rtol=1e-10, atol=0)
    trained = [*p.values(), embedding]
    found = torch.autograd.grad(loss(batch), trained)
    torch.testing.assert_close(found, torch.autograd.grad(expected, trained), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("options", [{}, GROWTH])
def test_the_regulariser_a_step_ahead_by_hand(options):
    """At theta + dtheta with Adam's first step of the task's gradient, which growth makes 0 for the hidden map."""
    method, tasks = tiny(beta=0.3, lr=0.01, **options)
    batch, embedding = third_task(method, tasks)
    p, n = dict(method.hypernetwork.named_parameters()), method.target.n_weights
    optimizer = torch.optim.Adam([*p.values(), embedding], lr=0.01)
    loss = method.look_ahead_loss(embedding, method.held(2), optimizer)
    before = {name: q.detach().clone() for name, q in p.items()}
    error = by_hand(method, p, embedding, batch)
    gradients = dict(zip(p, torch.autograd.grad(error, p.values(), retain_graph=True), strict=True))
    # Adam's first step is -lr g / (|g| + eps); the authors add eps before the correction of the second moment.
    steps = {name: -0.01 * g / (g.abs() + 1e-8 / 0.001**0.5) for name, g in gradients.items()}
    if options:
        steps |= {name: torch.zeros_like(steps[name]) for name in HIDDEN_MAP}
    ahead = {name: q.detach() + steps[name] for name, q in p.items()}
    drift = sum(
        (cells_by_hand(ahead, e, n) - cells_by_hand(before, e, n)).square().sum() for e in method.embeddings[:2]
    )
    if options:
        with method.hypernetwork.frozen():
            value = loss(batch)
            value.backward()
        assert not any(p[name].grad.any() for name in HIDDEN_MAP) and p["output.weight"].grad.any()
    else:
        value = loss(batch)
    torch.testing.assert_close(value, error + 0.3 / 2 * drift, rtol=1e-8, atol=0)


# -- growth ----------------------------------------------------------------------------------------


def three_tasks(scenario: Scenario, network: str, benchmark: str = "split-digits") -> Any:
    found = replace(find(benchmark), n_tasks=3, network=network)
    return open_stream(found, scenario, 0, budget=Budget(8, steps=4), device="cpu")


def network_answers(method: Any, stream: Any, task: int) -> Tensor:
    """Logits of a task's own network, in every scenario."""
    with torch.no_grad():
        return method._logits(stream.test(task).x[:50], slice(task, task + 1))[0]


@pytest.mark.parametrize(
    ("scenario", "network", "options"),
    [
        (TIL, "mlp-20", {}),
        (TIL, "resnet-8", {"chunk": 20_000}),
        (DIL, "mlp-20", {"look_ahead": False}),
        (CIL, "mlp-20", {"train_old_embeddings": True, "held_tasks": 1, "beta": 0.0}),
        (CIL, "mlp-20", {"held_weights": "fisher", "online_targets": True}),
    ],
)
def test_with_growth_old_networks_answer_as_before_bit_for_bit(scenario, network, options):
    stream = three_tasks(scenario, network)
    method: Any = made("hnet-lstm", stream, lr=0.01, **GROWTH, **options)
    born, hidden, answers = dict(method.hypernetwork.state_dict()), {}, []
    born = {name: value.clone() for name, value in born.items()}
    for t in range(3):
        learn(method, stream, [t])
        state = {name: value.clone() for name, value in method.hypernetwork.state_dict().items()}
        if t == 0:
            hidden = {name: state[name] for name in HIDDEN_MAP}
            assert all(not torch.equal(state[name], born[name]) for name in state), "the first task trains everything"
        assert all(torch.equal(state[name], hidden[name]) for name in HIDDEN_MAP)
        answers.append(network_answers(method, stream, t))
        assert all(torch.equal(network_answers(method, stream, j), answers[j]) for j in range(t))
        claims = method.audit()
        assert [claim.outside for claim in claims] == [0] * (t + 1) and all(claim.drift == 0 for claim in claims)
    for before, after in pairwise(method.grown):
        assert not torch.equal(before[0], after[0])
        assert all(not torch.equal(before[1][name], after[1][name]) for name in after[1])


def test_without_growth_old_answers_move_and_nothing_is_promised():
    stream = three_tasks(TIL, "mlp-20")
    method: Any = made("hnet-lstm", stream, lr=0.01)
    learn(method, stream, [0])
    before, hidden = network_answers(method, stream, 0), method.hypernetwork.cell.weight_hh.detach().clone()
    learn(method, stream, [1])
    assert not torch.equal(network_answers(method, stream, 0), before)
    assert not torch.equal(method.hypernetwork.cell.weight_hh, hidden)
    assert method.audit() == [] and method.grown == []
    with pytest.raises(NotImplementedError, match="without growth"):
        method.bounds(stream.test(0).x[:2], 0)


def test_the_audit_notices_a_hidden_map_that_moved():
    """Weight decay in later tasks, for example: the copies alone are not the network."""
    stream = three_tasks(TIL, "mlp-20")
    method: Any = made("hnet-lstm", stream, **GROWTH)
    learn(method, stream, [0, 1])
    before = network_answers(method, stream, 0)
    with torch.no_grad():
        method.hypernetwork.cell.weight_hh *= 0.99
    claims = method.audit()
    assert all(claim.outside and not claim.contained and claim.drift > 0 for claim in claims)
    assert "frozen numbers moved" in claims[0].reason
    assert not torch.equal(network_answers(method, stream, 0), before), "the answer did change"


@pytest.mark.parametrize("scenario", [TIL, DIL, CIL])
def test_certificates_hold_the_answers_and_are_as_narrow_as_rounding(scenario):
    stream = opened(scenario)
    method: Any = made("hnet-lstm", stream, **GROWTH)
    learn(method, stream, [0, 1])
    x = stream.test(1).x[:50]
    lower, upper = method.bounds(x, 1)
    with torch.no_grad():
        answers = method.predict(x, 1 if scenario is TIL else None)
    assert lower.shape == upper.shape == answers.shape and (lower <= upper).all()
    sure = ((upper - lower) < 1e-6).all(1)
    assert sure.float().mean() > 0.9, "but for samples whose task is open within the rounding"
    assert ((answers - lower).abs()[sure] <= 1e-4 * (1 + answers.abs()[sure])).all()
    reasons = [claim.reason for claim in method.audit()]
    assert reasons == (["", ""] if scenario is TIL else ["tasks learnt later take part in the task inference", ""])


@pytest.mark.parametrize("scenario", [TIL, CIL])
def test_growth_conforms(scenario):
    found = conform(HNETLSTM, [scenario], settings={"chunk": 500, **GROWTH}, with_fields=False)
    assert not found, "\n".join(map(str, found))


def test_a_task_is_stored_as_a_copy_of_all_but_the_hidden_map():
    stream = three_tasks(TIL, "mlp-20")
    method: Any = made("hnet-lstm", stream, **GROWTH)
    learn(method, stream, [0])
    first = method.parameters_stored()
    learn(method, stream, [1])
    c, chunks = method.config, -(-method.target.n_weights // 500)
    generator = 4 * 96 * (c.embedding + c.chunk_embedding + 1) + chunks * c.chunk_embedding + 500 * 97
    assert method.parameters_stored() - first == generator + c.embedding


def test_the_declared_memory_has_what_the_cells_keep_for_the_backward_pass():
    net, saved = LSTMHypernetwork(5, 6, 400, 10, 3), {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        made = net(torch.randn(3, 5))
    own = {p.untyped_storage().data_ptr() for p in net.parameters()}
    kept = sum(size for place, size in saved.items() if place not in own)
    declared = 3 * 40 * (hnet_lstm.SAVED_PER_UNIT * 6 + 5 + 3)
    assert made.requires_grad and 0.9 * declared < kept < 1.1 * declared


# -- settings --------------------------------------------------------------------------------------


def test_ranges_per_weight_are_those_of_the_sum_times_the_weights():
    spec = find("split-digits").spec(TIL)
    ranges = HNETLSTM.Config.search
    assert dict(ranges) == {"lr": LEARNING_RATE, "beta": Log(1e-5, 1e1)}
    found = HNETLSTM.searched(spec, HNETLSTM.Config(strength_per="weight"), ranges)
    held = HNETLSTM(spec).target.n_weights
    assert found["lr"] == LEARNING_RATE and found["beta"] == Log(1e-5 * held, 1e1 * held)


def test_a_strength_per_weight_needs_a_value():
    spec = find("split-digits").spec(TIL)
    assert HNETLSTM.remarks(spec, HNETLSTM.Config(), []) == []
    assert HNETLSTM.remarks(spec, HNETLSTM.Config(strength_per="weight", beta=50.0), []) == []
    with pytest.raises(UserError, match="needs a value per weight of beta"):
        HNETLSTM.remarks(spec, HNETLSTM.Config(strength_per="weight"), [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk": 0}, "chunk = 0 must be at least 1"),
        ({"hidden": 0}, "hidden = 0 must be at least 1"),
        ({"held_tasks": -1}, "held_tasks = -1 must not be negative"),
        ({"task_scaling": (1.0, -1.0)}, "must not hold negative factors"),
        ({"beta": -1.0}, "beta = -1.0 must not be negative"),
        ({"inference": "interval"}, 'hnet-lstm: inference = "interval"'),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(UserError, match=message):
        HNETLSTM.Config(**options)


def test_too_few_factors_are_named():
    with pytest.raises(UserError, match="task_scaling has 1 factors for 4 old tasks"):
        HNETLSTM(find("split-digits").spec(TIL), HNETLSTM.Config(task_scaling=(1.0,)))
