"""HAT keeps old answers bit by bit with hard gates, and reports what soft gates let move."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.types import CIL, DIL, TIL, Scenario, StreamSpec, UserError
from methods import hat
from methods.hat import HAT
from methods.shared.attention import Annealing, capacity_of_units, compensation, gate_table, occupancy
from methods.shared.ownership import pack
from tests.methods.helpers import assert_equal
from tests.methods.test_subnetworks import images, learn, logits


class Small(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(36, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 2))


class Convolutional(nn.Sequential):
    """Convolutions with pooling, and a linear layer with dropout."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 2, bias=False), nn.ReLU(),
            nn.Flatten(), nn.Linear(32, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2),
        )  # fmt: skip


def made(scenario: Scenario = TIL, n_tasks: int = 3, network: type = Small, **config: Any) -> HAT:
    class Over(HAT):
        def network(self, n_outputs: int | None = None) -> nn.Module:
            return network().eval()

    return Over(StreamSpec("images", scenario, n_tasks, 2, (1, 6, 6), "mlp-8"), HAT.Config(**config))


OPTIONS = [
    {},
    {"optimizer": "adam", "lr": 0.01, "selection": "val"},
    {"momentum": 0.9, "schedule": "official", "steepest": 50.0, "clip": 0.5},
]


@pytest.mark.parametrize("network", [Small, Convolutional])
@pytest.mark.parametrize("options", OPTIONS)
def test_with_hard_gates_old_answers_are_the_same_bit_by_bit_after_every_later_task(network, options):
    method = made(network=network, **options)
    before: list[Tensor] = []
    for index in range(3):
        start = method.weights.detach().clone()
        learn(method, index, steps=30)
        now = logits(method)
        assert all(torch.equal(a, b) for a, b in zip(now, before, strict=False))
        assert now[index].std() > 1e-3, "the task is answered by more than a constant"
        assert (method.weights != start).any()
        before = now
        assert [claim[1:4] for claim in method.audit()] == [(True, 0, 0.0)] * (index + 1)


def test_masked_gradients_alone_hold_frozen_weights_under_plain_sgd(monkeypatch):
    monkeypatch.setattr(hat, "holding", lambda *_: lambda: None)
    method = made()
    learn(method, 0, 1, steps=30)
    assert all(claim.contained for claim in method.audit())


