"""SupSup against numbers recorded from its authors' code."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from methods import supsup
from methods.shared import supermasks
from methods.shared.grouped import Group
from methods.shared.inference import entropy
from methods.shared.superposed import lowest
from methods.shared.topk import above_rank, straight_through
from methods.supsup import SupSup
from tests.methods.forget_free import (
    GOLDEN,
    Chain,
    flat,
    made,
    recorded_losses,
    recorded_order,
    samples,
    task_of,
)
from tests.methods.golden import assert_close, group, tensors

META = json.loads(str(GOLDEN["supsup/meta/json"]))
DATA = group(GOLDEN, "supsup/data")
LAYERS = ["linear.0", "linear.2", "linear.4"]
TASKS, BATCH, SIZE = META["tasks"], META["b"], 24
SETTINGS = {
    "gn": {"mask": "threshold", "optimizer": "rmsprop", "lr": META["rmsprop_lr"]},
    "gg": {"lr": META["adam_lr"], "weight_decay": META["adam_wd"], "schedule": "cosine", "budget": 2.0},
}


@pytest.mark.parametrize("case", ["linear", "conv"])
def test_masks(case):
    recorded = tensors(group(GOLDEN, f"supsup/mask/{case}"))
    score = recorded.pop("score").flatten()
    assert len(recorded) == 5
    for name, mask in recorded.items():
        kept = None if name == "threshold" else float(name.removeprefix("top."))
        method = made(SupSup, nn.Linear(len(score), 1), 1, **({"keep": kept} if kept else {"mask": "threshold"}))
        with torch.no_grad():
            method.scores.copy_(score)
        assert torch.equal(method.present_mask(), mask.flatten()), name


def test_signed_constants():
    recorded = tensors(group(GOLDEN, "supsup/init"))
    weight = recorded["before"]
    supermasks.make_constant("weight", weight)
    assert_close(weight, recorded["after"], 1e-9)


@pytest.mark.parametrize("case", ["MultitaskMaskConv", "FastMultitaskMaskConv"])
def test_a_layer_forward_and_backward(case):
    recorded = tensors(group(GOLDEN, f"supsup/layer/{case}"))
    weight, score = recorded["weight"].flatten(), recorded["score"].flatten().requires_grad_()
    top_k, n = case == "MultitaskMaskConv", len(score)
    rank = int((1 - recorded["kept"].item()) * n)
    mask = above_rank(score.detach().abs(), [n], [rank]) if top_k else (score >= 0).to(weight)
    (masked,) = straight_through(weight, score, mask, [n], top_k)
    y = nn.functional.conv2d(recorded["x"], masked.view_as(recorded["weight"]), padding=1)
    y.backward(recorded["grad_out"])
    assert_close(y, recorded["y"], 1e-9)
    assert_close(score.grad, recorded["score_grad"].flatten(), 1e-9)


@pytest.mark.parametrize("kind", ["gn", "gg"])
def test_a_trajectory(kind, monkeypatch):
    trajectory = group(GOLDEN, f"supsup/{kind}")
    method, losses = learnt(kind, monkeypatch)
    sizes = method.target.sizes(Group.MASKED)
    init, final = group(trajectory, "init"), group(trajectory, "final")
    assert_close(method.weights, flat(init, [f"{name}.weight" for name in LAYERS]), 1e-9)
    for t in range(TASKS):
        assert_close(torch.tensor(losses[t]), trajectory["loss"][t], 1e-6, f"losses of task {t}")
        for i, mask in enumerate(method.mask(t).split(sizes)):
            assert torch.equal(mask, torch.from_numpy(trajectory[f"masks.{i}"][t].flatten()).bool())
        x = samples(DATA, "test", t).x
        assert_close(method.target(method.point(t), x), trajectory[f"logits.{t}"], 1e-6, f"answers of task {t}")
        assert_close(method.logits(x, t), trajectory[f"logits.{t}"][:, : META["c"]], 1e-6)
    assert_close(method.scores, flat(final, [f"{name}.scores.{TASKS - 1}" for name in LAYERS]), 1e-6)
    assert all(claim.contained for claim in method.audit())


def learnt(kind, monkeypatch, **options):
    """The method after all recorded steps, and the losses of each task."""
    init = group(GOLDEN, f"supsup/{kind}/init")
    network = Chain([META["d"], *META["h"], META["out"]], bias=False).double()
    with torch.no_grad():
        for p, name in zip(network.parameters(), LAYERS, strict=True):
            p.copy_(tensors(init)[f"{name}.weight"].view_as(p))
    superfluous = META["out"] - META["c"]
    method = made(SupSup, network, TASKS, superfluous=superfluous, **SETTINGS[kind], **options)
    monkeypatch.setattr(
        type(method), "first_scores", lambda self: flat(init, [f"{name}.scores.{len(self.masks)}" for name in LAYERS])
    )
    monkeypatch.setattr(type(method), "epochs", lambda *_: META["epochs"])  # the recorded runs stop before their end
    losses = []
    for t in range(TASKS):
        batches = np.resize(np.arange(META["n"]), (META["iters"], BATCH))
        recorded_order(monkeypatch, batches)
        losses.append(recorded_losses(monkeypatch, supsup))
        task = task_of(DATA, t, BATCH, META["iters"])
        method.begin(task)
        method.learn(task)
    return method, losses


def share_right(method, task, inferred):
    """Share of right answers to the recorded samples of a task, with one inferred task for each batch."""
    x, y, right = *(torch.from_numpy(DATA[f"test_{part}.{task}"].copy()) for part in "xy"), 0
    for b, i in enumerate(inferred):
        rows = slice(BATCH * b, BATCH * (b + 1))
        right += (method.target(method.point(i), x[rows]).argmax(1) == y[rows]).sum().item()
    return right / SIZE


def objective_of(name):
    return entropy if name == "entropy" else lambda logits: supermasks.superfluous_logsumexp(logits, META["c"])


@pytest.mark.parametrize("kind", ["gn", "gg"])
def test_one_shot_inference_of_batches(kind, monkeypatch):
    method, _ = learnt(kind, monkeypatch)
    mixture = method.mixture()
    for case in ("entropy.1", "entropy.8", "g.8"):
        name, size = case.split(".")
        recorded = group(GOLDEN, f"supsup/{kind}/infer/oneshot_{case}")
        for t in range(TASKS):
            x = samples(DATA, "test", t).x[:SIZE].view(-1, BATCH, META["d"])[:, : int(size)]
            value, gradients = mixture.gradients(x.flatten(0, 1), objective_of(name))
            gradients = gradients.view(-1, int(size), TASKS).mean(1)
            assert_close(value.view(-1, int(size)).mean(1), recorded["objective"][t], 1e-6, case)
            assert_close(gradients, recorded["alpha_grad"][t], 1e-6, case)
            assert share_right(method, t, gradients.argmin(1).tolist()) == pytest.approx(recorded["accuracy"][t])


@pytest.mark.parametrize("kind", ["gn", "gg"])
@pytest.mark.parametrize("name", ["entropy", "g"])
def test_binary_inference_of_batches(kind, name, monkeypatch):
    method, _ = learnt(kind, monkeypatch)
    mixture = method.mixture()
    recorded = group(GOLDEN, f"supsup/{kind}/infer/binary_{name}.8")
    for t in range(TASKS):
        values, gradients, inferred = [], [], []
        for x in samples(DATA, "test", t).x[:SIZE].split(BATCH):
            kept = torch.ones(1, TASKS, dtype=torch.bool)
            for left in (2, 1):
                shares = (kept / kept.sum()).double().expand(BATCH, -1)
                value, found = mixture.gradients_at(shares, x, objective_of(name))
                found = found.mean(0, keepdim=True)
                kept, before = lowest(found, kept, left), kept
                values.append(value.mean())
                gradients.append(torch.where(before[0], found[0], 0))
            inferred.append(int(kept.int().argmax()))
        assert_close(torch.stack(values), recorded[f"objective.{t}"], 1e-6, f"objective of task {t}")
        assert_close(torch.stack(gradients), recorded[f"alpha_grad.{t}"], 1e-6, f"gradients of task {t}")
        assert share_right(method, t, inferred) == pytest.approx(recorded["accuracy"][t])
