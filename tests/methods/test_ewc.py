"""EWC: parity with Avalanche and InterContiNet, the Fisher information, the algebra of its anchors."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from benchmarks.samples import Samples
from benchmarks.types import ALL_SCENARIOS, CIL, DIL, TIL, Scenario, UserError
from methods.ewc import EWC, OnlineEWC
from methods.finetune import Finetune
from methods.registry import load as load_method
from methods.shared import fisher as fisher_module
from methods.shared.anchor import Anchor, _Quadratic, flatten, trainable
from methods.shared.fisher import Fisher, fisher, sum_over_samples
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


# -- the Fisher information ------------------------------------------------------------------------


def brute_force(network: nn.Module, x: Tensor, weights: Tensor) -> Tensor:
    """mean over samples of sum over classes of weights[n, c] (d log p_c(x_n) / d theta)^2, one at a time."""
    parameters = trainable(network)
    total = torch.zeros_like(flatten(parameters))
    for n in range(len(x)):
        for c in range(weights.shape[1]):
            value = network(x[n : n + 1]).log_softmax(1)[0, c]
            gradients = torch.autograd.grad(value, parameters, materialize_grads=True, allow_unused=True)
            total += weights[n, c] * flatten(gradients) ** 2
    return total / len(x)


class Twice(nn.Module):
    """Calls one linear layer twice: here the gradient of a sample is not one outer product."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(self.inner(x.flatten(1)).tanh()).tanh())


class Sequence(nn.Module):
    """One linear layer over several positions of a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(3, 4), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x.view(-1, 2, 3)).relu().flatten(1))


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    in_place = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 3, bias=False))
    convolutional = nn.Sequential(
        nn.Conv2d(1, 4, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(8, 3)
    )
    frozen = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    frozen.get_parameter("1.weight").requires_grad_(False)
    all_networks = {"in_place": in_place, "convolutional": convolutional, "twice": Twice(), "frozen": frozen}
    return {name: network.double() for name, network in {**all_networks, "sequence": Sequence()}.items()}


def data(n: int = 11) -> Samples:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 1, 2, 3, generator=generator, dtype=torch.float64)
    return Samples(x, torch.arange(n), torch.arange(n) % 3, 0)


@pytest.mark.parametrize("name", list(networks()))
def test_per_sample_variants_equal_brute_force(name: str) -> None:
    network, samples = networks()[name].eval(), data()
    p = network(samples.x).softmax(1).detach()
    exact = fisher(network, samples, lambda z: z, "exact", 4)
    assert_close(exact, brute_force(network, samples.x, p), 1e-12, "exact")
    empirical = fisher(network, samples, lambda z: z, "empirical", 4)
    labels = nn.functional.one_hot(samples.labels, 3)
    assert_close(empirical, brute_force(network, samples.x, labels), 1e-12, "empirical")
    assert (exact >= 0).all() and exact.sum() > 0


@pytest.mark.parametrize("name", ["in_place", "convolutional"])
def test_does_not_depend_on_how_many_samples_go_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, samples = networks()[name], data()
    whole = fisher(network, samples, lambda z: z, "exact", 100)
    monkeypatch.setattr(fisher_module, "SAMPLES_AT_ONCE", 4)
    monkeypatch.setattr(fisher_module, "SCALARS_AT_ONCE", 150)
    assert_close(fisher(network, samples, lambda z: z, "exact", 1), whole, 1e-12)


def test_modes_of_modules_are_left_as_they_were() -> None:
    network = networks()["convolutional"].train()
    norm, dropout = network.get_submodule("1"), network.get_submodule("3")
    norm.eval()
    fisher(network, data(), lambda z: z, "exact", 4)
    assert network.training and dropout.training and not norm.training
    assert torch.equal(norm.get_buffer("running_mean"), torch.zeros(4, dtype=torch.float64))


def test_logistic_regression_has_the_closed_form() -> None:
    """F of the weight (c, i) is the mean of p_c (1 - p_c) x_i^2."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(6, 3)).double()
    samples = data(20)
    x, p = samples.x.flatten(1), network(samples.x).softmax(1).detach()
    curvature = p * (1 - p)
    expected = torch.cat([(curvature.t() @ x.square() / 20).flatten(), curvature.mean(0)])
    assert_close(fisher(network, samples, lambda z: z, "exact", 4), expected, 1e-12)


