"""Affine propagation: sound without tolerance, never wider than intervals, and tighter where values depend together."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks.types import UserError
from methods.intervals import affine, bounding
from methods.intervals.affine import propagation
from methods.intervals.backward import chord_of_absolute
from methods.intervals.bounding import Interval, contains
from methods.networks import targets
from tests.methods import exact
from tests.methods.drawn import SIZE, Drawn
from tests.methods.test_certificates import Perceptron, Residual, box_of, corner, scales
from tests.methods.test_drawn_networks import drawn, inside, programs, radii, seeds

WEIGHT_RADII = st.sampled_from([0.0, 1e-8, 1e-2, 1.0])


def both(net: nn.Module, box: dict[str, Interval], x: Tensor | Interval, **options) -> tuple[Interval, Interval]:
    plain = bounding.propagate(net, box, x, rounded=True, **options)
    found = affine.propagate(net, box, x, **options)
    assert bool((found.lower >= plain.lower).all() and (found.upper <= plain.upper).all()), "wider than interval bounds"
    assert bool((found.lower <= found.upper).all())
    return plain, found


def recorded(net: nn.Module, box: dict[str, Interval], x: Tensor | Interval, **options) -> affine.Pass:
    with propagation("interval") as recording:
        bounding.propagate(net, box, x, rounded=True, **options)
    assert recording.latest is not None and recording.calls == 1
    return recording.latest


def differences(net: nn.Module, box: dict[str, Interval], x: Tensor | Interval, **options) -> Tensor:
    """Lower bounds of the first logit less each of the others, (b, C - 1)."""
    one = recorded(net, box, x, **options)
    n, classes = one.logits.lower.shape
    signs = torch.eye(classes, dtype=torch.float64)
    return one.lower((signs[:1] - signs[1:]).expand(n, -1, -1), torch.arange(n))


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from([Perceptron, Residual]), WEIGHT_RADII, scales, st.booleans(), st.booleans())
def test_no_network_of_the_box_leaves_the_bounds_in_exact_arithmetic(seed, kind, radius, scale, nonnegative, around):
    torch.manual_seed(seed)
    g, net = torch.Generator().manual_seed(seed), kind().eval()
    box = box_of(net, radius, scale, g)
    x = torch.randn(2, *net.shape, generator=g)
    x = x.abs() if nonnegative else x
    inputs = Interval(x - 0.01 * x.abs(), x + 0.01) if around else Interval.point(x)
    _, bounds = both(net, box, inputs, nonnegative_inputs=nonnegative)
    apart = differences(net, box, inputs, nonnegative_inputs=nonnegative)
    for _ in range(3):
        weights = {name: exact.fractions(corner(part, g)) for name, part in box.items()}
        y = net.exactly(weights, exact.fractions(corner(inputs, g)))
        assert exact.holds(bounds, y)
        assert exact.holds(Interval(apart, torch.full_like(apart, torch.inf)), y[:, :1] - y[:, 1:])


@settings(max_examples=150, deadline=None)
@given(programs, seeds, radii, radii, st.booleans())
def test_programs_of_operations_are_sound(program, seed, x_radius, radius, nonnegative):
    """Every operation with known interval bounds, with views and changes in place, with a rule here or without."""
    torch.manual_seed(seed)
    net = Drawn(program).double().eval()
    box = {
        name: Interval.around(p.detach(), radius * torch.rand(p.shape, dtype=torch.float64))
        for name, p in net.named_parameters()
    }
    box["probe.weight"] = Interval.around(torch.randn(SIZE, SIZE, dtype=torch.float64), torch.tensor(radius))
    x = drawn((5, SIZE), x_radius)
    x = Interval(x.lower.relu(), x.upper.relu()) if nonnegative else x
    plain, bounds = both(net, box, x, nonnegative_inputs=nonnegative)
    apart = differences(net, box, x, nonnegative_inputs=nonnegative)
    slack = 1e-12 * (1 + plain.magnitude)  # of an evaluation in float64
    for _ in range(4):
        y = functional_call(net, {name: inside(part) for name, part in box.items()}, (inside(x),))
        assert contains(Interval(bounds.lower - slack, bounds.upper + slack), y).all()
        assert (y[:, :1] - y[:, 1:] >= apart - 2 * slack[:, 1:] - 2 * slack[:, :1]).all()


class Block(nn.Module):
    """Convolutions in groups, batch norm, a residual sum, a mean over places, and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner = nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4, affine=affine) for affine in (True, False))
        self.hidden, self.last, self.pool = nn.Linear(16, 6), nn.Linear(6, 3), nn.AdaptiveAvgPool2d(2)
        for norm in self.norms:
            norm.running_mean, norm.running_var = torch.randn(4), 0.5 + torch.rand(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norms[0](self.stem(x)).relu()
        x = torch.relu(x + self.norms[1](self.inner(x)))
        return self.last(torch.relu(self.hidden(self.pool(x).flatten(1))))


@pytest.mark.parametrize("radius, x_radius", [(0.0, 0.3), (3e-3, 0.0), (3e-3, 0.05), (0.1, 0.3)])
def test_a_residual_network_is_sound_and_tighter_at_every_step(radius, x_radius):
    torch.manual_seed(0)
    net = Block().double().eval()
    box = {n: Interval.around(p.detach(), radius * torch.rand_like(p)) for n, p in net.named_parameters()}
    middle = torch.randn(3, 1, 7, 7, dtype=torch.float64)
    x = Interval.around(middle, torch.tensor(x_radius)) if x_radius else Interval.point(middle)
    plain, bounds = both(net, box, x)
    assert bool((bounds.width < 0.99 * plain.width).all())
    steps = [type(step.push).__name__ for step in recorded(net, box, x).steps]
    assert sorted(steps) == ["Averages", *["Product"] * 6, *["Relu"] * 3, *["function"] * 2]  # nothing falls back
    for _ in range(200):
        y = functional_call(net, {name: inside(part) for name, part in box.items()}, (inside(x),))
        assert contains(Interval(bounds.lower - 1e-12, bounds.upper + 1e-12), y).all()


def test_logits_of_one_hidden_unit_are_apart_although_their_intervals_meet():
    """By hand: h = w x in [1, 2] for x = 1, w in [1, 2]; 2 h + 1/2 in [2.5, 4.5], h + 1 in [2, 3]; apart by h - 1/2."""
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 2)).double()
    box = {"0.weight": Interval(torch.tensor([[1.0]]), torch.tensor([[2.0]]))}
    box |= {
        "2.weight": Interval.point(torch.tensor([[2.0], [1.0]])),
        "2.bias": Interval.point(torch.tensor([0.5, 1.0])),
    }
    one = recorded(net, box, torch.ones(1, 1))
    assert one.logits.lower[0, 0] < one.logits.upper[0, 1]  # 2.5 and 3
    apart = differences(net, box, torch.ones(1, 1))
    assert apart.item() == pytest.approx(0.5, abs=1e-12) and apart.item() <= 0.5
    own, rivals, samples = torch.tensor([0]), torch.tensor([0, 1]), torch.tensor([0])
    assert one.exceeds(own, rivals, samples).item() and not one.exceeds(own + 1, rivals, samples).item()


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from([1e-300, 1e-9, 1.0, 1e9, 1e150]))
def test_the_chord_lies_above_the_absolute_value_in_exact_arithmetic_and_touches_it(seed, scale):
    g = torch.Generator().manual_seed(seed)
    sides = (
        scale * torch.randn(2, 20, generator=g, dtype=torch.float64) * 10 ** (6 * torch.rand(2, 20, generator=g) - 3)
    )
    x = Interval(sides.amin(0), sides.amax(0))
    slope, offset = (exact.fractions(part) for part in chord_of_absolute(x))
    for side in x:
        ends = exact.fractions(side)
        above = slope * ends + offset - abs(ends)
        assert (above >= 0).all() and (above <= exact.fractions(1e-14 * x.magnitude + 1e-306)).all()


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.second(h) - (h + h)


