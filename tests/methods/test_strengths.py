"""A strength per weight weighs a drift alike on networks of all sizes, and a published one is converted as said."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.catalogue import find
from benchmarks.types import CIL, DIL, TIL, Scenario, StreamSpec, UserError
from methods import registry
from methods.base import Method
from methods.hypernetworks.output_layer import FusedAdam
from methods.hypernetworks.stateless import FunctionalNetwork
from methods.networks import targets
from methods.shared import strengths
from tests.methods.regularised import tiny_tasks

BETA, MOVED = 0.3, 0.02
SMALL: dict[str, dict[str, Any]] = {
    "hnet": {"embedding": 3, "hidden": (4,), "chunk": 0, "look_ahead": False},
    "hnet-lstm": {"embedding": 3, "hidden": 4, "chunk": 40, "look_ahead": False},
    "hyperinterval": {"embedding": 3, "hidden": (4,)},
    "hypermask": {"embedding": 3, "hidden": (4,), "lam": 0.0, "masked_norm": False},
}
OTHERS = {"hypermask": {"lam": 300.0}}
CASES = [
    ("hnet", TIL, {}),
    ("hnet", DIL, {}),
    ("hnet", CIL, {"held_heads": "own"}),
    ("hnet", TIL, {"held_tasks": 1}),
    ("hnet-lstm", TIL, {}),
    ("hnet-lstm", CIL, {"held_heads": "own"}),
    ("hyperinterval", TIL, {}),
    ("hyperinterval", DIL, {}),
    ("hypermask", TIL, {}),
    ("hypermask", TIL, {"beta": 0.0, "lam": BETA}),
    ("hypermask", TIL, {"beta": 0.0, "lam": BETA, "norm": 2}),
]


def made(name: str, scenario: Scenario, network: str, dtype: torch.dtype = torch.float64, **options: Any) -> Method:
    spec, _ = tiny_tasks(scenario)
    cls: Any = registry.load(name)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return cls(replace(spec, network=network), cls.Config(**{**SMALL[name], "beta": BETA, **options}))
    finally:
        torch.set_default_dtype(default)


def loss_after(method: Any, change: Any) -> tuple[Any, list[Tensor]]:
    """The loss of task 1 as a function of nothing, with targets from before `change`; and its embedding to train."""
    method.tasks_seen = 2
    dtype = method.hypernetwork.output.weight.dtype
    _, tasks = tiny_tasks(method.spec.scenario)
    batch = tasks[1].train.batch(slice(0, 8))
    batch = batch._replace(x=batch.x.to(dtype))
    embedding = nn.Parameter(method.embeddings[1:2].detach().clone())
    if method.name in ("hnet", "hnet-lstm"):
        loss = method.loss(embedding, method.held(1))
    elif method.name == "hyperinterval":
        method.statistics = [{}, {}]
        loss = method.loss(1, embedding, nn.Parameter(method.shapes[1:2].clone()), 10)
    else:
        method.statistics, before = [{}, {}], method.remember(1)

        def loss(batch: Any) -> Tensor:
            return method.total(method.loss_terms(batch, 1, before, None), 1)

        embedding = method.embeddings
    with torch.no_grad():
        change(method)
    return lambda: loss(batch), [embedding]


def move(method: Any) -> None:
    """Every weight by MOVED: those that the hypernetwork makes, and HyperMask's own."""
    method.hypernetwork.output.bias += MOVED
    if method.name == "hypermask":
        method.weights += MOVED


def regulariser(method: Any) -> float:
    """What the drift of MOVED in each weight adds to the loss."""
    changed, _ = loss_after(method, move)
    with torch.no_grad():
        value = changed()
    zero = {option: 0.0 for option in ("beta", "lam") if hasattr(method.config, option)}
    with torch.no_grad():
        method.hypernetwork.output.bias -= MOVED
        if method.name == "hypermask":
            method.weights -= MOVED
    method.config = replace(method.config, strength_per="network", **zero)
    without, _ = loss_after(method, move)
    with torch.no_grad():
        return (value - without()).item()


@pytest.mark.parametrize(("name", "scenario", "options"), CASES)
def test_a_converted_strength_weighs_the_same_drift_alike_on_networks_of_two_sizes(name, scenario, options):
    """By hand: in the paper's form N MOVED^2 beta (of a norm: its own size), per weight MOVED^2 beta, whatever N is."""
    published, smaller = made(name, scenario, "mlp-30-20", **options), made(name, scenario, "mlp-7", **options)
    option = "lam" if options.get("lam") else "beta"
    here, there = (
        type(method).held_weights(method.spec, method.config)[option]  # type: ignore[attr-defined]
        for method in (smaller, published)
    )
    size = MOVED if option == "lam" else MOVED**2
    in_paper = regulariser(published)
    assert in_paper == pytest.approx(BETA * size * there, rel=1e-9)
    assert regulariser(smaller) == pytest.approx(BETA * size * here, rel=1e-9), "counts less on fewer weights"
    converted = {**options, "strength_per": "weight", option: strengths.per_weight(BETA, there)}
    for network in ("mlp-30-20", "mlp-7"):
        assert regulariser(made(name, scenario, network, **converted)) == pytest.approx(in_paper, rel=1e-9)


