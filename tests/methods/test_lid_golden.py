"""Parity of LID with its official code: bounds, searches, projections, regularisers, a trajectory of two tasks."""

import json
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from benchmarks.samples import Samples
from benchmarks.types import CIL, DIL, TIL, Budget, Scenario, StreamSpec, Task
from methods import lid
from methods.base import Batch
from methods.intervals.bounding import Interval, propagate, worst_case
from methods.intervals.box_search import BoxSearch, SearchOptions
from methods.intervals.choice import Choice, project, stacked
from methods.intervals.midpoint import propagate_midpoint
from methods.lid import LID
from tests.methods.golden import assert_close, group, load, tensors

GOLDEN = group(load("frontier"), "lid")
Arrays = dict[str, Any]


def network(parameters: list[Tensor]) -> nn.Sequential:
    """The recorded networks, by the shapes of their parameters."""
    if parameters[0].dim() == 2:
        (hidden, inputs), outputs = parameters[0].shape, len(parameters[2])
        net = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
    else:
        first, second, head = parameters[0], parameters[2], parameters[4]
        layers = nn.Conv2d(first.shape[1], len(first), 3, padding=1), nn.ReLU()
        more = nn.Conv2d(second.shape[1], len(second), 3, stride=2, padding=1), nn.ReLU(), nn.Flatten()
        net = nn.Sequential(*layers, *more, nn.Linear(head.shape[1], len(head)))
    net.double()
    with torch.no_grad():
        for own, given in zip(net.parameters(), parameters, strict=True):
            own.copy_(given)
    return net.eval()


def numbered(a: Arrays, kind: str) -> list[Tensor]:
    return [torch.from_numpy(a[f"{kind}.{i}"].copy()) for i in range(sum(key.startswith(f"{kind}.") for key in a))]


def boxes_of(a: Arrays, count: int | None = None) -> list[Interval]:
    count = sum(key.startswith("box.") and key.endswith("lower") for key in a) if count is None else count
    return [Interval(*(torch.from_numpy(a[f"box.{i}.{side}"]) for side in ("lower", "upper"))) for i in range(count)]


class Recorded(LID):
    """The method on recorded batches, limits and networks, leaving every step."""

    given: nn.Module
    batches: list[Tensor]
    limit: float | None = None

    def network(self, n_outputs: int | None = None) -> nn.Module:
        return network([p.detach() for p in self.given.parameters()])

    def build(self) -> None:
        torch.set_default_dtype(torch.float64)
        try:
            super().build()
        finally:
            torch.set_default_dtype(torch.float32)
        self.steps: list[dict[str, Tensor]] = []
        self.boxes: list[Interval] = []
        self.shares: list[float] = []

    def fit(self, task, loss, optimizer, *, first_step=0, steps=0, after_step=None, on_check=None,
            check_every=50, lr=1e-3, **_):  # fmt: skip
        searching = isinstance(optimizer, torch.optim.Optimizer)
        if not searching:
            optimizer = torch.optim.Adam(list(optimizer), lr)
        for done in range(1, steps + 1):
            optimizer.zero_grad()
            value = loss(task.train.batch(self.batches[first_step + done - 1]))
            value.backward()
            optimizer.step()
            if after_step is not None:
                after_step()
            self.note(searching)
            if on_check is not None and (done % check_every == 0 or done == steps):
                on_check(done)

    def note(self, searching: bool) -> None:
        if not searching:
            self.steps.append({"params": self.model.centres(), "chosen": self.chosen.clone()})

    def _limit(self, accuracy: float) -> float:
        return super()._limit(accuracy) if self.limit is None else self.limit

    def _snapshots(self, *arguments):
        self.boxes = super()._snapshots(*arguments)
        return self.boxes


