"""GPM and Adam-NSCL against numbers recorded from their official codes (`gpm/*` and `nscl/*` of the golden vectors)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.types import DIL, StreamSpec
from methods import base
from methods.gpm import GPM
from methods.shared import bases, projection
from methods.shared.bases import Inputs
from methods.shared.projection import Held
from tests.methods.golden import assert_close, group, load, tensors
from tests.methods.regularised import make_task

STEP, TRAJECTORY, PROJECTION = 1e-9, 1e-6, 1e-5
"""Tolerances of the golden README."""


def settings() -> dict[str, Any]:
    return json.loads(str(load("forget_free")["gpm/meta/json"]))


def projector(basis: Tensor) -> Tensor:
    return basis @ basis.t()


def span(projection_: np.ndarray) -> Tensor:
    """A basis (d, r) of the recorded projection M M' (d, d)."""
    values, columns = torch.linalg.eigh(torch.from_numpy(projection_))
    return columns[:, values > 0.5]


def inputs_of(columns: np.ndarray) -> Inputs:
    """Recorded inputs (d, n) of one layer."""
    found = Inputs(len(columns), torch.device("cpu"))
    found.add(torch.from_numpy(columns.T.copy()))
    return found


def singular_values(inputs: Inputs) -> Tensor:
    return torch.linalg.eigvalsh(inputs.second_moments()).clamp_min(0).sqrt().flip(0)


# -- bases -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", range(4))
def test_basis(case: int) -> None:
    """Case 1: the first direction exceeds the threshold alone; 2: a full basis; 3: nothing to add."""
    arrays = group(load("forget_free"), f"gpm/basis/{case}")
    threshold, first, second = float(arrays["threshold"]), inputs_of(arrays["first"]), inputs_of(arrays["second"])
    nothing = torch.zeros(len(arrays["first"]), 0, dtype=torch.float64)
    below = bases.staying_below(first, nothing, threshold)
    basis = bases.joined(nothing, below.columns[:, : int(below.take)])
    assert basis.shape[1] == arrays["columns_after_first"]
    energies = torch.cat([singular_values(first), torch.zeros(1)]).square()
    if energies[below.take - 1] > 1.001 * energies[below.take]:  # a flat spectrum determines no directions
        assert_close(projector(basis), arrays["projection_after_first"], STEP)
    basis = span(arrays["projection_after_first"])
    more = bases.reaching(second, basis, threshold)
    basis = bases.joined(basis, more.columns[:, : int(more.take)])
    assert basis.shape[1] == arrays["columns_after_second"]
    assert_close(projector(basis), arrays["projection_after_second"], STEP)


# -- training --------------------------------------------------------------------------------------


class Chain(nn.Sequential):
    """Linear layers without biases and ReLU between them, float64, in the order of the recorded weights."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        parts: list[nn.Module] = []
        for value in tensors(weights).values():
            layer = nn.Linear(value.shape[1], value.shape[0], bias=False, dtype=torch.float64)
            layer.weight.data.copy_(value)
            parts += [layer, nn.ReLU()]
        super().__init__(*parts[:-1])

    @property
    def weights(self) -> list[Tensor]:
        return [part.weight for part in self if isinstance(part, nn.Linear)]


def test_trajectory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three tasks by the method's own `learn` on the recorded batches: losses, weights, bases, answers."""
    recorded, chosen = group(load("forget_free"), "gpm/traj"), settings()
    n_tasks = chosen["tasks"]
    spec = StreamSpec("golden", DIL, n_tasks, chosen["c"], (chosen["d"],), "mlp-1")
    monkeypatch.setattr(GPM, "network", lambda _: Chain(group(recorded, "init")).eval())
    config = GPM.Config(
        lr=chosen["lr"], threshold=tuple(chosen["thresholds"]), basis_samples=(chosen["samples_at_most"],),
        first_rule="official",
    )  # fmt: skip
    method, losses = GPM(spec, config), []
    loss = method.loss
    monkeypatch.setattr(method, "loss", lambda batch: (losses.append(value := loss(batch)), value)[1])
    for t in range(n_tasks):
        x, y = (torch.from_numpy(recorded[f"data/train_{part}.{t}"].copy()) for part in "xy")
        order = [b for epoch in torch.from_numpy(recorded[f"order.{t}"]) for b in epoch.split(chosen["b"])]
        monkeypatch.setattr(base, "batch_order", lambda *_, order=order: iter(order))
        task = make_task(t, x, y, chosen["b"], len(order))
        losses.clear()
        method.begin(task)
        method.learn(task)
        assert_close(torch.stack(losses).detach(), recorded[f"loss.{t}"], TRAJECTORY, f"losses of task {t}")
        check_task(method, recorded, t)


