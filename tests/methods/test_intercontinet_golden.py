"""Parity of InterContiNet with its official code: layers, losses, gradients, trajectories."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.samples import Samples
from benchmarks.types import CIL, DIL, TIL, Budget, StreamSpec, Task
from methods.intercontinet import ReleasedInterContiNet
from methods.intervals.bounding import Interval, batch_norm, conv2d, linear, propagate, worst_case
from methods.intervals.weights import effective_radius, moved, scale, shift
from tests.methods.golden import assert_close, group, load, tensors

GOLDEN = load("interval")
KINDS = ("center", "radius_raw", "shift_raw", "scale_raw")
PHASES = ("vanilla", "contraction_shift", "contraction_scale")
OFFICIAL_CAP = 0.1
"""The official linear and batch-norm layers let radii exceed max_radius by this."""


class Layer:
    """One official layer's state, and its boxes by this project's functions."""

    def __init__(self, folder: str) -> None:
        arrays = group(GOLDEN, folder)
        self.a = tensors(arrays)
        self.conv = "geometry_k_stride_pad" in arrays
        self.normalised = bool(arrays["normalize_shift"])
        self.multiplier = float(arrays["radius_multiplier"])
        self.cap = float(arrays["max_radius"]) + (0.0 if self.conv else OFFICIAL_CAP)
        self.state = {k.removeprefix("param/"): v.requires_grad_() for k, v in self.a.items() if k.startswith("param/")}

    def radius(self, which: str) -> Tensor:
        return effective_radius(self.state[f"{which}_radius_raw"], self.multiplier, self.cap)

    def at_a_limit(self, which: str) -> Tensor:
        """Where the radius is what it is clamped to: clamp has a gradient there in PyTorch 2.11, none in 2.15."""
        raw = self.state[f"{which}_radius_raw"] * self.multiplier
        return (raw == 0) | (raw == self.cap)

    def box(self, which: str, phase: str) -> tuple[Tensor, Interval]:
        """Middle and bounds of weight or bias; the official linear bias is contracted in every phase."""
        centre, radius = self.state[f"{which}_center"], self.radius(which)
        u, v = self.state[f"{which}_shift_raw"], self.state[f"{which}_scale_raw"]
        if phase == "vanilla" and (self.conv or which == "w"):
            return centre, Interval.around(centre, radius)
        bounds = moved(centre, radius, u, v, self.normalised)
        return centre + shift(u, radius, self.normalised) * radius, bounds

    def outputs(self, phase: str) -> Tensor:
        (w, w_box), (b, b_box) = self.box("w", phase), self.box("b", phase)
        x = Interval(self.a["x"][:, 0], self.a["x"][:, 2])
        if self.conv:
            _, stride, padding = self.a["geometry_k_stride_pad"].tolist()
            bounds = conv2d(x, w_box, b_box, stride=stride, padding=padding, nonnegative=True)
            middle = F.conv2d(self.a["x"][:, 1], w, b, stride, padding)
        else:
            bounds, middle = linear(x, w_box, b_box, nonnegative=True), F.linear(self.a["x"][:, 1], w, b)
        return torch.stack([bounds.lower, middle, bounds.upper], dim=1)


@pytest.mark.parametrize("name", ["linear_ns0", "linear_ns1", "linear_mult", "conv_ns0", "conv_ns1"])
def test_layers(name: str) -> None:
    layer = Layer(f"icn/{name}")
    for which, prefix in (("w", ""), ("b", "bias_")):
        radius = layer.radius(which)
        s = shift(layer.state[f"{which}_shift_raw"], radius, layer.normalised)
        assert_close(radius, layer.a[f"eff/{prefix}radius"], 1e-9)
        assert_close(s, layer.a[f"eff/{prefix}shift"], 1e-9)
        assert_close(scale(layer.state[f"{which}_scale_raw"], s), layer.a[f"eff/{prefix}scale"], 1e-9)
    for phase in PHASES:
        y = layer.outputs(phase)
        assert_close(y, layer.a[f"{phase}/y"], 1e-9, phase)
        names = list(layer.state)
        grads = torch.autograd.grad((y * layer.a["cotangent"]).sum(), list(layer.state.values()), allow_unused=True)
        for key, grad in zip(names, grads, strict=True):
            expected = layer.a.get(f"{phase}/grad/{key}")
            if expected is not None:
                assert grad is not None, f"{phase} {key}: no gradient"
                if key.endswith("radius_raw"):
                    smooth = ~layer.at_a_limit(key.removesuffix("_radius_raw"))
                    grad, expected = grad[smooth], expected[smooth]
                assert_close(grad, expected, 1e-7 if layer.normalised else 1e-9, f"{phase} {key}")


@pytest.mark.parametrize("name", ["linear_ns0", "linear_ns1", "linear_mult", "conv_ns0", "conv_ns1"])
def test_freezing_moves_the_centre_and_shrinks_the_raw_radius(name: str) -> None:
    layer = Layer(f"icn/{name}")
    for which in "wb":
        radius, raw = layer.radius(which), layer.state[f"{which}_radius_raw"]
        s = shift(layer.state[f"{which}_shift_raw"], radius, layer.normalised)
        k = scale(layer.state[f"{which}_scale_raw"], s)
        assert_close(layer.state[f"{which}_center"] + s * radius, layer.a[f"after_freeze/{which}_center"], 1e-9)
        assert_close(k * raw, layer.a[f"after_freeze/{which}_radius_raw"], 1e-9)
        assert not layer.a[f"after_freeze/{which}_shift_raw"].any()
        # the official conv layers ignore their scale_init
        start = ReleasedInterContiNet.Config().scale_init if layer.conv else layer.a["scale_init"]
        assert (layer.a[f"after_freeze/{which}_scale_raw"] == start).all()


def test_clamped_radii() -> None:
    a = tensors(group(GOLDEN, "icn/clamp"))
    multiplier, most = a["radius_multiplier"].item(), a["max_radius"].item()
    assert_close(
        effective_radius(a["w_radius_raw_before"], multiplier, most + OFFICIAL_CAP), a["w_radius_eff_before"], 1e-9
    )
    for which in "wb":
        clamped = effective_radius(a[f"{which}_radius_raw_before"], 1.0, most / multiplier)
        assert_close(clamped, a[f"{which}_radius_raw_after"], 1e-9)


@pytest.mark.parametrize("name", ["bn_batch", "bn_running"])
@pytest.mark.parametrize("phase", ["vanilla", "contraction_scale"])
def test_batch_norm(name: str, phase: str) -> None:
    a = tensors(group(GOLDEN, f"icn/{name}"))
    x = a["x"]
    mean, variance = a["running_mean_before"], a["running_var_before"]
    if name == "bn_batch":
        variance, mean = torch.var_mean(x[:, 1], dim=(0, 2, 3), correction=1)
        assert_close(0.9 * a["running_mean_before"] + 0.1 * mean, a[f"{phase}/running_mean_after"], 1e-9)
        assert_close(0.9 * a["running_var_before"] + 0.1 * variance, a[f"{phase}/running_var_after"], 1e-9)

    def box(which: str) -> tuple[Tensor, Interval]:
        centre, raw = a[f"param/{which}"], a[f"param/{which}_radius_raw"]
        if phase == "vanilla":  # the official code takes gamma's radius for beta too
            return centre, Interval.around(centre, effective_radius(a["param/gamma_radius_raw"], 1.0, 0.6))
        radius, u = effective_radius(raw, 1.0, 0.6), a[f"param/{which}_shift_raw"]
        # the shift is normalised by the raw radius there
        s = shift(u, raw)
        half = scale(a[f"param/{which}_scale_raw"], s) * radius
        return centre + s * radius, Interval.around(centre + s * radius, half)

    (gamma, gamma_box), (beta, beta_box) = box("gamma"), box("beta")
    bounds = batch_norm(Interval(x[:, 0], x[:, 2]), mean, variance, gamma_box, beta_box)
    middle = batch_norm(Interval.point(x[:, 1]), mean, variance, Interval.point(gamma), Interval.point(beta)).lower
    assert_close(torch.stack([bounds.lower, middle, bounds.upper], dim=1), a[f"{phase}/y"], 1e-9)


@pytest.mark.parametrize("name", ["mlp_single", "mlp_multi"])
@pytest.mark.parametrize("phase", PHASES)
def test_network_losses_and_gradients(name: str, phase: str) -> None:
    a = tensors(group(GOLDEN, f"icn/{name}"))
    head = int(a["head"])
    state = {k.removeprefix("param/"): v.requires_grad_() for k, v in a.items() if k.startswith("param/")}
    middle, boxes = {}, {}
    for i, layer in enumerate(("fc1", "fc2", f"last_{head}")):
        for which, parameter in (("w", "weight"), ("b", "bias")):
            key, target = f"{layer}/{which}", f"layers.{i}.{parameter}"
            c = state[f"{key}_center"]
            if f"{key}_radius_raw" not in state:
                middle[target], boxes[target] = c, Interval.point(c)
                continue
            r, u = effective_radius(state[f"{key}_radius_raw"], 1.0, 1.1), state[f"{key}_shift_raw"]
            middle[target] = c if phase == "vanilla" else c + shift(u, r) * r
            plain = phase == "vanilla" and which == "w"
            boxes[target] = Interval.around(c, r) if plain else moved(c, r, u, state[f"{key}_scale_raw"])
            if phase == "vanilla" and which == "b":
                middle[target] = c + shift(u, r) * r
    hidden, classes = a[f"param/last_{head}/w_center"].shape[1], a[f"param/last_{head}/w_center"].shape[0]
    net = SmallMLP(a["x"][0].numel(), hidden, classes).double()
    bounds = propagate(net, boxes, a["x"], nonnegative_inputs=True)
    logits = torch.func.functional_call(net, middle, (a["x"],))
    assert_close(torch.stack([bounds.lower, logits, bounds.upper], 1), a[f"{phase}/last"], 1e-9)
    worst = worst_case(bounds, a["y"])
    assert_close(worst, a[f"{phase}/robust_logits"], 1e-9)
    losses = {"center": F.cross_entropy(logits, a["y"]), "robust": F.cross_entropy(worst, a["y"])}
    for key, loss in losses.items():
        assert_close(loss, a[f"{phase}/loss_{key}"], 1e-9)
    accuracies = {"center": logits, "robust": worst}
    for key, z in accuracies.items():
        assert_close((z.argmax(1) == a["y"]).double().mean(), a[f"{phase}/acc_{key}"], 1e-9)
    trained = losses["robust" if phase == "contraction_scale" else "center"]
    keys = [k.removeprefix(f"{phase}/grad/") for k in a if k.startswith(f"{phase}/grad/")]
    assert keys
    for key, grad in zip(keys, torch.autograd.grad(trained, [state[k] for k in keys]), strict=True):
        assert_close(grad, a[f"{phase}/grad/{key}"], 1e-7, key)


@pytest.mark.parametrize("name", ["mlp_single", "mlp_multi"])
def test_network_after_freezing(name: str) -> None:
    a = tensors(group(GOLDEN, f"icn/{name}"))
    middle, boxes = {}, {}
    for i, layer in enumerate(("fc1", "fc2", f"last_{int(a['head'])}")):
        for which, parameter in (("w", "weight"), ("b", "bias")):
            key, target = f"{layer}/{which}", f"layers.{i}.{parameter}"
            c, raw = a[f"param/{key}_center"], a.get(f"param/{key}_radius_raw")
            if raw is None:
                middle[target], boxes[target] = c, Interval.point(c)
                continue
            r, u = effective_radius(raw, 1.0, 1.1), a[f"param/{key}_shift_raw"]
            s = shift(u, r)
            c, raw = c + s * r, scale(a[f"param/{key}_scale_raw"], s) * raw
            assert_close(c, a[f"after_freeze/{key}_center"], 1e-9, key)
            assert_close(raw, a[f"after_freeze/{key}_radius_raw"], 1e-9, key)
            v = a[f"after_freeze/{key}_scale_raw"]
            middle[target], boxes[target] = c, moved(c, effective_radius(raw, 1.0, 1.1), torch.zeros_like(c), v)
    hidden, classes = middle["layers.2.weight"].shape[1], middle["layers.2.weight"].shape[0]
    net = SmallMLP(a["x"][0].numel(), hidden, classes).double()
    bounds = propagate(net, boxes, a["x"], nonnegative_inputs=True)
    with torch.no_grad():
        logits = torch.func.functional_call(net, middle, (a["x"],))
    assert_close(torch.stack([bounds.lower, logits, bounds.upper], 1), a["after_freeze_last"], 1e-9)


class SmallMLP(nn.Module):
    def __init__(self, n_inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        sizes = (n_inputs, hidden, hidden, classes)
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


class Recorded(ReleasedInterContiNet):
    """The method on recorded batches, leaving what it holds at the end of each task."""

    def fit(self, task, loss, optimizer, *, first_step=0, steps=None, **_):
        order = self.batches[task.index]
        for step in range(first_step, first_step + steps):
            self.step.fill_(step)
            optimizer.zero_grad()
            value = loss(task.train.batch(order[step]))
            value.backward()
            optimizer.step()
            self.log.append((value.item(), *self.observed, optimizer.param_groups[0]["lr"]))

    def _observe(self, gate, logits, worst, y):
        super()._observe(gate, logits, worst, y)
        self.observed = (
            *(F.cross_entropy(z, y).item() for z in (logits, worst)),
            *((z.argmax(1) == y).float().mean().item() for z in (logits, worst)),
            *gate.means().tolist(),
        )

    def end_task(self, task, raw_shift, raw_scale):
        self.ends.append((self.model.centres(), self.model.radius(), raw_shift, raw_scale, self._heads()))
        super().end_task(task, raw_shift, raw_scale)

    def _heads(self):
        return {n: p.detach().clone() for n, p in self.model.points().items()}


def replayed(name: str) -> tuple[dict, Recorded]:
    a = group(GOLDEN, f"icn/traj_{name}")
    cfg = {k.removeprefix("cfg/"): v for k, v in a.items() if k.startswith("cfg/")}
    scenario = {"task": TIL, "momentum": TIL, "domain": DIL, "class": CIL}[name]
    epochs, share = int(cfg["epochs"]), int(cfg["contraction_epochs"]) / int(cfg["epochs"])
    perm, x = a["task0/perm"], a["task0/x"]
    kind = "sgd" if str(cfg["opt"]) == "SGD" else "adam"
    milestones = cfg["milestone_epoch_factor"]
    config = ReleasedInterContiNet.Config(
        optimizer=kind,
        shift_optimizer=kind,
        scale_optimizer=kind,
        lr=float(cfg["lr"]),
        shift_lr=float(cfg["elr"]),
        scale_lr=float(cfg["slr"]),
        momentum=float(cfg["mom"]),
        milestones=(milestones[0] / epochs,) if milestones.size else (),
        milestone_factor=milestones[1] if milestones.size else 1.0,
        contraction_share=share,
        threshold=float(cfg["thr"]),
        lookback=int(cfg["look"]),
        max_radius=float(cfg["R"]),
        scale_init=float(cfg["scale_init"]),
        normalize_shift=bool(cfg["ns"]),
    )
    classes = int(cfg["cls"]) // (3 if scenario is CIL else 1)
    width = a["init/fc1/w_center"].shape[0]
    spec = StreamSpec("golden", scenario, 3, classes, x.shape[1:], f"mlp-{width}-{width}")
    method = Recorded(spec, config)
    method.model.double()
    named = dict(method.model.net.named_parameters())
    for key, value in tensors(official(a, "init")).items():
        if key in named:
            named[key].data.copy_(value)
    method.log, method.ends, method.batches = [], [], []
    for t in range(3):
        data = torch.from_numpy(a[f"task{t}/x"])
        labels = torch.from_numpy(a[f"task{t}/y"])
        samples = Samples(data, torch.arange(len(data)), labels, t)
        method.batches.append(torch.from_numpy(a[f"task{t}/perm"]).flatten(0, 1))
        budget = Budget(perm.shape[2], steps=perm.shape[0] * perm.shape[1])
        task = Task(t, samples, samples, budget, 0)
        method.begin(task)
        method.learn(task)
        for s in range(t + 1):
            expected = a[f"end{t}_acc_center_robust"][s]
            shares = shares_right(method, a, s)
            assert shares == pytest.approx(tuple(expected), abs=1e-6), f"accuracies of task {s} after task {t}"
    return a, method


def shares_right(method: Recorded, a: dict, s: int) -> tuple[float, float]:
    """Centre and worst-case accuracy on task s; the official box of a just-trained task is the frozen one."""
    x, y = torch.from_numpy(a[f"task{s}/x"]), torch.from_numpy(a[f"task{s}/y"])
    bounds = method.model.bounds(method.model.box, x, True)
    chosen = Interval(method._compared(bounds.lower, s), method._compared(bounds.upper, s))
    with torch.no_grad():
        right = (method._compared(method.model(x), s).argmax(1) == y).double().mean().item()
        return right, (worst_case(chosen, y).argmax(1) == y).double().mean().item()


def official(a: dict, folder: str, kind: str = "center") -> dict:
    """Official arrays of one kind by this project's parameter names; point heads stacked."""
    found = {}
    heads = sum(key.startswith(f"{folder}/last_") and key.endswith("/w_center") for key in a)
    for which, parameter in (("w", "weight"), ("b", "bias")):
        for i, layer in enumerate(("fc1", "fc2")):
            found[f"layers.{i}.{parameter}"] = a[f"{folder}/{layer}/{which}_{kind}"]
        keys = [f"{folder}/last_{j}/{which}_{kind}" for j in range(heads)]
        if keys[0] in a:
            parts = [torch.from_numpy(a[key]) for key in keys]
            found[f"layers.2.{parameter}"] = torch.cat(parts).numpy()
    return found


@pytest.mark.parametrize("name", ["task", "domain", "class", "momentum"])
def test_trajectories(name: str) -> None:
    a, method = replayed(name)
    for t, (*flat, heads) in enumerate(method.ends):
        for kind, values in zip(KINDS, (flat[0], flat[1], flat[2], flat[3]), strict=True):
            expected = official(a, f"end{t}", kind)
            for key, value in method.model.layout.views(values).items():
                assert_close(value, torch.from_numpy(expected[key]), 1e-6, f"task {t} {kind} {key}")
        for key, value in heads.items():
            assert_close(value, torch.from_numpy(official(a, f"end{t}")[key]), 1e-6, f"task {t} {key}")
    columns = [str(c) for c in GOLDEN["icn/traj_log_columns"]]
    mine = torch.tensor(method.log, dtype=torch.float64)
    wanted = ["loss_optimised", "loss_center", "loss_robust", "acc_center", "acc_robust"]
    wanted += ["acc_center_avg", "acc_robust_avg", "lr"]
    for i, column in enumerate(wanted):
        assert_close(mine[:, i], a["log"][:, columns.index(column)], 1e-6, column)
    assert math.isfinite(method.log[-1][0])
