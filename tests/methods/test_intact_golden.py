"""InTAct against numbers recorded from its official codes (`intact/*` of the golden vectors)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.types import CIL, DIL, Scenario, StreamSpec, Task
from methods import base
from methods.intact import InTAct, range_of
from tests.methods.golden import assert_close, group, load, tensors
from tests.methods.hyper_golden import float64
from tests.methods.regularised import make_task

GOLDEN = group(load("frontier"), "intact")
META = json.loads(str(GOLDEN["json"]))
STEP, TRAJECTORY = 1e-9, 1e-6
"""Tolerances of the golden README."""
FORMS = {"mean": "outputs", "sum": "sum"}


class Recorded(nn.Module):
    """The recorded network: two hidden layers with leaky ReLU, and the outputs of all tasks from the start."""

    def __init__(self, n_outputs: int) -> None:
        super().__init__()
        d, h = META["d"], META["h"]
        self.layers = nn.Sequential(nn.Linear(d, h), nn.LeakyReLU(0.01), nn.Linear(h, h), nn.LeakyReLU(0.01))
        self.head = nn.Linear(h, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x))


def made(form: str, scenario: Scenario) -> InTAct:
    class Over(InTAct):
        def network(self, n_outputs: int | None = None) -> nn.Module:
            return Recorded(self.spec.n_outputs).eval()

    strengths = {"lam_variance": META["var"], "lam_drift": META["drift"], "lam_feature": META["feat"]}
    config = InTAct.Config(lr=META["lr"], drift=FORMS[form], new_rows="official", **strengths)  # type: ignore[arg-type]
    with float64():
        return Over(StreamSpec("golden", scenario, META["tasks"], 2, (META["d"],), "mlp-7"), config)


def copy_into(method: InTAct, weights: dict[str, np.ndarray], old: bool = False) -> None:
    """Set the recorded weights, those of a grown head in its first rows; old: as those after the latest task."""
    targets: dict[str, Any] = method.old if old else dict(method.net.named_parameters())
    with torch.no_grad():
        for name, value in tensors(weights).items():
            targets[name.replace("head.classifier", "head")][: len(value)].copy_(value)


def check_weights(method: InTAct, weights: dict[str, np.ndarray], tolerance: float, what: str, grad: bool = False):
    found = dict(method.net.named_parameters())
    for name, value in tensors(weights).items():
        p = found[name.replace("head.classifier", "head")]
        actual = p.grad if grad else p.detach()
        assert actual is not None
        assert_close(actual[: len(value)], value, tolerance, f"{name} {what}")


def task_of(recorded: dict[str, np.ndarray], t: int) -> tuple[Task, list[Tensor]]:
    """A recorded task and its batches."""
    batches = [b for order in torch.from_numpy(recorded["order"].copy()) for b in order.split(META["batch"])]
    x, y = (torch.from_numpy(recorded[part].copy()) for part in "xy")
    return make_task(t, x, y, META["batch"], len(batches)), batches


def check_ranges(method: InTAct, recorded: dict[str, np.ndarray]) -> None:
    for i, (low, high) in enumerate(zip(method.lower, method.upper, strict=True)):
        assert_close(low, recorded[f"min.{i}"], TRAJECTORY, f"lo of layer {i}")
        assert_close(high, recorded[f"max.{i}"], TRAJECTORY, f"up of layer {i}")


CASES = [(form, scenario) for form in FORMS for scenario in (CIL, DIL)]


@pytest.mark.parametrize(("form", "scenario"), CASES)
def test_trajectory(form: str, scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three tasks by the method's own `learn`: ranges, losses with penalties, weights at the third step and after."""
    method = made(form, scenario)
    objective, losses = method.objective, []

    def watched(task: int) -> Any:
        plain = objective(task)

        def loss(batch: base.Batch) -> Tensor:
            if len(losses) == 2:
                check_weights(method, group(recorded, "step2/param"), TRAJECTORY, f"at step 2 of task {task}")
            losses.append(plain(batch))
            return losses[-1]

        return loss

    monkeypatch.setattr(method, "objective", watched, raising=False)
    for t in range(META["tasks"]):
        recorded = group(GOLDEN, f"{form}/{scenario.value}/{t}")
        task, batches = task_of(recorded, t)
        copy_into(method, group(recorded, "before"))  # the rows that the head grew by; all others are there
        copy_into(method, group(recorded, "before"), old=True)
        if t:
            check_ranges(method, recorded)
        monkeypatch.setattr(base, "batch_order", lambda *_, batches=batches: iter(batches))
        losses.clear()
        method.begin(task)
        method.learn(task)
        assert_close(torch.stack(losses).detach(), recorded["loss"], TRAJECTORY, f"losses of task {t}")
        check_weights(method, group(recorded, "after"), TRAJECTORY, f"after task {t}")


@pytest.mark.parametrize(("form", "scenario"), CASES)
@pytest.mark.parametrize("t", range(3))
def test_one_step(form: str, scenario: Scenario, t: int) -> None:
    """Loss and gradients at recorded weights."""
    method, recorded = made(form, scenario), group(GOLDEN, f"{form}/{scenario.value}/{t}")
    task, batches = task_of(recorded, t)
    copy_into(method, group(recorded, "before"), old=True)
    copy_into(method, group(recorded, "step2/param"))
    for i, (low, high) in enumerate(zip(method.lower, method.upper, strict=True)):
        if t:
            low.copy_(torch.from_numpy(recorded[f"min.{i}"]))
            high.copy_(torch.from_numpy(recorded[f"max.{i}"]))
    method.begin(task)
    loss = method.objective(t)(task.train.batch(batches[2]))
    assert_close(loss.detach(), recorded["loss"][2], STEP, "loss")
    loss.backward()
    check_weights(method, group(recorded, "step2/grad"), STEP, "gradient", grad=True)


@pytest.mark.parametrize("share", ["0.05", "0.0"])
def test_ranges(share: str) -> None:
    """Two updates, from 24 and 15 samples."""
    recorded, method = tensors(group(GOLDEN, f"range/{share}")), made("mean", DIL)
    for k in range(2):
        found = range_of(recorded[f"acts.{k}"][:, :, None], (float(share), 1 - float(share)))
        method.merge(0, found, maps=False, fresh=k == 0)
        assert_close(method.lower[0], recorded[f"min.{k}"], STEP, "lo")
        assert_close(method.upper[0], recorded[f"max.{k}"], STEP, "up")