def check_task(method: GPM, recorded: dict[str, np.ndarray], t: int) -> None:
    """Weights, inputs, bases and answers after task t."""
    weights = group(recorded, f"after.{t}")
    for found, name in zip(method.net.weights, weights, strict=True):
        assert_close(found.detach(), weights[name], TRAJECTORY, f"{name} after task {t}")
    x = torch.from_numpy(recorded[f"data/train_x.{t}"].copy())
    samples = make_task(t, x, x[:, 0], 8, 1).train
    for i, inputs in enumerate(bases.gather(method.net, method.layers, samples, [len(x)] * 3)):
        basis = method.bases[method.layers[i].name]
        assert_close(singular_values(inputs), recorded[f"singular.{t}.{i}"], TRAJECTORY, f"inputs of layer {i}")
        assert basis.shape[1] == recorded[f"columns.{t}.{i}"]
        assert_close(projector(basis), recorded[f"projection.{t}.{i}"], PROJECTION, f"basis {i} after task {t}")
    for j in range(t + 1):
        answers = method.predict(torch.from_numpy(recorded[f"data/test_x.{j}"].copy()))
        assert_close(answers.detach(), recorded[f"logits.{t}.{j}"], TRAJECTORY, f"answers to {j} after {t}")


@pytest.mark.parametrize("how", [projection.project_gradients, projection.project_updates])
def test_one_step(how: Any) -> None:
    arrays = group(load("forget_free"), "gpm/grad")
    network = Chain(group(arrays, "param"))
    layers = bases.layers_of(network, constant=True)
    held = [Held(layer, span(arrays[f"projection.{i}"]), len(layer.module.weight)) for i, layer in enumerate(layers)]
    optimizer = torch.optim.SGD(network.parameters(), settings()["lr"])
    how(optimizer, held)
    cross_entropy(network(torch.from_numpy(arrays["x"])), torch.from_numpy(arrays["y"])).backward()
    for weight, raw in zip(network.weights, group(arrays, "raw").values(), strict=True):
        assert_close(weight.grad, raw, STEP, "gradient")  # type: ignore[arg-type]
    optimizer.step()
    for weight, name in zip(network.weights, group(arrays, "after"), strict=True):
        if how is projection.project_gradients:
            assert_close(weight.grad, arrays[f"projected/{name}"], STEP, f"projected gradient of {name}")  # type: ignore[arg-type]
        assert_close(weight.detach(), arrays[f"after/{name}"], STEP, name)


# -- a convolutional network with batch norm -----------------------------------------------------------