@pytest.mark.parametrize(
    "x, expected, plain",
    [((1.0, 1.0), (-2, 2), (-3, 4)), ((-1.0, 1.0), (-2, 2), (-10, 10)), ((-0.5, 1.0), (-2, 2), (-7, 8))],
)
def test_a_product_of_two_intervals_is_relaxed_as_derived(x, expected, plain):
    """By hand: h = v x with v in [1, 2], then w h - 2 h = (w - 2) h for w in [1, 3], |(w - 2) h| <= |h| <= s h + t.

    h in [1, 2]: s = 1, t = 0. h in [-2, 2]: s = 0, t = 2. h in [-1, 2]: s = 1/3, t = 4/3. All are 2 at h = 2.
    """
    net = Twice().double()
    weights = {"first.weight": (1.0, 2.0), "second.weight": (1.0, 3.0)}
    box = {name: Interval(*(torch.tensor([[side]]) for side in sides)) for name, sides in weights.items()}
    inputs = Interval(*(torch.tensor([[side]], dtype=torch.float64) for side in x))
    intervals, bounds = both(net, box, inputs)
    assert (bounds.lower.item(), bounds.upper.item()) == pytest.approx(expected, abs=1e-11)
    assert (intervals.lower.item(), intervals.upper.item()) == pytest.approx(plain, abs=1e-11)


