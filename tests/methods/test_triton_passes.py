"""The Triton kernels equal the passes in PyTorch: compiled on CUDA, else in Triton's interpreter on the CPU.

The interpreter must be chosen before Triton is imported, so that without a GPU this file runs itself in a process
of its own. `test_triton_compiled` looks at what the compiler makes of the kernels.
"""

import importlib.util
import os
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest
import torch

from methods.hypernetworks import output_layer, torch_passes
from methods.hypernetworks.output_layer import FusedAdam, OutputAdam, OutputLayer, Targets
from methods.hypernetworks.passes import Cotangents

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
NUMPY_UNKNOWN = "only 0-dimensional arrays can be converted to Python scalars"
"""What loops fail with in the interpreter of Triton 3.6, which comes with PyTorch 2.11, under NumPy 2.4."""
DEVICE = "cpu" if INTERPRETED else "cuda"
inside = pytest.mark.skipif(not INTERPRETED and not torch.cuda.is_available(), reason="run by test_in_the_interpreter")
pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
SHAPES = [(1, 1, 1, 3), (3, 1, 65, 75), (4, 4, 50, 130), (5, 0, 33, 16), (17, 1, 150, 25)]
MANY = [(33, 0, 40, 9), (33, 33, 50, 75), (64, 1, 35, 100), (100, 100, 33, 20)]


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available() or INTERPRETED, reason="the kernels run themselves here")
def test_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", __file__]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    if NUMPY_UNKNOWN in done.stdout and version("triton").startswith(("3.6", "3.7", "3.8")):
        pytest.skip(f"the interpreter of Triton {version('triton')} does not know NumPy {version('numpy')}")
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout


class Case:
    """Boxes, m of k of them with radii, a layer (n, h), and t held boxes, s of them with radii."""

    def __init__(self, k, m, n, h, t=0, s=0):
        torch.manual_seed(0)
        self.centre, self.radius = self.drawn(k + t, h), self.drawn(m + s, h).abs()
        self.weight, self.bias = self.drawn(n, h), self.drawn(n)
        self.weight[0, 0] = 0.0  # |W| has gradient 0 there
        self.radius[:1] = 0.0
        self.held = Targets(self.drawn(t, n), self.drawn(s, n), 0.3) if t else None
        self.given = Cotangents(self.drawn(k, n), self.drawn(m, n), self.drawn(), self.drawn())

    @staticmethod
    def drawn(*shape):
        return torch.randn(shape, device=DEVICE)

    def gradients(self, passes, dtype=torch.float32):
        """All results of both passes, the gradient by the weight among them."""
        centre, radius, weight, bias = (x.to(dtype) for x in (self.centre, self.radius, self.weight, self.bias))
        held = Targets(self.held.theta.to(dtype), self.held.rho.to(dtype), 0.3) if self.held else None
        given = Cotangents(*(x.to(dtype) for x in self.given))
        images, gradient = passes.forward(centre, radius, weight, bias, held), torch.empty_like(weight)
        return [*images, *passes.backward(centre, radius, weight, images, given, gradient), gradient]

    def stepped(self, passes, widen=None, steps=2):
        """All results of the last of some steps, the weight and its moments."""
        layer, results = OutputLayer(self.weight.shape[1], len(self.weight)).to(DEVICE), []
        layer.weight.data.copy_(self.weight)
        adam = OutputAdam(layer, 0.01)
        if widen:
            adam.move_into(layer, widen)
        for _ in range(steps):
            images = passes.forward(self.centre, self.radius, adam.weight, self.bias, self.held)
            adam.begin()
            grads = passes.backward(self.centre, self.radius, adam.weight, images, self.given, adam)
            results = [*images, *grads]
        return [*results, adam.weight, *adam.moments]


def assert_close(ours, reference, within=1e-5):
    for got, want in zip(ours, reference, strict=True):
        scale = max(1.0, want.abs().max().item()) if want.numel() else 1.0
        torch.testing.assert_close(got.to(want.dtype), want, rtol=within, atol=within * scale)


@inside
@pytest.mark.parametrize(("t", "s"), [(0, 0), (3, 0), (2, 2)])
@pytest.mark.parametrize("shape", SHAPES + MANY)
def test_values_and_gradients(shape, t, s):
    from methods.hypernetworks import triton_passes

    k, m, n, h = shape
    own, own_radii = (k - t, m - s) if k > 32 and m > s else (k, m)  # then held ones are among the many
    case = Case(own, own_radii, n, h, t, s)
    assert_close(case.gradients(triton_passes), case.gradients(torch_passes, torch.float64))