def gradients(method: Any) -> list[Tensor]:
    changed, trained = loss_after(method, move)
    return list(torch.autograd.grad(changed(), [*method.hypernetwork.parameters(), *trained]))


@pytest.mark.parametrize(("name", "scenario"), [("hnet", DIL), ("hyperinterval", TIL), ("hypermask", TIL)])
def test_gradients_are_those_of_the_papers_form_with_the_value_times_the_held_weights(name, scenario):
    plain = made(name, scenario, "mlp-7")
    held = type(plain).held_weights(plain.spec, plain.config)["beta"]  # type: ignore[attr-defined]
    per_weight = made(name, scenario, "mlp-7", strength_per="weight", beta=BETA * held)
    none = made(name, scenario, "mlp-7", beta=0.0)
    found, wanted, without = gradients(per_weight), gradients(plain), gradients(none)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(wanted[-2], without[-2], rtol=1e-3), "the regulariser pulls at the output layer"


def test_outputs_held_in_the_pass_and_outside_of_it_give_one_gradient_per_weight():
    """Plain targets lie in the fused pass; a kept network computes them outside of it."""
    options = {"strength_per": "weight", "beta": 50.0}
    fused = gradients(made("hnet", DIL, "mlp-7", **options))
    apart = gradients(made("hnet", DIL, "mlp-7", online_targets=True, **options))
    torch.testing.assert_close(fused, apart, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("name", "scenario"), [("hnet", DIL), ("hyperinterval", DIL), ("hypermask", TIL)])
def test_steps_inside_the_backward_pass_are_the_ordinary_ones(name, scenario):
    def trained(fused: bool) -> list[Tensor]:
        method: Any = made(name, scenario, "mlp-7", torch.float32, strength_per="weight", beta=50.0)
        changed, embedding = loss_after(method, move)
        everything = [*method.hypernetwork.parameters(), *embedding]
        if fused:
            small = [*method.hypernetwork.small_parameters(), *embedding]
            with FusedAdam(method.hypernetwork.output, small, 1e-2) as optimizer:
                _steps(changed, optimizer)
        else:
            _steps(changed, torch.optim.Adam(everything, 1e-2))
        return [p.detach() for p in everything]

    torch.testing.assert_close(trained(True), trained(False), rtol=1e-4, atol=1e-5)


def _steps(loss: Any, optimizer: Any) -> None:
    for _ in range(4):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


def test_look_ahead_uses_the_same_form():
    """With a rate of nothing the step ahead is none, and eq. 2 is the loss without look-ahead."""
    method: Any = made("hnet", DIL, "mlp-7", strength_per="weight", beta=50.0, look_ahead=True)
    method.tasks_seen = 2
    _, tasks = tiny_tasks(DIL)
    batch = tasks[1].train.batch(slice(0, 8))
    batch = batch._replace(x=batch.x.double())
    embedding, held = nn.Parameter(method.embeddings[1:2].clone()), method.held(1)
    method.hypernetwork.output.bias.data += MOVED
    still = torch.optim.Adam([*method.hypernetwork.parameters(), embedding], 0.0)
    ahead = method.look_ahead_loss(embedding, held, still)(batch)
    torch.testing.assert_close(ahead, method.loss(embedding, held)(batch), rtol=1e-9, atol=1e-12)


def mlp(*widths: int) -> int:
    return sum(a * b + b for a, b in pairwise(widths))


def test_published_networks_have_the_weights_that_a_hand_counts():
    for name, benchmark, scenario, wanted in [
        ("hyperinterval", "split-mnist", TIL, mlp(784, 400, 400, 2)),
        ("hypermask", "split-mnist", CIL, mlp(784, 400, 400, 2)),
        ("hnet", "split-mnist", TIL, mlp(784, 400, 400, 10)),
        ("hnet", "split-mnist", DIL, mlp(784, 400, 400, 2)),
        ("hyperinterval", "permuted-mnist-10", DIL, mlp(1024, 1000, 1000, 10)),
        ("hnet", "permuted-mnist-10", CIL, mlp(1024, 1000, 1000, 100)),
    ]:
        cls: Any = registry.load(name)
        assert cls.held_weights(find(benchmark).spec(scenario), cls.Config())["beta"] == wanted
    assert (mlp(784, 400, 400, 2), mlp(1024, 1000, 1000, 10)) == (475202, 2036010)