class Convolutional(nn.Module):
    """The recorded network: three convolutions with pooling, two linear layers, two heads; statistics of the batch."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        for i, name in enumerate(("conv1", "conv2", "conv3", "fc1", "fc2"), 1):
            w = weights[f"{name}.weight"]
            layer = nn.Conv2d(w.shape[1], w.shape[0], w.shape[2], bias=False) if w.dim() == 4 else linear(w)
            norm = (nn.BatchNorm2d if w.dim() == 4 else nn.BatchNorm1d)(len(w), track_running_stats=False)
            self.add_module(name, layer)
            self.add_module(f"bn{i}", norm)
        self.fc3 = nn.ModuleList(linear(weights[f"fc3.{t}.weight"]) for t in range(2))
        self.to(torch.float64).load_state_dict(weights)

    def forward(self, x: Tensor, head: int = 0) -> Tensor:
        for i in range(1, 6):
            name = f"conv{i}" if i < 4 else f"fc{i - 3}"
            x = self.get_submodule(f"bn{i}")(self.get_submodule(name)(x if i < 4 else x.flatten(1))).relu()
            x = nn.functional.max_pool2d(x, 2) if i < 4 else x
        return self.fc3[head](x)


def linear(weight: Tensor) -> nn.Linear:
    return nn.Linear(weight.shape[1], weight.shape[0], bias=False)


def test_convolutional_network() -> None:
    arrays = group(load("forget_free"), "gpm/conv")
    network = Convolutional(tensors(group(arrays, "param")))
    x = (torch.from_numpy(arrays["pixels"]).double() - 1.5) / 2
    layers = bases.layers_of(network, constant=False)[:5]
    samples = make_task(0, x, torch.zeros(len(x)), 6, 1).train
    held = []
    for i, inputs in enumerate(bases.gather(network, layers, samples, [24, 100, 100, 125, 125])):
        moments = inputs.second_moments()
        assert (inputs.size, inputs.count) == tuple(arrays[f"shape.{i}"])
        assert_close(moments, arrays[f"gram.{i}"], STEP, f"R R' of layer {i}")
        assert_close(singular_values(inputs)[:3], arrays[f"singular.{i}"][:3], STEP, f"singular values of layer {i}")
        nothing = moments[:, :0]
        found = bases.staying_below(inputs, nothing, 0.97)
        assert int(found.take) == arrays[f"columns.{i}"]
        basis = bases.joined(nothing, found.columns[:, : int(found.take)])
        assert_close(projector(basis), arrays[f"projection.{i}"], STEP * 100, f"basis of layer {i}")
        held.append(Held(layers[i], basis, len(layers[i].module.weight)))
    check_step(network, arrays, held, x[:6])


def check_step(network: Convolutional, arrays: dict[str, np.ndarray], held: list[Held], x: Tensor) -> None:
    """Loss and gradients of one batch of task 1, before and after their projection; norms are constant."""
    optimizer = torch.optim.SGD([p for name, p in network.named_parameters() if not name.startswith("bn")], 0.0)
    projection.project_gradients(optimizer, held)
    loss = cross_entropy(network(x, 1), torch.from_numpy(arrays["y"]))
    loss.backward()
    assert_close(loss.detach(), arrays["loss"], STEP, "loss")
    for name, p in network.named_parameters():
        found = torch.zeros_like(p) if p.grad is None else p.grad
        assert_close(found, arrays[f"raw/{name}"], STEP, f"gradient of {name}")
    optimizer.step()
    for name, p in network.named_parameters():
        if not name.startswith("bn"):
            found = torch.zeros_like(p) if p.grad is None else p.grad
            assert_close(found, arrays[f"projected/{name}"], STEP * 10, f"projected gradient of {name}")


# -- Adam-NSCL -------------------------------------------------------------------------------------


class Heads(nn.Module):
    """The recorded `small` network: two bias-free linear layers and a head with bias for each task."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.fc1, self.fc2 = linear(weights["fc1.weight"]), linear(weights["fc2.weight"])
        self.last = nn.ModuleDict({str(t): nn.Linear(5, 2) for t in (1, 2, 3)})
        self.to(torch.float64).load_state_dict(weights)

    def forward(self, x: Tensor, task: int = 0) -> Tensor:
        return self.last[str(task + 1)](self.fc2(self.fc1(x).relu()).relu())


class OldAdam(torch.optim.Adam):
    """Adam as in the official code: eps is added to the root of the second moment before the correction of its bias."""

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group_ in self.param_groups:
            for p in group_["params"]:
                state, g = self.state[p], p.grad + group_["weight_decay"] * p
                t = state["step"] = state.get("step", 0) + 1
                m = state["m"] = 0.9 * state.get("m", 0) + 0.1 * g
                v = state["v"] = 0.999 * state.get("v", 0) + 0.001 * g * g
                p -= group_["lr"] * (1 - 0.999**t) ** 0.5 / (1 - 0.9**t) * m / (v.sqrt() + group_["eps"])


