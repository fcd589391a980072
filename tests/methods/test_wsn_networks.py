"""The networks of HAT, GPM and WSN, and InterContiNet's AlexNet: sizes, layers, bounds, and the forms of weights."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.func import functional_call

from benchmarks.catalogue import HeldOut, find
from benchmarks.data import DataSet
from benchmarks.stream import Stream
from benchmarks.types import CIL, TIL, Budget, UserError
from methods import registry
from methods.hypernetworks.stateless import FunctionalNetwork
from methods.intervals.boundable import unbounded
from methods.intervals.bounding import Interval, propagate
from methods.networks import targets
from methods.networks.convolutional import AlexNet
from methods.shared.maskable import MaskableNetwork
from tests.methods.helpers import learn, made

SHAPES = {
    "mlp-100-100-nobias": (784,),
    "alexnet-hat": (3, 32, 32),
    "alexnet-hat-bias": (3, 32, 32),
    "alexnet-hat-norm": (3, 32, 32),
    "alexnet-dropout": (3, 32, 32),
    "lenet-20-50": (3, 32, 32),
    "tinynet": (3, 64, 64),
}
ALEXNET = 64 * 3 * 16 + 128 * 64 * 9 + 256 * 128 * 4 + 1024 * 2048 + 2048 * 2048
DROPOUT = 64 * 3 * 9 + 192 * 64 * 9 + 384 * 192 * 9 + 256 * 384 * 9 + 256 * 256 * 9 + 1024 * 4096 + 4096 * 4096
LENET = 20 * 3 * 25 + 50 * 20 * 25 + 50 * 8 * 8 * 800 + 800 * 500
TINYNET = 160 * 3 * 9 + 3 * 160 * 160 * 9 + 160 * 4 * 4 * 640 + 640 * 640


@pytest.mark.parametrize(
    ("name", "n_outputs", "weights"),
    [
        ("mlp-100-100-nobias", 10, 784 * 100 + 100 * 100 + 100 * 10),
        ("alexnet-hat", 10, ALEXNET + 2048 * 10),
        ("alexnet-hat-bias", 10, ALEXNET + 2048 * 10 + 64 + 128 + 256 + 2048 + 2048 + 10),
        ("alexnet-hat-norm", 10, ALEXNET + 2048 * 10),
        ("alexnet-dropout", 10, DROPOUT + 64 + 192 + 384 + 256 + 256 + 4096 + 4096 + 4096 * 10 + 10),
        ("lenet-20-50", 5, LENET + 500 * 5),
        ("tinynet", 5, TINYNET + 640 * 5),
    ],
)
def test_number_of_weights(name: str, n_outputs: int, weights: int) -> None:
    network = targets.build(name, SHAPES[name], n_outputs)
    assert sum(p.numel() for p in network.parameters()) == weights
    assert any(key.endswith("bias") for key, _ in network.named_parameters()) == name.endswith(("-bias", "-dropout"))
    assert bool(list(network.buffers())) == name.endswith("-norm")


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("alexnet-hat", "CRDP CRDP CRDP LRD LRD L"),
        ("alexnet-hat-norm", "CNRDP CNRDP CNRDP LNRD LNRD L"),
        ("alexnet-dropout", "CRP CRP CR CR CRP F DLR DLR L"),
        ("lenet-20-50", "CRP CRP LR LR L"),
        ("tinynet", "CR CR CR CR LR LR L"),
    ],
)
def test_order_of_layers(name: str, kinds: str) -> None:
    letters = {nn.Conv2d: "C", nn.ReLU: "R", nn.Dropout: "D", nn.MaxPool2d: "P", nn.Linear: "L"}
    letters |= {nn.BatchNorm1d: "N", nn.BatchNorm2d: "N", nn.Flatten: "F"}
    network = targets.build(name, SHAPES[name], 5)
    leaves = [module for module in network.modules() if not list(module.children())]
    assert "".join(letters[type(leaf)] for leaf in leaves) == kinds.replace(" ", "")
    shares = [leaf.p for leaf in leaves if isinstance(leaf, nn.Dropout)]
    expected = [0.5, 0.5] if name == "alexnet-dropout" else [0.2, 0.2, 0.5, 0.5, 0.5]
    assert shares == (expected if name.startswith("alexnet") else [])


def by_hand(name: str, w: list[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The network in evaluation mode, from its published description."""
    scale = 1.0
    if name in ("alexnet-hat", "alexnet-hat-norm"):
        scale = (1 + 1e-5) ** -0.5 if name.endswith("norm") else 1.0  # statistics before any batch: mean 0, variance 1
        for kernel in w[:3]:
            x = nn.functional.max_pool2d(nn.functional.conv2d(x, kernel).mul(scale).relu(), 2, 2)
        w = w[3:]
    elif name == "lenet-20-50":
        for kernel in w[:2]:
            x = nn.functional.max_pool2d(nn.functional.conv2d(x, kernel, padding=2).relu(), 3, 2, 1)
        w = w[2:]
    elif name == "tinynet":
        for kernel in w[:4]:
            x = nn.functional.conv2d(x, kernel, stride=2, padding=1).relu()
        w = w[4:]
    first, second, head = w
    return scale**2 * ((x.flatten(1) @ first.T).relu() @ second.T).relu() @ head.T