def test_without_the_remedy_the_audit_notices_a_decaying_optimiser(monkeypatch):
    def decaying(_: HAT, trained: list[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(trained, 0.01, weight_decay=0.1)

    monkeypatch.setattr(HAT, "fresh_optimizer", decaying)
    method = made()
    learn(method, 0, 1, steps=20)
    assert all(claim.contained for claim in method.audit())
    monkeypatch.setattr(hat, "holding", lambda *_: lambda: None)
    learn(method, 2, steps=20)
    claims = method.audit()
    assert not claims[0].contained and claims[0].outside > 10 and 0 < claims[0].drift < 1
    assert claims == method.audit(), "nothing is repaired"


def test_frozen_are_the_weights_between_units_that_earlier_tasks_have_opened():
    method = made()
    learn(method, 0, 1, steps=30)
    before, taken = method.weights.detach().clone(), method.taken()
    learn(method, 2, steps=30)
    moved = before != method.weights.detach()
    first, second = taken.split(24)
    ends = torch.cat([
        first.repeat_interleave(36), first, torch.minimum(second[:, None], first[None]).flatten(), second,
    ])  # fmt: skip
    assert not (moved & (ends == 1)).any() and moved[ends == 0].float().mean() > 0.5
    assert 0 < ends.mean() < 1 and set(taken.tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("network", [Small, Convolutional])
def test_with_soft_gates_of_small_slope_old_weights_drift_and_the_audit_reports_it(network):
    method = made(network=network, gates="soft", steepest=25.0)
    learn(method, 0, steps=40)
    before, (old,) = method.point(0).masked, logits(method)
    assert method.audit()[0].contained
    learn(method, 1, steps=40)
    first, second = method.audit()
    change = (method.point(0).masked - before).abs()
    assert not first.contained and first.outside == int((change > 0).sum()) > 10
    assert first.drift == float(change.max()) > 1e-4
    assert f"{first.outside} of {len(change) + method.target.n_head} frozen numbers moved" == first.reason
    assert second.contained and not torch.equal(logits(method)[0], old)


def test_steeper_soft_gates_let_less_move():
    drift = {}
    for steepest in (25.0, 800.0):
        method = made(gates="soft", steepest=steepest)
        learn(method, 0, 1, steps=40)
        drift[steepest] = method.audit()[0].drift
    assert drift[800.0] < 0.1 * drift[25.0]


def test_soft_gates_give_a_weight_of_closed_ends_no_drift():
    method = made(gates="soft")
    learn(method, 0, steps=10)
    method.gates[0] = torch.cat([torch.ones(24), torch.zeros(24)])
    method.audit_own.clear()
    method.freeze(0)
    with torch.no_grad():
        method.weights[36 * 24 + 24 :].neg_()
    assert method.audit()[0].contained
    with torch.no_grad():
        method.weights[7] += 1.0
    assert (method.audit()[0].outside, method.audit()[0].drift) == (1, pytest.approx(1.0))


@pytest.mark.parametrize("change", ["own", "gate", "weight"])
def test_the_audit_notices_every_number_of_a_task(change):
    method = made()
    learn(method, 0, 1, steps=20)
    if change == "own":
        method.kept[0][3] += 1
    elif change == "gate":
        method.gates[0] = pack(method.gates_of(0).bool() ^ (torch.arange(48) == 47))
    else:
        used = method.mask(0).nonzero()[0]
        with torch.no_grad():
            method.weights[used] = torch.nextafter(method.weights[used], torch.tensor(torch.inf))
    first, _ = method.audit()
    assert not first.contained and first.outside >= 1
    assert ("mask" in first.reason) == (change == "gate")


@pytest.mark.parametrize("scenario", [DIL, CIL])
def test_where_the_task_is_inferred_the_audit_says_that_later_tasks_take_part(scenario):
    method = made(scenario)
    learn(method, 0, 1)
    first, second = method.audit()
    assert first.contained and "inference" in first.reason and not second.reason


@pytest.mark.parametrize("gates", ["hard", "soft"])
@pytest.mark.parametrize("scenario", [TIL, DIL, CIL])
def test_bounds_hold_the_answers_and_are_no_wider_than_rounding(scenario, gates):
    method = made(scenario, network=Convolutional, gates=gates)
    learn(method, 0, 1)
    x = images(scenario, 0).x
    lower, upper = method.bounds(x, 0)
    answers = method.predict(x, 0)
    slack = 1e-4 + 1e-6 * answers.abs()  # of float32
    assert lower.shape == answers.shape and (lower - slack <= answers).all() and (answers <= upper + slack).all()
    assert (upper - lower).median() < 1e-9


@pytest.mark.parametrize("gates", ["hard", "soft"])
def test_a_state_put_into_a_fresh_method_continues_in_the_same_way(gates):
    first, second = made(gates=gates), made(gates=gates)
    learn(first, 0)
    second.load_state_dict(first.state_dict())
    for method in (first, second):
        learn(method, 1)
    assert_equal(first.state_dict(), second.state_dict())


@pytest.mark.parametrize(("gates", "stored"), [("hard", 2), ("soft", 48)])
def test_stored_are_the_gates_and_the_head_of_each_task(gates, stored):
    method = made(gates=gates)
    before = method.parameters_stored()
    assert before == method.parameters_trained() == 36 * 24 + 24 + 24 * 24 + 24 + 50 + 48
    learn(method, 0, 1)
    # without the head and the embedding in training, which the next task sets anew
    assert method.parameters_stored() - before == 2 * (50 + stored) - 50 - 48


def test_more_tasks_than_a_byte_counts():
    method = made(n_tasks=300)
    learn(method, 0)
    for kept in (method.kept, method.gates, method.audit_own, method.audit_used):
        kept *= 256  # as if 255 tasks had kept the network of the first
    learn(method, 256)
    assert all(claim.contained for claim in method.audit()) and len(method.audit()) == 257


def test_a_task_that_finds_all_units_taken_trains_its_gates_and_head():
    method = made()
    learn(method, 0)
    method.gates[0] = pack(torch.ones(48, dtype=torch.bool))
    before = method.weights.detach().clone()
    learn(method, 1)
    assert torch.equal(method.weights, before) and torch.isfinite(logits(method)[1]).all()


@pytest.mark.parametrize("config", [
    {"optimizer": "adam", "gates": "soft"}, {"momentum": 1.0}, {"steepest": 0.5}, {"lam": -1.0}, {"clip": 0.0},
    {"clip_embedding": 0.0}, {"momentum": -0.1}, {"inference": "interval"},
])  # fmt: skip
def test_settings_that_cannot_be_meant(config):
    with pytest.raises(UserError, match="hat: "):
        HAT.Config(**config)


def test_settings_at_the_edge_of_what_is_permitted():
    assert HAT.Config(steepest=1.0, lam=0.0, clip=1e-3, clip_embedding=1e-3, momentum=0.99)


def test_networks_that_are_no_chain_are_skipped_with_the_reason():
    spec = StreamSpec("images", TIL, 2, 2, (3, 32, 32), "resnet-18")
    assert "resnet-18 is none: BatchNorm2d" in (HAT.skip(spec, HAT.Config()) or "")
    assert HAT.skip(dataclasses.replace(spec, network="alexnet-hat"), HAT.Config()) is None


# -- training ----------------------------------------------------------------------------------------


def slopes(annealing: Annealing, steps: int) -> Tensor:
    return torch.stack([annealing.slope(torch.tensor(float(step))) for step in range(steps)])


def test_the_slope_rises_in_every_epoch():
    paper = slopes(Annealing.over(8, samples=40, batch=10, steepest=4.0, schedule="paper"), 8)
    torch.testing.assert_close(paper, torch.tensor([0.25, 1.5, 2.75, 4.0] * 2))
    official = slopes(Annealing.over(8, samples=36, batch=10, steepest=4.0, schedule="official"), 8)
    positions = torch.tensor([0.0, 10.0, 20.0, 30.0] * 2) / 36
    torch.testing.assert_close(official, 0.25 + 3.75 * positions)


@pytest.mark.parametrize(("steps", "cycle"), [(3, 3), (10, 10), (11, 11), (25, 13), (1, 1)])
def test_training_of_no_whole_number_of_epochs_ends_with_a_steep_slope(steps, cycle):
    found = slopes(Annealing.over(steps, samples=100, batch=10, steepest=100.0, schedule="paper"), steps)
    assert found[-1] >= 100 * (1 - 1.5 / cycle) and found.max() <= 100
    assert steps == 1 or int((found == found.min()).sum()) == -(-steps // cycle)


def test_the_regulariser_is_the_mean_of_the_gates_of_units_that_are_left():
    gates = torch.tensor([0.5, 1.0, 0.25])
    assert occupancy(gates, torch.zeros(3)) == pytest.approx(1.75 / 3)
    assert occupancy(gates, torch.tensor([0.0, 1.0, 0.5])) == pytest.approx(0.625 / 1.5)
    assert occupancy(gates, torch.ones(3)) == 0


def test_compensated_gradients_are_those_of_a_gate_of_slope_one():
    e = torch.linspace(-6, 6, 25, dtype=torch.float64)
    for slope in (0.1, 1.0, 7.0):
        steep, plain = (slope * e).sigmoid(), e.sigmoid()
        found = (
            slope * steep * (-slope * e).sigmoid() * compensation(e, torch.tensor(slope, dtype=torch.float64), 400.0)
        )
        torch.testing.assert_close(found, 400.0 * plain * (1 - plain))
    assert torch.isfinite(compensation(torch.tensor([6.0]), torch.tensor(800.0), 800.0)).all()


def gradients_of(monkeypatch: pytest.MonkeyPatch, **config: Any) -> tuple[float, float]:
    """Norms of the last step's gradients: of weights and head, and of the embedding."""
    seen: list[list[float]] = []
    change = HAT.change_gradients

    def watched(method: HAT, optimizer: torch.optim.Optimizer, *rest: Any) -> None:
        change(method, optimizer, *rest)

        def look(*_: Any) -> None:
            parts = [p.grad.norm() for group in optimizer.param_groups for p in group["params"]]
            seen.append([float(torch.stack(parts[:-1]).norm()), float(parts[-1])])

        optimizer.register_step_pre_hook(look)

    monkeypatch.setattr(HAT, "change_gradients", watched)
    learn(made(**config), 0)
    return seen[-1][0], seen[-1][1]


def test_one_norm_of_all_gradients_is_limited_or_two(monkeypatch):
    free = gradients_of(monkeypatch)
    assert free[1] > 0.02
    together = gradients_of(monkeypatch, clip=0.01)
    assert together[0] ** 2 + together[1] ** 2 == pytest.approx(1e-4, rel=1e-3)
    weights, embedding = gradients_of(monkeypatch, clip=0.01, clip_embedding=0.02)
    assert weights == pytest.approx(0.01, rel=1e-3) and embedding == pytest.approx(0.02, rel=1e-3)


def test_the_embedding_stays_within_six():
    method = made(lr=1e4, clip=1.0)
    learn(method, 0, steps=5)
    assert method.embedding.abs().max() == 6


# -- tables ------------------------------------------------------------------------------------------


def test_tables_by_hand():
    table = gate_table([torch.tensor([1.0, 0.4, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.6, 0.0])])
    expected = {"task": [0, 1], "open": [0.25, 0.5], "taken": [0.35, 0.65], "between": [0.25, 0.25]}
    assert all(table[key] == pytest.approx(values) for key, values in expected.items())
    units, weights = torch.tensor([1, 0], dtype=torch.bool), torch.tensor([1, 1, 0, 0, 0, 0, 0, 0], dtype=torch.bool)
    capacity = capacity_of_units([units], [weights])
    assert capacity["open"] == capacity["union"] == [0.25]
    assert capacity["bits"] == capacity["entropy"] == [1 / 32 / 4] and capacity["cap"] == [0.25 + 1 / 128]
    assert capacity["published"] == pytest.approx([0.25 + 0.22 / 128])


@pytest.mark.parametrize(
    ("gates", "names"), [("hard", {"gates", "mask-overlap", "capacity"}), ("soft", {"gates", "mask-overlap"})]
)
def test_tables_of_a_trained_method(gates, names):
    method = made(gates=gates)
    learn(method, 0, 1)
    tables = method.exhibits()
    assert set(tables) == names and len(tables["gates"]["task"]) == 2
    assert tables["gates"]["taken"][1] == pytest.approx(float(method.taken().mean()))
