"""The Fisher information and its variants: against brute force, closed forms and its definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from benchmarks.samples import Samples
from benchmarks.types import UserError
from methods.shared import fisher as fisher_module
from methods.shared.anchor import flatten, trainable
from methods.shared.fisher import Fisher, fisher, sum_over_samples
from tests.methods.golden import assert_close


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


def test_sampled_answers_are_drawn_from_the_networks_own_probabilities() -> None:
    """With answers that do not depend on x the information of the bias is p_c (1 - p_c)."""
    network, p = nn.Sequential(nn.Flatten(), nn.Linear(6, 3)).double(), torch.tensor([0.9, 0.08, 0.02]).double()
    with torch.no_grad():
        network[1].weight.zero_()
        network[1].bias.copy_(p.log() + 2.0)
    many = data(20_000)
    torch.manual_seed(0)
    sampled = fisher(network, many, lambda z: z, "sampled", 4)
    assert float((sampled[-3:] / (p * (1 - p)) - 1).abs().max()) < 0.1


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


def test_unknown_variant_of_fisher_is_refused() -> None:
    with pytest.raises(UserError, match="emprical"):
        fisher(networks()["in_place"], data(), lambda z: z, "emprical", 4)  # type: ignore[arg-type]


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
