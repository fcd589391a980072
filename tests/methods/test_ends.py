"""Boxes by parameter: values and gradients are autograd's, to the last bit."""

from __future__ import annotations

import pytest
import torch

from methods.hypernetworks.ends import BoxByParameter

SHAPES = {"weight": torch.Size((3, 4)), "bias": torch.Size((3,)), "last": torch.Size((2, 3))}
SIZES = [shape.numel() for shape in SHAPES.values()]
N = sum(SIZES)


def named(flat):
    return {name: part.view(shape) for part, (name, shape) in zip(flat.split(SIZES), SHAPES.items(), strict=True)}


def loss(middle, lower, upper, x):
    """Every part is used, each end twice, so that gradients of one part add up."""
    hidden = [torch.relu(x @ side["weight"].t() + side["bias"]) for side in (middle, lower, upper)]
    found = [h @ side["last"].t() for h, side in zip(hidden, (middle, lower, upper), strict=True)]
    return (found[0].square() + found[1] * found[2]).sum() + (lower["last"] * upper["last"]).sin().sum()


@pytest.mark.parametrize("seed", range(5))
def test_values_and_gradients_are_those_of_autograd(seed) -> None:
    torch.manual_seed(seed)
    x, theta, rho = torch.randn(5, 4), torch.randn(N, requires_grad=True), torch.rand(N, requires_grad=True)
    middle = named(theta)  # before the ends, as in a step: autograd adds up gradients in the opposite order
    expected = loss(middle, named(theta - rho), named(theta + rho), x)
    gradients = torch.autograd.grad(expected, [theta, rho])
    box = BoxByParameter(theta, rho, SHAPES)
    found = loss(box.middle, *box.ends(), x)
    assert torch.equal(found, expected)
    for a, b in zip(torch.autograd.grad(found, [theta, rho]), gradients, strict=True):
        assert torch.equal(a, b)


def test_a_part_that_the_loss_leaves_out_has_no_gradient() -> None:
    theta, rho = torch.randn(N, requires_grad=True), torch.rand(N, requires_grad=True)
    box = BoxByParameter(theta, rho, SHAPES)
    box.ends()[1]["bias"].sum().backward()
    wanted = torch.cat([torch.zeros(SIZES[0]), torch.ones(SIZES[1]), torch.zeros(SIZES[2])])
    assert torch.equal(theta.grad, wanted) and torch.equal(rho.grad, wanted)
