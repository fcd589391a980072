"""Semi-binary masks: the recorded ones, percentiles, and what must hold of any mask."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from methods.shared.masks import (
    kth_values,
    masked,
    neighbours_on_device,
    neighbours_selected,
    neighbours_sorted,
    percentile,
    ramp,
    semi_binary_mask,
)
from tests.methods import golden

GOLD = golden.group(golden.load("interval"), "hm")


def as_percent(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("j", range(len(GOLD["mask/sparsities"])))
def test_masks_equal_the_recorded_ones(j: int) -> None:
    outputs = [torch.from_numpy(GOLD[f"mask/h{i}"]) for i in range(6)]
    flat = torch.cat([h.flatten() for h in outputs])
    sizes = [h.numel() for h in outputs]
    mask = semi_binary_mask(flat, sizes, 5, as_percent(GOLD["mask/sparsities"][j]))
    for i, (part, h) in enumerate(zip(mask.split(sizes), outputs, strict=True)):
        golden.assert_close(part.view_as(h), GOLD[f"mask/s{j}/m{i}"], 1e-9, f"mask {i}")


def test_mask_gradients_equal_the_recorded_ones() -> None:
    outputs = [torch.from_numpy(GOLD[f"mask/h{i}"]) for i in range(6)]
    flat = torch.cat([h.flatten() for h in outputs]).requires_grad_()
    sizes = [h.numel() for h in outputs]
    cotangent = torch.cat([torch.from_numpy(GOLD[f"mask/cotangent{i}"]).flatten() for i in range(6)])
    (semi_binary_mask(flat, sizes, 5, as_percent(30.0)) @ cotangent).backward()
    for i, part in enumerate(flat.grad.split(sizes)):
        golden.assert_close(part, GOLD[f"mask/grad30_h{i}"].ravel(), 1e-9, f"gradient {i}")


def test_sparsity_schedule_equals_the_recorded_one() -> None:
    for (iteration, percent, steps), value in zip(GOLD["schedule/args"], GOLD["schedule/value"], strict=True):
        assert ramp(percent, int(iteration), int(steps)) == pytest.approx(value, rel=1e-12)
        assert ramp(percent, torch.tensor(iteration), int(steps)).item() == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(("n", "dtype"), [(1, torch.float32), (7, torch.float64), (100_003, torch.float32)])
@pytest.mark.parametrize("percent", [0.0, 0.7, 30.0, 50.0, 99.9, 100.0])
def test_percentile_is_numpys_and_exact_for_large_tensors(n: int, dtype: torch.dtype, percent: float) -> None:
    values = torch.rand(n, generator=torch.Generator().manual_seed(n)).to(dtype)
    expected = np.percentile(values.double().numpy(), percent).astype(values.numpy().dtype)
    assert percentile(values, as_percent(percent)).item() == pytest.approx(expected.item(), rel=1e-15)
    assert torch.equal(percentile(values, percent), percentile(values, as_percent(percent)))


@pytest.mark.parametrize("n", [1, 2, 33, 5000])
@pytest.mark.parametrize("percent", [0.0, 29.3, 60.0, 99.99, 100.0])
def test_all_ways_to_order_statistics_agree(n: int, percent: float) -> None:
    values = torch.randint(0, n, (n,), generator=torch.Generator().manual_seed(n)).double()  # with ties
    position = as_percent(percent) * (n - 1) / 100
    ordered = sorted(values.tolist())
    expected = [ordered[int(position)], ordered[min(int(position) + 1, n - 1)]]
    assert neighbours_sorted(values, position).tolist() == expected
    assert neighbours_selected(values, position).tolist() == expected
    assert neighbours_selected(values, position.item()).tolist() == expected
    assert kth_values(values, position.item()).tolist() == expected
    assert neighbours_on_device(values, position).tolist() == expected
    assert neighbours_on_device(values, position.item()).tolist() == expected


def test_ties_at_the_threshold_are_kept() -> None:
    h = torch.tensor([0.5, -0.5, 0.1, 0.5, 0.2, -0.9, 0.5], dtype=torch.float32)
    mask = semi_binary_mask(h, [7], 1, as_percent(50.0))
    assert (mask != 0).tolist() == [True, True, False, True, False, True, True]


def test_masked_weights_and_their_gradients() -> None:
    generator = torch.Generator().manual_seed(1)
    weights, mask = (torch.randn(9, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(2))
    assert torch.equal(masked(weights, mask, 2), torch.cat([(weights * mask)[:7], weights[7:]]))
    assert torch.equal(masked(weights, mask, 0), weights * mask)
    for n_open in (0, 2):
        assert torch.autograd.gradcheck(lambda w, m, n=n_open: masked(w, m, n), (weights, mask))


def test_exactly_the_share_below_the_percentile_is_dropped() -> None:
    h = torch.randn(1001, generator=torch.Generator().manual_seed(3))
    for percent in (0.0, 10.0, 33.3, 100.0):
        mask = semi_binary_mask(h, [1001], 1, as_percent(percent))
        assert int((mask == 0).sum()) == math.ceil(percent * 1000 / 100)
    assert torch.equal(semi_binary_mask(h, [1001], 1, None), h.tanh().abs())


def test_mask_gradient_equals_finite_differences() -> None:
    h = torch.randn(40, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: semi_binary_mask(v, [30, 10], 1, as_percent(35.0)), h)