def test_each_layer_that_products_permit_tightens_the_logits_except_the_last():
    torch.manual_seed(1)
    net = targets.build("mlp-20-20", (8,), 3).double()
    box = {name: Interval.around(p.detach(), torch.tensor(0.02)) for name, p in net.named_parameters()}
    x = Interval.around(torch.rand(4, 8, dtype=torch.float64), torch.tensor(0.1))
    plain = bounding.propagate(net, box, x, rounded=True)
    layers = 6 * 2 * 60, 6 * 2 * (60 + 400), 6 * 2 * (60 + 400 + 160)
    zero, one, two, three = (affine.propagate(net, box, x, products=limit).width for limit in (0, *layers))
    assert torch.equal(zero, plain.width) and torch.equal(one, plain.width)  # a logit depends on each unit once
    assert bool((two < one).all() and (three <= two).all() and (three < two).any())


def test_only_certificates_change_and_only_inside_the_block():
    torch.manual_seed(2)
    net = targets.build("mlp-20-20", (8,), 3)
    box = {name: Interval.around(p.detach(), torch.tensor(0.02)) for name, p in net.named_parameters()}
    x = torch.rand(4, 8)
    training, plain = bounding.propagate(net, box, x), bounding.propagate(net, box, x, rounded=True)
    with pytest.raises(ZeroDivisionError), propagation("affine") as recording:
        inside_block = bounding.propagate(net, box, x)
        assert torch.equal(inside_block.lower, training.lower) and recording.calls == 0
        assert bool((bounding.propagate(net, box, x, rounded=True).lower > plain.lower).any())
        raise ZeroDivisionError
    assert torch.equal(bounding.propagate(net, box, x, rounded=True).lower, plain.lower)
    with propagation("interval"):
        assert torch.equal(bounding.propagate(net, box, x, rounded=True).lower, plain.lower)


@pytest.mark.parametrize("width", [0.0, 0.5])
def test_inputs_around_nonnegative_ones_may_be_negative(width):
    """A declared sign that the interval contradicts is not used. Bounds of a point weight would hold all the same."""
    net = nn.Linear(1, 1, bias=False).double()
    lowest = torch.tensor([[-1.0]])
    box = {"weight": Interval(lowest, lowest + width) if width else Interval.point(lowest)}
    x = Interval(torch.tensor([[-1.0]]), torch.tensor([[0.5]]))
    for how in ("interval", "affine"):
        bounds = affine.propagate(net, {**box}, x, how, nonnegative_inputs=True)
        assert bounds.lower.item() <= -0.5 and 1 <= bounds.upper.item() < 1 + 1e-12


@pytest.mark.parametrize("weight, exceeds", [(1.0, True), (1e308, False)])
def test_a_logit_that_overflows_exceeds_nothing_not_even_without_rivals(weight, exceeds):
    net = nn.Linear(1, 1).double()
    nn.init.constant_(net.weight, weight)
    found = recorded(net, {}, torch.full((1, 1), 10.0, dtype=torch.float64))
    one = torch.tensor([0])
    assert found.exceeds(one, one, one).tolist() == [exceeds]


def test_another_propagation_is_refused_with_the_names():
    with pytest.raises(UserError, match="'linear' is not known; choose interval or affine"), propagation("linear"):
        pass
    with pytest.raises(UserError, match="interval or affine"):
        affine.propagate(nn.Linear(1, 1), {}, torch.zeros(1, 1), "crown")
