"""Bounds of the task inference hold for every point of the logits' boxes."""

from decimal import Decimal, localcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.shared.inference import (
    entropy,
    entropy_bounds,
    least_entropy,
    log_softmax_bounds,
    over_all_classes,
    over_all_classes_bounds,
    width_weights,
)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.floats(0, 8), st.integers(0, 10**6))
def test_bounds_hold_inside_the_box(tasks, classes, size, seed):
    generator = torch.Generator().manual_seed(seed)

    def draw():
        return torch.randn(tasks, 6, classes, generator=generator, dtype=torch.float64)

    middle, radius = 4 * draw(), size * draw().abs()
    lower, upper = middle - radius, middle + radius
    log_lower, log_upper = log_softmax_bounds(lower, upper)
    low, up = entropy_bounds(log_lower, log_upper)
    answer_low, answer_up = over_all_classes_bounds(lower, upper)
    for _ in range(20):
        share = torch.rand(tasks, 6, classes, generator=generator, dtype=torch.float64)
        point = lower + share * (upper - lower)
        log_p, h = point.log_softmax(-1), entropy(point)
        assert (log_p >= log_lower - 1e-9).all() and (log_p <= log_upper + 1e-9).all()
        assert (h >= low - 1e-9).all() and (h <= up + 1e-9).all()
        answers = over_all_classes(point, least_entropy(point))
        assert (answers >= answer_low - 1e-9).all() and (answers <= answer_up + 1e-9).all()


def test_bounds_of_a_point_are_the_point():
    logits = torch.randn(3, 5, 4, dtype=torch.float64)
    answers = over_all_classes(logits, least_entropy(logits))
    for bound in over_all_classes_bounds(logits, logits):
        torch.testing.assert_close(bound, answers)


DIGITS = Decimal("1e-40")
"""To which the reference is right."""


def exact_log_softmax(logits: list[float]) -> list[Decimal]:
    exponentials = [Decimal(v).exp() for v in logits]
    return [Decimal(v) - sum(exponentials).ln() for v in logits]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-80, 80), min_size=1, max_size=6), st.booleans())
def test_bounds_of_a_point_enclose_their_own_rounding(logits, weighted):
    """Against 50 digits, so that a choice of the task that the bounds call sure is sure."""
    x = torch.tensor([logits], dtype=torch.float64)
    weights = torch.rand_like(x) if weighted else None
    log_lower, log_upper = log_softmax_bounds(x, x)
    with localcontext() as context:
        context.prec = 50
        right = exact_log_softmax(logits)
        for a, v, b in zip(log_lower[0].tolist(), right, log_upper[0].tolist(), strict=True):
            assert Decimal(a) - DIGITS <= v <= Decimal(b) + DIGITS
        for value in (log_lower, log_upper):  # as if it were the log-probabilities themselves
            low, up = entropy_bounds(value, value, weights)
            factors = [Decimal(1)] * len(logits) if weights is None else [Decimal(w) for w in weights[0].tolist()]
            terms = [-Decimal(v).exp() * Decimal(v) * f for v, f in zip(value[0].tolist(), factors, strict=True)]
            assert Decimal(low.item()) <= sum(terms) <= Decimal(up.item())


def test_classes_of_narrow_intervals_count_by_the_inverse_of_their_width_and_a_thousandth() -> None:
    """HINT's 1 / (0.001 + width): 1000 for a point, 1 for a width of 0.999."""
    lower = torch.tensor([0.0, -1.0, 2.0], dtype=torch.float64)
    found = width_weights(lower, lower + torch.tensor([0.0, 0.999, 3.999], dtype=torch.float64))
    assert found.tolist() == pytest.approx([1000.0, 1.0, 0.25], rel=1e-12)


def test_logits_without_bounds_leave_everything_open():
    lower, upper = torch.tensor([[[-torch.inf, 0.0]], [[0.0, 0.0]]]), torch.tensor([[[torch.inf, 0.0]], [[0.0, 0.0]]])
    low, up = over_all_classes_bounds(lower.double(), upper.double())
    assert not (low.isnan() | up.isnan()).any()
    assert (low[0, :2] <= -1e4).all() and (up[0, :2] >= -1e-9).all()


@pytest.mark.parametrize("size", [1.0, 1000.0])
def test_every_class_of_the_chosen_task_lies_above_all_others(size):
    """However unsure the chosen task's model is of a class, and however sure the others are of theirs."""
    g = torch.Generator().manual_seed(0)
    tasks, samples, classes = 3, 50, 100
    logits = size * torch.randn(tasks, samples, classes, generator=g)
    task = torch.randint(tasks, (samples,), generator=g)
    logits[:, :5] = torch.where(torch.arange(tasks)[:, None, None] == task[:5, None], 0.0, logits[:, :5])
    answers = over_all_classes(logits, task)
    own = torch.arange(tasks * classes) // classes == task[:, None]
    assert (answers.masked_fill(~own, torch.inf).amin(1) > answers.masked_fill(own, -torch.inf).amax(1)).all()
    assert answers.isfinite().all()
    assert torch.equal(answers.argmax(1), classes * task + logits[task, torch.arange(samples)].argmax(1))


def test_a_task_that_surely_is_not_chosen_is_no_rival_of_a_certificate():
    """Task 0 is sure of its class, task 1 of nothing: by hand, the answer is certified, over all classes of both."""
    middle = torch.tensor([[[9.0, 0.0]], [[0.0, 0.1]]], dtype=torch.float64)
    lower, upper = over_all_classes_bounds(middle - 0.01, middle + 0.01)
    assert (lower[:, 0] > upper[:, 1:].amax(1)).all()
    assert (upper[:, 2:] < -5000).all() and (lower[:, :2] > -20).all()
    # where the entropies of both may be the least, nothing is certain: each may be the chosen one, and neither must
    lower, upper = over_all_classes_bounds(middle[:1].repeat(2, 1, 1) - 0.01, middle[:1].repeat(2, 1, 1) + 0.01)
    assert (lower < -5000).all() and (upper > -20).all()
