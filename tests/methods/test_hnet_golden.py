"""HNET equals the official codes on recorded regularisers, steps and trajectories (float64)."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks.types import CIL, DIL, TIL
from methods.base import Batch
from methods.hypernetworks.held import HeldOutputs
from methods.hypernetworks.look_ahead import next_step
from tests.methods.golden import assert_close, group
from tests.methods.hyper_golden import CONFIG, GOLDEN, hnet, stored_order, test_samples, trajectory_task


@pytest.fixture(params=["hnet", "chunked"])
def step(request):
    g = group(GOLDEN, request.param)
    method = hnet(TIL, group(g, "param"), chunked=request.param == "chunked")
    if request.param == "chunked":
        method.hypernetwork.chunk_first = True  # hypnettorch's input order
    t = int(g["task"])
    batch = Batch(torch.from_numpy(g["x"]), torch.from_numpy(g["y"]).long(), t)
    return g, method, t, nn.Parameter(method.embeddings[t : t + 1].clone()), batch


def test_generated_weights_logits_and_task_loss(step):
    g, method, _t, embedding, batch = step
    assert_close(method.hypernetwork(method.embeddings).detach(), g["weights"], 1e-9)
    own = method.hypernetwork(embedding)[0]
    assert_close(method.target(own, batch.x).detach(), g["logits"], 1e-9)
    assert_close(method.task_loss(own, batch).detach(), g["loss_task"], 1e-9)


def held(method, g):
    """The regulariser of the method's own options, at the recorded targets."""
    found = method.held(int(g["task"]))
    found.frozen = None  # the recorded targets are no outputs of the present parameters
    found.targets = torch.from_numpy(g["targets"])
    return found


def with_options(method, g, **options):
    method.config = replace(method.config, **options)
    method.importances = list(torch.from_numpy(g["fisher"]))
    return method


VARIANTS = [
    ({}, "plain"),
    ({"held_heads": "own"}, "heads"),
    ({"held_weights": "fisher"}, "fisher"),
    ({"task_scaling": "reg_scaling"}, "scaled"),
    ({"look_ahead": True}, "lookahead"),
    ({"look_ahead": True, "held_heads": "own"}, "lookahead_heads"),
    ({"held_tasks": 2}, "plain"),
]


def total_loss(method, g, embedding, batch):
    if not method.config.look_ahead:
        return method.loss(embedding, held(method, g))(batch)
    optimizer = torch.optim.Adam([*method.hypernetwork.parameters(), embedding], lr=float(g["lr"]))
    return method.look_ahead_loss(embedding, held(method, g), optimizer)(batch)


@pytest.mark.parametrize(("options", "recorded"), VARIANTS)
def test_regulariser(step, options, recorded):
    g, method, _t, embedding, batch = step
    if "task_scaling" in options:
        options = {"task_scaling": tuple(g["reg_scaling"].tolist())}
    method = with_options(method, g, **{"look_ahead": False} | options)
    total = total_loss(method, g, embedding, batch)
    expected = float(g["loss_task"]) + CONFIG["hnet_cfg"]["beta"] * float(g[f"reg/{recorded}"])
    assert float(total.detach()) == pytest.approx(expected, rel=1e-7 if method.config.look_ahead else 1e-9)


def test_targets_recomputed_from_the_earlier_hypernetwork(step):
    g, method, t, embedding, batch = step
    before = with_options(method, g, online_targets=True, look_ahead=False).held(t)
    plain = method.loss(embedding, HeldOutputs(method.hypernetwork, method.embeddings[:t]))
    online = method.loss(embedding, before)
    for parameter in method.hypernetwork.parameters():
        parameter.data += 0.01 * torch.sin(torch.arange(parameter.numel())).view_as(parameter)
    assert float(online(batch).detach()) == pytest.approx(float(plain(batch).detach()), rel=1e-12)
    assert before.targets is None