def epochs_of(n: int, batch: int, steps: int) -> Iterator[tuple[int, slice]]:
    """Epoch and batch of each step, in file order."""
    per_epoch = -(-n // batch)
    for step in range(steps):
        start = step % per_epoch * batch
        yield step // per_epoch, slice(start, start + batch)


@pytest.mark.parametrize("covariance", ["samples", "means"])
def test_null_space(covariance: str) -> None:
    """Adam's steps in the null space: moments, directions, projectors, losses, weights and answers of three tasks."""
    arrays, chosen = group(load("frontier"), f"nscl/small/{covariance}"), json.loads(str(load("frontier")["nscl/json"]))
    network = Heads(tensors(group(arrays, "init")))
    layers = bases.layers_of(network, constant=False)[:2]
    moments, held = [torch.zeros(layer.size, layer.size, dtype=torch.float64) for layer in layers], []
    for t in range(chosen["tasks"]):
        recorded = group(arrays, str(t))
        x, y = (torch.from_numpy(recorded[part].copy()) for part in "xy")
        assert_close(train_null_space(network, layers, held, chosen, t, x, y, recorded), recorded["loss"], TRAJECTORY)
        for name, value in group(recorded, "after").items():
            assert_close(network.state_dict()[name], value, TRAJECTORY, f"{name} after task {t}")
        for j in range(t + 1):
            answers = network(torch.from_numpy(arrays[f"{j}/x"][:6].copy()), j)
            assert_close(answers.detach(), recorded[f"logits.{j}"], TRAJECTORY, f"answers to {j} after {t}")
        if t == chosen["tasks"] - 1:
            break  # nothing is recorded of the inputs of the last task
        samples = make_task(t, x, y, chosen["batch"], 1).train
        found = bases.gather(network, layers, samples, [len(x)] * 2, chosen["batch"], means=covariance == "means")
        held = []
        for i, (layer, inputs) in enumerate(zip(layers, found, strict=True)):
            moments[i] = moments[i] + inputs.second_moments()
            basis = null_space(recorded, f"{layer.name}.weight", moments[i], chosen["thres"])
            held.append(Held(layer, basis, len(layer.module.weight), normalise=True))


def null_space(recorded: dict[str, np.ndarray], name: str, moments: Tensor, factor: float) -> Tensor:
    """The basis that leaves the recorded null space free."""
    assert_close(moments, recorded[f"cov/{name}"], TRAJECTORY, f"moments of {name}")
    directions = bases.above_smallest(moments, factor, floor=0.0)
    basis = bases.joined(moments[:, :0], directions.columns[:, : int(directions.take)])
    free = len(moments) - basis.shape[1]
    assert free == recorded[f"columns/{name}"]
    rest = torch.eye(len(moments), dtype=torch.float64) - projector(basis)
    assert_close(rest / free**0.5, recorded[f"transform/{name}"], PROJECTION, f"projector of {name}")
    return basis


def train_null_space(
    network: Heads, layers: list[Any], held: list[Held], chosen: dict[str, Any], t: int,
    x: Tensor, y: Tensor, recorded: dict[str, np.ndarray],
) -> Tensor:  # fmt: skip
    """Losses (steps,) of a task, trained by Adam with the projection of its steps."""
    body = {"params": [layer.module.weight for layer in layers], "weight_decay": chosen["wd"]}
    head = {"params": list(network.last[str(t + 1)].parameters()), "lr": chosen["hlr"]}
    optimizer = OldAdam([{**body, "lr": chosen["slr" if t else "lr"]}, head])
    projection.project_updates(optimizer, held)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, chosen["schedule"], chosen["gamma"])
    losses, epoch = [], 0
    for at, batch in epochs_of(len(x), chosen["batch"], len(recorded["loss"])):
        if at > epoch:
            scheduler.step()
            epoch = at
        optimizer.zero_grad()
        loss = cross_entropy(network(x[batch], t), y[batch])
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)