@inside
@pytest.mark.parametrize("shape", [(3, 1, 65, 75), (3, 3, 50, 100), *MANY])
def test_steps_in_rows_of_any_width(shape):
    """W, stepped once whatever the number of boxes, and the same bits where its rows are wider in memory."""
    from methods.hypernetworks import triton_passes

    case = Case(*shape, t=3, s=min(1, shape[1]))
    ours, wide = case.stepped(triton_passes), case.stepped(triton_passes, triton_passes.widened)
    assert_close(ours, case.stepped(torch_passes), 1e-4)
    assert wide[-3].stride(0) % 4 == 0
    assert all(torch.equal(one, other) for one, other in zip(ours, wide, strict=True))
    n, h, stride = *wide[-3].shape, wide[-3].stride(0)
    for tensor in wide[-3:]:
        assert not tensor.as_strided((n, stride - h), (stride, 1), h).any()


@inside
def test_a_single_row_is_trained_task_after_task(monkeypatch):
    """Its padding goes with the optimiser; a tensor of one row is contiguous with any stride, which copies may keep."""
    from methods.hypernetworks import triton_passes

    monkeypatch.setattr(output_layer, "passes_for", lambda weight, boxes: triton_passes)
    layer, other = OutputLayer(5, 1).to(DEVICE), OutputLayer(5, 1).to(DEVICE)
    other.load_state_dict(layer.state_dict())
    for _ in range(2):
        reference = torch.optim.Adam(other.parameters(), lr=0.01)
        with FusedAdam(layer, [], lr=0.01) as optimizer:
            centre = torch.randn(3, 5, device=DEVICE)
            layer(centre)[0].sin().sum().backward()
            optimizer.step()
        reference.zero_grad()
        (centre @ other.weight.t() + other.bias).sin().sum().backward()
        reference.step()
        assert layer.weight.stride() == (5, 1)
    assert_close([layer.weight.detach()], [other.weight.detach()], 1e-5)


@inside
def test_100_steps_equal_torch_adam(monkeypatch):
    from methods.hypernetworks import triton_passes

    monkeypatch.setattr(output_layer, "passes_for", lambda weight, boxes: triton_passes)
    torch.manual_seed(1)
    layer, other = OutputLayer(5, 30).to(DEVICE), OutputLayer(5, 30).to(DEVICE)
    other.load_state_dict(layer.state_dict())
    reference, weight = torch.optim.Adam(other.parameters(), lr=0.01), layer.weight
    with FusedAdam(layer, [], lr=0.01) as optimizer:
        assert layer.weight.stride(0) == 8
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
    assert layer.weight is weight
    assert weight.is_contiguous()


@inside
@pytest.mark.parametrize("steps", [1, 3, 1000, 1_000_000])
def test_the_step_size_is_that_of_the_hosts_rule(steps):
    """Also in the first steps, where 1 - 0.999^i has lost 10 bits in float32."""
    from methods.hypernetworks import triton_passes

    case = Case(1, 0, 40, 12)
    layer = OutputLayer(12, 40).to(DEVICE)
    adam = OutputAdam(layer, 1.0)  # steps of about 1, for the weights' own rounding to hide nothing
    adam.steps.fill_(steps)
    _, _, eps, rate, root = adam.rule()
    before, grad = layer.weight.detach().double(), case.given.theta.T.double() @ case.centre.double()
    images = triton_passes.forward(case.centre, case.radius, adam.weight, case.bias, None)
    triton_passes.backward(case.centre, case.radius, adam.weight, images, case.given, adam)
    expected = rate * 0.1 * grad / ((0.001 * grad * grad).sqrt() * root + eps)
    torch.testing.assert_close(before - adam.weight.double(), expected, rtol=1e-6, atol=1e-6)


@inside
@pytest.mark.parametrize("k", [3, 33])
def test_the_self_check_that_every_gpu_passes_first(k):
    from methods.hypernetworks import triton_passes

    assert triton_passes.self_check(torch.device(DEVICE), k) < 1e-5


@pytest.mark.skipif(not INTERPRETED, reason="pretends tensor cores, in the interpreter")
@pytest.mark.parametrize("shape", [(3, 1, 65, 75), (4, 4, 50, 130), (40, 40, 50, 75)])
def test_products_on_tensor_cores_are_nearly_as_exact_as_float32(shape, monkeypatch):
    """Which read 11 bits of a number's 24, and cut off the others; the kernels' three products make up for that."""
    from triton.runtime import interpreter

    from methods.hypernetworks import triton_passes

    plain, cut = interpreter.InterpreterBuilder.create_dot, []

    def create_dot(self, a, b, *others):
        cut.extend([a, b])
        a, b = (type(x)((x.data.view(np.int32) & -0x2000).view(np.float32), x.dtype) for x in (a, b))
        return plain(self, a, b, *others)

    case = Case(*shape, t=2, s=1)
    exact = case.gradients(torch_passes, torch.float64)
    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)
    ours = case.gradients(triton_passes)
    assert cut
    for got, want in zip(ours, exact, strict=True):
        assert (got - want).norm() < 3e-7 * want.norm()
