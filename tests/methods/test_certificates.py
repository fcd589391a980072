"""Rounded bounds against exact arithmetic: no rounding, magnitude or cancellation may let a network out of them."""

import copy
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from methods.intervals import ops
from methods.intervals.bounding import Interval, propagate
from methods.networks import targets
from tests.methods import exact

seeds = st.integers(0, 2**31 - 1)
radii = st.sampled_from([0.0, 1e-8, 1e-2, 1.0])
KINDS = st.sampled_from(["signed", "positive", "weights are points"])
scales = st.sampled_from([1.0, 1e-3, 1e20, 1e-42, 3e38])
"""Among them float32's denormal numbers and its largest."""


EPS = 2.0**-10
VARIANCES = torch.tensor([0.25, 2.25, 9 * 2.0**-8])
"""With EPS, of batch norm: squares of fractions, and exact in float32 without it."""


class Perceptron(nn.Module):
    shape = (6,)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.first(x)))

    def exactly(self, p: dict[str, exact.Array], x: exact.Array) -> exact.Array:
        hidden = exact.relu(exact.linear(x, p["first.weight"], p["first.bias"]))
        return exact.linear(hidden, p["last.weight"], p["last.bias"])


class Residual(nn.Module):
    """Convolution, batch norm, a shortcut with literals, pooling."""

    shape = (2, 5, 5)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 3, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(3, eps=EPS)
        self.inner = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.last = nn.Linear(3, 2)
        self.norm.running_var = VARIANCES - EPS
        nn.init.normal_(self.norm.running_mean)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        x = F.relu(self.inner(x.relu()) - 0.1 * x)
        return self.last(x.mean((2, 3)))

    def exactly(self, p: dict[str, exact.Array], x: exact.Array) -> exact.Array:
        statistics = [exact.fractions(b) for b in (self.norm.running_mean, VARIANCES)]
        x = exact.conv2d(x, p["stem.weight"], p["stem.bias"], stride=2, padding=1)
        x = exact.batch_norm(x, *statistics, p["norm.weight"], p["norm.bias"])
        x = exact.relu(exact.conv2d(exact.relu(x), p["inner.weight"], padding=1) - Fraction(0.1) * x)
        return exact.linear(exact.mean(x, (2, 3)), p["last.weight"], p["last.bias"])


def box_of(net: nn.Module, radius: float, scale: float, g: torch.Generator) -> dict[str, Interval]:
    """Around the weights, times a scale, float32 each; of no width but of two tensors where the radius is 0."""
    found = {}
    for name, p in net.named_parameters():
        middle = (p.detach().double() * scale).float()
        reach = radius * scale * torch.rand(p.shape, generator=g)
        limit = torch.finfo(torch.float32).max
        found[name] = Interval((middle - reach).clamp(-limit, limit), (middle + reach).clamp(-limit, limit))
    return found


