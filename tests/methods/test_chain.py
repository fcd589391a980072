"""Chains of layers: which networks are one, and gates as factors of weights."""

import pytest
import torch
from torch import Tensor, nn

from methods.networks import targets
from methods.shared.chain import Gating, NotAChain, chain_of


class Mixed(nn.Module):
    """Convolutions with and without bias, pooling before and after ReLU, functions, methods and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 4, 2, stride=2, bias=False)
        self.third, self.fourth = nn.Linear(16, 6), nn.Linear(6, 5)
        self.average, self.drop = nn.AvgPool2d(2, padding=1), nn.Dropout(0.5)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.first(x)), 2)
        x = nn.functional.leaky_relu(self.average(self.second(x))).flatten(1)
        return self.head(self.fourth(self.drop(self.third(x).relu())).relu())


HIDDEN = ["first", "second", "third", "fourth"]
UNITS = [3, 4, 6, 5]


def gating_of(network: nn.Module) -> Gating:
    layers = chain_of(network)
    below = [layer.name for layer in layers[:-1]]
    shapes = {name: p.shape for name, p in network.named_parameters() if name.rpartition(".")[0] in below}
    return Gating(layers, shapes)


def test_layers_in_the_order_of_their_use():
    network = Mixed()
    assert [tuple(layer) for layer in chain_of(network)] == [
        ("first", 3, 1), ("second", 4, 1), ("third", 6, 4), ("fourth", 5, 1), ("head", 2, 1),
    ]  # fmt: skip
    assert gating_of(network).units == UNITS


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("closed", [False, True])
def test_scaled_rows_and_split_gates_are_the_network_with_gated_outputs(training, closed):
    torch.manual_seed(0)
    network = Mixed().double().train(training)
    x, gates = torch.randn(7, 2, 8, 8, dtype=torch.float64), torch.rand(18, dtype=torch.float64)
    gates[::3] = 0.0 if closed else 0.5

    def answers() -> Tensor:
        torch.manual_seed(1)
        return network(x)

    def gate(_module: nn.Module, _inputs: object, outputs: Tensor, own: Tensor) -> Tensor:
        return outputs * own.view(1, -1, *[1] * (outputs.dim() - 2))

    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    places = {"first": "first", "second": "average", "third": "drop", "fourth": "fourth"}  # some after the pooling
    handles = [
        network.get_submodule(places[layer]).register_forward_hook(lambda *args, own=own: gate(*args, own=own))
        for layer, own in zip(HIDDEN, gates.split(UNITS), strict=True)
    ]
    expected = answers()
    for handle in handles:
        handle.remove()
    gating = gating_of(network)
    scaled = gating.scaled(before, gates)
    split = gating.split(before, gates).split([part.numel() for part in scaled.values()])
    for parts in (scaled, dict(zip(scaled, split, strict=True))):
        with torch.no_grad():
            for name, part in parts.items():
                network.get_parameter(name).copy_(part.view_as(before[name]))
        torch.testing.assert_close(answers(), expected, rtol=1e-12, atol=1e-12)


def test_the_least_gate_at_the_ends_of_each_weight():
    network = nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3), nn.ReLU(), nn.Linear(3, 2))
    gates = torch.tensor([0.2, 0.6, 0.1, 0.4, 1.0])
    first = [0.2] * 4 + [0.6] * 4 + [0.2, 0.6]
    weight = [min(a, b) for a in (0.1, 0.4, 1.0) for b in (0.2, 0.6) for _ in range(4)]
    gating = gating_of(network)
    expected = torch.tensor([*first, *weight, 0.1, 0.4, 1.0])
    assert torch.equal(gating.least(gates), expected)
    hard = (gates > 0.3).float()
    weights = {name: torch.ones(shape) for name, shape in gating.shapes.items()}
    assert torch.equal(gating.split(weights, hard), gating.least(hard))


class Residual(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return self[2](self[0](x) + self[1](x))


class Branch(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        self[0](x).relu()
        return self[1](x)


class Branching(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return self[0](x) if x.sum() > 0 else self[1](x)


class Loose(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(2, 2), nn.Linear(2, 2))
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return self[1](self[0](x))


class Backwards(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return self[0](self[1](x))


class Doubled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x)


def tied() -> nn.Module:
    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.Linear(2, 2))
    network[2].weight = network[0].weight
    return network


TWICE = nn.Linear(2, 2)
REFUSED = [
    (Residual(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)), "another input"),
    (Branch(nn.Linear(2, 2), nn.Linear(2, 2)), "another input"),
    (Branching(nn.Linear(2, 2), nn.Linear(2, 2)), "cannot be traced"),
    (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)), "BatchNorm1d does not scale"),
    (nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2)), "Tanh does not scale"),
    (nn.Sequential(TWICE, nn.ReLU(), TWICE, nn.Linear(2, 2)), "0 is used twice"),
    (nn.Sequential(nn.Conv2d(2, 2, 1, groups=2), nn.Flatten(), nn.Linear(2, 2)), "groups"),
    (nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Linear(4, 2)), "not the units of 0"),
    (nn.Sequential(nn.Conv2d(2, 4, 1), nn.Flatten(2), nn.Linear(4, 2)), "not the units of 0"),
    (nn.Sequential(nn.Linear(4, 4), nn.AvgPool1d(3, 1, 1), nn.Linear(4, 2)), "AvgPool1d does not scale"),
    (nn.Sequential(nn.Conv1d(1, 4, 1), nn.Flatten(), nn.AvgPool1d(3, 1, 1), nn.Linear(16, 2)), "AvgPool1d does not"),
    (nn.Sequential(nn.Linear(4, 4), nn.Flatten(), nn.Linear(8, 2)), "not the units of 0"),
    (nn.Sequential(nn.Linear(2, 4), nn.Conv1d(4, 2, 1), nn.Linear(2, 2)), "not the units of 0"),
    (nn.Sequential(nn.Conv2d(2, 4, 1), nn.Flatten(), nn.Conv1d(4, 4, 1), nn.Linear(4, 2)), "not the units of 0"),
    (nn.Sequential(Doubled(2, 2), nn.ReLU(), nn.Linear(2, 2)), "mul does not scale"),
    (Loose(), "scale is no weight"),
    (tied(), "share a weight"),
    (Backwards(nn.Linear(2, 2), nn.Linear(2, 2)), "last parameter"),
    (nn.Sequential(nn.Flatten(), nn.Linear(2, 2)), "no unit"),
]


@pytest.mark.parametrize(("network", "reason"), REFUSED)
def test_what_is_no_chain(network, reason):
    with pytest.raises(NotAChain, match=reason):
        chain_of(network)


@pytest.mark.parametrize(
    ("name", "shape", "units"),
    [
        ("mlp-10-20", (1, 4, 4), [10, 20]),
        ("mlp-10-nobias", (16,), [10]),
        ("alexnet-hat", (3, 32, 32), [64, 128, 256, 2048, 2048]),
        ("lenet-20-50", (3, 32, 32), [20, 50, 800, 500]),
        ("tinynet", (3, 64, 64), [160] * 4 + [640] * 2),
        ("zenkenet", (3, 32, 32), [32, 32, 64, 64, 512]),
    ],
)
def test_networks_of_the_suite_that_are_chains(name, shape, units):
    assert [layer.units for layer in chain_of(targets.on_meta(name, shape, 3))] == [*units, 3]


@pytest.mark.parametrize("name", ["resnet-18", "resnet-8", "alexnet"])
def test_networks_of_the_suite_that_are_none(name):
    with pytest.raises(NotAChain):
        chain_of(targets.on_meta(name, (3, 32, 32), 3))
