"""HyperInterval equals the official code on recorded steps and trajectories (float64)."""

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.types import CIL, DIL, TIL
from methods.base import Batch
from methods.hypernetworks.output_layer import FusedAdam
from methods.hypernetworks.stateless import exchanged
from methods.intervals.bounding import worst_case
from methods.shared import inference
from tests.methods.golden import assert_close, group, tensors
from tests.methods.hyper_golden import CONFIG, GOLDEN, hyperinterval, stored_order, test_samples, trajectory_task

VARIANTS = [("til", TIL), ("nested", DIL)]


def at_step(name, scenario):
    """The method at the recorded step, with the regulariser's targets from the recorded previous weights."""
    g = group(GOLDEN, name)
    method = hyperinterval(scenario, group(g, "param"))
    previous = hyperinterval(scenario, {**group(g, "param"), **group(g, "prev")})
    schedule = torch.stack([torch.from_numpy(g["kappa"]), torch.from_numpy(g["eps_now"])])[None]
    method.schedule = lambda steps: schedule
    return g, method, previous


@pytest.mark.parametrize(("name", "scenario"), VARIANTS)
def test_generated_weights_and_logits(name, scenario):
    g, method, _ = at_step(name, scenario)
    t = int(g["task"])
    eps = float(g["eps_now"])
    theta, rho, _ = method.hypernetwork.intervals(*method.boxes(method.embeddings[t:], method.shapes[t:], eps))
    assert_close(theta[0], g["middle_w"], 1e-9)
    assert_close(theta[0] - rho[0], g["lower_w"], 1e-9)
    assert_close(rho[0], g["radii"], 1e-9)
    _, radii = method.boxes(method.embeddings, method.shapes, float(g["eps_full"]))
    assert_close(radii, g["effective_radius_full"], 1e-9)
    x = torch.from_numpy(g["x"])
    middle, bounds = method.interval_logits(theta[0], rho[0], x)
    assert_close(middle, g["middle_logits"], 1e-9)
    assert_close(bounds.lower, g["lower_logits"], 1e-9)
    assert_close(bounds.upper, g["upper_logits"], 1e-9)
    wrong = (worst_case(bounds, torch.from_numpy(g["y"]).long()).argmax(1) != torch.from_numpy(g["y"])).sum()
    assert int(wrong) == int(g["worst_case_error"])


@pytest.mark.parametrize(("name", "scenario"), VARIANTS)
def test_loss_gradient_and_adam_step(name, scenario):
    g, method, previous = at_step(name, scenario)
    t = int(g["task"])
    embedding = nn.Parameter(method.embeddings[t : t + 1].clone())
    shape = nn.Parameter(method.shapes[t : t + 1].clone(), requires_grad=not method.nested)
    current, method.hypernetwork = method.hypernetwork, previous.hypernetwork
    loss = method.loss(t, embedding, shape, steps=10)  # targets come from the weights before the task
    method.hypernetwork = current
    batch = Batch(torch.from_numpy(g["x"]), torch.from_numpy(g["y"]).long(), t)
    value = loss(batch)
    assert_close(value.detach(), g["loss_total"], 1e-9)
    value.backward()
    named = {"W.2": current.output.weight, "b.2": current.output.bias, f"emb.{t}": embedding, f"raw_eps.{t}": shape}
    for k, layer in enumerate(current.hidden):
        named |= {f"W.{k}": layer.weight, f"b.{k}": layer.bias}
    gradients = group(g, "grad")
    assert set(gradients) == {name for name, p in named.items() if p.requires_grad}
    for key, expected in gradients.items():
        grad = named[key].grad
        assert grad is not None
        assert_close(grad.reshape(expected.shape), expected, 1e-9, key)
        named[key].grad = None
    small = [p for key, p in named.items() if key in gradients and key not in ("W.2", "b.2")]
    with FusedAdam(current.output, small, lr=float(g["lr"])) as optimizer:
        loss(batch).backward()
        optimizer.step()
    for key, expected in group(g, "adam").items():
        if key in named:
            assert_close(named[key].detach().reshape(expected.shape), expected, 1e-7, key)