class RecordedSearch(BoxSearch):
    """A search that leaves its state at every step."""

    def loss(self, worst: Tensor, y: Tensor, groups: Tensor) -> Tensor:
        self.log = getattr(self, "log", [])
        step = {"lower": self.lower, "upper": self.upper, "loss": -self.objective()}
        step["dual_lr"] = self.options.dual_lr / self.pace
        step = {key: value.detach().clone() for key, value in step.items()}
        value = super().loss(worst, y, groups)
        later = {"lr": self.rate, "defect": self.defect, "strict": self.strict}
        later |= {"multiplier": self.multiplier, "penalty": self.penalty}
        self.log.append(step | {key: value.detach().clone() for key, value in later.items()})
        return value


def made(
    cls: type[Recorded], scenario: Scenario, parameters: list[Tensor], x: Tensor, tasks: int, **config
) -> Recorded:
    given = network(parameters)
    outputs = len(parameters[-1])
    cls = type("Given", (cls,), {"given": given, "name": "lid"})
    spec = StreamSpec(
        "golden", scenario, tasks, outputs // (1 if scenario is DIL else tasks), tuple(x.shape[1:]), "mlp-6"
    )
    official = {
        "keep": "all",
        "choose": "closest",
        "arithmetic": "rump",
        "mask_unseen": False,
        "search_share": 1.0,
        "l2": 0.0,
        "unbias": 0.0,
    }
    return cls(spec, LID.Config(**{**official, **config}))


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_bounds_accuracies_and_objective(name: str) -> None:
    a = group(GOLDEN, f"bounds/{name}")
    net, x, y = network(numbered(a, "param")), torch.from_numpy(a["x"]), torch.from_numpy(a["y"])
    sides = zip(net.named_parameters(), numbered(a, "lower"), numbered(a, "upper"), strict=True)
    weights = {key: Interval(low, high) for (key, _), low, high in sides}
    found = propagate_midpoint(net, weights, x)
    assert_close(found.lower, a["logits_lower"], 1e-9)
    assert_close(found.upper, a["logits_upper"], 1e-9)
    exact = propagate(net, weights, x)
    assert bool((exact.lower >= found.lower - 1e-12).all() and (exact.upper <= found.upper + 1e-12).all())
    if "exact_lower" in a:
        assert_close(exact.lower, a["exact_lower"], 1e-9)
        assert_close(exact.upper, a["exact_upper"], 1e-9)
    mask = torch.from_numpy(a["mask"])
    masked = Interval(found.lower * mask, found.upper * mask)
    for bounds, key in ((found, "lower"), (masked, "masked")):
        assert_close(-violations(worst_case(bounds, y), y)[1][0], a[f"hard_{key}"], 1e-7)
        assert_close(-violations(worst_case(bounds, y), y)[0][0], a[f"soft_{key}"], 1e-9)
    flat = Interval(*(torch.cat([side.flatten() for side in numbered(a, which)]) for which in ("lower", "upper")))
    for key in (key for key in a if key.startswith("objective.")):
        options = SearchOptions(alpha=float(key.removeprefix("objective.")))
        centre = (flat.lower + flat.upper) / 2
        search = BoxSearch(centre, flat, 0.0, 1, 1.0, options, start=flat)
        assert_close(search.objective().detach(), a[key], 1e-9, key)


