"""Interval arithmetic: sound, isotone, exact where claimed, and equal to the official interval layers."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from benchmarks.types import UserError
from methods.intervals.bounding import (
    Interval,
    add,
    batch_norm,
    certified,
    contains,
    conv2d,
    intersect,
    linear,
    monotone,
    multiply,
    negate,
    outward,
    propagate,
    worst_case,
)
from methods.networks import targets
from tests.methods.golden import assert_close, group, load, tensors

seeds = st.integers(0, 2**31 - 1)
radii = st.sampled_from([0.0, 1e-9, 1e-2, 1.0, 1e6])
offsets = st.sampled_from([-2.0, -0.5, 0.0, 0.5, 2.0])


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(shape: tuple[int, ...], radius: float, g: torch.Generator, offset: float = 0.0) -> Interval:
    middle = torch.randn(shape, generator=g, dtype=torch.float64) + offset
    return Interval.around(middle, radius * torch.rand(shape, generator=g, dtype=torch.float64))


def inside(box: Interval, g: torch.Generator) -> Tensor:
    """A point of the box, half of the time a corner."""
    share = torch.rand(box.lower.shape, generator=g, dtype=torch.float64)
    if torch.rand((), generator=g) < 0.5:
        share = share.round()
    return torch.lerp(box.lower, box.upper, share.to(box.lower)).clamp(box.lower, box.upper)


def smaller(box: Interval, g: torch.Generator) -> Interval:
    """A box inside the box."""
    a, b = inside(box, g), inside(box, g)
    return Interval(torch.minimum(a, b), torch.maximum(a, b))


def holds(bounds: Interval, y: Tensor) -> bool:
    slack = 1e-12 * (1 + bounds.magnitude)
    return bool(contains(Interval(bounds.lower - slack, bounds.upper + slack), y).all())


def encloses(outer: Interval, inner: Interval) -> bool:
    return holds(outer, inner.lower) and holds(outer, inner.upper)


@settings(max_examples=40, deadline=None)
@given(seeds, radii, radii, offsets)
def test_linear_and_convolution_are_sound_and_isotone_for_every_sign(seed, x_radius, w_radius, offset):
    g = generator(seed)
    x, w, b = drawn((4, 5), x_radius, g, offset), drawn((3, 5), w_radius, g), drawn((3,), w_radius, g)
    bounds = linear(x, w, b)
    for _ in range(5):
        assert holds(bounds, F.linear(inside(x, g), inside(w, g), inside(b, g)))
    assert encloses(bounds, linear(smaller(x, g), smaller(w, g), smaller(b, g)))
    image, kernel, bias = drawn((2, 4, 5, 6), x_radius, g, offset), drawn((6, 2, 3, 3), w_radius, g), drawn((6,), 1, g)
    geometry = {"stride": 2, "padding": 2, "dilation": 2, "groups": 2}
    bounds = conv2d(image, kernel, bias, **geometry)
    for _ in range(5):
        assert holds(bounds, F.conv2d(inside(image, g), inside(kernel, g), inside(bias, g), **geometry))
    assert encloses(bounds, conv2d(smaller(image, g), smaller(kernel, g), smaller(bias, g), **geometry))


def extremes(x: Interval, w: Interval, b: Interval) -> Interval:
    """The best bounds of one linear layer: elementwise extremes of the corner products, summed."""
    corners = torch.stack([p[:, None] * q[None] for p in x for q in w])
    return Interval(corners.amin(0).sum(-1) + b.lower, corners.amax(0).sum(-1) + b.upper)


@settings(max_examples=40, deadline=None)
@given(seeds, radii)
def test_one_layer_is_exact_where_no_input_straddles_zero(seed, radius):
    g = generator(seed)
    w, b = drawn((3, 5), radius, g), drawn((3,), radius, g)
    positive = Interval(*(bound.abs() for bound in smaller(Interval(torch.zeros(4, 5), torch.ones(4, 5)), g)))
    positive = Interval(positive.lower.double(), positive.upper.double())
    best = extremes(positive, w, b)
    for bounds in (linear(positive, w, b), linear(positive, w, b, nonnegative=True)):
        assert_close(bounds.lower, best.lower, 1e-12)
        assert_close(bounds.upper, best.upper, 1e-12)
    negative = negate(positive)
    assert_close(linear(negative, w, b).lower, extremes(negative, w, b).lower, 1e-12)
    straddling, point = drawn((4, 5), 2.0, g), Interval.point(inside(w, g))
    assert_close(linear(straddling, point, b).upper, extremes(straddling, point, b).upper, 1e-12)


@settings(max_examples=30, deadline=None)
@given(seeds, radii, offsets)
def test_point_inputs_take_a_shorter_way_to_the_same_bounds(seed, radius, offset):
    g = generator(seed)
    x, w, b = drawn((4, 5), 0.0, g, offset), drawn((3, 5), radius, g), drawn((3,), radius, g)
    general = linear(Interval(x.lower, x.lower.clone()), w, b)
    shortcut = linear(Interval.point(x.lower), w, b)
    assert_close(shortcut.lower, general.lower, 1e-12)
    assert_close(shortcut.upper, general.upper, 1e-12)
    seen = Interval.point(x.lower.abs())
    assert_close(linear(seen, w, b, nonnegative=True).lower, linear(seen, w, b).lower, 1e-12)
    assert linear(seen, Interval.point(w.lower), Interval.point(b.lower)).is_point


@settings(max_examples=30, deadline=None)
@given(seeds, radii, radii)
def test_products_sums_and_batch_norm_are_exact_or_sound(seed, radius, other):
    g = generator(seed)
    a, b = drawn((4, 3, 2), radius, g), drawn((4, 3, 2), other, g)
    corners = torch.stack([p * q for p in a for q in b])
    assert torch.equal(multiply(a, b).lower, corners.amin(0)) and torch.equal(multiply(a, b).upper, corners.amax(0))
    assert holds(add(a, negate(b)), inside(a, g) - inside(b, g))
    gamma, beta = drawn((3,), radius, g), drawn((3,), other, g)
    mean, variance = torch.randn(3, generator=g).double(), torch.rand(3, generator=g).double()
    bounds = batch_norm(a, mean, variance, gamma, beta)
    for _ in range(5):
        y = F.batch_norm(inside(a, g), mean, variance, inside(gamma, g), inside(beta, g))
        assert holds(bounds, y)


class Residual(nn.Module):
    """Every operation that the suite's networks use, in one small network."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.inner = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.shortcut = nn.Sequential(nn.Conv2d(4, 4, 1), nn.LeakyReLU(0.1), nn.Dropout(0.5))
        self.pool = nn.MaxPool2d(2)
        self.weight = nn.Parameter(torch.randn(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = torch.tanh(self.inner(x)) + self.shortcut(x) - 0.5
        x = F.avg_pool2d(self.pool(x * 2), 2)
        x = torch.cat([x, x.relu_()], dim=1)[:, 2:6]
        x = x.view(x.size(0), -1).unflatten(1, (4, -1)).mean(2)
        return F.linear(x, self.weight)


def network(kind: str, g: torch.Generator) -> tuple[nn.Module, tuple[int, ...]]:
    torch.manual_seed(int(torch.randint(2**31, (), generator=g)))
    if kind == "residual":
        net = Residual()
        net.norm.running_mean.normal_()
        net.norm.running_var.uniform_(0.1, 2)
        return net.double().eval(), (2, 8, 8)
    return targets.build(kind, (3, 4), 4).double(), (3, 4)


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from(["mlp", "mlp-7", "mlp-9-5", "residual"]), radii, st.booleans())
def test_networks_stay_inside_their_bounds(seed, kind, radius, nonnegative):
    g = generator(seed)
    net, shape = network(kind, g)
    box = {n: Interval.around(p.detach(), radius * torch.rand_like(p)) for n, p in net.named_parameters()}
    x = drawn((3, *shape), 0.3, g)
    if nonnegative:
        x = monotone(torch.relu, x)
    bounds = propagate(net, box, x, nonnegative_inputs=nonnegative)
    tighter = propagate(net, {n: smaller(b, g) for n, b in box.items()}, smaller(x, g), nonnegative_inputs=nonnegative)
    for _ in range(5):
        assert holds(bounds, functional_call(net, {n: inside(b, g) for n, b in box.items()}, (inside(x, g),)))
    assert encloses(bounds, tighter)
    point = propagate(net, {}, x.lower, nonnegative_inputs=nonnegative)
    assert_close(point.lower, net(x.lower), 1e-9)


@settings(max_examples=10, deadline=None)
@given(seeds, st.sampled_from([0.0, 1e-7, 1e-3]))
def test_rounded_bounds_of_a_single_precision_network_enclose_those_of_double_precision(seed, radius):
    g = generator(seed)
    torch.manual_seed(seed)
    net = targets.build("mlp-64-64", (100,), 10)
    box = {n: Interval.around(p.detach(), radius * torch.rand_like(p)) for n, p in net.named_parameters()}
    x = torch.randn(16, 100, generator=g)
    bounds = propagate(net, box, x, rounded=True)
    double = {n: Interval(b.lower.double(), b.upper.double()) for n, b in box.items()}
    unrounded = propagate(net.double(), double, x.double())
    assert bool((bounds.lower < unrounded.lower).all() & (bounds.upper > unrounded.upper).all())
    assert_close(bounds.lower, unrounded.lower, 1e-9)
    assert_close(bounds.upper, unrounded.upper, 1e-9)
    for _ in range(5):
        y = functional_call(net, {n: inside(b, g).double() for n, b in box.items()}, (x.double(),))
        assert bool(contains(bounds, y).all())


def test_signed_inputs_break_the_nonnegative_formula_but_not_the_general_one():
    x = Interval(torch.tensor([[-2.0]]), torch.tensor([[-1.0]]))
    w = Interval(torch.tensor([[-1.0]]), torch.tensor([[3.0]]))
    assert linear(x, w) == Interval(torch.tensor([[-6.0]]), torch.tensor([[2.0]]))
    assert linear(x, w, nonnegative=True).lower.item() > -6.0


def test_worst_case_and_certified_agree():
    bounds = Interval(
        torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.0, 0.0]]), torch.tensor([[3.0, 1.0, 0.5], [1.0, 0.7, 0.1]])
    )
    y = torch.tensor([0, 0])
    assert torch.equal(worst_case(bounds, y), torch.tensor([[2.0, 1.0, 0.5], [0.5, 0.7, 0.1]]))
    assert certified(bounds, y).tolist() == [True, False]
    tie = Interval(torch.zeros(1, 2), torch.zeros(1, 2))
    assert certified(tie, torch.tensor([0])).tolist() == [False]


