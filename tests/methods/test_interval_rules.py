"""What the bounds refuse, and where the graph of a network says less than the network computes."""

import copy
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from benchmarks.types import TIL, StreamSpec, UserError
from methods.hyperinterval import HyperInterval
from methods.hypernetworks.stateless import FunctionalNetwork
from methods.intercontinet import InterContiNet
from methods.intervals.bounding import Interval, Traversal, contains, propagate
from methods.intervals.boxed import BoxedNetwork
from methods.shared.maskable import MaskableNetwork
from tests.methods.golden import assert_close

RADIUS = 0.3


def network(function, **layers: nn.Module) -> nn.Module:
    """A network whose forward pass is `function(network, x)`."""

    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, layer in layers.items():
                setattr(self, name, layer)

        def forward(self, x: Tensor) -> Tensor:
            return function(self, x)

    return Written().eval()


def outside(net: nn.Module, x: Tensor, draws: int = 100) -> int:
    """How many outputs of networks drawn from a box around the weights lie outside of the bounds."""
    box = {name: Interval(p.detach() - RADIUS, p.detach() + RADIUS) for name, p in net.named_parameters()}
    bounds = propagate(net, box, x, rounded=True)
    found = 0
    for _ in range(draws):
        drawn = {name: part.lower + 2 * RADIUS * torch.rand_like(part.lower) for name, part in box.items()}
        found += int((~contains(bounds, functional_call(net, drawn, (x,)).detach())).sum())
    return found


# -- weights under several names -----------------------------------------------------------------------


