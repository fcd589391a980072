"""The schedule by validation loss: its rule, and what each method's training makes of it."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.catalogue import find
from benchmarks.stream import Stream, open_stream
from benchmarks.types import CIL, DIL, TIL, Budget, Scenario, UserError, ValidatedBudget
from methods import base, registry
from methods.base import Method, batch_order
from methods.intervals.interval import Interval
from methods.network_per_task import NetworkPerTask
from methods.networks import targets
from methods.shared import stepping
from methods.shared.optimizers import adam
from methods.shared.schedule import Schedule
from tests.methods.helpers import learn, made

RULE = ValidatedBudget(16, epochs=12, patience=2, divisor=4.0, lowest_rate=0.05)


def opened(scenario: Scenario, budget: Budget = RULE, network: str = "mlp-20") -> Stream:
    benchmark = dataclasses.replace(find("split-digits"), n_tasks=2, network=network)
    return open_stream(benchmark, scenario, 0, budget=budget)


def a_task(n: int = 32) -> SimpleNamespace:
    return SimpleNamespace(train=range(n), validation=range(1))


@pytest.mark.parametrize(
    ("losses", "rates", "kept"),
    [
        ([5, 4, 3, 2], [1, 1, 1, 1], 3),
        ([5, 6, 4, 6, 6], [1, 1, 1, 1, 0.25], 2),  # a gain resets the count
        ([5, 5, 5, 5], [1, 1, 0.25, 0.25], 0),  # an equal loss is no gain; the count begins anew after a division
        ([5, 6, 6, 6, 6, 6, 6], [1, 1, 0.25, 0.25, 0.0625, 0.0625], 0),  # the last would give 0.0156: the end
        ([float("nan"), 5, float("nan"), 6], [1, 1, 1, 0.25], 1),
        ([float("nan"), float("inf")], [1, 0.25], 1),  # nothing was judged: the last weights stay
    ],
)
@pytest.mark.parametrize("grouped", [True, False])
def test_the_rule(losses: list[float], rates: list[float], kept: int, grouped: bool) -> None:
    weights, other = torch.zeros(1), torch.zeros(1)
    optimizer = adam([weights.requires_grad_()], 1.0) if grouped else SimpleNamespace(lr=1.0)
    coming = iter(losses)
    schedule = Schedule(
        a_task(), RULE, 2 * len(losses), lambda: torch.tensor(next(coming)), optimizer, [] if grouped else [weights]
    )
    seen, ended = [], False
    for epoch in range(len(losses)):
        assert not ended
        with torch.no_grad():
            weights.fill_(epoch)
            other.fill_(epoch)
        ended = schedule.ends(2 * epoch + 2)
        seen.append(optimizer.param_groups[0]["lr"] if grouped else optimizer.lr)
    assert ended == (len(losses) == 7)
    assert seen[: len(rates)] == rates
    schedule.restore()
    assert weights.item() == kept and other.item() == len(losses) - 1


def test_the_highest_rate_of_all_groups_decides_and_all_are_divided() -> None:
    """The lower of two rates falls below the lowest permitted one at once, which ends nothing."""
    parameters = [torch.zeros(1, requires_grad=True) for _ in range(2)]
    optimizer = adam(parameters[:1], 1.0)
    optimizer.add_param_group({"params": parameters[1:], "lr": RULE.lowest_rate})
    schedule = Schedule(a_task(), RULE, 20, lambda: torch.tensor(1.0), optimizer)
    ended = [schedule.ends(2 * epoch) for epoch in range(1, 8)]
    assert ended == [False] * 6 + [True]
    assert [group["lr"] for group in optimizer.param_groups] == [0.0625, RULE.lowest_rate / 16]


def test_a_rate_as_low_as_the_lowest_is_still_used() -> None:
    """Training ends where the rate would fall below it: 1, 1/2, 1/4, and no 1/8."""
    budget = ValidatedBudget(16, epochs=9, patience=1, divisor=2.0, lowest_rate=0.25)
    optimizer = SimpleNamespace(lr=1.0)
    schedule = Schedule(a_task(), budget, 18, lambda: torch.tensor(1.0), optimizer)
    found = [(schedule.ends(2 * epoch), optimizer.lr) for epoch in range(1, 5)]
    assert found == [(False, 1.0), (False, 0.5), (False, 0.25), (True, 0.25)]


def test_it_is_judged_after_each_epoch_and_at_the_end() -> None:
    """33 samples in batches of 16 are three steps an epoch; the call may take eight."""
    judged = []
    schedule = Schedule(a_task(33), RULE, 8, lambda: judged.append(1) or torch.tensor(0.0), SimpleNamespace(lr=1.0))
    assert [schedule.next_look(done) for done in range(8)] == [3, 3, 3, 6, 6, 6, 8, 8]
    counts = []
    for done in range(1, 9):
        schedule.ends(done)
        counts.append(len(judged))
    assert counts == [0, 0, 1, 1, 1, 2, 2, 3]


def by_hand(stream: Stream, lr: float) -> tuple[list[torch.Tensor], int, list[float]]:
    """Finetuning on task 0 by the rule, written out; the weights, the steps taken and the rates."""
    task, method = stream.task(0), made("finetune", stream, lr=lr)
    method.begin(task)
    net, x, y = method.net, task.validation.x, task.validation.labels
    optimizer = adam(net.parameters(), lr)
    epoch = -(-len(task.train) // 16)
    order = batch_order(len(task.train), 16, task.order_seed, torch.device("cpu"))
    best, patience, kept, rates, steps = float("inf"), RULE.patience, [], [], 0
    for _ in range(RULE.epochs or 0):
        for _ in range(epoch):
            batch = task.train.batch(next(order))
            optimizer.zero_grad()
            cross_entropy(net(batch.x)[:, :2], batch.y).backward()
            optimizer.step()
        steps += epoch
        with torch.no_grad():
            loss = cross_entropy(net(x)[:, :2], y).item()
        rates.append(lr)
        if loss < best:
            best, patience, kept = loss, RULE.patience, [p.detach().clone() for p in net.parameters()]
            continue
        patience -= 1
        if patience <= 0:
            lr /= RULE.divisor
            if lr < RULE.lowest_rate:
                break
            patience = RULE.patience
            optimizer.param_groups[0]["lr"] = lr
    return kept, steps, rates


def test_fit_trains_as_the_rule_written_out() -> None:
    """The rate is far too high, so that it is lowered and training ends early."""
    stream = opened(TIL)
    weights, steps, rates = by_hand(stream, 0.5)
    most = RULE.steps_for(len(stream.task(0).train))
    assert steps < most and len(set(rates)) > 1, "the case has to divide the rate and to end early"
    method = made("finetune", stream, lr=0.5)
    learn(method, stream, [0])
    assert method.curve[-1].step == steps and method.curve[-1].steps == most
    assert all(torch.equal(a, b) for a, b in zip(weights, method.net.parameters(), strict=True))


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """True validation losses of every look; the schedule is told that each is worse than the one before."""
    seen: list[float] = []
    original = Schedule.__init__

    def spoilt(self: Schedule, task, budget, steps, judge, *rest) -> None:
        seen.clear()

        def worse() -> torch.Tensor:
            seen.append(float(judge()))
            return torch.tensor(float(len(seen)))

        original(self, task, budget, steps, worse, *rest)

    monkeypatch.setattr(Schedule, "__init__", spoilt)
    return seen


@pytest.fixture
def normed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every network is a small one with batch norm."""

    def build(name: str, input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
        n = torch.Size(input_shape).numel()
        return nn.Sequential(
            nn.Flatten(), nn.Linear(n, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, n_outputs)
        )

    monkeypatch.setattr(targets, "build", build)


SLOW = ValidatedBudget(64, epochs=2, patience=1, lowest_rate=1e-9)
HNETS = ({"look_ahead": False}, {"look_ahead": True}, {"look_ahead": True, "chunk": 0}, {"train_old_embeddings": True})
KEEPERS = [
    *((name, {}) for name in ("finetune", "ewc", "lwf", "si", "mas", "l2", "joint")),
    *(("hnet", {"embedding": 8, "chunk_embedding": 8, **settings}) for settings in HNETS),
    ("gpm", {}),
    ("separate", {}),
    ("wsn", {}),
    ("packnet", {"retrain_share": 2 / 3}),  # two looks in the second phase
    ("supsup", {"lr": 0.01}),
    ("hypermask", {"embedding": 8, "adaptive_sparsity": False, "chunk": 0}),
]


@pytest.mark.parametrize("scenario", [TIL, DIL, CIL])
@pytest.mark.parametrize(("name", "settings"), KEEPERS, ids=str)
def test_what_is_kept_is_all_that_answers(
    name: str, settings: dict, scenario: Scenario, losses: list[float], normed: None
) -> None:
    """After training the loss is that of the best epoch, here the first, with batch norm and with a second task."""
    stream = opened(scenario, SLOW)
    method = made(name, stream, **settings)
    learn(method, stream, [0])
    assert len(losses) == SLOW.epochs and len(set(losses)) == len(losses)
    assert loss_of(method, stream, 0) == pytest.approx(losses[0], rel=1e-5)
    learn(method, stream, [1])
    if scenario is TIL and name != "joint":
        assert loss_of(method, stream, 1) == pytest.approx(losses[0], rel=1e-5)
    if isinstance(method, NetworkPerTask):
        assert loss_within(method, stream, 1) == pytest.approx(losses[0], rel=1e-5), "whatever the inference chooses"
    if name == "joint":
        parts = [loss_of(method, stream, j) for j in (0, 1)]
        assert sum(parts) / 2 == pytest.approx(losses[0], rel=1e-5), "old tasks are validated too"


@pytest.mark.parametrize("name", ["finetune", "wsn"])
def test_the_loss_is_the_mean_over_samples_whatever_the_batches(
    name: str, losses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty samples, seven at once, and two of them in the last batch."""
    monkeypatch.setattr("methods.shared.schedule.VALIDATION_BATCH", 7)
    stream = opened(TIL, SLOW)
    assert len(stream.task(0).validation) == 30
    method = made(name, stream)
    learn(method, stream, [0])
    assert loss_of(method, stream, 0) == pytest.approx(losses[0], rel=1e-5)


def test_lid_goes_on_in_the_box_of_the_weights_kept(losses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two boxes apart, the weights of the first epoch lie in one and those of the second in the other."""
    stream = opened(DIL, SLOW)
    method: Any = made("lid", stream, choose="closest", last_region=False)
    learn(method, stream, [0])
    theta, calls = method.model.centres(), []
    method._enter([Interval(theta + 0.1 * i, theta + 0.1 * i + 0.05) for i in (0, 1)])
    epoch = -(-len(stream.task(1).train) // SLOW.batch_size)

    def clipped(weights: Tensor, boxes: Interval, *_: object) -> tuple[Tensor, Tensor]:
        calls.append(len(calls) >= epoch)
        return weights.clamp(boxes.lower[int(calls[-1])], boxes.upper[int(calls[-1])]), torch.tensor(int(calls[-1]))

    monkeypatch.setattr("methods.lid.project", clipped)
    learn(method, stream, [1])
    assert len(losses) == SLOW.epochs and len(calls) == epoch * len(losses)
    assert torch.equal(method.model.lower, theta) and not method.model.astray()


def test_the_path_of_si_ends_where_the_weights_kept_lie(losses: list[float]) -> None:
    """Training without the second epoch, whose weights are not kept, has the same importance (Zenke et al., eq. 5)."""
    once = ValidatedBudget(SLOW.batch_size, epochs=1, patience=1, lowest_rate=1e-9)
    found = []
    for budget in (SLOW, once):
        method = made("si", opened(TIL, budget))
        learn(method, opened(TIL, budget), [0])
        assert len(losses) == budget.epochs
        found.append(method.anchor.importance)
    assert torch.equal(*found) and found[0].any()


def loss_of(method: Method, stream: Stream, j: int) -> float:
    samples = stream.task(j).validation
    with torch.no_grad():
        return cross_entropy(
            method.predict(samples.x, j if stream.spec.scenario is TIL else None), samples.labels
        ).item()


def loss_within(method: NetworkPerTask, stream: Stream, j: int) -> float:
    """Loss of the network that the method trained on a task, within the task."""
    samples = stream.task(j).validation
    with torch.no_grad():
        logits = method.of_task(method.logits(samples.x, j), j)
        return cross_entropy(logits, method.within_task(samples.labels, j)).item()


@pytest.mark.parametrize("name", ["finetune", "intercontinet"])
def test_looks_leave_the_mode_of_networks_and_their_statistics_alone(name: str, normed: None) -> None:
    """One epoch: the looks at its end are the only difference from a plain budget."""
    trained = []
    for budget in (Budget(16, epochs=1), ValidatedBudget(16, epochs=1)):
        stream = opened(TIL, budget)
        method = made(name, stream)
        learn(method, stream, [0, 1])
        trained.append(
            [t.clone() for t in method.state_dict()[{"finetune": "net", "intercontinet": "model"}[name]].values()]
        )
    assert all(torch.equal(a, b) for a, b in zip(*trained, strict=True))


def test_the_rate_of_a_captured_step_follows_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording holds the rate at which it was made; a lower rate needs a new one."""
    rates: list[float] = []

    def record(body):
        (optimizer,) = optimizers
        rates.append(optimizer.param_groups[0]["lr"])
        return body

    optimizers: list[torch.optim.Optimizer] = []
    monkeypatch.setattr(base, "adam", lambda parameters, lr: optimizers.append(adam(parameters, lr)) or optimizers[0])
    monkeypatch.setattr(stepping, "recorder_for", lambda device: record)
    stream = opened(TIL)
    trained = made("finetune", stream, lr=0.5)
    learn(trained, stream, [0])
    assert trained.stepped == "captured"
    assert rates == sorted(set(rates), reverse=True) and rates[:2] == [0.5, 0.125]


@pytest.mark.parametrize("scenario", [TIL, CIL])
def test_intercontinet_schedules_its_middle_and_contracts_in_full(scenario: Scenario, losses: list[float]) -> None:
    """Phase 1 ends after its second epoch, with the first one's weights; phase 2 takes all its steps around them."""
    budget = ValidatedBudget(16, epochs=12, patience=1, lowest_rate=10.0)
    stream = opened(scenario, budget)
    method = made("intercontinet", stream)
    task = stream.task(0)
    most, epoch = budget.steps_for(len(task.train)), -(-len(task.train) // 16)
    method.begin(task)
    method.learn(task)
    steps = [point.step for point in method.curve]
    assert [step for step in steps if step <= most // 2] == [epoch, 2 * epoch]
    assert (
        steps[-1] == most and min(step for step in steps if step > most // 2) <= most // 2 + base.STEPS_BETWEEN_CHECKS
    )
    assert loss_of(method, stream, 0) == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("hyperinterval", {}),
        ("hyperinterval", {"select": "last"}),
        ("hypermask", {"selection": "val"}),
        ("hypermask", {"plateau": True}),
        ("wsn", {"selection": "val"}),
        ("packnet", {"selection": "val"}),
        ("supsup", {"selection": "val"}),
        ("supsup", {"schedule": "cosine"}),
        ("hat", {"selection": "val"}),
    ],
)
def test_a_rule_of_the_method_replaces_the_schedule(name: str, settings: dict) -> None:
    """It would end training at once; what the method does is what it does under a plain budget."""
    answers = []
    for budget in (Budget(16, epochs=2), ValidatedBudget(16, epochs=2, patience=1, lowest_rate=10.0)):
        stream = opened(TIL, budget)
        method = made(name, stream, **settings)
        learn(method, stream, [0, 1])
        assert method.curve[-1].step == method.curve[-1].steps
        with torch.no_grad():
            answers.append(method.predict(stream.test(0).x, 0))
    assert torch.equal(*answers)


def test_without_validation_samples_it_is_refused() -> None:
    benchmark = dataclasses.replace(find("split-digits"), n_tasks=2, validation=0, network="mlp-20")
    stream = open_stream(benchmark, TIL, 0, budget=RULE)
    with pytest.raises(UserError, match="schedule by validation loss, but this stream has no validation samples"):
        learn(made("finetune", stream), stream, [0])


def test_avalanche_refuses_it() -> None:
    cls = registry.load("avalanche:Naive")
    stream = opened(TIL)
    method = cls(stream.spec, cls.Config())
    with pytest.raises(UserError, match="schedule by validation loss, which Avalanche's training loop does not follow"):
        learn(method, stream, [0])