def test_outward_widens_even_a_point_at_zero_and_intersect_shows_emptiness():
    wide = outward(Interval.point(torch.tensor([0.0, 1.0, -1e9])))
    assert bool(
        (wide.lower < torch.tensor([0.0, 1.0, -1e9])).all() & (wide.upper > torch.tensor([0.0, 1.0, -1e9])).all()
    )
    empty = intersect(Interval(torch.zeros(1), torch.ones(1)), Interval(torch.tensor([2.0]), torch.tensor([3.0])))
    assert bool((empty.lower > empty.upper).all())


def test_gradients_match_finite_differences():
    g = generator(0)
    net = targets.build("mlp-5", (4,), 3).double()
    x, y = torch.rand(6, 4, generator=g, dtype=torch.float64), torch.randint(3, (6,), generator=g)
    middle = {n: p.detach() for n, p in net.named_parameters()}

    def loss(*raw: Tensor) -> Tensor:
        box = {n: Interval.around(m, r.exp()) for (n, m), r in zip(middle.items(), raw, strict=True)}
        return F.cross_entropy(worst_case(propagate(net, box, x, nonnegative_inputs=True), y), y)

    raw = [torch.full_like(m, -2.0, requires_grad=True) for m in middle.values()]
    assert torch.autograd.gradcheck(loss, raw)