class Tied(nn.Module):
    """Encoder and decoder share a weight, and two norms their statistics; one layer is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False), nn.Linear(6, 6)
        self.b.weight = self.a.weight
        self.first, self.second = nn.BatchNorm1d(6, affine=False), nn.BatchNorm1d(6, affine=False)
        self.second.running_mean = self.first.running_mean

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.b(F.relu(self.first(self.a(x)))))
        return self.head(self.head(x))


def test_both_uses_of_a_shared_weight_take_its_interval():
    torch.manual_seed(0)
    net, x = Tied().eval(), torch.randn(8, 6)
    assert outside(net, x) == 0
    box = {name: Interval(p.detach() - RADIUS, p.detach() + RADIUS) for name, p in net.named_parameters()}
    bounds = propagate(net, box, x)
    renamed = {name.replace("a.", "b."): part for name, part in box.items()}
    assert torch.equal(propagate(net, renamed, x).lower, bounds.lower), "the other name says the same"
    moved = propagate(net, box, x, buffers={"first.running_mean": torch.ones(6)})
    net.first.running_mean.fill_(1)
    assert torch.equal(propagate(net, box, x).lower, moved.lower), "statistics too"


def test_a_generated_network_has_one_value_for_a_shared_weight():
    torch.manual_seed(0)
    net, x = Tied().eval(), torch.randn(8, 6)
    target = FunctionalNetwork(copy.deepcopy(net))
    assert target.n_weights == 36 + 36 + 6
    flat = torch.cat([p.detach().flatten() for p in net.parameters()])
    assert torch.equal(target(flat, x), net(x))
    drawn = torch.randn_like(flat)
    bounds = target.bounds(drawn - 0.1, drawn + 0.1, x, False, rounded=True)
    for _ in range(20):
        assert contains(bounds, target(drawn + 0.2 * torch.rand_like(drawn) - 0.1, x)).all()
    assert list(target.first_statistics) == [name for name, _ in net.named_buffers()]


def test_a_shared_weight_is_masked_once_and_boxed_once():
    torch.manual_seed(0)
    net, x = Tied().eval(), torch.randn(8, 6)
    masked = MaskableNetwork(copy.deepcopy(net))
    logits = masked(masked.first_weights, masked.first_affine, masked.first_statistics, x, training=False)
    assert masked.sizes == [36, 36, 6] and torch.equal(logits, net(x))
    boxed = BoxedNetwork(copy.deepcopy(net), [], 0.1).eval()
    bounds = boxed.bounds(boxed.box, x, False, rounded=True)
    assert boxed.lower.numel() == 36 + 36 + 6
    drawn = torch.lerp(boxed.lower, boxed.upper, torch.rand_like(boxed.lower))
    assert contains(bounds, functional_call(boxed.net, boxed.layout.views(drawn), (x,)).detach()).all()


# -- arguments -----------------------------------------------------------------------------------------


KEYWORDS = {
    "torch.add(a, b, alpha=3)": lambda net, x: torch.add(net.a(x), net.b(x), alpha=3),
    "a.add(b, alpha=3)": lambda net, x: net.a(x).add(net.b(x), alpha=3),
    "leaky_relu with slope -0.5": lambda net, x: F.leaky_relu(net.a(x), -0.5) + net.b(x),
    "ELU with alpha -2": lambda net, x: net.elu(net.a(x)) + net.b(x),
    "a - b": lambda net, x: net.a(x) - net.b(x),
}
REFUSED = {"leaky_relu with slope -0.5": "leaky_relu.*negative_slope = -0.5", "ELU with alpha -2": "ELU.*alpha = -2"}


@pytest.mark.parametrize("case", KEYWORDS)
def test_no_keyword_is_ignored(case):
    torch.manual_seed(0)
    net = network(KEYWORDS[case], a=nn.Linear(6, 6), b=nn.Linear(6, 6), elu=nn.ELU(alpha=-2.0))
    if case in REFUSED:
        with pytest.raises(UserError, match=REFUSED[case]):
            outside(net, torch.randn(8, 6))
    else:
        assert outside(net, torch.randn(8, 6)) == 0


def attention(net: nn.Module, x: Tensor) -> Tensor:
    return net.a(x, x, x)[0]


@pytest.mark.parametrize(
    ("function", "layers", "message"),
    [
        (attention, {"a": nn.MultiheadAttention(6, 2)}, "no bound is known for the module 'a', MultiheadAttention"),
        (lambda net, x: net.a(x), {"a": nn.LayerNorm(6)}, "module 'a', LayerNorm"),
        (lambda net, x: net.a(x), {"a": nn.GroupNorm(2, 6)}, "module 'a', GroupNorm"),
        (lambda net, x: net.a(x), {"a": nn.InstanceNorm1d(6)}, "module 'a', InstanceNorm1d"),
        (lambda net, x: net.a(x), {"a": nn.Softmax(1)}, "module 'a', Softmax"),
        (lambda net, x: net.a(x), {"a": nn.BatchNorm1d(6, track_running_stats=False)}, "statistics of the batch"),
        (lambda net, x: net.a(x), {"a": nn.MaxPool1d(2, return_indices=True)}, "MaxPool1d, with return_indices"),
        (lambda net, x: net.a(x), {"a": nn.AvgPool2d(1, divisor_override=-1)}, "divisor_override = -1"),
        (lambda net, x: net.a(x.view(-1, 1, 2, 3)), {"a": nn.Conv2d(1, 1, 1, padding_mode="reflect")}, "padding_mode"),
        (lambda net, x: torch.stack([x, x]), {}, "operation 'stack'"),
        (lambda net, x: x + torch.add(x, x, out=None), {}, "operation 'add', with .*'out'"),
        (lambda net, x: x.mean(1, dtype=torch.float64), {}, "operation 'mean', with .*'dtype'"),
        (lambda net, x: x.view(torch.int32), {}, "operation 'view', with a dtype"),
        (lambda net, x: x.to(torch.float16), {}, "operation 'to', with torch.float16"),
        (lambda net, x: x.to(torch.int64), {}, "operation 'to', with torch.int64"),
        (lambda net, x: x[x > 0], {}, "no bound is known"),
        (lambda net, x: x[x], {}, "no bound is known for the operation 'getitem'"),
        (lambda net, x: F.hardtanh(x, -1.0, x.amax()), {}, "no bound is known for the operation 'hardtanh'"),
        (lambda net, x: (x, x), {}, "does not return one tensor"),
        (lambda net, x: x + x.max(1)[0].item(), {}, "no bound is known for the operation 'max'"),
    ],
)
def test_what_has_no_rule_is_refused_by_a_sentence(function, layers, message):
    with pytest.raises(UserError, match=message):
        propagate(network(function, **layers), {}, torch.randn(4, 6))


# -- what a graph does not show ------------------------------------------------------------------------


class Clipped(nn.Linear):
    """A layer of torch by inheritance, and another function."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).clamp(max=0.0) + 1


Clipped.__module__ = "torch.nn.modules.linear"  # so that tracing takes it for one of torch's own