def test_gradient_and_step_with_look_ahead_and_own_heads(step):
    g, method, t, embedding, batch = step
    with_options(method, g, look_ahead=True, held_heads="own", train_old_embeddings=True)
    shared = method.hypernetwork.parameters()
    theta, own = [torch.optim.Adam(p, lr=float(g["lr"])) for p in (shared, [embedding])]
    before = held(method, g)
    method.look_ahead_loss(embedding, before, theta)(batch).backward()
    gradients = parameters_of(method, "grad") | {f"emb.{t}": embedding.grad[0]}
    gradients |= {f"emb.{j}": before.embeddings.grad[j] for j in range(t)}
    for key, expected in group(g, "total_grad").items():
        assert_close(gradients[key], expected, 1e-9, key)
    theta.step()
    own.step()
    after = parameters_of(method, "data") | {f"emb.{t}": embedding.data[0]}
    for key, expected in group(g, "adam").items():
        assert_close(after[key], expected, 1e-7, key)


def parameters_of(method, what):
    """The hypernetwork's parameters (or their gradients) by their recorded names."""
    inner = getattr(method.hypernetwork, "inner", method.hypernetwork)
    found = {}
    for k, layer in enumerate([*inner.hidden, inner.output]):
        found |= {f"W.{k}": getattr(layer.weight, what), f"b.{k}": getattr(layer.bias, what)}
    if inner is not method.hypernetwork:
        found["chunk_emb"] = getattr(method.hypernetwork.chunks, what)
    return found


@pytest.mark.parametrize("kind", ["task_grad", "dtheta"])
def test_look_ahead_step(step, kind):
    g, method, t, embedding, batch = step
    parameters = list(method.hypernetwork.parameters())
    value = method.task_loss(method.hypernetwork(embedding)[0], batch)
    *gradients, of_embedding = torch.autograd.grad(value, [*parameters, embedding])
    steps = next_step(torch.optim.Adam(parameters, lr=float(g["lr"])), parameters, tuple(gradients))
    for parameter, gradient, change in zip(parameters, gradients, steps, strict=True):
        parameter.grad, parameter.data = gradient, change
    found = parameters_of(method, "grad" if kind == "task_grad" else "data") | {f"emb.{t}": of_embedding[0]}
    for key, expected in group(g, kind).items():
        assert_close(found[key], expected, 1e-9 if kind == "task_grad" else 1e-7, key)


TRAJECTORIES = [
    ("cl1_lookahead", "multihead", TIL, True, False),
    ("cl1", "multihead", TIL, False, False),
    ("cl1_chunked_lookahead", "multihead_chunked", TIL, True, True),
    ("cl2_lookahead", "singlehead", DIL, True, False),
    ("cl3_lookahead", "multihead", CIL, True, False),
]


@pytest.mark.parametrize(("name", "init", "scenario", "look_ahead", "chunked"), TRAJECTORIES)
def test_trajectory(monkeypatch, name, init, scenario, look_ahead, chunked):
    g = group(GOLDEN, f"hnet_traj_{name}")
    method = hnet(scenario, group(GOLDEN, f"hnet_traj_{init}/init"), chunked=chunked, look_ahead=look_ahead)
    stored_order(monkeypatch)
    for t in range(CONFIG["n_tasks"]):
        task = trajectory_task(t, absolute_labels=scenario is CIL)
        method.begin(task)
        method.learn(task)
    for t in range(CONFIG["n_tasks"]):
        assert_close(method.embeddings[t], g[f"final/emb.{t}"], 1e-4)
        x, y = test_samples(t)
        with torch.no_grad():
            logits = method.target(method.hypernetwork(method.embeddings[t : t + 1])[0], x)
            answer = method.predict(x, t if scenario is TIL else None).argmax(1)
        assert_close(logits, g["final_logits"][t], 1e-5)
        right = answer == (y + t * CONFIG["n_out"] if scenario is CIL else y)
        key = "test_acc" if scenario is TIL else "test_acc_entropy"
        assert 100 * float(right.double().mean()) == pytest.approx(float(g[key][t]), abs=1e-6)
        if scenario is not TIL:
            inferred = 100 * (method.infer_task(x) == t).double().mean()
            assert float(inferred) == pytest.approx(float(g["task_acc_entropy"][t]), abs=1e-6)
