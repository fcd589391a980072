"""HAT against numbers recorded from its authors' code."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from methods import base, hat
from methods.hat import HAT
from methods.shared.attention import Annealing
from methods.shared.grouped import Group
from tests.methods.forget_free import (
    GOLDEN,
    Chain,
    flat,
    heads,
    made,
    recorded_losses,
    samples,
    task_of,
)
from tests.methods.golden import assert_close, group, tensors

META = json.loads(str(GOLDEN["hat/meta/json"]))
TRAJECTORY = group(GOLDEN, "hat/traj")
DATA = group(TRAJECTORY, "data")
HIDDEN = [f"fc{i + 1}" for i in range(META["layers"])]
LAYERS = [f"{layer}.{kind}" for layer in HIDDEN for kind in ("weight", "bias")]
EMBEDDINGS = [f"e{layer}.weight" for layer in HIDDEN]
WIDTHS = [META["side"] ** 2, *[META["nhid"]] * META["layers"], META["c"]]
OFFICIAL = {"gates": "soft", "schedule": "official", "selection": "val"}
OFFICIAL |= {"lr": META["lr"], "steepest": META["smax"], "lam": META["lamb"], "clip": float(META["clipgrad"])}


def embedding(recorded: dict[str, Any], task: int, names: list[str] = EMBEDDINGS) -> Tensor:
    """A task's row (u,) of the recorded embeddings."""
    return torch.cat([tensors(recorded)[name][task] for name in names])


def head(recorded: dict[str, Any], task: int) -> Tensor:
    return flat(recorded, [f"last.{task}.weight", f"last.{task}.bias"])


def gates(recorded: dict[str, Any], prefix: str, n: int) -> Tensor:
    return torch.cat([tensors(recorded)[f"{prefix}.{i}"].flatten() for i in range(n)])


def start(monkeypatch: pytest.MonkeyPatch, method: HAT, recorded: dict[str, Any], tasks: list[int]) -> None:
    """Let the method and each of the tasks start with recorded parameters."""
    with torch.no_grad():
        method.weights.copy_(flat(recorded, LAYERS))
    rows = {t: embedding(recorded, t) for t in tasks}
    monkeypatch.setattr(type(method), "first_embedding", lambda _, task: rows[task])
    heads(monkeypatch, method, {t: head(recorded, t) for t in tasks})  # type: ignore[arg-type]


def slices(monkeypatch: pytest.MonkeyPatch, orders: np.ndarray) -> int:
    """Make `fit` take the batches of the given orders (epochs, n), the last of each maybe smaller; their number."""
    batches = [batch for order in torch.from_numpy(orders.copy()) for batch in order.split(META["b"])]
    monkeypatch.setattr(base, "batch_order", lambda *_: iter(batches))
    return len(batches)