def hooked(layer: nn.Module) -> nn.Module:
    layer.register_forward_hook(lambda module, inputs, output: -output)
    return layer


def test_layers_that_compute_something_else_than_their_class_are_refused():
    x = torch.randn(4, 6)
    for layer in (
        Clipped(6, 6),
        hooked(nn.Linear(6, 6)),
        nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)),
        nn.utils.parametrizations.spectral_norm(nn.Linear(6, 6)),
    ):
        with pytest.raises(UserError, match="no bound is known for the module 'a'"):
            propagate(network(lambda net, x: net.a(x), a=layer), {}, x)
    with pytest.raises(UserError, match="has hooks"):
        propagate(hooked(network(lambda net, x: net.a(x), a=nn.Linear(6, 6))), {}, x)


def test_networks_whose_graph_is_not_all_are_refused():
    class TwoInputs(nn.Module):
        def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
            return x + y

    class Unused(nn.Module):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            return x

    x = torch.randn(4, 6)
    with pytest.raises(UserError, match="takes more than one input"):
        propagate(TwoInputs(), {}, x)
    assert torch.equal(propagate(Unused(), {}, x).lower, x)
    with pytest.raises(UserError, match="draws random numbers"):
        propagate(network(lambda net, x: x + torch.randn(6)), {}, x)


def test_a_network_is_traced_for_each_mode_that_it_looks_at():
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(x, 0.5, self.training)

    net, x = Noisy(), torch.randn(4, 6)
    assert torch.equal(propagate(net.eval(), {}, x).lower, x)
    with pytest.raises(UserError, match="dropout"):
        propagate(net.train(), {}, x)
    assert torch.equal(propagate(net.eval(), {}, x).lower, x)


@pytest.mark.parametrize(
    "function",
    [
        lambda net, x: chained(x * 1, lambda y: F.relu(y.view(-1, 2, 3), inplace=True)),
        lambda net, x: chained(x * 1, lambda y: y[:, :3].mul_(2)),
        lambda net, x: chained(x * 1, lambda y: net.drop(y).relu_()),
        lambda net, x: F.linear(x, net.a.weight.relu_()),
    ],
)
def test_a_change_in_place_that_is_read_by_another_name_is_refused(function):
    net = network(function, a=nn.Linear(6, 6), drop=nn.Dropout())
    with pytest.raises(UserError, match="changes a tensor in place"):
        propagate(net, {}, torch.randn(4, 6))


def chained(y: Tensor, change) -> Tensor:
    change(y)
    return y


def test_numbers_are_not_changed_in_place():
    def function(net: nn.Module, x: Tensor) -> Tensor:
        n = x.size(1)
        half = n
        half //= 2
        n -= 1
        return x[:, :half] + x[:, n - half : n]

    x = torch.randn(4, 6)
    assert_close(propagate(network(function), {}, x).lower, x[:, :3] + x[:, 2:5], 1e-12)


@pytest.mark.parametrize("rounded", [False, True])
def test_a_value_is_kept_only_while_it_is_read(rounded, monkeypatch):
    kept, alive = [], []

    def noted(self, name, arguments):
        alive.append(sum(value() is not None for value in kept))
        found = layer(self, name, arguments)
        kept.append(weakref.ref(found.bounds.lower))
        return found

    def function(net: nn.Module, x: Tensor) -> Tensor:
        first = net.a(x)
        net.drop(net.a(first))  # read by nobody
        second = net.a(first).relu_()
        return net.a(net.a(net.a(second))) + first

    layer = Traversal._layer
    monkeypatch.setattr(Traversal, "_layer", noted)
    net = network(function, a=nn.Linear(6, 6), drop=nn.Tanh())
    box = {name: Interval(p.detach() - RADIUS, p.detach() + RADIUS) for name, p in net.named_parameters()}
    with torch.no_grad():
        propagate(net, box, torch.randn(4, 6), rounded=rounded)
    # `first`, which the sum reads, and the layer's own input
    assert alive == [0, 1, 2, 1, 1, 2, 2]


# -- before training -----------------------------------------------------------------------------------


