"""Masks of the largest entries, their gradient, the packing of masks, and what sets weights back."""

import pytest
import torch

from methods.shared.ownership import holding, moved, owned_up_to, pack, unpack
from methods.shared.topk import above_rank, from_rank, order_statistic, smallest, straight_through


@pytest.mark.parametrize("n", [1, 2, 31, 200])
def test_order_statistics_are_those_of_sorting(n):
    values = torch.randn(n, generator=torch.Generator().manual_seed(n))
    assert [order_statistic(values, r).item() for r in range(n)] == values.sort().values.tolist()


def test_counts_with_ties():
    values = torch.tensor([3.0, 1.0, 2.0, 2.0, 2.0, 1.0, 3.0])
    assert from_rank(values, [7], [3]).tolist() == [1, 0, 1, 1, 1, 0, 1], "all ties"
    assert above_rank(values, [7], [3]).tolist() == [1, 0, 0, 1, 1, 0, 1], "all but the first tie"
    assert [int(above_rank(values, [7], [r]).sum()) for r in range(7)] == list(range(7, 0, -1))
    assert above_rank(torch.ones(5), [2, 3], [1, 2]).tolist() == [0, 1, 0, 0, 1]
    assert smallest(values, 3).tolist() == [False, True, True, False, False, True, False], "the first tie"
    assert [int(smallest(values, c).sum()) for c in range(8)] == list(range(8))


def test_each_tensor_has_its_own_threshold():
    values = torch.tensor([1.0, 2.0, 10.0, 20.0, 30.0])
    assert from_rank(values, [2, 3], [1, 2]).tolist() == [0, 1, 0, 0, 1]
    assert from_rank(values[:0], [], []).shape == (0,)


def test_the_gradient_of_a_mask_is_that_of_the_identity():
    weights = torch.tensor([2.0, -3.0, 5.0], requires_grad=True)
    scores = torch.tensor([-0.5, 0.2, 0.1], requires_grad=True)
    mask = torch.tensor([1.0, 0.0, 1.0])
    for magnitude, expected in ((True, [-2.0, -30.0, 500.0]), (False, [2.0, -30.0, 500.0])):
        weights.grad = scores.grad = None
        first, rest = straight_through(weights, scores, mask, [1, 2], magnitude)
        torch.autograd.backward([first, rest], [torch.tensor([1.0]), torch.tensor([10.0, 100.0])])
        assert first.tolist() == [2] and rest.tolist() == [0, 5]
        assert weights.grad is not None and weights.grad.tolist() == [1, 0, 100]
        assert scores.grad is not None and scores.grad.tolist() == expected
    fixed = weights.detach()
    straight_through(fixed, scores, mask, [3])[0].sum().backward()
    assert fixed.grad is None


@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 100])
def test_packed_masks_come_back_and_take_a_bit_an_entry(n):
    mask = torch.rand(n, generator=torch.Generator().manual_seed(n)) < 0.5
    words = pack(mask)
    assert words.dtype == torch.int32 and len(words) == (n + 31) // 32
    assert torch.equal(unpack(words, n), mask)
    assert torch.equal(unpack(pack(torch.ones(n, dtype=torch.bool)), n), torch.ones(n, dtype=torch.bool))


def test_owners_count_beyond_a_byte():
    owners = torch.tensor([0, 1, 255, 256, 300], dtype=torch.int16)
    assert owned_up_to(owners, 255).tolist() == [False, True, True, True, False]


def test_numbers_are_compared_bit_by_bit():
    nan = torch.nan
    assert moved(torch.tensor([0.0, nan, 1.0]), torch.tensor([-0.0, nan, 1.0])).tolist() == [True, False, False]
    one = torch.ones(1, dtype=torch.float64)
    assert moved(one, one + 2e-16).tolist() == [True]


@pytest.mark.parametrize(
    "make", [lambda p: torch.optim.Adam(p, weight_decay=0.1), lambda p: torch.optim.SGD(p, 0.1, 0.9)]
)
def test_no_optimiser_moves_what_is_held_and_the_rest_moves_as_without(make):
    start, gradient = torch.randn(6, generator=torch.Generator().manual_seed(0)), torch.arange(6.0)
    start[0] = -0.0  # a step of 0 would make it 0
    trainable = torch.arange(6) >= 3
    held, alone = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    hold = holding(held, trainable)
    optimizers = make([held]), make([alone])
    for _ in range(3):
        held.grad, alone.grad = gradient.clone(), gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
        hold()
    assert not moved(held.detach(), start)[~trainable].any()
    assert torch.equal(held[trainable], alone[trainable]) and moved(held.detach(), start)[trainable].all()
