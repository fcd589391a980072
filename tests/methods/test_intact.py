"""InTAct: movements against brute force, what is held in each scenario, where ranges come from, the table `drift`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.types import CIL, DIL, TIL, Scenario, StreamSpec, Task
from methods import intact
from methods.intact import InTAct, Seen, misplaced, moved, range_of
from methods.shared.anchor import flatten
from methods.shared.chain import chain_of
from tests.methods.hyper_golden import float64
from tests.methods.regularised import learn_all, make_task

SCENARIOS = [TIL, DIL, CIL]


class Small(nn.Sequential):
    """An MLP whose widths differ."""

    def __init__(self, n_outputs: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, n_outputs))


class Convolutional(nn.Sequential):
    """Maps that are padded, pooled, flattened and dropped on their way to the next layer."""

    def __init__(self, n_outputs: int) -> None:
        super().__init__(
            nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(2, 3, 2, padding=1, bias=False), nn.ReLU(),
            nn.AvgPool2d(2, padding=1), nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(4, n_outputs),
        )  # fmt: skip


class Functional(nn.Module):
    """The functions of a chain, without modules."""

    def __init__(self, n_outputs: int) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(16, 5), nn.Linear(5, 4), nn.Linear(4, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(nn.functional.dropout(self.a(x.flatten(1)).relu(), 0.5, self.training)).relu())


def made(
    scenario: Scenario = DIL, network: Callable[[int], nn.Module] = Small, **config: Any
) -> tuple[InTAct, list[Task]]:
    """A method in float64, and three tasks of two classes whose images lie in different places."""
    torch.manual_seed(0)

    class Over(InTAct):
        def network(self, n_outputs: int | None = None) -> nn.Module:
            return network(self.spec.n_outputs).eval()

    tasks = []
    for t in range(3):
        y = torch.arange(40) % 2
        x = torch.randn(40, 1, 4, 4).double() + torch.randn(1, 4, 4) * (1 + t) + y[:, None, None, None]
        tasks.append(make_task(t, x, y + 2 * t if scenario is CIL else y, 10, 20))
    with float64():
        return Over(StreamSpec("tiny", scenario, 3, 2, (1, 4, 4), "mlp-5-4"), InTAct.Config(lr=0.01, **config)), tasks


def after_one(scenario: Scenario = DIL, **options: Any) -> tuple[InTAct, list[Task]]:
    method, tasks = made(scenario, **options)
    learn_all(method, tasks[:1])
    method.begin(tasks[1])
    return method, tasks


def loss_and_gradient(method: InTAct, task: Task) -> tuple[Tensor, Tensor]:
    value = method.objective(task.index)(task.train.batch(slice(0, 10)))
    return value.detach(), flatten(torch.autograd.grad(value, list(method.net.parameters())))


def perturb(method: InTAct, scale: float = 0.3) -> None:
    with torch.no_grad():
        for p in method.net.parameters():
            p += scale * torch.randn_like(p)


def linear_layers(method: InTAct) -> list[Any]:
    return [module for module in method.net.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def table(method: InTAct) -> list[dict[str, float]]:
    columns = method.exhibits()["drift"]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


# -- the penalties ---------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("options", [{}, {"drift": "sum", "new_rows": "official"}, {"network": Convolutional}])
def test_at_the_old_weights_drift_and_features_cost_nothing(scenario: Scenario, options: dict[str, Any]) -> None:
    found = []
    for strength in (0.0, 1e6):  # the first task is learnt with the same strengths, without effect
        method, tasks = after_one(scenario, lam_drift=strength, lam_feature=strength, **options)
        found.append(loss_and_gradient(method, tasks[1]))
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)
    perturb(method)
    assert float(loss_and_gradient(method, tasks[1])[0]) > float(found[0][0]) + 100


@pytest.mark.parametrize("network", [Small, Convolutional])
@pytest.mark.parametrize("scenario", [DIL, CIL])
def test_the_movement_is_that_of_the_corners_of_the_ranges(network: Any, scenario: Scenario) -> None:
    """The least and the largest change of each output over all corners; both are reached."""
    method, _ = after_one(scenario, network=network)
    perturb(method)
    layers = chain_of(method.net)
    for i in range(1, len(layers)):
        reader = method.reader(layers, i, task=2)
        old = method.old[f"{layers[i].name}.weight"].flatten(1)
        moved_by = (reader.module.weight.detach().flatten(1) - old)[: reader.rows]
        now, then = reader.module.bias, reader.bias
        shift = torch.zeros(reader.rows) if now is None or then is None else (now - then)[: reader.rows]
        inputs = moved_by.shape[1] // layers[i - 1].units  # that one unit feeds
        low, high = (bound[i - 1].repeat_interleave(inputs) for bound in (method.lower, method.upper))
        corners = torch.tensor(list(product([0.0, 1.0], repeat=len(low))), dtype=low.dtype)
        changes = (low + corners * (high - low)) @ moved_by.t() + shift.detach()
        torch.testing.assert_close(reader.bounds()[0].detach(), changes.amin(0))
        torch.testing.assert_close(reader.bounds()[1].detach(), changes.amax(0))
        mean, total = changes.amin(0).square() + changes.amax(0).square(), changes.amin(0).sum() ** 2
        torch.testing.assert_close(reader.penalty("outputs").detach(), mean.mean())
        torch.testing.assert_close(reader.penalty("sum").detach(), total + changes.amax(0).sum() ** 2)


def test_no_layer_of_a_padded_network_moves_beyond_its_bounds() -> None:
    """On inputs of the first task, with ranges of minimum and maximum: padded, pooled and flattened inputs included."""
    method, tasks = after_one(network=Convolutional, percentiles=(0.0, 1.0))
    inputs: list[Tensor] = []
    layers = linear_layers(method)
    hooks = [m.register_forward_hook(lambda _, x, y: inputs.append(x[0])) for m in layers]
    method.net(tasks[0].x)
    before = [layer(x).detach() for layer, x in zip(layers, list(inputs), strict=True)]
    for hook in hooks:
        hook.remove()
    perturb(method)
    for i in range(1, len(layers)):
        low, high = (bound.detach() for bound in method.reader(chain_of(method.net), i, task=1).bounds())
        change = (layers[i](inputs[i]) - before[i]).detach().transpose(0, 1).flatten(1)
        assert (change >= low[:, None] - 1e-12).all() and (change <= high[:, None] + 1e-12).all()
        assert ((change.amax(1) - low) > 0.05 * (high - low)).all(), "bounds of the same size as what moves"


def test_opposite_drifts_cancel_in_the_sum_over_outputs_alone() -> None:
    method, _ = after_one()
    reader = method.reader(chain_of(method.net), 2, task=1)
    with torch.no_grad():
        reader.module.bias[:2] += torch.tensor([1.0, -1.0])  # type: ignore[index]
        assert float(reader.penalty("sum")) < 1e-20
        assert float(reader.penalty("outputs")) == pytest.approx(2.0)


def test_variance_counts_in_the_first_task_and_everything_else_does_not() -> None:
    method, tasks = made(lam_drift=1e3, lam_feature=1e3, lam_variance=0.7)
    method.begin(tasks[0])
    perturb(method)
    batch = tasks[0].train.batch(slice(0, 10))
    found = method.objective(0)(batch)
    net: Any = method.net
    first = net[1](batch.x.flatten(1)).relu()
    second = net[3](first).relu()
    variance = sum(((a - a.mean(0)) ** 2).mean() for a in (first, second))
    torch.testing.assert_close(found, nn.functional.cross_entropy(net(batch.x), batch.y) + 0.7 * variance)


def test_features_count_where_they_lie_in_their_range() -> None:
    now = torch.tensor([[[0.0], [5.0]], [[2.0], [1.0]]])
    before = torch.tensor([[[1.0], [1.0]], [[5.0], [1.5]]])
    found = moved(now, before, torch.tensor([0.0, 1.0]), torch.tensor([2.0, 2.0]))
    assert float(found) == pytest.approx((1 + 9 + 0.25) / 3)
    assert float(moved(now, before, torch.full((2,), 7.0), torch.full((2,), 8.0))) == 0


def test_units_wholly_outside_are_drawn_back() -> None:
    """Above, below, touching the range, and inside; by hand."""
    values = torch.tensor([[[4.0], [-3.0], [2.0], [0.5]], [[6.0], [-1.0], [9.0], [1.0]]], requires_grad=True)
    lower, upper = torch.zeros(4), torch.tensor([2.0, 2.0, 2.0, 6.0])
    found = misplaced(values, lower, upper)
    assert float(found.detach()) == pytest.approx((4**2 + 3**2) ** 0.5 / ((1 + 1 + 1 + 3) / 4))
    [gradient] = torch.autograd.grad(found, [values])
    assert gradient[:, 0].min() > 0 and gradient[:, 1].max() < 0 and not gradient[:, 2:].any()
    nothing = misplaced(values, torch.full((4,), -10.0), torch.full((4,), 10.0))
    assert float(nothing.detach()) == 0 and not torch.autograd.grad(nothing, [values])[0].any(), "not NaN either"


# -- heads -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scenario", "options", "held"),
    [
        (TIL, {}, []),
        (TIL, {"new_rows": "official"}, []),
        (DIL, {}, [0, 1]),
        (DIL, {"hold_head": False}, [0, 1]),
        (CIL, {}, [0, 1]),
        (CIL, {"new_rows": "official"}, [0, 1, 2, 3]),
        (CIL, {"hold_head": False}, []),
    ],
)
def test_rows_of_the_head_that_are_held(scenario: Scenario, options: dict[str, Any], held: list[int]) -> None:
    """Those whose movement the strength of the drift makes cost anything."""
    method, tasks = after_one(scenario, **options)
    bias, costs = method.net[5].bias, []  # type: ignore[index, union-attr]
    for row in range(len(bias)):  # type: ignore[arg-type]
        moving = torch.arange(len(bias)) == row  # type: ignore[arg-type]
        with torch.no_grad():
            bias.add_(0.5 * moving)  # type: ignore[operator]
            values = []
            for strength in (0.0, 1.0):
                method.config = dataclasses.replace(method.config, lam_drift=strength)
                values.append(float(method.objective(1)(tasks[1].train.batch(slice(0, 10)))))
            bias.sub_(0.5 * moving)  # type: ignore[operator]
        costs.append(values[1] - values[0])
    assert [row for row, cost in enumerate(costs) if abs(cost) > 1e-6] == held
    assert all(costs[row] == pytest.approx(2 * 0.25 / len(held)) for row in held)


def test_in_til_no_task_moves_the_rows_of_another() -> None:
    method, tasks = after_one(TIL)
    before = method.net[5].weight.detach().clone()  # type: ignore[index, union-attr, operator]
    learn_all(method, tasks[1:2])
    changed = (method.net[5].weight != before).any(1)  # type: ignore[index, union-attr]
    assert changed.tolist() == [False, False, True, True, False, False]


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("form", ["outputs", "sum"])
def test_a_strong_penalty_holds_what_layers_do_in_their_ranges(scenario: Scenario, form: str) -> None:
    largest = []
    for strength in (0.0, 100.0):
        method, tasks = made(scenario, lam_drift=strength, drift=form)
        learn_all(method, tasks[:2])
        movement = [each.penalty(form) for each in readers(method, task=1)]  # type: ignore[arg-type]
        assert not any(movement), "the weights of the task's end are the old ones of the next"
        largest.append(sum(max(abs(row["lower"]), abs(row["upper"])) for row in table(method) if row["task"] == 1))
    assert largest[1] < 0.5 * largest[0]


def readers(method: InTAct, task: int) -> list[intact.Reader]:
    layers = chain_of(method.net)
    return [method.reader(layers, i, task) for i in method.held(len(layers))]


# -- ranges ----------------------------------------------------------------------------------------


def activations(method: InTAct, x: Tensor) -> list[Tensor]:
    net: Any = method.net
    first = net[1](x.flatten(1)).relu().detach()
    return [first, net[3](first).relu().detach()]


def test_ranges_grow_by_the_present_activations_of_training_samples() -> None:
    method, tasks = made(percentiles=(0.5, 0.8))
    found: list[list[Tensor]] = []
    for task in tasks:
        learn_all(method, [task])
        found.append([])
        for i, a in enumerate(activations(method, task.x)):
            ordered = a.sort(0).values
            found[-1].append(torch.stack([ordered[20], -ordered[32]]))
            expected = torch.stack([each[i] for each in found]).amin(0)
            torch.testing.assert_close(torch.stack([method.lower[i], -method.upper[i]]), expected)
    assert method.lower[0].max() > 0, "a range of the first task does not begin at 0 by construction"


def test_ranges_are_those_of_evaluation_mode() -> None:
    """Of layers after a dropout that is a function, which the steps of training are traced with."""
    method, tasks = after_one(network=Functional, percentiles=(0.0, 1.0))
    net: Any = method.net
    second = net.b(net.a(tasks[0].x.flatten(1)).relu()).relu().detach()
    torch.testing.assert_close(method.upper[1], second.amax(0))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_it_learns_a_task_and_answers_with_its_classes(scenario: Scenario) -> None:
    method, tasks = made(scenario)
    task = make_task(0, tasks[0].x, tasks[0].y, 10, 200)
    learn_all(method, [task])
    told = 0 if scenario is TIL else None
    assert torch.equal(method.predict(task.x, told), method.net(task.x)[:, :2])
    assert float((method.predict(task.x, told).argmax(1) == task.y).double().mean()) > 0.9
    method.begin(tasks[1])
    assert method.predict(task.x, told).shape == (40, 4 if scenario is CIL else 2)


def test_only_training_inputs_make_ranges() -> None:
    """Neither validation samples far away nor answers, in the middle of training and after it, change them."""
    found = []
    for far in (False, True):
        method, tasks = made()
        learn_all(method, [far_away(method, task) for task in tasks] if far else tasks)
        method.predict(tasks[0].x * 100)
        found.append([*method.lower, *method.upper, *method.net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def far_away(method: InTAct, task: Task) -> Task:
    """The task with validation samples far from its training samples, answered in the middle of training."""
    fit = method.__class__.fit

    def watched(*args: Any, **options: Any) -> None:
        fit(method, *args, on_check=lambda _: method.predict(task.x * 100), check_every=5, **options)

    method.fit = watched  # type: ignore[method-assign]
    return dataclasses.replace(task, validation=make_task(task.index, task.x + 100.0, task.y, 10, 20).train)


def test_percentiles_are_positions_in_ascending_order() -> None:
    values = torch.tensor([[3.0, 1.0], [2.0, 4.0], [0.0, 5.0]])[:, None]  # one unit, two pixels
    assert [float(bound) for bound in range_of(values, (0.0, 1.0))] == [0, 5]
    assert [float(bound) for bound in range_of(values, (0.17, 0.84))] == [1, 5]
    assert [float(bound) for bound in range_of(values, (0.16, 0.83))] == [0, 4]


def test_ranges_of_maps_contain_the_zero_of_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intact, "range_of", lambda values, _: (values.amin((0, 2)) + 1, values.amax((0, 2)) + 1))
    method, _ = after_one(network=Convolutional)
    assert [int((low == 0).sum()) for low in method.lower] == [2, 3, 0]


def test_few_samples_stand_for_many_activations(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(intact, "VALUES_AT_ONCE", 7 * 9 + 8)
    monkeypatch.setattr(intact, "draw", lambda samples, n: asked.append(n) or samples)
    after_one()
    assert asked == [7]


@pytest.mark.parametrize("network", [Small, Convolutional, Functional])
@pytest.mark.parametrize("training", [True, False])
def test_activations_are_taken_on_the_way_of_the_network(network: Any, training: bool) -> None:
    """The logits are the network's own, dropout included; activations are whole, before dropout and pooling."""
    net = network(3).eval()
    layers = chain_of(net)
    seen, x = Seen.of(net, layers, training), torch.randn(20, 1, 4, 4)
    assert not net.training
    net.train(training)
    torch.manual_seed(1)
    logits, found = seen(x)
    torch.manual_seed(1)
    assert torch.equal(logits, net(x))
    assert [a.shape[1] for a in found] == [layer.units for layer in layers[:-1]]
    first = next(m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    whole = first(x if isinstance(first, nn.Conv2d) else x.flatten(1)).relu().reshape(found[0].shape)
    assert torch.equal(found[0], whole)
    other = {f"{layers[0].name}.weight": 2 * first.weight, f"{layers[0].name}.bias": 2 * first.bias}
    torch.testing.assert_close(seen.first_of(x, other), 2 * whole)
    assert torch.equal(seen.first_of(x, {}), whole), "the network's own weights are back"