def test_unknown_operations_and_untraceable_networks_are_user_errors():
    with pytest.raises(UserError, match="GELU"):
        propagate(nn.Sequential(nn.Linear(2, 2), nn.GELU()), {}, torch.zeros(1, 2))
    with pytest.raises(UserError, match="cos"):
        propagate(Cosine(), {}, torch.zeros(1, 2))
    with pytest.raises(UserError, match="cannot be traced"):
        propagate(Branching(), {}, torch.zeros(1, 2))


class Cosine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cos(x)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_statistics_may_come_from_outside_and_a_copied_network_is_traced_anew():
    net, shape = network("residual", generator(0))
    x = torch.randn(2, *shape, dtype=torch.float64)
    other = copy.deepcopy(net)
    other.norm.running_mean.add_(1)
    given_from_outside = propagate(net, {}, x, buffers={"norm.running_mean": other.norm.running_mean})
    assert_close(given_from_outside.lower, other(x), 1e-12)
    assert_close(propagate(other, {}, x).lower, other(x), 1e-12)


def test_dropout_draws_one_mask_for_both_bounds():
    net = nn.Sequential(nn.Dropout(0.5))
    bounds = propagate(net, {}, Interval(torch.ones(1, 100), torch.full((1, 100), 2.0)))
    assert torch.equal(bounds.upper, 2 * bounds.lower) and 0 < (bounds.lower == 0).sum() < 100


