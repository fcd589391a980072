"""WSN against numbers recorded from its authors' code."""

import dataclasses
import json

import pytest
import torch
from torch import nn

from methods.shared.grouped import Group
from methods.shared.topk import from_rank, order_statistic, straight_through
from methods.wsn import WSN, rank
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

META = json.loads(str(GOLDEN["wsn/meta/json"]))
TRAJECTORY = group(GOLDEN, "wsn/traj")
DATA = group(TRAJECTORY, "data")
LAYERS = ["fc1.weight", "fc2.weight"]


@pytest.mark.parametrize("case", ["linear", "conv"])
@pytest.mark.parametrize("capacity", ["0.03", "0.1", "0.3", "0.5"])
def test_masks_and_thresholds(case, capacity):
    recorded = tensors(group(GOLDEN, f"wsn/mask/{case}"))
    values = recorded["score"].abs().flatten()
    below = rank(len(values), float(capacity))
    assert torch.equal(order_statistic(values, below), recorded[f"threshold.{capacity}"])
    assert torch.equal(from_rank(values, [len(values)], [below]), recorded[f"mask.{capacity}"].flatten())


def test_the_mask_of_equal_scores():
    recorded = tensors(group(GOLDEN, "wsn/mask/ties"))
    values = recorded["score"].abs().flatten()
    found = from_rank(values, [len(values)], [rank(len(values), 0.3)])
    assert torch.equal(found, recorded["mask.0.3"].flatten())
    assert found.sum() > len(values) - rank(len(values), 0.3), "a tie at the threshold, which the case is about"


@pytest.mark.parametrize("case", ["linear", "conv"])
def test_a_layer_forward_and_backward(case):
    recorded = tensors(group(GOLDEN, f"wsn/layer/{case}"))
    layer = nn.Linear(6, 5) if case == "linear" else nn.Conv2d(2, 3, 3, padding=1, bias=False)
    pairs = [("weight", "w_m"), ("bias", "b_m")][: len(list(layer.parameters()))]
    method = made(WSN, Bare(layer), 1, capacity=1 - recorded["sparsity"].item(), biases="masked")
    parameters = group(GOLDEN, f"wsn/layer/{case}/param")
    with torch.no_grad():
        method.weights.copy_(flat(parameters, [name for name, _ in pairs]))
        method.scores.copy_(flat(parameters, [name for _, name in pairs]))
    shapes, mask = method.target.shapes[Group.MASKED], method.present_mask()
    parts = straight_through(method.weights, method.scores, mask, method.target.sizes(Group.MASKED))
    named = {name: part.view(shape) for part, (name, shape) in zip(parts, shapes.items(), strict=True)}
    y = method.target.trained({**named, "head.weight": torch.ones(1, 1)}, {}, recorded["x"])
    y.backward(recorded["grad_out"])
    gradients = group(GOLDEN, f"wsn/layer/{case}/grad")
    assert torch.equal(mask, torch.cat([recorded[f"{n}_mask"].flatten() for n, _ in pairs]))
    assert_close(y, recorded["y"], 1e-9)
    assert_close(method.weights.grad, flat(gradients, [name for name, _ in pairs]), 1e-9)
    assert_close(method.scores.grad, flat(gradients, [name for _, name in pairs]), 1e-9)


def recorded_method(monkeypatch, mask_of: str) -> WSN:
    init = group(TRAJECTORY, "init")
    network = Chain([META["d"], META["h"], META["h"], META["c"]], bias=False)
    method = made(
        WSN,
        network,
        META["tasks"],
        capacity=META["cap"],
        lr=META["lr"],
        biases="none",
        selection="val",
        mask_of=mask_of,
    )
    own = [flat(init, [f"last.{t}.weight"]) for t in range(META["tasks"])]
    with torch.no_grad():
        method.weights.copy_(flat(init, LAYERS))
        method.scores.copy_(flat(init, ["fc1.w_m", "fc2.w_m"]))
    heads(monkeypatch, method, own)
    return method


def learn(method: WSN, t: int, monkeypatch) -> tuple[list[float], list[float]]:
    """Learn task t in the recorded order; returns the losses of its steps, and the validation loss of its epochs."""
    batches = TRAJECTORY[f"order.{t}"].reshape(-1, META["b"])
    task = task_of(DATA, t, META["b"], len(batches))
    recorded_order(monkeypatch, batches)
    losses, validated, measure = recorded_losses(monkeypatch), [], WSN.validation_loss

    def validation_loss(*args):
        validated.append(measure(*args))
        return validated[-1]

    monkeypatch.setattr(type(method), "validation_loss", validation_loss)
    method.begin(task)
    method.learn(task)
    return losses, [value.item() for value in validated]


def test_a_trajectory_with_the_official_mask(monkeypatch):
    method = recorded_method(monkeypatch, "last-batch")
    for t in range(META["tasks"]):
        losses, validated = learn(method, t, monkeypatch)
        restored = group(TRAJECTORY, f"restored.{t}")
        assert_close(torch.tensor(losses), TRAJECTORY[f"loss.{t}"], 1e-6, f"losses of task {t}")
        assert_close(torch.tensor(validated), TRAJECTORY[f"valid_loss.{t}"], 1e-6, f"validation of task {t}")
        assert set(TRAJECTORY[f"lr.{t}"]) == {method.config.lr}
        assert_close(method.weights, flat(restored, LAYERS), 1e-6, f"weights after task {t}")
        assert_close(method.scores, flat(restored, ["fc1.w_m", "fc2.w_m"]), 1e-6, f"scores after task {t}")
        assert_close(method.kept[t], flat(restored, [f"last.{t}.weight"]), 1e-6, f"head {t}")
        assert torch.equal(method.mask(t), flat(group(TRAJECTORY, f"mask.{t}"), LAYERS))
        assert torch.equal(method.present_mask().bool(), flat(group(TRAJECTORY, f"mask_of_restored.{t}"), LAYERS))
        union = torch.stack([method.mask(j) for j in range(t + 1)]).any(0)
        assert torch.equal(union, flat(group(TRAJECTORY, f"consolidated.{t}"), LAYERS))
        for j in range(t + 1):
            answers = method.predict(samples(DATA, "test", j).x, j)
            assert_close(answers, TRAJECTORY[f"logits.{t}.{j}"], 1e-6, f"task {j} after {t}")
        assert all(claim.contained for claim in method.audit())


def test_by_default_the_kept_mask_is_that_of_the_kept_scores(monkeypatch):
    method = recorded_method(monkeypatch, "restored")
    learn(method, 0, monkeypatch)
    assert torch.equal(method.mask(0), method.present_mask().bool())
    official = recorded_method(monkeypatch, "last-batch")
    official.load_state_dict(method.state_dict())
    official.config = dataclasses.replace(method.config, mask_of="last-batch")
    # The validation labels of task 1 are wrong on purpose, so that its first epoch is kept.
    learn(official, 1, monkeypatch)
    learn(method, 1, monkeypatch)
    assert torch.equal(method.mask(1), method.present_mask().bool())
    assert not torch.equal(official.mask(1), official.present_mask().bool())
