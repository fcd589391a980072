"""PackNet against numbers recorded from its authors' code."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import nn

from methods.packnet import PackNet, pruned
from methods.shared.grouped import Group
from methods.shared.ownership import holding
from tests.methods.forget_free import (
    GOLDEN,
    Bare,
    Chain,
    flat,
    heads,
    made,
    recorded_losses,
    recorded_order,
    samples,
    task_of,
)
from tests.methods.golden import assert_close, group, tensors

META = json.loads(str(GOLDEN["packnet/meta/json"]))
TRAJECTORY = group(GOLDEN, "packnet/traj")
DATA = group(TRAJECTORY, "data")
WEIGHTS, BIASES, HEAD = ["0.weight", "2.weight"], ["0.bias", "2.bias"], ["head/weight", "head/bias"]
OFFICIAL = {"biases": "first", "batch_norm": "frozen", "restart": "zero", "ties": "official"}


@pytest.mark.parametrize("case", ["linear", "conv", "ties", "half"])
def test_pruning_of_a_tensor(case):
    recorded = tensors(group(GOLDEN, f"packnet/prune/{case}"))
    weights, owners = recorded["weight_before"].flatten(), recorded["owner_before"].flatten()
    own = owners == recorded["task"]
    count = round(recorded["p"].item() * int(own.sum()))
    gone = pruned(weights, own, count, "official")
    after = torch.where(gone, 0, owners)
    assert torch.equal(after, recorded["owner_after"].flatten())
    assert torch.equal(weights.masked_fill(after == 0, 0), recorded["weight_after"].flatten())
    by_index = pruned(weights, own, count, "index")
    assert by_index.sum() == count and not (by_index & ~gone).any()
    assert (gone.sum() > count) == (case == "ties")


def network_of_gradients() -> nn.Module:
    return Bare(nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 4)))


@pytest.mark.parametrize("flags", [(0, 0), (1, 0), (0, 1)])
def test_what_a_step_of_a_later_task_moves(flags):
    """Official flags train_biases and train_bn; a step of SGD with rate 1 moves by minus the gradient."""
    recorded = group(GOLDEN, "packnet/grads")
    parameters, raw = group(recorded, "param"), group(recorded, "raw")
    options = {"biases": "per-task" if flags[0] else "first", "batch_norm": "per-task" if flags[1] else "frozen"}
    method = made(PackNet, network_of_gradients(), 3, **options)
    groups = zip(["weights", "fixed", "own"], names_in_groups(method), strict=True)
    used = {part: names for part, names in groups if names}
    with torch.no_grad():
        for part, names in used.items():
            getattr(method, part)[: len(flat(parameters, names))] = flat(parameters, names)
    before = {part: getattr(method, part).detach().clone() for part in used}
    owners = torch.cat([torch.from_numpy(recorded[f"owner/{layer}"]).flatten() for layer in (0, 4)])
    hold = holding(method.weights, owners == int(recorded["task"]))
    leaves = [
        method.leaves(getattr(method, part), of) for part, of in zip(["weights", "fixed", "own"], Group, strict=False)
    ]
    x = torch.from_numpy(recorded["x"].copy())
    method.target.trained(
        {**leaves[0], **leaves[1], **leaves[2]}, method.target.first.statistics, x
    ).square().sum().backward()
    named = {name.removeprefix("body."): p for part in leaves for name, p in part.items()}
    for name in raw:
        assert_close(named[name].grad, raw[name], 1e-9, name)

    method.kept.append(method.own.detach().clone())  # a first task has ended
    trained = method.trained(list(leaves[0].values()), leaves[1], leaves[2])
    torch.optim.SGD(trained, 1.0).step()
    hold()
    expected = group(recorded, f"bias{flags[0]}_bn{flags[1]}")
    for part, names in used.items():
        moved = (before[part] - getattr(method, part).detach())[: len(flat(expected, names))]
        assert_close(moved, flat(expected, names), 1e-9, part)


def names_in_groups(method: PackNet) -> list[list[str]]:
    """Recorded parameters of each group; the unused head is left out."""
    return [
        [name.removeprefix("body.") for name in shapes if name.startswith("body.")]
        for shapes in list(method.target.shapes.values())[:3]
    ]


def test_a_trajectory(monkeypatch):
    init = group(TRAJECTORY, "init")
    widths = [META["d"], *META["h"], META["c"]]
    method = made(
        PackNet, Chain(widths, bias=True), META["tasks"], lr=META["lr"], retrain_lr=META["lr2"], optimizer="sgd",
        momentum=META["momentum"], retrain_share=META["E2"] / (META["E1"] + META["E2"]), **OFFICIAL,
    )  # fmt: skip
    own = [flat(init, [f"classifiers.{t}.weight", f"classifiers.{t}.bias"]) for t in range(META["tasks"])]
    with torch.no_grad():
        method.weights.copy_(flat(init, [f"shared.{name}" for name in WEIGHTS]))
        method.fixed.copy_(flat(init, [f"shared.{name}" for name in BIASES]))
    method.target.first = method.target.first._replace(masked=method.weights.detach().clone())
    heads(monkeypatch, method, own)
    pruned_weights: list[torch.Tensor] = []
    prune = PackNet.prune

    def watched(self, task, owned):
        trained = group(TRAJECTORY, f"after.{task}.train")
        assert_close(self.weights, flat(trained, WEIGHTS), 1e-6, f"task {task} before pruning")
        assert_close(self.fixed, flat(trained, BIASES), 1e-6, f"task {task} before pruning")
        assert_close(self.own, flat(trained, HEAD), 1e-6, f"task {task} before pruning")
        prune(self, task, owned)
        assert torch.equal(self.owners, owners_of(f"owner.{task}.pruned"))
        assert_close(self.weights, flat(group(TRAJECTORY, f"pruned.{task}"), WEIGHTS), 1e-6)
        assert_close(self.fixed, flat(group(TRAJECTORY, f"pruned.{task}"), BIASES), 1e-6)
        pruned_weights.append(self.weights.detach().clone())

    monkeypatch.setattr(type(method), "prune", watched)
    first_answers: dict[int, torch.Tensor] = {}
    for t in range(META["tasks"]):
        phases = [p for p in ("train", "retrain") if f"order.{t}.{p}" in TRAJECTORY]
        batches = np.concatenate([TRAJECTORY[f"order.{t}.{p}"] for p in phases])
        recorded_order(monkeypatch, batches)
        losses = recorded_losses(monkeypatch)
        if t < len(META["p"]):
            method.config = dataclasses.replace(method.config, keep=1 - META["p"][t])
        task = task_of(DATA, t, META["b"], len(batches))
        method.begin(task)
        method.learn(task)
        expected = np.concatenate([TRAJECTORY[f"loss.{t}.{p}"] for p in phases])
        assert_close(torch.tensor(losses), expected, 1e-6, f"losses of task {t}")
        after = group(TRAJECTORY, f"after.{t}.{phases[-1]}")
        assert_close(method.weights, flat(after, WEIGHTS), 1e-6, f"weights after task {t}")
        assert_close(method.fixed, flat(after, BIASES), 1e-6, f"biases after task {t}")
        assert_close(method.kept[t], flat(after, HEAD), 1e-6, f"head of task {t}")
        assert torch.equal(method.owners, owners_of(f"owner.{t}"))
        for j in range(t + 1):
            answers = method.predict(samples(DATA, "test", j).x, j)
            assert_close(answers, TRAJECTORY[f"logits.{t}.{j}"], 1e-6, f"task {j} after {t}")
            assert torch.equal(answers, first_answers.setdefault(j, answers))
    assert len(pruned_weights) == 2 and all(claim.contained for claim in method.audit())


def owners_of(key: str) -> torch.Tensor:
    return flat(group(TRAJECTORY, key), ["shared.0", "shared.2"])