def recorded_regularisers(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Values of the regulariser in the steps that follow, in order."""
    values, measure = [], hat.occupancy

    def occupancy(*args: Tensor) -> Tensor:
        values.append(measure(*args))
        return values[-1]

    monkeypatch.setattr(hat, "occupancy", occupancy)
    return values


def test_gates():
    recorded = tensors(group(GOLDEN, "hat/gate"))
    for slope, row in zip(recorded["s"], recorded["mask"], strict=True):
        assert_close((slope * recorded["e"]).sigmoid(), row, 1e-9)
    method = made(HAT, Chain([3, 10, 2], bias=True), 1, gates="soft", steepest=recorded["s"][-1].item())
    with torch.no_grad():
        method.embedding.copy_(recorded["e"])
    assert_close(method.gates_of(0), recorded["mask"][-1], 1e-9)


def test_a_trajectory(monkeypatch):
    method = made(HAT, Chain(WIDTHS, bias=True), META["tasks"], **OFFICIAL)
    start(monkeypatch, method, group(TRAJECTORY, "init"), list(range(META["tasks"])))
    for t in range(META["tasks"]):
        steps = slices(monkeypatch, TRAJECTORY[f"order.{t}"])
        errors, regularisers = recorded_losses(monkeypatch, hat), recorded_regularisers(monkeypatch)
        task = task_of(DATA, t, META["b"], steps)
        method.begin(task)
        method.learn(task)
        after, penalties = group(TRAJECTORY, f"after.{t}"), torch.stack(regularisers).detach()
        assert_close(penalties, TRAJECTORY[f"reg.{t}"], 1e-6, f"R of task {t}")
        losses = torch.tensor(errors) + META["lamb"] * penalties
        assert_close(losses, TRAJECTORY[f"loss.{t}"], 1e-6, f"losses of task {t}")
        assert set(TRAJECTORY[f"lr.{t}"]) == {method.config.lr}
        assert_close(method.weights, flat(after, LAYERS), 1e-6, f"weights after task {t}")
        assert_close(method.embedding, embedding(after, t), 1e-6, f"embedding {t}")
        assert_close(method.taken(), gates(TRAJECTORY, f"mask_pre.{t}", META["layers"]), 1e-6, f"A after task {t}")
        mask = flat(group(TRAJECTORY, f"mask_back.{t}"), LAYERS)
        assert_close(1 - method.gating.least(method.taken()), mask, 1e-6, f"masks of gradients after task {t}")
        for j in range(t + 1):
            assert_close(method.kept[j], head(after, j), 1e-6, f"head {j} after {t}")
            compare_answers(method, t, j)


def compare_answers(method: HAT, after: int, j: int) -> None:
    test = samples(DATA, "test", j)
    answers = method.predict(test.x, j)
    assert_close(answers, TRAJECTORY[f"logits.{after}.{j}"], 1e-6, f"task {j} after {after}")
    labels = test.labels
    right = (answers.argmax(1) == labels).double().mean()
    loss = nn.functional.cross_entropy(answers, labels) + META["lamb"] * hat.occupancy(
        method.gates_of(j), method.taken()
    )
    assert right == TRAJECTORY[f"test_acc.{after}"][j]
    assert_close(loss, torch.tensor(TRAJECTORY[f"test_loss.{after}"][j]), 1e-6, f"loss of task {j} after {after}")


@pytest.mark.parametrize("case", ["step", "clip"])
def test_steps_of_the_second_task(monkeypatch, case):
    recorded = group(GOLDEN, f"hat/{case}")
    options = OFFICIAL | {"selection": "last", "clip": float(recorded["clipgrad"])}
    method = made(HAT, Chain(WIDTHS, bias=True), META["tasks"], **options)
    before, after = group(recorded, "0/before"), group(recorded, "after")
    start(monkeypatch, method, before, [1])
    method.gates.append(gates(TRAJECTORY, "mask_pre.0", META["layers"]))
    method.kept.append(head(group(TRAJECTORY, "after.0"), 0))
    errors, regularisers, seen = (
        recorded_losses(monkeypatch, hat),
        recorded_regularisers(monkeypatch),
        Seen(monkeypatch),
    )
    steps = slices(monkeypatch, np.arange(len(recorded["order"]))[None])
    task = task_of(DATA, 1, META["b"], steps)
    # one epoch is all samples of the order, a part of the task's
    task = dataclasses.replace(task, train=task.train.copied(torch.from_numpy(recorded["order"].copy())))
    method.begin(task)
    method.learn(task)
    assert len(errors) == steps
    for k, (penalty, error) in enumerate(zip(regularisers, errors, strict=True)):
        one = group(recorded, str(k))
        assert_close(seen.slopes[k], torch.tensor(one["s"]), 1e-9, f"s of step {k}")
        assert_close(penalty, torch.tensor(one["reg"]), 1e-9, f"R of step {k}")
        assert_close(error + META["lamb"] * penalty, torch.tensor(one["loss"]), 1e-9, f"loss of step {k}")
        for kind, found in (("raw", seen.raw), ("final", seen.final)):
            expected = group(one, kind)
            rest = torch.cat([flat(expected, LAYERS), head(expected, 1), embedding(expected, 1)])
            assert_close(found[k], rest, 1e-9, f"{kind} gradients of step {k}")
    assert_close(method.weights, flat(after, LAYERS), 1e-9)
    assert_close(method.kept[1], head(after, 1), 1e-9)
    assert_close(method.embedding, embedding(after, 1), 1e-9)


class Seen:
    """Slopes, and gradients (n + h + u,) before and after they were changed, of all steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.slopes: list[Tensor] = []
        self.raw: list[Tensor] = []
        self.final: list[Tensor] = []
        change, slope = HAT.change_gradients, Annealing.slope

        def look(into: list[Tensor]) -> Any:
            return lambda optimizer, *_: into.append(
                torch.cat([p.grad.flatten() for group in optimizer.param_groups for p in group["params"]])
            )

        def watched(method: HAT, optimizer: torch.optim.Optimizer, *rest: Any) -> None:
            optimizer.register_step_pre_hook(look(self.raw))
            change(method, optimizer, *rest)
            optimizer.register_step_pre_hook(look(self.final))

        def sloped(*args: Any) -> Tensor:
            value = slope(*args)
            if torch.is_grad_enabled():
                self.slopes.append(value)
            return value

        monkeypatch.setattr(HAT, "change_gradients", watched)
        monkeypatch.setattr(Annealing, "slope", sloped)


class Convolutional(nn.Sequential):
    """Three convolutions, each with ReLU and pooling, and two linear layers below the head."""

    def __init__(self) -> None:
        maps = [(2, 3), (3, 4), (4, 5)]
        parts = [(nn.Conv2d(a, b, 2), nn.ReLU(), nn.MaxPool2d(2)) for a, b in maps]
        super().__init__(
            *(layer for part in parts for layer in part), nn.Flatten(),
            nn.Linear(20, 6), nn.ReLU(), nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 2),
        )  # fmt: skip


def test_a_convolutional_network():
    recorded, parameters = group(GOLDEN, "hat/conv"), group(GOLDEN, "hat/conv/param")
    layers = ["c1", "c2", "c3", "fc1", "fc2"]
    names = [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
    method = made(HAT, Convolutional(), 2, gates="soft", steepest=float(recorded["s"]))
    with torch.no_grad():
        method.weights.copy_(flat(parameters, names))
        method.own.copy_(head(parameters, int(recorded["task"])))
        method.embedding.copy_(embedding(parameters, int(recorded["task"]), [f"e{layer}.weight" for layer in layers]))
    found = method.gates_of(0)
    assert_close(found, gates(recorded, "mask", 5), 1e-9, "gates")
    x = tensors(recorded)["x"]
    assert_close(method.predict(x, 0), recorded["logits"], 1e-9, "answers")
    views, masked = method.target.views(method.weights, Group.MASKED), method.target.first
    scaled = torch.cat([part.flatten() for part in method.gating.scaled(views, found).values()])
    assert_close(
        method.target(masked._replace(masked=scaled, own=method.own), x), recorded["logits"], 1e-9, "in training"
    )
    assert_close(method.gating.least(found), flat(group(recorded, "view"), names), 1e-9, "least gates")