def test_held_are_batch_norms_weights_where_they_are_made_and_no_other_tasks_head_where_these_are_free():
    spec = find("split-cifar-100").spec(TIL, "resnet-8")
    hnet, interval, mask = (registry.load(name) for name in ("hnet", "hyperinterval", "hypermask"))
    network = targets.build("resnet-8", (3, 32, 32), 10)
    every = sum(p.numel() for p in network.parameters())
    norms = sum(p.numel() for m in network.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters())
    assert norms > 0
    config: Any = interval.Config()
    assert interval.held_weights(spec, config) == {"beta": every}  # type: ignore[attr-defined]
    assert mask.held_weights(spec, mask.Config()) == {"beta": every - norms, "lam": every - norms}  # type: ignore[attr-defined]
    own = hnet.held_weights(spec, hnet.Config(held_heads="own"))  # type: ignore[attr-defined]
    assert own == {"beta": every}, "of ten heads one is held, as if there were one head"
    method: Any = made("hnet", CIL, "mlp-7", held_heads="own")
    method.tasks_seen = 2
    counted = [int(row.sum()) for row in method.held(2).weights]
    assert counted == [method._held(method.target, method.spec, method.config)] * 2


def test_a_network_on_meta_draws_nothing_and_has_the_weights():
    before = torch.random.get_rng_state()
    network = FunctionalNetwork(targets.on_meta("mlp-7", (5,), 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert network.n_weights == mlp(5, 7, 2)


@pytest.mark.parametrize("name", SMALL)
def test_nonsense_is_refused(name):
    cls: Any = registry.load(name)
    with pytest.raises(UserError, match=r"beta = -1\.0 must not be negative"):
        cls.Config(beta=-1.0)
    spec = find("split-digits").spec(TIL)
    with pytest.raises(UserError, match=f'{name}: strength_per = "weight" needs a value per weight of beta'):
        cls.remarks(spec, cls.Config(strength_per="weight"), ())
    assert cls.remarks(spec, cls.Config(strength_per="weight", beta=300.0, **OTHERS.get(name, {})), ()) == []


def spec_of(network: str, benchmark: str = "permuted-mnist-10", scenario: Scenario = DIL) -> StreamSpec:
    return find(benchmark).spec(scenario, network)


def test_a_strength_in_the_papers_form_on_another_network_is_remarked_with_the_converted_value():
    cls: Any = registry.load("hyperinterval")
    config = cls.Config(beta=0.005)
    assert cls.remarks(spec_of("mlp-1000-1000"), config, ()) == []
    assert cls.remarks(spec_of("mlp-100-100"), config, ("beta",)) == [], "found on this very network"
    assert cls.remarks(spec_of("mlp-100-100", "permuted-digits"), config, ()) == [], "no paper has this benchmark"
    assert cls.remarks(spec_of("mlp-100-100"), cls.Config(beta=0.0), ()) == []
    (sentence,) = cls.remarks(spec_of("mlp-100-100"), config, ())
    there, here = mlp(1024, 1000, 1000, 10), mlp(1024, 100, 100, 10)
    assert f"{there:,}" in sentence and f"{here:,}" in sentence and "17.9 times less" in sentence
    assert f"beta = {0.005 * there / here:.4g}, or beta = {0.005 * there:.6g} with" in sentence
    converted = cls.Config(beta=0.005 * there, strength_per="weight")
    assert cls.remarks(spec_of("mlp-100-100"), converted, ()) == []
    (sentence,) = cls.remarks(spec_of("mlp-100-100"), cls.Config(beta=0.005, strength_per="weight"), ())
    assert "retains almost nothing" in sentence


def test_of_two_published_networks_the_one_with_the_given_value_is_compared_with():
    cls: Any = registry.load("hypermask")
    spec = spec_of("alexnet", "split-cifar-100", TIL)
    beta, lam = cls.remarks(spec, cls.Config(beta=0.01, lam=0.01), ())
    assert "resnet-20x2" in beta and "zenkenet" in lam and "times more" in lam
    assert len(cls.remarks(spec, cls.Config(beta=0.01, lam=0.01, norm=2), ())) == 1, "the papers' lam goes with p = 1"
    assert cls.remarks(replace(spec, network="zenkenet"), cls.Config(beta=0.01, lam=0.01), ()) == []


def test_a_value_that_was_found_with_own_heads_counts_those():
    """HNET's CIFAR runs hold an old task's own head: the weights of a ResNet-32 of ten outputs, not of sixty."""
    cls: Any = registry.load("hnet")
    paper = next(p for p in cls.published if p.network == "resnet-32")
    spec = spec_of("resnet-8", "split-cifar-100", TIL)
    assert paper.held(cls, spec, cls.Config()) == {"beta": 464_154}
    (sentence,) = cls.remarks(spec, cls.Config(beta=0.05, held_heads="own"), ())
    assert "464,154" in sentence and "beta = 23207.7 with strength_per" in sentence
