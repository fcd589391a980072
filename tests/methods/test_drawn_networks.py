"""Bounds of networks drawn at random: every operation with every argument is sound, or refused by a sentence."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from benchmarks.types import UserError
from methods.intervals.bounding import Interval, contains, propagate
from tests.methods.drawn import OPERATIONS, SIZE, Drawn

seeds = st.integers(0, 2**31 - 1)
radii = st.sampled_from([0.0, 1e-3, 0.3, 2.0])
BOUNDED = [operation for operation in OPERATIONS if operation.bounded]
programs = st.lists(st.tuples(st.sampled_from(BOUNDED), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=5)


def drawn(shape, radius: float) -> Interval:
    middle = 1.5 * torch.randn(shape, dtype=torch.float64)
    return Interval.around(middle, radius * torch.rand(shape, dtype=torch.float64))


def inside(box: Interval) -> torch.Tensor:
    """A point of the box, half of the time a corner."""
    share = torch.rand(box.lower.shape, dtype=torch.float64)
    share = share.round() if torch.rand(()) < 0.5 else share
    return torch.lerp(box.lower, box.upper, share).clamp(box.lower, box.upper)


def check(program, seed: int, x_radius: float, radius: float, nonnegative: bool) -> None:
    """Bounds hold for networks drawn from a box around a drawn network."""
    torch.manual_seed(seed)
    net = Drawn(program).double().eval()
    box = {
        name: Interval.around(p.detach(), radius * torch.rand(p.shape, dtype=torch.float64))
        for name, p in net.named_parameters()
    }
    x = drawn((5, SIZE), x_radius)
    x = Interval(x.lower.relu(), x.upper.relu()) if nonnegative else x
    x = Interval.point(x.lower) if x_radius == 0 else x
    signs = torch.eye(SIZE, dtype=torch.float64)
    for probe in (Interval(-signs, signs), Interval.point(signs)):  # the sign of the last value, and the value
        check_box(net, {**box, "probe.weight": probe}, x, nonnegative)


def check_box(net: nn.Module, box: dict[str, Interval], x: Interval, nonnegative: bool) -> None:
    rounded = propagate(net, box, x, nonnegative_inputs=nonnegative, rounded=True)
    bounds = propagate(net, box, x, nonnegative_inputs=nonnegative)
    # An evaluation in float64 errs by no more than the bounds were widened by for doing the same.
    allowed = 2 * (rounded.width - bounds.width).abs() + 1e-13 * (1 + bounds.magnitude)
    for side in (0, 1, None, None):
        point = {name: inside(part) for name, part in box.items()}
        if side is not None:
            point["probe.weight"] = box["probe.weight"][side]
        y = functional_call(net, point, (inside(x),))
        assert contains(Interval(bounds.lower - allowed, bounds.upper + allowed), y).all()
        assert contains(Interval(rounded.lower - allowed, rounded.upper + allowed), y).all()


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_operation_is_sound_or_refused(operation):
    for seed, (x_radius, radius) in enumerate(
        [(0.0, 0.0), (0.0, 0.3), (1e-3, 0.0), (0.3, 0.3), (2.0, 0.0), (2.0, 1.0)]
    ):
        if operation.bounded:
            for nonnegative in (False, True):
                check([(operation, 0, 0)], seed, x_radius, radius, nonnegative)
        else:
            with pytest.raises(UserError, match="interval bounds: "):
                check([(operation, 0, 0)], seed, x_radius, radius, False)


@settings(max_examples=300, deadline=None)
@given(programs, seeds, radii, radii, st.booleans())
def test_programs_of_operations_are_sound(program, seed, x_radius, radius, nonnegative):
    check(program, seed, x_radius, radius, nonnegative)