def test_sampled_fisher_has_the_exact_one_as_its_mean() -> None:
    network = networks()["in_place"]
    x = data(4).x
    many = Samples(x, torch.arange(4).repeat(5000), torch.zeros(20000, dtype=torch.int64), 0)
    exact = fisher(network, many, lambda z: z, "exact", 4, limit=None)
    sampled = fisher(network, many, lambda z: z, "sampled", 4)
    assert not torch.equal(exact, sampled)
    assert float((exact - sampled).abs().sum() / exact.sum()) < 0.05


def test_subsample_is_reproducible_and_of_the_asked_size() -> None:
    network, samples = networks()["in_place"], data(50)
    torch.manual_seed(3)
    first = fisher(network, samples, lambda z: z, "empirical", 4, limit=10)
    torch.manual_seed(3)
    assert torch.equal(first, fisher(network, samples, lambda z: z, "empirical", 4, limit=10))
    torch.manual_seed(3)
    rows = torch.randperm(50)[:10]
    labels = nn.functional.one_hot(samples.labels[rows], 3)
    assert_close(first, brute_force(network, samples.x[rows], labels), 1e-12)


def test_batch_gradients_shrink_the_fisher_with_the_batch_size() -> None:
    """Why strengths are not comparable between codes: 8 samples a batch lose about a factor 8."""
    network, samples = networks()["in_place"], data(256)
    empirical = fisher(network, samples, lambda z: z, "empirical", 8).sum()
    assert torch.allclose(fisher(network, samples, lambda z: z, "batched", 1).sum(), empirical)
    assert fisher(network, samples, lambda z: z, "batched", 8).sum() < empirical / 2


def test_absolute_values_are_summed_too() -> None:
    network, samples = networks()["in_place"], data(3)
    parameters = trainable(network)
    expected = torch.zeros_like(flatten(parameters))
    for n in range(3):
        value = network(samples.x[n : n + 1]).square().sum()
        expected += flatten(torch.autograd.grad(value, parameters)).abs()
    got = sum_over_samples(network, samples, lambda z, y: z.square().sum(1)[None], torch.abs)
    assert_close(got, expected, 1e-12)


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


def test_unknown_variant_of_fisher_is_refused() -> None:
    with pytest.raises(UserError, match="emprical"):
        fisher(networks()["in_place"], data(), lambda z: z, "emprical", 4)  # type: ignore[arg-type]


def test_golden_tensors_are_copies() -> None:
    arrays = load("interval")
    tensors(group(arrays, "ewc/task0"))["x"].zero_()
    assert arrays["ewc/task0/x"].any()


class Partly(nn.Module):
    """Of two heads only one answers; the other's Fisher information is zero."""

    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.used, self.unused, self.last = nn.Linear(6, 4), nn.Linear(6, 4), last

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        self.unused(x)
        return self.last(self.used(x).tanh())


@pytest.mark.parametrize("variant", ["exact", "empirical", "batched"])
@pytest.mark.parametrize("way", ["by layers", "by vmap"])
def test_what_no_answer_depends_on_has_no_importance(variant: Fisher, way: str) -> None:
    torch.manual_seed(0)
    last = nn.Linear(4, 3) if way == "by layers" else nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
    network = Partly(last).double()
    importance = fisher(network, data(), lambda z: z, variant, 4)
    sizes = [p.numel() for p in network.parameters()]
    used, bias, unused, unused_bias, *others = importance.split(sizes)
    assert not unused.any() and not unused_bias.any()
    assert used.any() and bias.any() and all(other.any() for other in others)


def test_nothing_stays_on_the_network() -> None:
    """A hook that stayed would keep the last batch in memory and take the next training for a probe."""
    network = networks()["in_place"]
    first = fisher(network, data(), lambda z: z, "exact", 4)
    assert not any(module._forward_hooks for module in network.modules())
    assert torch.equal(fisher(network, data(), lambda z: z, "exact", 4), first)


@pytest.mark.parametrize("limit", [None, 11, 12])
def test_where_all_samples_are_wanted_none_is_drawn(limit: int | None) -> None:
    samples, before = data(), torch.get_rng_state()
    assert fisher_module.draw(samples, limit) is samples
    assert torch.equal(torch.get_rng_state(), before)