def corner(box: Interval, g: torch.Generator) -> Tensor:
    return torch.where(torch.rand(box.lower.shape, generator=g) < 0.5, box.lower, box.upper)


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from([Perceptron, Residual]), radii, scales, st.booleans())
def test_no_network_of_the_box_leaves_the_bounds_in_exact_arithmetic(seed, kind, radius, scale, nonnegative):
    torch.manual_seed(seed)
    g, net = torch.Generator().manual_seed(seed), kind().eval()
    box = box_of(net, radius, scale, g)
    x = torch.randn(2, *net.shape, generator=g)
    x = x.abs() if nonnegative else x
    bounds = propagate(net, box, x, nonnegative_inputs=nonnegative, rounded=True)
    assert bounds.lower.dtype == torch.float64 and bool((bounds.lower <= bounds.upper).all())
    for _ in range(3):
        drawn = {name: exact.fractions(corner(part, g)) for name, part in box.items()}
        assert exact.holds(bounds, net.exactly(drawn, exact.fractions(x)))


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from([1e-310, 1e-160, 1.0, 1e160, 1e307]))
def test_a_double_precision_network_that_underflows_or_overflows_is_still_inside(seed, scale):
    torch.manual_seed(seed)
    g, net = torch.Generator().manual_seed(seed), Perceptron().double()
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(scale)
    x = torch.randn(2, 6, generator=g, dtype=torch.float64)
    bounds = propagate(net, {}, x, rounded=True)
    weights = {name: exact.fractions(p) for name, p in net.named_parameters()}
    assert exact.holds(bounds, net.exactly(weights, exact.fractions(x)))
    if scale == 1.0:
        assert bool((bounds.upper - bounds.lower < 1e-13).all())


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from([0.0, 1e-9, 1e-2, 1.0, 1e6]), KINDS)
def test_one_layer_encloses_its_exact_extremes_and_little_more(seed, radius, kind):
    g = torch.Generator().manual_seed(seed)

    def drawn(*shape: int, offset: float = 0.0) -> Interval:
        middle = torch.randn(shape, generator=g, dtype=torch.float64) + offset
        reach = radius * torch.rand(shape, generator=g, dtype=torch.float64)
        return Interval(middle - reach, middle + reach)

    x, w, b = drawn(3, 40, offset=radius + 6.0 if kind == "positive" else 0.0), drawn(4, 40), drawn(4)
    w = Interval.point(w.lower) if kind == "weights are points" else w
    bounds = ops.linear(x, w, b, nonnegative=kind == "positive", rounded=True)
    corners = np.stack([exact.fractions(p)[:, None] * exact.fractions(q)[None] for p in x for q in w])
    low, high = corners.min(0).sum(-1) + exact.fractions(b.lower), corners.max(0).sum(-1) + exact.fractions(b.upper)
    assert exact.holds(bounds, low) and exact.holds(bounds, high)
    if kind != "signed":  # where the arithmetic is exact, the bounds are wider by rounding alone
        size = float((x.magnitude.sum() + 1) * (w.magnitude.max() + 1))
        assert ((low - exact.fractions(bounds.lower)) < 1e-13 * size).all()
        assert ((exact.fractions(bounds.upper) - high) < 1e-13 * size).all()


def test_rounded_operations_are_computed_in_double_precision_and_piece_by_piece():
    torch.manual_seed(0)
    x, w = (Interval(t, t + 0.1) for t in (torch.randn(9, 16, 32, 32), torch.randn(4, 16, 3, 3)))
    whole = ops.conv2d(x, w, padding=1, rounded=True)
    assert whole.lower.dtype == torch.float64 and float((whole.upper - whole.lower).min()) > 0
    for i in range(9):
        one = ops.conv2d(Interval(x.lower[i : i + 1], x.upper[i : i + 1]), w, padding=1, rounded=True)
        torch.testing.assert_close(whole.lower[i : i + 1], one.lower, rtol=1e-12, atol=1e-12)
    a, b = (Interval.point(torch.randn(3, 5)) for _ in range(2))
    for bounds in (ops.linear(a, b, rounded=True), ops.add(a, b, rounded=True), ops.multiply(a, b, rounded=True)):
        assert bounds.lower.dtype == torch.float64 and bool((bounds.upper - bounds.lower < 1e-13).all())
    untouched = propagate(nn.Sequential(nn.ReLU()), {}, a.lower, rounded=True)
    assert untouched.lower.dtype == torch.float64 and torch.equal(untouched.lower, a.lower.relu().double())


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("kind", ["point", "positive point", "signed", "positive", "weights are points"])
def test_products_of_one_input_computed_together_are_those_computed_alone(monkeypatch, kind, biased):
    g = torch.Generator().manual_seed(0)
    middle, w, b = (
        torch.randn(shape, generator=g, dtype=torch.float64) for shape in ((3, 2, 6, 6), (4, 2, 3, 3), (4,))
    )
    middle = middle + 9 if "positive" in kind else middle
    x = Interval.point(middle) if "point" in kind.split() else Interval(middle - 0.3, middle + 0.1)
    weight = Interval.point(w) if kind == "weights are points" else Interval(w - 0.2, w + 0.4)
    bias, nonnegative = Interval(b, b + 1) if biased else None, "positive" in kind
    together = ops.conv2d(x, weight, bias, nonnegative=nonnegative, rounded=True)
    monkeypatch.setattr(ops, "_stacked", ops._one_by_one)
    separate = ops.conv2d(x, weight, bias, nonnegative=nonnegative, rounded=True)
    plain = ops.conv2d(x, weight, bias, nonnegative=nonnegative)
    for one, other, within in zip(together, separate, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-14, atol=1e-13)
        torch.testing.assert_close(one, within, rtol=1e-11, atol=1e-11)
    assert bool((together.upper - separate.upper).abs().max() < 1e-13)