@pytest.mark.parametrize("name", [name for name in SHAPES if not name.endswith(("-bias", "-dropout"))])
def test_answers_are_those_written_out_in_every_form(name: str) -> None:
    """Its own weights, flat weights of a hypernetwork, and flat weights under a mask."""
    torch.manual_seed(0)
    network = targets.build(name, SHAPES[name], 3).eval()
    x = torch.randn(2, *SHAPES[name])
    weights = [p.detach().clone() for p in network.parameters()]
    with torch.no_grad():
        expected = by_hand(name, weights, x)
        flat = torch.cat([w.flatten() for w in weights])
        functional = FunctionalNetwork(targets.build(name, SHAPES[name], 3))
        maskable = MaskableNetwork(targets.build(name, SHAPES[name], 3))
        assert functional.n_weights == sum(maskable.sizes) == len(flat)
        for logits in (
            network(x),
            functional(flat, x),
            maskable(flat, torch.empty(0), maskable.first_statistics, x, training=False),
            functional_call(network, dict(zip(dict(network.named_parameters()), weights, strict=True)), (x,)),
        ):
            torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_no_network_in_the_box_leaves_the_bounds(name: str, signed: bool) -> None:
    torch.manual_seed(0)
    assert unbounded("a method", spec(name)) is None
    target = FunctionalNetwork(targets.build(name, SHAPES[name], 3).double().eval())
    network = targets.build(name, SHAPES[name], 3)
    middle = torch.cat([p.detach().flatten() for p in network.parameters()]).double()
    radius = 1e-3 * torch.rand_like(middle)
    x = torch.rand(2, *SHAPES[name], dtype=torch.float64) - (0.5 if signed else 0.0)
    with torch.no_grad():
        bounds = target.bounds(middle - radius, middle + radius, x, not signed, rounded=True)
        assert (bounds.lower < bounds.upper).all()
        for _ in range(4):
            logits = target(middle + radius * torch.randn_like(radius).sign(), x)
            assert (logits >= bounds.lower).all() and (logits <= bounds.upper).all()


def spec(name: str):
    benchmark = dataclasses.replace(
        find("split-cifar-100-wsn"), stored_shape=(3, 64, 64) if name == "tinynet" else (3, 32, 32)
    )
    return dataclasses.replace(benchmark.spec(TIL, name), input_shape=SHAPES[name])


def test_overlapping_pools_keep_an_interval_of_inputs_sound() -> None:
    torch.manual_seed(0)
    network = targets.build("lenet-20-50", (3, 32, 32), 3).double().eval()
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    bounds = propagate(network, {}, Interval(x - 0.1, x + 0.1), rounded=True)
    with torch.no_grad():
        for _ in range(10):
            logits = network(x + 0.1 * torch.randn_like(x).sign())
            assert (logits >= bounds.lower).all() and (logits <= bounds.upper).all()


@pytest.mark.parametrize(
    ("name", "shape"),
    [("alexnet-hat", (3, 8, 8)), ("alexnet-hat", (64,)), ("lenet-20-50", (3, 32, 30)), ("tinynet", (3, 0, 0))],
)
def test_inputs_that_will_not_do(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=f"network {name}: inputs must be square images, large enough for it, not "):
        targets.build(name, shape, 3)


@pytest.mark.parametrize("name", ["mlp-nobias", "alexnet-hat-nobias", "lenet-20-50-bias", "tinynet-bias"])
def test_names(name: str) -> None:
    if name == "mlp-nobias":
        assert [p.shape for p in targets.build(name, (4,), 3).parameters()] == [(3, 4)]
    else:
        with pytest.raises(UserError, match="unknown network"):
            targets.build(name, (3, 32, 32), 3)


SIGNED = dataclasses.replace(
    find("split-digits"), n_tasks=2, stored_shape=(3, 16, 16), validation=10, held_out=HeldOut.FIRST
)
SMALLER = {"hnet": {"chunk": 5000}, "hyperinterval": {"chunk": 5000, "eps": 0.1}, "hypermask": {"chunk": 5000}}
NATIVE = [name for name, info in registry.available().items() if info.scenarios and ":" not in name]


@pytest.mark.parametrize("name", NATIVE)
def test_every_method_learns_without_biases(name: str) -> None:
    """Standardised inputs of any sign: what is certified is so for every network of the box."""
    torch.manual_seed(0)
    labels = torch.arange(80) % 4
    images = torch.randn(80, 3, 16, 16)
    benchmark = dataclasses.replace(SIGNED, budget=Budget(8, steps=4), network="mlp-30-30-nobias")
    stream = Stream(benchmark, benchmark.spec(CIL), 0, DataSet("own", images, labels, images, labels))
    assert not stream.spec.nonnegative_inputs
    if CIL not in registry.available()[name].scenarios:
        pytest.skip("not defined in CIL")
    method = made(name, stream, **SMALLER.get(name, {}))
    learn(method, stream, [0, 1])
    x = stream.test(1).x
    with torch.no_grad():
        logits = method.predict(x)
        assert logits.shape == (len(x), 4) and torch.isfinite(logits).all()
        if hasattr(method, "sampled"):
            lower, upper = method.bounds(x, 1)
            drawn = method.sampled(x, 1)
            slack = 1e-4 * (1 + lower.abs().maximum(upper.abs()))
            assert ((drawn >= lower - slack) & (drawn <= upper + slack)).all()


def test_intercontinets_alexnet_has_the_convolutions_of_ours_and_no_norm() -> None:
    torch.manual_seed(0)
    network = targets.build("alexnet-dropout", (3, 32, 32), 5).eval()
    ours = AlexNet(5, norm=False)
    ours.load_state_dict(dict(zip(ours.state_dict(), network.state_dict().values(), strict=True)))
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(network(x), ours(x))
    with pytest.raises(UserError, match="alexnet-dropout: inputs must be 3 x 32 x 32, not 784"):
        targets.build("alexnet-dropout", (784,), 5)
