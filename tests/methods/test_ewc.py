"""EWC: parity with Avalanche and InterContiNet, and the algebra of its anchors."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from benchmarks.types import ALL_SCENARIOS, CIL, DIL, TIL, Scenario, UserError
from methods.ewc import EWC, OnlineEWC
from methods.finetune import Finetune
from methods.registry import load as load_method
from methods.shared.anchor import Anchor, _Quadratic, flatten, trainable
from tests.methods import regularised
from tests.methods.golden import assert_close, group, load, tensors
from tests.methods.regularised import learn_all, parameters_of, tiny_tasks, vector

SCENARIOS = sorted(ALL_SCENARIOS)


# -- parity ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["base_ewc", "base_oewc"])
def test_intercontinet_baseline(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = load("interval")
    recorded = group(arrays, f"icn/{name}")
    config = EWC.Config(
        lr=float(arrays["icn/base/lr"]),
        strength=float(recorded["lambda"]),
        mode="online" if name == "base_oewc" else "separate",
        decay=float(recorded["decay"]),
        fisher="intercontinet",
        optimizer="sgd",
    )
    run = regularised.intercontinet_baseline(EWC, config)
    assert isinstance(run.method, EWC)
    for j in regularised.check_run(run, recorded, arrays["icn/base_log_columns"], monkeypatch):
        stored = vector(group(recorded, f"importance{j}"))
        got = run.method.anchor.importance if config.mode == "online" else run.method.importance(run.tasks[j])
        assert_close(got, stored, 1e-6, f"importance {j}")


@pytest.mark.parametrize("mode", ["separate", "online"])
def test_avalanche(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = group(load("interval"), "ewc")
    recorded = group(arrays, mode)
    decay = float(recorded["decay"])
    config = EWC.Config(
        lr=float(arrays["lr"]),
        strength=float(recorded["lambda"]),
        mode=mode,  # type: ignore[arg-type]
        decay=1.0 if math.isnan(decay) else decay,
        fisher="avalanche",
        optimizer="sgd",
    )
    run = regularised.avalanche_ewc(EWC, config)
    method = run.method
    assert isinstance(method, EWC)
    for j in regularised.check_run(run, recorded, arrays["log_columns"], monkeypatch):
        stored = vector(group(recorded, f"importance{j}"))
        got = method.anchor.importance if mode == "online" else method.importance(run.tasks[j])
        assert_close(got, stored, 1e-6, f"importance {j}")

    parameters = trainable(method.net)
    nn.utils.vector_to_parameters(vector(group(recorded, "penalty_at")), parameters)
    penalty = method.factor * method.anchor.penalty()
    assert_close(penalty.detach(), recorded["penalty_times_lambda"], 1e-6, "penalty")
    gradient = flatten(torch.autograd.grad(penalty, parameters))
    assert_close(gradient, vector(group(recorded, "penalty_grad")), 1e-6, "penalty's gradient")


@pytest.mark.parametrize(("mode", "j"), [("separate", 0), ("separate", 1), ("separate", 2), ("online", 0)])
def test_batched_importance_at_recorded_parameters(mode: str, j: int) -> None:
    """A single evaluation, so the tight tolerance (online: before anything accumulates)."""
    arrays = group(load("interval"), "ewc")
    run = regularised.avalanche_ewc(EWC, EWC.Config(fisher="avalanche"))
    assert isinstance(run.method, EWC)
    nn.utils.vector_to_parameters(vector(group(arrays, f"{mode}/end{j}")), trainable(run.method.net))
    importance = run.method.importance(run.tasks[j])
    assert_close(importance, vector(group(arrays, f"{mode}/importance{j}")), 1e-9)


@pytest.mark.parametrize("j", range(3))
def test_intercontinet_importance_at_recorded_parameters(j: int) -> None:
    recorded = group(load("interval"), "icn/base_ewc")
    run = regularised.intercontinet_baseline(EWC, EWC.Config(fisher="intercontinet"))
    assert isinstance(run.method, EWC)
    nn.utils.vector_to_parameters(vector(group(recorded, f"end{j}")), trainable(run.method.net))
    assert_close(run.method.importance(run.tasks[j]), vector(group(recorded, f"importance{j}")), 1e-9)


# -- anchors ---------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(0, 2**31))
def test_many_anchors_are_one_quadratic(n_terms: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    network = nn.Linear(3, 2).double()
    anchor = Anchor(network)

    def place() -> Tensor:
        theta = torch.randn(8, generator=generator, dtype=torch.float64)
        nn.utils.vector_to_parameters(theta, network.parameters())
        return theta

    terms = []
    for _ in range(n_terms):
        importance = torch.randn(8, generator=generator, dtype=torch.float64).clamp(min=0)
        terms.append((importance, place()))
        anchor.add(importance)
    theta = place().requires_grad_()
    direct = torch.stack([(f * (theta - centre).square()).sum() for f, centre in terms]).sum()
    penalty = anchor.penalty()
    assert_close(penalty.detach(), direct.detach(), 1e-12)
    (expected,) = torch.autograd.grad(direct, theta)
    assert_close(flatten(torch.autograd.grad(3 * penalty, trainable(network))), 3 * expected, 1e-12)


def test_penalty_gradient_by_finite_differences() -> None:
    network = nn.Linear(3, 2).double()
    anchor = Anchor(network)
    anchor.move(torch.rand(8, dtype=torch.float64))
    inputs = [torch.randn_like(p, requires_grad=True) for p in network.parameters()]
    assert torch.autograd.gradcheck(lambda *p: _Quadratic.apply(anchor.importance, anchor.centre, *p), inputs)


# -- the method ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_strength_zero_is_finetuning(scenario: Scenario) -> None:
    spec, tasks = tiny_tasks(scenario)
    ewc, finetune = EWC(spec, EWC.Config(strength=0.0)), Finetune(spec)
    learn_all(ewc, tasks)
    learn_all(finetune, tasks)
    assert torch.equal(parameters_of(ewc), parameters_of(finetune))


@pytest.mark.parametrize(
    ("variant", "share"),
    [("exact", 0.5), ("empirical", 0.5), ("batched", 0.5), ("avalanche", 1.0), ("intercontinet", 1.0)],
)
def test_the_penalty_is_the_papers_equation_3(variant: str, share: float) -> None:
    """CE + lambda/2 sum_k sum_i F_ki (theta_i - theta_ki)^2, term by term; both official codes leave out the 1/2."""
    spec, tasks = tiny_tasks(TIL)
    strength = 3.0
    method = EWC(spec, EWC.Config(strength=strength, fisher=variant))  # type: ignore[arg-type]
    terms = []
    for task in tasks[:2]:
        learn_all(method, [task])
        terms.append((method.importance(task), parameters_of(method)))
    method.begin(tasks[2])
    moved = parameters_of(method) + torch.randn(len(terms[0][1]), generator=torch.Generator().manual_seed(0))
    nn.utils.vector_to_parameters(moved, trainable(method.net))
    batch = tasks[2].train.batch(slice(0, 8))
    error = nn.functional.cross_entropy(method.answerable(method.net(batch.x), 2), batch.y)
    penalty = sum((importance * (moved - theta).square()).sum() for importance, theta in terms)
    assert penalty > 0.01 * error
    torch.testing.assert_close(method.loss(batch), error + share * strength * penalty, rtol=1e-4, atol=1e-5)


def test_the_information_is_that_of_as_many_samples_as_are_asked_for() -> None:
    """F of seven drawn samples at their labels, one after the other."""
    spec, tasks = tiny_tasks(DIL, n_tasks=1, steps=5)
    method = EWC(spec, EWC.Config(fisher="empirical", fisher_samples=7))
    learn_all(method, tasks)
    torch.manual_seed(3)
    found = method.importance(tasks[0])
    torch.manual_seed(3)
    rows, parameters = torch.randperm(48)[:7], trainable(method.net)
    errors = [nn.functional.cross_entropy(method.net(tasks[0].x[i][None]), tasks[0].y[i][None]) for i in rows]
    each = [flatten(torch.autograd.grad(error, parameters)).square() for error in errors]
    assert_close(found, torch.stack(each).mean(0), 1e-5)


@pytest.mark.parametrize("cls", [EWC, OnlineEWC])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_important_parameters_move_less(cls: type[EWC], scenario: Scenario) -> None:
    spec, tasks = tiny_tasks(scenario, n_tasks=2)
    moved = []
    for strength in (0.0, 1e5):
        method = cls(spec, cls.Config(strength=strength))
        learn_all(method, tasks[:1])
        before, importance = parameters_of(method), method.anchor.importance.clone()
        learn_all(method, tasks[1:])
        moved.append(float((importance * (parameters_of(method) - before).square()).sum()))
    assert moved[1] < 0.05 * moved[0]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_heads_of_other_tasks_are_free(scenario: Scenario) -> None:
    spec, tasks = tiny_tasks(scenario)
    method = EWC(spec)
    learn_all(method, tasks[:2])
    weight, bias = method.anchor.importance[48:].split((8 * spec.n_outputs, spec.n_outputs))
    expected = {TIL: [False] * 4 + [True] * 2, CIL: [False] * 4 + [True] * 2, DIL: [False] * 2}[scenario]
    assert (bias == 0).tolist() == expected
    assert (weight.view(spec.n_outputs, 8)[bias == 0] == 0).all()


@pytest.mark.parametrize("cls", [EWC, OnlineEWC])
def test_going_on_from_a_checkpoint_changes_nothing(cls: type[EWC]) -> None:
    spec, tasks = tiny_tasks(TIL)
    straight, first, second = cls(spec), cls(spec), cls(spec, seed=9)
    learn_all(straight, tasks)
    learn_all(first, tasks[:2])
    second.load_state_dict(first.state_dict())
    second.seed = first.seed
    learn_all(second, tasks[2:])
    assert torch.equal(parameters_of(straight), parameters_of(second))
    assert torch.equal(straight.anchor.importance, second.anchor.importance)


def test_what_is_stored_does_not_grow_with_the_tasks() -> None:
    spec, tasks = tiny_tasks(TIL)
    method = EWC(spec)
    learn_all(method, tasks[:1])
    stored = method.parameters_stored()
    learn_all(method, tasks[1:])
    assert method.parameters_stored() == stored == 3 * method.parameters_trained() + 1


def test_registered_by_name() -> None:
    assert load_method("ewc") is EWC and load_method("ewc-online") is OnlineEWC
    assert EWC.Config().mode == "separate" and OnlineEWC.Config().mode == "online"
    assert OnlineEWC.name == "ewc-online" and EWC.name == "ewc"


@pytest.mark.parametrize("wrong", [{"strength": -1.0}, {"decay": 1.5}, {"fisher_samples": 0}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        EWC.Config(**wrong)  # type: ignore[arg-type]


def test_golden_tensors_are_copies() -> None:
    arrays = load("interval")
    tensors(group(arrays, "ewc/task0"))["x"].zero_()
    assert arrays["ewc/task0/x"].any()
