"""GPM: what cannot move and what drifts, heads, biases, batch norm, full bases, Adam."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.catalogue import find
from benchmarks.types import CIL, DIL, TIL, Scenario, StreamSpec, UserError
from methods.gpm import GPM
from methods.search import LEARNING_RATE
from methods.shared import bases, projection
from tests.methods.regularised import learn_all, make_task, tiny_tasks


@pytest.fixture(autouse=True)
def double() -> Any:
    """Rounding of float64, so that it cannot be taken for a leak."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def tasks_of(scenario: Scenario, n_tasks: int = 3, dimensions: int = 12) -> tuple[StreamSpec, list[Any]]:
    """Two classes per task, inputs of some tasks in 4 of the dimensions, so that bases do not fill at once."""
    _, tasks = tiny_tasks(scenario, n_tasks=n_tasks)
    torch.manual_seed(0)
    made = []
    for task in tasks:
        into = torch.randn(5, dimensions) * (torch.randn(dimensions) > 0)
        x = task.x.double() @ into + 0.02 * torch.randn(len(task.x), dimensions)
        made.append(make_task(task.index, x, task.y, 16, 30))
    return StreamSpec("tiny", scenario, n_tasks, 2, (dimensions,), "mlp-10-8", nonnegative_inputs=False), made


def learnt(scenario: Scenario, network: type[nn.Module] | None = None, **options: Any) -> tuple[GPM, list[Any]]:
    spec, tasks = tasks_of(scenario)
    cls = GPM if network is None else type("Changed", (GPM,), {"network": lambda self: network(spec.n_outputs).eval()})
    method = cls(spec, GPM.Config(**options))
    learn_all(method, tasks[:1])
    return method, tasks


def matrices(method: GPM) -> dict[str, Tensor]:
    return {layer.name: layer.matrix() for layer in method.layers}


def table(method: GPM) -> list[dict[str, float]]:
    columns = method.exhibits()["bases"]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


# -- the promise and the drift ----------------------------------------------------------------------


@pytest.mark.parametrize("scenario", [TIL, DIL, CIL])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"biases": "freeze"},
        {"optimizer": "adam", "lr": 0.01},
        {"optimizer": "adam", "lr": 0.01, "basis": "smallest", "smallest": 1e3},
    ],
)
def test_answers_to_inputs_in_the_span_do_not_move(scenario: Scenario, options: dict[str, Any]) -> None:
    method, tasks = learnt(scenario, **options)
    for task in tasks[1:]:
        before, old = matrices(method), dict(method.bases)
        learn_all(method, [task])
        moved = {name: weight - before[name] for name, weight in matrices(method).items()}
        for each in method.held(task.index):
            change = moved[each.layer.name]
            assert change.abs().max() > 1e-3, "the layer learns"
            assert float((change[: each.rows] @ old[each.layer.name]).abs().max()) < 1e-12