def test_blocks_of_samples_change_no_number(monkeypatch):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Sigmoid(), nn.AvgPool2d(2), nn.Flatten())
    nn.init.normal_(net[1].weight)
    box = {name: Interval(p.detach() - 0.1, p.detach() + 0.1) for name, p in net.named_parameters()}
    x, rows, columns = torch.randn(5, 2, 6, 6), Interval(torch.randn(5, 1), torch.ones(5, 1) + 9), torch.randn(7)

    def found() -> list[Interval]:
        logits = propagate(net.eval(), box, x, rounded=True)
        scaled = ops.multiply(rows, Interval.point(columns), rounded=True)
        return [logits, scaled, ops.add(rows, scaled, rounded=True), ops.add(*[Interval.point(x)] * 2, rounded=True)]

    whole = found()
    monkeypatch.setattr("methods.intervals.blocks.AT_ONCE", 1)
    cat, joined = torch.cat, []
    monkeypatch.setattr(torch, "cat", lambda parts, *rest: joined.append(len(parts)) or cat(parts, *rest))
    block_by_block = found()
    assert joined.count(5) >= 6
    for one, other in zip(whole, block_by_block, strict=True):
        assert torch.equal(one.lower, other.lower) and torch.equal(one.upper, other.upper)


@pytest.mark.parametrize(
    ("name", "width"), [("mlp-400-400", 1e-8), ("resnet-8", 1e-8), ("alexnet", 1e-4), ("resnet-18", 0.1)]
)
def test_a_box_without_width_has_bounds_that_say_something(name, width):
    """Float32 bounds of AlexNet were 3,330 wide, of ResNet-18 ten millions, by their allowance for rounding alone."""
    torch.manual_seed(0)
    net = targets.build(name, (3, 32, 32), 10).eval()
    box = {key: Interval(p.detach(), p.detach().clone()) for key, p in net.named_parameters()}
    x = torch.rand(2, 3, 32, 32)
    bounds = propagate(net, box, x, nonnegative_inputs=True, rounded=True)
    assert float((bounds.upper - bounds.lower).mean()) < width
    with torch.no_grad():
        double = copy.deepcopy(net).double()(x.double())
    assert bool(((bounds.lower < double) & (double < bounds.upper)).all())


def test_settings_of_float32_products_do_not_reach_the_bounds():
    torch.manual_seed(0)
    net, x = targets.build("mlp-64-64", (100,), 10), torch.randn(16, 100)
    before, found = torch.get_float32_matmul_precision(), []
    try:
        for level in ("highest", "medium"):
            torch.set_float32_matmul_precision(level)
            found.append(propagate(net, {}, x, rounded=True))
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(found[0].lower, found[1].lower) and torch.equal(found[0].upper, found[1].upper)


def test_what_overflows_certifies_nothing():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)).double()
    with torch.no_grad():
        for p in net.parameters():
            p.fill_(1e200)
    bounds = propagate(net, {}, torch.ones(1, 2, dtype=torch.float64), rounded=True)
    assert bounds.lower.tolist() == [[-torch.inf] * 2] and bounds.upper.tolist() == [[torch.inf] * 2]


def test_the_bounds_of_a_point_are_narrower_than_the_rounding_of_float32():
    """Which they do not speak of: evaluation compares every certified sample with its answer instead."""
    torch.manual_seed(0)
    net, x = targets.build("mlp-64-64", (100,), 10), torch.randn(16, 100)
    bounds = propagate(net, {}, x, rounded=True)
    single = functional_call(net, dict(net.named_parameters()), (x,)).detach()
    outside = (single < bounds.lower) | (single > bounds.upper)
    assert outside.any() and bool(((single - bounds.lower).abs() < 1e-6).all())
