"""The fused output layer equals the plain formulas, and its Adam equals torch.optim.Adam."""

import pytest
import torch
from torch import nn

from methods.nets import fused
from methods.nets.fused import FusedAdam, OutputLayer, Targets

SHAPES = [(1, 1, 1, 3), (3, 1, 7, 5), (4, 4, 50, 6), (5, 0, 11, 9), (0, 0, 6, 4)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(fused, "CPU_BLOCK", 32)


def plain(centre, radius, weight, bias, held):
    theta, rho = centre @ weight.t() + bias, radius @ weight.abs().t()
    if held is None:
        return theta, rho, theta.new_zeros(())
    t, s = len(held.theta), len(held.rho)
    drift = (theta[-t:] - held.theta).square().sum()
    if s:
        drift = drift + held.radius_weight * (rho[-s:] - held.rho).square().sum()
    return theta[: len(theta) - t], rho[: len(rho) - s], drift


@pytest.mark.parametrize(("k", "m", "n", "h"), SHAPES)
@pytest.mark.parametrize(("t", "s"), [(0, 0), (2, 0), (2, 2)])
def test_values_and_gradients_equal_the_plain_formula(k, m, n, h, t, s):
    """k boxes, m of them with radii; t more held, s of them with radii."""
    torch.manual_seed(0)
    centre, radius = torch.randn(k + t, h), torch.rand(m + s, h)
    tensors = [centre, radius, torch.randn(n, h), torch.randn(n)]
    tensors[2][0, 0] = 0.0  # |W| has gradient 0 there
    tensors = [tensor.double().requires_grad_() for tensor in tensors]
    held = Targets(torch.randn(t, n).double(), torch.rand(s, n).double(), 0.3) if t else None
    layer = OutputLayer(h, n)
    layer.weight, layer.bias = nn.Parameter(tensors[2]), nn.Parameter(tensors[3])
    inputs = [*tensors[:2], layer.weight, layer.bias]
    ours, reference = layer(inputs[0], inputs[1], held), plain(*tensors, held)
    cotangents = [torch.randn_like(r) for r in reference]
    for got, want in zip(ours, reference, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)

    def gradients(outputs, inputs):
        total = sum((o * c).sum() for o, c in zip(outputs, cotangents, strict=True))
        return torch.autograd.grad(total, inputs)

    for got, want in zip(gradients(ours, inputs), gradients(reference, tensors), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_100_steps_equal_torch_adam(dtype):
    torch.manual_seed(1)
    layer, hidden = OutputLayer(5, 23).to(dtype), torch.nn.Linear(4, 5).to(dtype)
    other_layer, other_hidden = OutputLayer(5, 23).to(dtype), torch.nn.Linear(4, 5).to(dtype)
    other_layer.load_state_dict(layer.state_dict())
    other_hidden.load_state_dict(hidden.state_dict())
    reference = torch.optim.Adam([*other_layer.parameters(), *other_hidden.parameters()], lr=0.01)

    def loss(hidden, layer, x):
        theta, rho, _ = layer(hidden(x).relu(), hidden(x).sigmoid())
        return (theta.sin() * rho).sum()

    with FusedAdam(layer, hidden.parameters(), lr=0.01) as optimizer:
        for _ in range(100):
            x = torch.randn(3, 4, dtype=dtype)
            for opt, h, o in ((optimizer, hidden, layer), (reference, other_hidden, other_layer)):
                opt.zero_grad()
                loss(h, o, x).backward()
                opt.step()
    rtol = 1e-3 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(layer.weight, other_layer.weight, rtol=rtol, atol=rtol)
    torch.testing.assert_close(layer.bias, other_layer.bias, rtol=rtol, atol=rtol)
    torch.testing.assert_close(hidden.weight, other_hidden.weight, rtol=rtol, atol=rtol)


def test_outside_the_context_the_layer_is_an_ordinary_one():
    layer = OutputLayer(3, 4)
    with FusedAdam(layer, [], lr=0.1) as optimizer:
        before = layer.weight.detach().clone()
        layer(torch.ones(1, 3, requires_grad=True))[0].sum().backward()
        optimizer.step()
        assert not torch.equal(layer.weight, before)
        assert layer.weight.grad is None
    after = layer.weight.detach().clone()
    layer(torch.ones(1, 3))[0].sum().backward()
    assert torch.equal(layer.weight, after)
    assert layer.weight.grad is not None
