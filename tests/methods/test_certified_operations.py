"""Single operations, rounded outwards, against exact arithmetic: no other operation's slack hides a missing one."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from methods.intervals.bounding import Interval, propagate
from tests.methods import exact
from tests.methods.test_certificates import EPS, VARIANCES, seeds


def alone(function) -> nn.Module:
    """A network that does nothing else, so that no other operation's slack hides a missing one."""

    class Alone(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    return Alone()


@settings(max_examples=30, deadline=None)
@given(seeds, st.sampled_from([1.0, 1e-30, 1e30]))
def test_every_operation_encloses_its_own_rounding(seed, scale):
    g = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(7, 3, 2, 2, generator=g)
    e = exact.fractions(x)
    cases = {
        "sum with a literal": (lambda x: x + 0.1 * scale, e + Fraction(0.1 * scale)),
        "difference": (lambda x: 0.1 * scale - x, Fraction(0.1 * scale) - e),
        "product with a literal": (lambda x: 0.1 * x, Fraction(0.1) * e),
        "scaled sum": (lambda x: torch.add(x, x, alpha=0.3), e + Fraction(0.3) * e),
        "mean": (lambda x: x.mean((1, 2, 3)), exact.mean(e, (1, 2, 3))),
        "pooling": (lambda x: F.avg_pool2d(x, 2), exact.mean(e, (2, 3))[:, :, None, None]),
        "leaky rectifier": (lambda x: F.leaky_relu(x, 0.1), exact.relu(e) - Fraction(0.1) * exact.relu(-e)),
    }
    for name, (function, right) in cases.items():
        assert exact.holds(propagate(alone(function), {}, x, rounded=True), right), name


SWALLOWED = 0.99 * 2.0**-53
"""A number that 1 swallows: 1 + SWALLOWED is rounded to 1. Random terms come near no bound of a sum's rounding."""


def swallowing(*shape: int) -> Tensor:
    """A one followed by numbers that it swallows, float64."""
    x = torch.full(shape, SWALLOWED, dtype=torch.float64)
    x.view(-1)[0] = 1
    return x


N = 4096
SUMS = {
    "linear": (lambda x: F.linear(x, torch.ones(1, N, dtype=x.dtype)), (1, N), (1,)),
    "convolution": (lambda x: F.conv2d(x, torch.ones(1, 1, 64, 64, dtype=x.dtype)), (1, 1, 64, 64), (2, 3)),
    "mean": (lambda x: x.mean(1), (1, N), (1,)),
    "sum of a view": (lambda x: x.sum((0, 1)), (64, 64), (0, 1)),
    "pooling": (lambda x: F.avg_pool2d(x, 64), (1, 1, 64, 64), (2, 3)),
    "pooling, no channels": (lambda x: F.avg_pool2d(x, 64), (1, 64, 64), (1, 2)),
    "pooling in one dimension": (lambda x: F.avg_pool1d(x, N), (1, 1, N), (2,)),
    "pooling in one dimension, no channels": (lambda x: F.avg_pool1d(x, N), (1, N), (1,)),
    "overlapping windows, no channels": (lambda x: F.avg_pool1d(x, N - 1, 1)[:, :1], (1, N), None),
    "adaptive pooling": (lambda x: F.adaptive_avg_pool2d(x, 1), (1, 1, 64, 64), (2, 3)),
    "adaptive pooling, no channels": (lambda x: F.adaptive_avg_pool1d(x, 1), (1, N), (1,)),
}


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_number_of_terms_is_in_the_slack(name, sign):
    """In a sum's order of most error, almost every term is lost."""
    function, shape, axes = SUMS[name]
    x = sign * swallowing(*shape)
    e = exact.fractions(x)
    right = exact.mean(e[:, : N - 1], (1,)) if axes is None else exact.mean(e, axes)
    if name in ("linear", "convolution", "sum of a view"):
        right = right * N
    bounds = propagate(alone(function), {}, x, rounded=True)
    assert exact.holds(bounds, np.asarray(right))
    width = (bounds.upper - bounds.lower).max() / bounds.upper.abs().max()
    assert N * 2.0**-53 < width < 6 * N * 2.0**-53, "every term may err by half a unit in the last place"


@pytest.mark.parametrize("function", [lambda x: F.hardtanh(x, -0.1, 0.1), lambda x: F.pad(x, (0, 1), value=0.1)])
def test_numbers_of_a_function_are_not_rounded_to_the_type_of_the_inputs(function):
    """0.1 is another number in float32."""
    bounds = propagate(alone(function), {}, torch.tensor([[0.5]]), rounded=True)
    right = function(torch.tensor([[0.5]], dtype=torch.float64))
    assert (bounds.lower <= right).all() and (right <= bounds.upper).all()


@settings(max_examples=30, deadline=None)
@given(seeds, st.sampled_from(["whitening alone", "scaled and shifted", "scale and shift cancel"]))
def test_batch_norm_encloses_its_rounding_also_where_product_and_bias_cancel(seed, kind):
    g = torch.Generator().manual_seed(seed)
    norm = nn.BatchNorm1d(3, eps=EPS, affine=kind != "whitening alone").eval()
    norm.running_var = VARIANCES - EPS
    norm.running_mean = torch.randn(3, generator=g)
    x = torch.randn(16, 3, generator=g)
    weight, bias = torch.ones(3), torch.zeros(3)
    if kind != "whitening alone":
        with torch.no_grad():
            norm.weight.copy_(torch.randn(3, generator=g))
            norm.bias.copy_(-norm(x)[0] if kind == "scale and shift cancel" else torch.randn(3, generator=g))
        weight, bias = norm.weight, norm.bias
    bounds = propagate(nn.Sequential(norm), {}, x, rounded=True)
    parts = [exact.fractions(t) for t in (norm.running_mean, VARIANCES, weight, bias)]
    assert exact.holds(bounds, exact.batch_norm(exact.fractions(x), *parts))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-60, 60, width=32), min_size=1, max_size=8), st.floats(0, 1, width=32))
def test_elementary_functions_enclose_the_image_of_an_interval(points, width):
    x = torch.tensor(points)[:, None]
    interval = Interval(x, x + width)
    modules = {
        "sigmoid": nn.Sigmoid(), "tanh": nn.Tanh(), "elu": nn.ELU(), "softplus": nn.Softplus(),
        "steep softplus": nn.Softplus(exact.STEEP, threshold=1000),
    }  # fmt: skip
    for name, module in modules.items():
        bounds = propagate(nn.Sequential(module), {}, interval, rounded=True)
        for side in (interval.lower, (interval.lower + interval.upper) / 2, interval.upper):
            side = side.clamp(interval.lower, interval.upper)
            right = exact.fractions(side)
            for index, value in enumerate(right.flatten()):
                right.flat[index] = exact.elementary(name, value)
            assert exact.holds(bounds, right), name


def test_what_is_known_to_be_nonnegative_stays_so_where_rounding_widens_it():
    x = Interval(torch.tensor([-90.0, -1.0, 0.0]), torch.tensor([-80.0, 0.0, 0.0]))
    for function in (torch.sigmoid, F.softplus, F.hardsigmoid, lambda x: x.relu() * 3, lambda x: x.relu() + 0.0):
        assert bool((propagate(alone(function), {}, x, rounded=True).lower >= 0).all())