def test_a_method_says_before_training_that_a_network_has_no_bounds():
    def spec(name: str) -> StreamSpec:
        return StreamSpec("test", TIL, 2, 2, (3, 32, 32), name)

    for cls in (HyperInterval, InterContiNet):
        assert "operation 'batch_norm'" in str(cls.skip(spec("timm:test_efficientnet"), cls.Config()))
        assert "operation 'layer_norm'" in str(cls.skip(spec("timm:test_convnext"), cls.Config()))
        assert cls.skip(spec("timm:test_resnet"), cls.Config()) is None
    none_needed = HyperInterval.Config(bounds="endpoints", batch_norm="official")
    certified_only = HyperInterval.Config(bounds="endpoints")
    assert HyperInterval.skip(spec("timm:test_efficientnet"), none_needed) is None
    assert HyperInterval.skip(spec("timm:test_efficientnet"), certified_only) is not None
    assert HyperInterval.skip(spec("timm:test_efficientnet+frozen"), HyperInterval.Config()) is None
    torch.manual_seed(0)
    before = torch.get_rng_state()
    HyperInterval.skip(StreamSpec("test", TIL, 2, 2, (3, 48, 48), "resnet-8"), HyperInterval.Config())
    assert torch.equal(torch.get_rng_state(), before)


# -- defaults of functions -----------------------------------------------------------------------------

ELEMENTWISE = {
    "leaky_relu": F.leaky_relu,
    "leaky_relu, flat": lambda x: F.leaky_relu(x, 0.0),
    "elu": F.elu,
    "elu, flat": lambda x: F.elu(x, 0.0),
    "celu": F.celu,
    "selu": F.selu,
    "relu6": F.relu6,
    "hardtanh": F.hardtanh,
    "hardtanh, positive": lambda x: F.hardtanh(x, 0.0, 2.0),
    "hardsigmoid": F.hardsigmoid,
    "softsign": F.softsign,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_the_image_of_an_increasing_function_lies_between_its_values_at_the_ends(name):
    """With the very defaults of torch; rounding may widen it by a little."""
    function, layer = ELEMENTWISE[name], nn.Linear(3, 40)
    torch.manual_seed(0)
    nn.init.normal_(layer.weight, std=3)
    x = torch.rand(5, 3)
    box = {key: Interval(p.detach() - RADIUS, p.detach() + RADIUS) for key, p in layer.named_parameters()}
    before = propagate(layer, box, x, rounded=True)
    named = {f"a.{key}": part for key, part in box.items()}
    for rounded, tolerance in ((True, 1e-12), (False, 1e-5)):
        after = propagate(network(lambda net, x: function(net.a(x)), a=layer), named, x, rounded=rounded)
        for got, end in ((after.lower, before.lower), (after.upper, before.upper)):
            torch.testing.assert_close(got.double(), function(end), rtol=0, atol=tolerance)


NONNEGATIVE = {
    "relu": torch.relu, "F.relu": F.relu, "relu6": F.relu6, "sigmoid": torch.sigmoid, "hardsigmoid": F.hardsigmoid,
    "hardtanh": lambda x: F.hardtanh(x, 0.0, 1.0), "softplus": lambda x: F.softplus(x, 1.0, 0.0),
}  # fmt: skip


@pytest.mark.parametrize("name", NONNEGATIVE)
def test_a_layer_after_a_nonnegative_function_has_the_bounds_of_nonnegative_inputs(name):
    """Of weights in [l, u] and inputs in [0, b] the lowest answer is sum of min(l, 0) b, plus the bias's lowest."""
    torch.manual_seed(0)
    first, second = nn.Linear(3, 8), nn.Linear(8, 4)
    net = network(lambda net, x: net.b(NONNEGATIVE[name](net.a(x))), a=first, b=second)
    x = torch.randn(5, 3)
    box = {key: Interval(p.detach() - RADIUS, p.detach() + RADIUS) for key, p in net.named_parameters()}
    hidden = propagate(network(lambda net, x: NONNEGATIVE[name](net.a(x)), a=first), box, x, rounded=True)
    got = propagate(net, box, x, rounded=True)
    lower, upper = (side.double() for side in box["b.weight"])
    low = torch.minimum(lower * hidden.lower[:, None], lower * hidden.upper[:, None]).sum(2)
    high = torch.maximum(upper * hidden.lower[:, None], upper * hidden.upper[:, None]).sum(2)
    torch.testing.assert_close(got.lower, low + box["b.bias"].lower.double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(got.upper, high + box["b.bias"].upper.double(), rtol=0, atol=1e-9)