def test_adams_steps_leave_the_space_of_projected_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason why its steps are projected: with gradients alone there is no protection."""
    monkeypatch.setattr("methods.gpm.project_updates", projection.project_gradients)
    method, tasks = learnt(DIL, optimizer="adam", lr=0.01)
    learn_all(method, tasks[1:2])
    assert max(row["leak"] for row in table(method)) > 0.01


def test_the_drift_is_that_of_the_layers_answers_to_old_inputs() -> None:
    """Recomputed from inputs that the method does not keep; the answers drift, although nothing leaks."""
    method, tasks = learnt(DIL, threshold=(0.9,), basis_samples=(1000,))
    old, inputs = method.predict(tasks[0].x).detach(), with_constant(inputs_of(method, tasks[0].x))
    before = matrices(method)
    learn_all(method, tasks[1:2])
    rows = [row for row in table(method) if row["task"] == 1]
    assert max(row["leak"] for row in rows) < 1e-12
    assert float((method.predict(tasks[0].x).detach() - old).abs().max()) > 0.01
    for row, (name, now), x in zip(rows, matrices(method).items(), inputs, strict=True):
        moved = (x @ (now - before[name]).t()).norm() / (x @ before[name].t()).norm()
        assert row["drift"] == pytest.approx(float(moved), rel=1e-8)
        assert row["drift"] > 1e-4


def inputs_of(method: GPM, x: Tensor) -> list[Tensor]:
    found = []
    for layer in method.layers:
        found.append(x)
        x = layer.module(x).relu().detach()
    return found


def with_constant(inputs: list[Tensor]) -> list[Tensor]:
    return [nn.functional.pad(x, (0, 1), value=1.0) for x in inputs]


def test_captured_energy_is_that_of_validation_inputs() -> None:
    """Here they are the training inputs, so that it reaches the threshold, which rises from task to task."""
    method, tasks = learnt(DIL, threshold=(0.8, 0.9), increment=0.04, basis_samples=(1000,))
    learn_all(method, tasks[1:])
    for row in table(method):
        assert row["captured"] >= (0.8 if row["layer"] == 0 else 0.9) + 0.04 * row["task"] - 1e-12
        assert row["columns"] == method.bases[method.layers[int(row["layer"])].name].shape[1] or row["task"] < 2
    x = with_constant(inputs_of(method, tasks[2].x))
    for row, layer_inputs, layer in zip(table(method)[-3:], x, method.layers, strict=True):
        inside = (layer_inputs @ method.bases[layer.name]).square().sum() / layer_inputs.square().sum()
        assert row["captured"] == pytest.approx(float(inside), rel=1e-8)


def test_thresholds_and_samples_are_those_of_each_layer_and_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thresholds rise from the second task on, up to 1."""
    thresholds, samples, reaching = [], [], bases.reaching

    def watched(inputs: bases.Inputs, basis: Tensor, threshold: float) -> bases.Directions:
        thresholds.append(threshold)
        samples.append(inputs.count)
        return reaching(inputs, basis, threshold)

    monkeypatch.setattr(bases, "reaching", watched)
    method, tasks = learnt(DIL, threshold=(0.9, 0.95), increment=0.04, basis_samples=(7, 20))
    learn_all(method, tasks[1:])
    assert samples == [7, 20, 20] * 3
    assert thresholds == pytest.approx([0.9, 0.95, 0.95, 0.94, 0.99, 0.99, 0.98, 1.0, 1.0], rel=1e-12)


def test_a_full_basis_ends_learning() -> None:
    method, tasks = learnt(DIL, threshold=(1.0,))
    for layer in method.layers:
        method.bases[layer.name] = torch.eye(layer.size)
    before = matrices(method)
    learn_all(method, tasks[1:2])
    for name, weight in matrices(method).items():
        torch.testing.assert_close(weight, before[name], rtol=0, atol=1e-12)
    assert all(row["columns"] == row["inputs"] for row in table(method)[-3:])


def test_the_official_first_basis_may_protect_nothing() -> None:
    method, tasks = learnt(DIL, threshold=(0.05,), first_rule="official")
    assert all(basis.shape[1] == 0 for basis in method.bases.values())
    assert all(basis.shape[1] > 0 for basis in learnt(DIL, threshold=(0.05,))[0].bases.values())
    learn_all(method, tasks[1:2])
    assert all(basis.shape[1] > 0 for basis in method.bases.values())


# -- heads and biases ------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"optimizer": "adam", "lr": 0.01}, {"biases": "freeze"}])
def test_in_til_the_heads_of_other_tasks_are_bit_identical(options: dict[str, Any]) -> None:
    method, tasks = learnt(TIL, **options)
    head = method.net.layers[-1]  # type: ignore[union-attr, index]
    before = head.weight.detach().clone(), head.bias.detach().clone()
    learn_all(method, tasks[1:2])
    for old, new in zip(before, (head.weight, head.bias), strict=True):
        changed = (old != new).flatten(1).any(1) if new.dim() > 1 else old != new
        assert changed.tolist() == [False, False, True, True, False, False]