def test_universal_embedding():
    g = group(GOLDEN, "nested")
    method = hyperinterval(DIL, group(g, "param"))
    for seen in range(1, CONFIG["n_tasks"] + 1):
        method.tasks_seen = seen
        lower, upper = method.universal_box()
        if seen == 1:
            assert_close((lower + upper) / 2, g["universal/first_task"], 1e-9)
        else:
            assert_close(lower, g[f"universal/lower.{seen - 1}"], 1e-9)
            assert_close(upper, g[f"universal/upper.{seen - 1}"], 1e-9)
            assert_close((lower + upper) / 2, g[f"universal/center.{seen - 1}"], 1e-9)
    theta, rho = method.universal_weights()
    assert_close(theta - rho, g["universal/lower_w"], 1e-9)
    assert_close(theta, g["universal/middle_w"], 1e-9)
    x = torch.from_numpy(g["x"])
    middle, bounds = method.interval_logits(theta, rho, x)
    assert_close(bounds.lower, g["universal/lower_logits"], 1e-9)
    assert_close(bounds.upper, g["universal/upper_logits"], 1e-9)
    assert_close(middle, g["universal/middle_logits"], 1e-9)
    assert torch.equal(method.predict(x).argmax(1), torch.from_numpy(g["universal/pred"]).long())


@pytest.mark.parametrize("kind", ["vanilla", "interval"])
def test_entropy_inference(kind):
    g = tensors(group(GOLDEN, "entropy"))
    lower, middle, upper = g["logits"].unbind(2)
    weights = 1 / (0.001 + (upper - lower).abs()) if kind == "interval" else None
    task = inference.least_entropy(middle, weights)
    assert torch.equal(task, g[f"{kind}_task"].long())
    classes = 10 * task + inference.chosen(middle, task).argmax(1)
    assert torch.equal(classes, g[f"{kind}_class"].long())


def test_entropy_of_an_underflowing_probability_is_zero():
    assert inference.entropy(torch.tensor([1000.0, 0.0])).item() == 0.0


def test_exchange_rule_of_the_endpoint_heuristic():
    recorded = tensors(group(GOLDEN, "reverse"))
    for ours, expected in zip(exchanged(*recorded["in"]), recorded["out"], strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize(("name", "scenario"), VARIANTS)
@pytest.mark.parametrize(("rule", "select"), [("last", "last"), ("best", "official")])
def test_trajectory(monkeypatch, name, scenario, rule, select):
    """Three tasks of 30 iterations: losses, accuracies, final parameters and logits."""
    g = group(GOLDEN, f"{name}_traj_{rule}")
    method = hyperinterval(scenario, group(GOLDEN, f"{name}_traj/init"), select=select, kappa=CONFIG["traj"]["kappa"])
    stored_order(monkeypatch)
    losses = []

    def recording(batch, inner):
        value = inner(batch)
        losses.append(float(value.detach()))
        return value

    original = method.loss
    monkeypatch.setattr(
        method, "loss", lambda *a: (lambda inner: lambda batch: recording(batch, inner))(original(*a)), raising=False
    )
    with_default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        for t in range(CONFIG["n_tasks"]):
            task = trajectory_task(t)
            method.begin(task)
            method.learn(task)
            for j in range(t + 1):
                x, y = test_samples(j)
                theta, _ = method.weights(j)
                accuracy = 100 * (method.target(theta[0], x).argmax(1) == y).double().mean()
                assert float(accuracy) == pytest.approx(g["test_acc"][t, j], abs=1e-9)
                if scenario is DIL:
                    universal = 100 * (method.predict(x).argmax(1) == y).double().mean()
                    assert float(universal) == pytest.approx(g["test_acc_universal"][t, j], abs=1e-9)
    finally:
        torch.set_default_dtype(with_default)
    assert_close(torch.tensor(losses, dtype=torch.float64).view(3, -1), g["loss_total"], 1e-5)
    for t in range(CONFIG["n_tasks"]):
        x, _ = test_samples(t)
        theta, rho = method.weights(t)
        middle, bounds = method.interval_logits(theta[0], rho[0], x)
        assert_close(torch.stack([bounds.lower, middle, bounds.upper]).detach(), g["final_logits"][t], 1e-5)
        assert_close(method.embeddings[t], g[f"final/emb.{t}"].astype(np.float64), 1e-4)
    final = g["final/W.2"].astype(np.float64)
    assert_close(method.hypernetwork.output.weight.detach(), final, 1e-4)


def test_class_incremental_answers_name_the_task_and_the_class():
    method = hyperinterval(CIL, group(GOLDEN, "til/param"))
    method.tasks_seen = 2
    x = torch.from_numpy(group(GOLDEN, "til")["x"])
    logits = method.predict(x)
    assert logits.shape == (len(x), 2 * CONFIG["n_out"])
    assert torch.isfinite(logits).all()
    assert torch.equal(logits.argmax(1) // CONFIG["n_out"], method.infer_task(x))
