"""The Triton kernels equal the passes in PyTorch: compiled on CUDA, else in Triton's interpreter on the CPU.

The interpreter must be chosen before Triton is imported, so that without a GPU this file runs itself in a process
of its own.
"""

import importlib.util
import os
import subprocess
import sys
from importlib.metadata import version

import pytest
import torch

from methods.nets import blockwise, fused
from methods.nets.fused import FusedAdam, OutputLayer, Targets
from methods.nets.passes import Cotangents

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
NUMPY_UNKNOWN = "only 0-dimensional arrays can be converted to Python scalars"
"""What loops fail with in the interpreter of Triton 3.6, which comes with PyTorch 2.11, under NumPy 2.4."""
DEVICE = "cpu" if INTERPRETED else "cuda"
inside = pytest.mark.skipif(not INTERPRETED and not torch.cuda.is_available(), reason="run by test_in_the_interpreter")
pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


@pytest.mark.skipif(torch.cuda.is_available() or INTERPRETED, reason="the kernels run themselves here")
def test_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", __file__]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    if NUMPY_UNKNOWN in done.stdout and version("triton").startswith(("3.6", "3.7", "3.8")):
        pytest.skip(f"the interpreter of Triton {version('triton')} does not know NumPy {version('numpy')}")
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout


@inside
@pytest.mark.parametrize(("k", "m", "n", "h"), [(1, 1, 1, 3), (3, 1, 65, 75), (4, 4, 50, 130), (5, 0, 33, 16)])
@pytest.mark.parametrize(("t", "s"), [(0, 0), (3, 0), (2, 2)])
def test_values_and_gradients(k, m, n, h, t, s):
    from methods.nets import triton_passes

    torch.manual_seed(0)

    def drawn(*shape):
        return torch.randn(shape, device=DEVICE)

    centre, radius, weight, bias = drawn(k + t, h), drawn(m + s, h).abs(), drawn(n, h), drawn(n)
    weight[0, 0] = 0.0  # |W| has gradient 0 there
    radius[:1] = 0.0
    held = Targets(drawn(t, n), drawn(s, n), 0.3) if t else None
    given = Cotangents(drawn(k, n), drawn(m, n), drawn(), drawn())
    results = []
    for passes in (triton_passes, blockwise):
        images, gradient = passes.forward(centre, radius, weight, bias, held), torch.empty_like(weight)
        results.append([*images, *passes.backward(centre, radius, weight, images, given, gradient), gradient])
    for ours, reference in zip(*results, strict=True):
        scale = reference.abs().max().item() if reference.numel() else 1.0
        torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-5 * max(1.0, scale))


@inside
def test_100_steps_equal_torch_adam(monkeypatch):
    from methods.nets import triton_passes

    monkeypatch.setattr(fused, "passes_for", lambda weight, boxes: triton_passes)
    torch.manual_seed(1)
    layer, other = OutputLayer(5, 30).to(DEVICE), OutputLayer(5, 30).to(DEVICE)
    other.load_state_dict(layer.state_dict())
    reference = torch.optim.Adam(other.parameters(), lr=0.01)
    with FusedAdam(layer, [], lr=0.01) as optimizer:
        for _ in range(100):
            centre, radius = torch.randn(3, 5, device=DEVICE), torch.rand(1, 5, device=DEVICE)
            theta, rho, _ = layer(centre.requires_grad_(), radius)
            (theta.sin() * rho).sum().backward()
            optimizer.step()
            reference.zero_grad()
            ((centre @ other.weight.t() + other.bias).sin() * (radius @ other.weight.abs().t())).sum().backward()
            reference.step()
    torch.testing.assert_close(layer.weight, other.weight, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(layer.bias, other.bias, rtol=1e-3, atol=1e-3)


@inside
def test_the_self_check_that_every_gpu_passes_first():
    from methods.nets import triton_passes

    assert triton_passes.self_check(torch.device(DEVICE)) < 1e-5