def test_in_cil_new_rows_are_free_and_old_ones_projected() -> None:
    method, tasks = learnt(CIL)
    head, name = method.net.layers[-1], method.layers[-1].name  # type: ignore[union-attr, index]
    before, old = matrices(method)[name], method.bases[name]
    learn_all(method, tasks[1:2])
    inside = ((matrices(method)[name] - before) @ old).abs().amax(1)
    assert float(inside[:2].max()) < 1e-12 and float(inside[2:4].min()) > 1e-3
    assert float((matrices(method)[name] - before)[:2].abs().max()) > 1e-4, "old rows learn outside of the span"
    assert torch.equal(head.weight[4:], before[4:, :-1])


def test_frozen_biases_are_constant_after_the_first_task() -> None:
    spec, tasks = tasks_of(DIL)
    method = GPM(spec, GPM.Config(biases="freeze"))
    biases = [layer.module.bias for layer in method.layers]
    assert all(layer.size == layer.module.in_features for layer in method.layers)  # type: ignore[union-attr]
    kept = []
    for task in tasks:
        kept.append([b.detach().clone() for b in biases if b is not None])
        learn_all(method, [task])
    assert all(not torch.equal(a, b) for a, b in zip(kept[0], kept[1], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(kept[1], kept[2], strict=True))
    method, tasks = learnt(DIL)
    before = [layer.module.bias.detach().clone() for layer in method.layers if layer.module.bias is not None]
    learn_all(method, tasks[1:2])
    now = [layer.module.bias for layer in method.layers]
    assert all(not torch.equal(a, b) for a, b in zip(before, now, strict=True))  # type: ignore[arg-type]


# -- other parameters ------------------------------------------------------------------------------


class Normed(nn.Sequential):
    def __init__(self, n_outputs: int) -> None:
        super().__init__(
            nn.Unflatten(1, (1, 3, 4)), nn.Conv2d(1, 4, 2, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
            nn.Linear(24, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, n_outputs),
        )  # fmt: skip


@pytest.mark.parametrize("scenario", [TIL, DIL, CIL])
def test_batch_norm(scenario: Scenario) -> None:
    """Weights of norms are constant after the first task; statistics are the task's in TIL, else the first task's."""
    method, tasks = learnt(scenario, Normed)
    norms = [m for m in method.net.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    affine = [p.detach().clone() for norm in norms for p in norm.parameters()]
    running = [b.clone() for norm in norms for b in norm.buffers()]
    x, told = tasks[0].x, 0 if scenario is TIL else None
    learn_all(method, tasks[1:])
    assert all(torch.equal(a, b) for a, b in zip(affine, [p for n in norms for p in n.parameters()], strict=True))
    same = [torch.equal(a, b) for a, b in zip(running, [b for n in norms for b in n.buffers()], strict=True)]
    assert not any(same) if scenario is TIL else all(same)
    together = method.predict(x, told)
    alone = torch.cat([method.predict(x[i : i + 1], told) for i in range(len(x))])
    torch.testing.assert_close(together, alone)
    assert all(p.requires_grad for p in method.net.parameters()) and not method.net.training
    assert max(row["leak"] for row in table(method)) < 1e-12


def test_in_til_old_tasks_are_answered_with_their_own_statistics() -> None:
    method, tasks = learnt(TIL, Normed, threshold=(1.0,), lr=1e-9)
    before = method.predict(tasks[0].x, 0)
    learn_all(method, tasks[1:])
    torch.testing.assert_close(method.predict(tasks[0].x, 0), before, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(method.net(tasks[0].x)[:, :2], before, rtol=1e-2, atol=1e-2)


class Attention(nn.Module):
    """A layer whose module is passed by, a norm, and a free parameter."""

    def __init__(self, n_outputs: int) -> None:
        super().__init__()
        self.passed, self.norm, self.head = nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, n_outputs)
        self.start = nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.linear(x.unflatten(1, (3, 4)) + self.start, self.passed.weight, self.passed.bias)
        return self.head(self.norm(scaled_dot_product_attention(x, x, x)).mean(1))


def test_what_cannot_be_projected_is_constant_after_the_first_task() -> None:
    method, tasks = learnt(DIL, Attention)
    before = {name: p.detach().clone() for name, p in method.net.named_parameters()}
    learn_all(method, tasks[1:])
    for name, p in method.net.named_parameters():
        moved = float((p.detach() - before[name]).abs().max())
        assert (moved > 1e-3) if name.startswith("head") else moved < 1e-12, name


# -- Adam-NSCL, configuration, footprint -----------------------------------------------------------


def test_the_null_space_is_that_of_all_tasks_so_far() -> None:
    method, tasks = learnt(DIL, optimizer="adam", lr=0.01, basis="smallest", basis_samples=(1,))
    first = method.moments[method.layers[0].name].clone()
    learn_all(method, tasks[1:2])
    both = torch.cat([nn.functional.pad(task.x, (0, 1), value=1.0) for task in tasks[:2]])
    torch.testing.assert_close(method.moments[method.layers[0].name], both.t() @ both)
    assert float((method.moments[method.layers[0].name] - first).abs().max()) > 1


def test_where_all_moments_are_alike_nothing_is_kept_from_the_next_task() -> None:
    """The null space is then everything: the basis of earlier moments gives way to an empty one."""
    method, _ = learnt(DIL, optimizer="adam", lr=0.01, basis="smallest", smallest=10.0)
    layer = method.layers[0].name
    size = method.layers[0].size
    method.bases[layer] = torch.eye(size)[:, :1]
    method.moments[layer] = 1e9 * torch.eye(size, dtype=method.moments[layer].dtype)
    method.extend(tasks_of(DIL)[1][1])
    assert method.bases[layer].shape == (size, 0)


def flat_tasks() -> tuple[StreamSpec, list[Any]]:
    """Inputs of all tasks lie in 6 of 12 dimensions, none of which is an axis."""
    spec, tasks = tasks_of(DIL)
    plane = torch.linalg.qr(torch.randn(12, 6)).Q
    return spec, [make_task(task.index, task.x @ plane @ plane.t(), task.y, 16, 30) for task in tasks]


@pytest.mark.parametrize("covariance", ["samples", "batch-means"])
def test_adams_steps_in_an_exact_null_space_have_no_answer_to_old_inputs(covariance: Any) -> None:
    """g P S = 0, with S the moments of samples, or of the means over batches in the order of the training samples."""
    spec, tasks = flat_tasks()
    options = {"optimizer": "adam", "lr": 0.01, "basis": "smallest", "covariance": covariance}
    method = GPM(spec, GPM.Config(**options))  # type: ignore[arg-type]
    learn_all(method, tasks[:1])
    x = nn.functional.pad(tasks[0].x, (0, 1), value=1.0)
    x = x if covariance == "samples" else torch.stack([batch.mean(0) for batch in x.split(16)])
    name = method.layers[0].name
    moments, before = x.t() @ x, matrices(method)[name]
    torch.testing.assert_close(method.moments[name], moments)
    assert method.bases[name].shape[1] == min(len(x), 7), "six dimensions and the constant, or the three batches"
    learn_all(method, tasks[1:2])
    moved = matrices(method)[name] - before
    assert moved.norm() > 0.01 and (moved @ moments).norm() < 1e-9 * moments.norm()


def test_without_the_floor_rounding_takes_most_of_an_exact_null_space() -> None:
    """The smallest eigenvalue is 0 or nearly so, and only directions up to ten times as large are free."""
    spec, tasks = flat_tasks()
    free = []
    for floor in (1e-10, 0.0):
        method = GPM(spec, GPM.Config(optimizer="adam", lr=0.01, basis="smallest", floor=floor))
        learn_all(method, tasks[:1])
        free.append(method.layers[0].size - method.bases[method.layers[0].name].shape[1])
    assert free[0] == 6 > free[1]


@pytest.mark.parametrize("basis", ["energy", "smallest"])
def test_parameters_without_gradients_have_projectors_too(basis: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    extend = GPM.extend

    def wiped(method: GPM, task: Any) -> None:
        method.net.zero_grad(set_to_none=True)
        extend(method, task)

    monkeypatch.setattr(GPM, "extend", wiped)
    method, tasks = learnt(DIL, optimizer="adam", lr=0.01, basis=basis, smallest=1e4)
    assert all(each.shape[1] > 0 for each in method.bases.values())
    before = matrices(method)
    learn_all(method, tasks[1:2])
    assert all((now - before[name]).abs().max() > 1e-3 for name, now in matrices(method).items())
    assert max(row["leak"] for row in table(method)) < 1e-12


def test_normalised_steps_are_shorter_by_the_root_of_the_free_directions() -> None:
    moved = []
    for normalise in (False, True):
        method, tasks = learnt(DIL, normalise=normalise)
        before, old = matrices(method), dict(method.bases)
        learn_all(method, [make_task(1, tasks[1].x, tasks[1].y, 48, 1)])
        name = method.layers[0].name
        moved.append((matrices(method)[name] - before[name], old[name].shape))
    (plain, (d, r)), (shorter, _) = moved
    torch.testing.assert_close(shorter, plain / (d - r) ** 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": ()}, "threshold"),
        ({"threshold": (0.9, 1.5)}, "threshold"),
        ({"basis_samples": (0,)}, "basis_samples"),
        ({"increment": -0.1}, "increment"),
        ({"smallest": 0.5}, "smallest"),
        ({"floor": -1.0}, "floor"),
    ],
)
def test_wrong_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        GPM.Config(**options)


def test_the_official_values_of_adam_nscl_are_permitted() -> None:
    assert GPM.Config(floor=0.0, smallest=1.0, covariance="batch-means", normalise=True)


def test_a_linear_network_in_til_has_free_heads_alone() -> None:
    spec, tasks = tasks_of(TIL)
    method = GPM(replace(spec, network="mlp"))
    learn_all(method, tasks)
    assert method.layers == [] and method.exhibits() == {}
    assert all(float((method.predict(t.x, t.index).argmax(1) == t.y).double().mean()) > 0.7 for t in tasks)


def test_adams_learning_rate_is_searched_in_the_range_of_all_methods() -> None:
    spec, found = find("split-digits").spec(TIL), GPM.Config.search
    assert GPM.searched(spec, GPM.Config(optimizer="adam"), found)["lr"] == LEARNING_RATE
    assert GPM.searched(spec, GPM.Config(), found)["lr"] == found["lr"]


@pytest.mark.parametrize(("basis", "searched"), [("energy", {"lr", "threshold"}), ("smallest", {"lr", "smallest"})])
def test_tuning_searches_the_settings_that_the_basis_depends_on(basis: Any, searched: set[str]) -> None:
    spec = find("split-digits").spec(TIL)
    assert GPM.searched(spec, GPM.Config(basis=basis), GPM.Config.search).keys() == searched


def test_needs_covers_bases_and_moments() -> None:
    """On a network whose bases are full, the most that they can be."""
    spec = find("permuted-digits").spec(DIL)
    for basis, kinds in (("energy", 2), ("smallest", 3)):
        needed = GPM.needs(spec, GPM.Config(basis=basis))
        most = kinds * (65**2 + 101**2 + 101**2)
        assert most <= needed.floats_per_task * spec.n_tasks < most + spec.n_tasks