def test_linear_layers_match_the_official_codes():
    a = tensors(group(load("hyper"), "linear"))
    bounds = linear(
        Interval(a["x_lower"], a["x_upper"]),
        Interval(a["w_lower"], a["w_upper"]),
        Interval(a["b_lower"], a["b_upper"]),
        nonnegative=True,
    )
    assert_close(bounds.lower, a["out_lower"], 1e-9)
    assert_close(bounds.upper, a["out_upper"], 1e-9)


def test_pooling_and_point_heads_match_the_official_code():
    a = tensors(group(load("interval"), "icn/pool"))
    x = Interval(a["x"][:, 0], a["x"][:, 2])
    for key, layer in (("max2", nn.MaxPool2d(2)), ("avg2", nn.AvgPool2d(2)), ("adaptive1", nn.AdaptiveAvgPool2d(1))):
        bounds = propagate(layer_only(layer), {}, x)
        assert_close(bounds.lower, a[key][:, 0], 1e-9, key)
        assert_close(bounds.upper, a[key][:, 2], 1e-9, key)
    a = tensors(group(load("interval"), "icn/point"))
    bounds = linear(Interval(a["x"][:, 0], a["x"][:, 2]), Interval.point(a["w"]), Interval.point(a["b"]))
    assert_close(bounds.lower, a["y"][:, 0], 1e-9)
    assert_close(bounds.upper, a["y"][:, 2], 1e-9)


def layer_only(layer: nn.Module) -> nn.Module:
    return nn.Sequential(layer)


class Whitening(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("variance", torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(self.variance + 1e-5)


def test_what_is_computed_from_a_buffer_is_no_constant_of_the_plan():
    """Computed while tracing, it would outlive a change of the buffer."""
    with pytest.raises(UserError, match="rsqrt"):
        propagate(Whitening(), {}, torch.ones(1, 1), rounded=True)


class Scaling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * (self.factor + 1)


def test_bounds_follow_a_buffer():
    net, x = Scaling(), torch.ones(1, 1)
    assert propagate(net, {}, x).lower.item() == 2
    net.factor.fill_(3)
    assert propagate(net, {}, x).lower.item() == 4
    assert propagate(net, {}, x, buffers={"factor": torch.zeros(1)}).upper.item() == 1