def violations(worst: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Soft and hard violation of the limit 0 by one group of samples, by the search."""
    point = Interval.point(torch.zeros(1, dtype=torch.float64))
    search = BoxSearch(point.lower, point, 0.0, 1, 1.0, SearchOptions())
    search.loss(worst, y, torch.zeros_like(y))
    return search.defect, search.strict


CASES = ["cil", "logvol", "minibatch", "outer", "til", "til_rivals", "dil", "cnn", "shortcut"]


def reordered(a: Arrays, flat: np.ndarray, outputs: list[int]) -> Tensor:
    """Flat weights (..., N) with the head's rows in another order."""
    shapes = [p.shape for p in numbered(a, "param")]
    parts = list(torch.from_numpy(flat.copy()).split([shape.numel() for shape in shapes], -1))
    rows = parts[-2].unflatten(-1, shapes[-2])[..., outputs, :].flatten(-2)
    return torch.cat([*parts[:-2], rows, parts[-1][..., outputs]], -1)


@pytest.mark.parametrize("name", CASES)
def test_search(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the method itself on the recorded batches. TIL: the task's two outputs are put first."""
    a = group(GOLDEN, f"search/{name}")
    given, labels, x, y = (
        json.loads(str(a["json"])),
        np.unique(a["y"]),
        torch.from_numpy(a["x"]),
        torch.from_numpy(a["y"]),
    )
    scenario, tasks, parameters = CIL, 1, numbered(a, "param")
    outputs = list(range(len(parameters[-1])))
    if name == "dil":
        scenario, y = DIL, y % 2
    if "mask" in a:
        outputs = [*labels, *(i for i in outputs if i not in labels)]
        scenario, tasks, y = TIL, len(outputs) // len(labels), torch.from_numpy(np.searchsorted(labels, a["y"]))
        parameters[-2:] = (p[outputs] for p in parameters[-2:])
    method = made(
        Recorded, scenario, parameters, x, tasks, alpha=given.get("obj_alpha", 0.0), heads="boxed",
        snapshots=given["iters"] // given["checkpoint"], til_rivals="official" if name == "til" else "task",
        search_lr=given["primal_learning_rate"] / sum(p.numel() for p in parameters),
    )  # fmt: skip
    method.options = replace(method.options, radius=given.get("init_bbox", 0.0))
    method.limit = given["limit"]
    certificates, rows = torch.from_numpy(a["order"]).split([30, len(a["order"]) - 30])
    method.batches = [batch for epoch in rows.split(len(x)) for batch in epoch.split(given["batch_size"])]
    searches: list[RecordedSearch] = []
    monkeypatch.setattr(lid, "BoxSearch", lambda *options: searches.append(RecordedSearch(*options)) or searches[-1])
    if "outer.lower" in a:
        method.model.lower, method.model.upper = (torch.from_numpy(a[f"outer.{side}"]) for side in ("lower", "upper"))
    else:
        method.model.draw_first_box()
    samples = Samples(x, certificates, y[certificates], 0), Samples(x, torch.arange(len(x)), y, 0)
    judged, task = (Task(0, each, each, Budget(len(x), steps=given["iters"]), 0) for each in samples)
    monkeypatch.setattr(
        method, "_certified_share", partial(lambda share, _, *boxes: share(judged, *boxes), method._certified_share)
    )
    found = method._found(task, 0, given["iters"])
    assert [method._certified_share(task, box) for box in found] == pytest.approx(a["certificates"], abs=1e-7)
    for i, box in enumerate(found):
        for side, value in zip(("lower", "upper"), box, strict=True):
            assert_close(value, reordered(a, a[f"box.{i}.{side}"], outputs), 1e-6, f"box {i}")
    log = searches[0].log if searches else []
    assert len(log) == len(a["loss"])
    for k, step in enumerate(log):
        for key, value in step.items():
            wanted = a[key][k]
            if key in ("lower", "upper"):
                wanted = reordered(a, wanted, outputs)
            if value.dim() and key not in ("lower", "upper"):
                value = value[sorted(set(y.tolist()))]
            assert_close(value, wanted, 1e-6, f"{key} of step {k}")


@pytest.mark.parametrize("place", ["far", "near"])
@pytest.mark.parametrize("choice", ["closest", "best_loss", "sample_largest_closest"])
def test_projection(choice: Choice, place: str) -> None:
    """With the official tolerance, so that one weight 5e-4 outside stays there; without it, it is clipped."""
    a = group(GOLDEN, "project")
    x, y, boxes = torch.from_numpy(a["x"]), torch.from_numpy(a["y"]), stacked(boxes_of(a))
    t = tensors(group(a, f"{choice}/{place}"))
    net = network(numbered(group(GOLDEN, "reg"), "param"))  # of the same shapes
    sizes = [p.numel() for p in net.parameters()]

    def losses(each: Tensor) -> Tensor:
        weights = ([part.view_as(p) for part, p in zip(w.split(sizes), net.parameters(), strict=True)] for w in each)
        named = [dict(zip(dict(net.named_parameters()), parts, strict=True)) for parts in weights]
        return torch.stack([cross_entropy(functional_call(net, w, (x,)), y) for w in named])

    after, chosen = project(t["before"], boxes, choice, 1e-6, losses)
    assert int(chosen) == int(t["chosen"])
    assert_close(after, t["after"], 1e-9)
    strict, inside = project(t["before"], boxes, choice, 0.0, losses)
    lower, upper = boxes.lower[inside], boxes.upper[inside]
    assert bool(((strict >= lower) & (strict <= upper)).all())
    assert torch.equal(strict, after) == (place == "far")


def test_regularisers(monkeypatch: pytest.MonkeyPatch) -> None:
    a = group(GOLDEN, "reg")
    noise = torch.from_numpy(a["noise"])
    monkeypatch.setattr(torch, "rand_like", lambda _: noise)
    batch = Batch(noise, torch.zeros(len(noise), dtype=torch.int64), 0)
    weights = {"l2": 0.01, "unbias": 0.01}
    for key in weights:
        method = made(Recorded, CIL, numbered(a, "param"), noise, 1, **{key: weights[key]})
        assert_close(method._regulariser(batch).detach(), a[key], 1e-9, key)
    method = made(Recorded, CIL, numbered(a, "param"), noise, 1, **weights)
    method._regulariser(batch).backward()
    for i, parameter in enumerate(method.model.net.parameters()):
        assert parameter.grad is not None
        assert_close(parameter.grad, a[f"grad.{i}"], 1e-9, f"gradient {i}")


def test_trajectory() -> None:
    """Two tasks in CIL, the second of which is trained within the boxes of the first."""
    a = group(GOLDEN, "traj")
    given, parameters = json.loads(str(a["json"])), numbered(a, "init")
    x = torch.from_numpy(a["0/x"])
    taken, last = len(a["0/params"]), given["iters"]
    method = made(
        Recorded, CIL, parameters, x, 2, lr=given["lr"], tolerance=1e-6, last_region=False,
        snapshots=last // given["checkpoint"], search_share=last / (taken + last),
        search_lr=given["primal_learning_rate"] / sum(p.numel() for p in parameters),
    )  # fmt: skip
    method.spec = replace(method.spec, classes_per_task=len(parameters[-1]))
    for t in range(2):
        x, y = (torch.from_numpy(a[f"{t}/{key}"]) for key in "xy")
        samples = Samples(x, torch.arange(len(x)), y, t)
        method.batches = [*torch.from_numpy(a[f"{t}/order"]).split(given["batch"]), *[torch.arange(len(x))] * last]
        task = Task(t, samples, samples, Budget(given["batch"], steps=taken + (0 if t else last)), 0)
        method.steps.clear()
        method.begin(task)
        method.learn(task)
        assert len(method.steps) == taken
        for k, (step, weights, chosen) in enumerate(zip(method.steps, a[f"{t}/params"], a[f"{t}/chosen"], strict=True)):
            assert_close(step["params"], weights, 1e-6, f"weights of task {t} after step {k}")
            assert int(step["chosen"]) == int(chosen) * t
        if t == 0:
            first = task
            assert method._certified_share(task, Interval.point(method.model.centres())) == pytest.approx(a["0/acc"])
            for i, box in enumerate(boxes_of(group(a, "0"))):
                assert_close(method.regions[i], torch.stack(box), 1e-6, f"box {i}")
            shares = [method._certified_share(task, box) for box in method.present_boxes()]
            assert shares == pytest.approx(a["0/certificates"], abs=1e-7)
    assert method._certified_share(first, method.model.box) == pytest.approx(a["1/final_certificates"][0], abs=1e-7)
