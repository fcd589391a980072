"""The fused output layer equals the plain formulas, and its Adam equals torch.optim.Adam."""

import gc
import hashlib
import os
import shutil
import subprocess
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from methods.compiled import library as machine_code
from methods.hypernetworks import compiled, compiled_drift, output_layer, torch_passes
from methods.hypernetworks.drift import Frozen
from methods.hypernetworks.output_layer import FusedAdam, OutputLayer, Targets
from methods.hypernetworks.passes import Cotangents, Memory

SHAPES = [(1, 1, 1, 3), (3, 1, 7, 5), (4, 4, 50, 6), (5, 0, 11, 9), (0, 0, 6, 4), (1, 1, 997, 75), (9, 2, 61, 16)]


@pytest.fixture(params=["torch_passes", "compiled"], autouse=True)
def passes(request, monkeypatch):
    """Both ways to compute the passes, in several blocks or threads."""
    chosen = {"torch_passes": torch_passes, "compiled": compiled}[request.param]
    if chosen is compiled and compiled.library() is None:
        pytest.skip("there is no C++ compiler, or CONTINUAL_COMPILED is 0")
    monkeypatch.setattr(output_layer, "passes_for", lambda weight, boxes: chosen)
    monkeypatch.setattr(torch_passes, "CPU_BLOCK", 32)
    monkeypatch.setattr(compiled, "parts", lambda rows: min(rows, 3))
    return chosen


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
def test_values_and_gradients_equal_the_plain_formula(passes, k, m, n, h, t, s):
    """k boxes, m of them with radii; t more held, s of them with radii."""
    dtype, exact = (torch.float64, 1e-12) if passes is torch_passes else (torch.float32, 1e-5)
    torch.manual_seed(0)
    centre, radius = torch.randn(k + t, h), torch.rand(m + s, h)
    radius[1:2] = 0.0  # a box without width beside others
    tensors = [centre, radius, torch.randn(n, h), torch.randn(n)]
    tensors[2][0, 0] = 0.0  # |W| has gradient 0 there
    tensors = [tensor.double().requires_grad_() for tensor in tensors]
    held = Targets(torch.randn(t, n).double(), torch.rand(s, n).double(), 0.3) if t else None
    ours_held = Targets(held.theta.to(dtype), held.rho.to(dtype), 0.3) if held else None
    layer = OutputLayer(h, n)
    layer.weight, layer.bias = (nn.Parameter(tensor.detach().to(dtype)) for tensor in tensors[2:])
    inputs = [*(tensor.detach().to(dtype).requires_grad_() for tensor in tensors[:2]), layer.weight, layer.bias]
    ours, reference = layer(inputs[0], inputs[1], ours_held), plain(*tensors, held)
    cotangents = [torch.randn_like(r) for r in reference]

    def close(got, want):
        scale = max(1.0, want.abs().max().item()) if want.numel() else 1.0
        torch.testing.assert_close(got.double(), want, rtol=exact, atol=exact * scale)

    for got, want in zip(ours, reference, strict=True):
        close(got, want)

    def gradients(outputs, inputs):
        total = sum((o * c.to(o.dtype)).sum() for o, c in zip(outputs, cotangents, strict=True))
        return torch.autograd.grad(total, inputs)

    for got, want in zip(gradients(ours, inputs), gradients(reference, tensors), strict=True):
        close(got, want)


@pytest.mark.parametrize("weight", [None, 0.0, 0.25, 2.0])
def test_the_drift_weighs_radii_as_told_and_like_centres_where_nothing_is_said(weight):
    """Centres are off by 2 and radii by 3 everywhere, on eleven outputs of two boxes."""
    torch.manual_seed(0)
    layer, centre, radius = OutputLayer(3, 11), torch.randn(2, 3), torch.rand(2, 3)
    theta, rho, nothing = (part.detach() for part in layer(centre, radius))
    options = {} if weight is None else {"radius_weight": weight}
    drift = layer(centre, radius, Targets(theta - 2, rho + 3, **options))[2]
    assert nothing == 0
    assert drift.item() == pytest.approx(2 * 11 * (2**2 + (1.0 if weight is None else weight) * 3**2), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_100_steps_equal_torch_adam(passes, dtype):
    if passes is compiled and dtype is torch.float64:
        pytest.skip("machine code serves float32")
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


def test_steps_of_wider_rows_are_the_same(passes):
    """Triton's passes like them; PyTorch's, which follow where those fail, must do with them too."""
    if passes is compiled:
        assert not compiled.suits(torch.zeros(23, 8)[:, :5])
        return

    def wide(tensor):
        return torch.cat([tensor, torch.zeros(len(tensor), 3)], 1)[:, :5]

    def steps(memory):
        torch.manual_seed(0)
        layer = OutputLayer(5, 23)
        adam = output_layer.OutputAdam(layer, 0.01)
        adam.move_into(layer, memory)
        layer.update = adam
        for _ in range(3):
            layer(torch.randn(2, 5))[0].sin().sum().backward()
        return layer.weight.detach(), *adam.moments

    for one, other in zip(steps(wide), steps(lambda tensor: tensor), strict=True):
        assert one.stride() == (8, 1)
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
        assert not one.as_strided((23, 3), (8, 1), 5).any()


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


def test_a_rate_set_later_is_that_of_all_parameters():
    """The first step of Adam moves each number by the rate, whatever its gradient."""
    layer, other = OutputLayer(3, 4), nn.Parameter(torch.zeros(2))
    before = layer.weight.detach().clone()
    with FusedAdam(layer, [other], lr=0.1) as optimizer:
        optimizer.lr = 0.5
        (layer(torch.ones(1, 3))[0].sum() + 3 * other.sum()).backward()
        optimizer.step()
    assert optimizer.lr == 0.5
    for moved in (layer.weight - before, other):
        torch.testing.assert_close(moved.detach(), torch.full_like(moved, -0.5))


@pytest.mark.parametrize("t", [0, 2])
def test_nothing_of_a_step_outlives_it(t):
    """What a step holds (moments, outputs of N scalars a box) is freed at once, not when Python looks for cycles."""
    layer = OutputLayer(3, 11)
    held = Targets(torch.zeros(t, 11), torch.zeros(0, 11)) if t else None
    gc.collect()
    gc.disable()
    try:
        with FusedAdam(layer, [], lr=0.1) as optimizer:
            theta, rho, drift = layer(torch.ones(1 + t, 3, requires_grad=True), torch.ones(1, 3), held)
            (theta.sum() + rho.sum() + drift).backward()
            optimizer.step()
        moment = weakref.ref(optimizer.output.moments[0])
        del theta, rho, drift, optimizer
        assert moment() is None
    finally:
        gc.enable()


def three_steps(k, m, n, h):
    """Everything that three steps of the machine code leave, for k centres and m radii, one of each not held."""
    rng = np.random.RandomState(0)  # the same numbers with every version

    def some(*shape):
        return torch.tensor(rng.randint(-3000, 3000, shape) / 1000, dtype=torch.float32)

    centre, radius, weight, bias = some(k, h), some(m, h).abs(), some(n, h), some(n)
    weight[weight.abs() < 0.05] = 0.0
    held = Targets(some(k - 1, n), some(m - 1, n).abs(), 0.3)
    cotangents = Cotangents(some(1, n), some(1, n), torch.tensor(0.1), torch.tensor(0.2))
    layer = OutputLayer(h, n)
    with torch.no_grad():
        layer.weight.copy_(weight)
    adam, gradient, found = output_layer.OutputAdam(layer, 0.01), torch.empty(n, h), []
    for _ in range(3):
        images = compiled.forward(centre, radius, adam.weight, bias, held)
        found += [*compiled.backward(centre, radius, adam.weight, images, cotangents, gradient), gradient.clone()]
        adam.begin()
        found += [*images, *compiled.backward(centre, radius, adam.weight, images, cotangents, adam)]
    return [*found, adam.weight, *adam.moments]


# Rows and columns that fill no vector, more than one tile of rows, inputs that fill no group.
BIT_SHAPES = [(1, 1, 103, 100), (10, 1, 101, 100), (10, 10, 301, 37), (3, 2, 50, 7), (2, 2, 5, 1), (7, 3, 193, 33)]
BITS = "3a53fc1723b76cebd9eb14314137f31a79d8d48dc8a711fa555659e194ca83ca"
"""SHA-256 of what three steps leave for each of these shapes."""
TUNINGS = ("znver3", "znver4", "skylake-avx512", "generic")
"""Processors whose compiled code differs: GCC avoids chains of fused multiply-adds of 256 bits for AMD's."""


DRIFT_SHAPES = [(301, 10, 120), (40, 3, 40), (150, 33, 7)]
"""Rows and columns of W, and the edge behind which the last chunk has no outputs."""
DRIFT_BITS = "2bfdd77032f21df32625def68aca805928b4a47bdab93aaaff79e98a8c8d3027"
"""SHA-256 of what the two passes with look-ahead leave for each of these shapes."""


def drift_passes(n, h, edge):
    """Everything that the passes of `compiled_drift` leave."""
    rng = np.random.RandomState(0)

    def some(*shape):
        return torch.tensor(rng.randint(-3000, 3000, shape) / 1000, dtype=torch.float32)

    weight, gradient, mean, square, bias = some(n, h), some(n, h), some(n, h), some(n, h).abs(), some(n)
    frozen = some(n, h)
    since = Frozen(some(1, 1, h), frozen, some(n), compiled_drift.in_blocks(frozen))
    rule = compiled_drift.Rule(0.1, 0.999, 0.001, 1e-8, 0.01)
    moments, of_bias = {"exp_avg": mean, "exp_avg_sq": square}, some(n)
    ahead, grams = compiled_drift.look_ahead(weight, gradient, moments, rule, bias, since, edge)
    products = some(2, 2 * h + 1, h + 1)
    compiled_drift.add_gradient(gradient, of_bias, ahead, bias, since, products, edge)
    return [ahead, grams, gradient, of_bias]


CHUNK_SHAPES = [(12, 301, 10), (17, 97, 33), (9, 96, 16), (8, 50, 7)]
"""Inputs, one for each chunk, and rows and columns of W."""
CHUNK_BITS = "7873d30562bad4c23c3eaec3514f6613430c48867a9d6731a7ab68dc191ecb37"
"""SHA-256 of what the passes of a chunk's inputs leave for each of these shapes."""


def chunk_passes(k, n, h):
    """Outputs and gradients of many inputs, none held and without radii."""
    rng = np.random.RandomState(0)

    def some(*shape):
        return torch.tensor(rng.randint(-3000, 3000, shape) / 1000, dtype=torch.float32)

    centre, weight, nothing, gradient = some(k, h), some(n, h), torch.zeros(()), torch.empty(n, h)
    images = compiled.forward(centre, torch.empty(0, h), weight, some(n), None)
    cotangents = Cotangents(some(k, n), torch.empty(0, n), nothing, nothing)
    found = compiled.backward(centre, torch.empty(0, h), weight, images, cotangents, gradient)
    return [images.theta, *found, gradient]


WORK = [(three_steps, BIT_SHAPES), (drift_passes, DRIFT_SHAPES), (chunk_passes, CHUNK_SHAPES)]


@pytest.mark.parametrize(
    ("work", "shapes", "bits"), [(*work, bits) for work, bits in zip(WORK, (BITS, DRIFT_BITS, CHUNK_BITS), strict=True)]
)
def test_the_bits_are_those_of_every_other_machine(passes, monkeypatch, work, shapes, bits):
    """x86-64 and 64-bit ARM; shipped records were computed with these."""
    if passes is not compiled:
        pytest.skip("needs machine code")
    monkeypatch.setattr(compiled, "parts", lambda rows: 1)  # PyTorch adds those of several up
    found = hashlib.sha256()
    for tensor in (tensor for shape in shapes for tensor in work(*shape)):
        found.update((tensor + 0.0).numpy().tobytes())  # no negative zeros: PyTorch's sum of one may lose the sign
    assert found.hexdigest() == bits


def differing_shapes(monkeypatch, library):
    """The shapes for which this library has other bits than the one in use."""
    work = [(run, shape) for run, shapes in WORK for shape in shapes]
    wanted = [run(*shape) for run, shape in work]
    with monkeypatch.context() as patch:
        patch.setattr(compiled, "library", lambda: library)
        found = [run(*shape) for run, shape in work]
    pairs = zip((shape for _, shape in work), wanted, found, strict=True)
    return [shape for shape, a, b in pairs if not all(map(torch.equal, a, b))]


def knows(compiler, flags):
    """Whether the compiler knows these flags: what it knows depends on its version and the processor's family."""
    command = [compiler, *flags, "-E", "-x", "c++", os.devnull]
    return subprocess.run(command, capture_output=True, timeout=60).returncode == 0


@pytest.mark.slow
def test_the_bits_depend_on_neither_width_of_the_processors_vectors_nor_tuning_nor_compiler(
    passes, tmp_path, monkeypatch
):
    if passes is not compiled:
        pytest.skip("needs machine code")
    compilers = [path for path in map(shutil.which, ("g++", "clang++")) if path]
    tuned = [(f"-mtune={name}", *width) for name in TUNINGS for width in ((), ("-mno-avx512f",))]
    builds = [(c, flags) for c in compilers for flags in [*tuned, ("-O1",)] if knows(c, flags)]

    def library(number):
        compiler, flags = builds[number]
        compiled.LIBRARY.compile(compiler, tmp_path / f"{number}.so", *flags)
        return compiled.LIBRARY.opened(tmp_path / f"{number}.so")

    with ThreadPoolExecutor(2) as pool:
        libraries = list(pool.map(library, range(len(builds))))
    differing = [build for build, it in zip(builds, libraries, strict=True) if differing_shapes(monkeypatch, it)]
    assert builds and differing == []


def test_machine_code_is_named_by_its_source():
    """A cell's key covers Python code; the digest in it stands for the C++ code."""
    source = b"".join(path.read_bytes() for path in compiled.LIBRARY.files)
    assert hashlib.sha256(source).hexdigest() == compiled.LIBRARY.digest


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("CONTINUAL_COMPILED", "0", "CONTINUAL_COMPILED is 0"),
        ("CXX", "no-such-compiler", "there is no C++ compiler no-such-compiler"),
        ("CXX", "false", "returned non-zero exit status"),
    ],
)
def test_without_machine_code_the_passes_run_in_pytorch(name, value, reason, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(compiled, "library", compiled.library.__wrapped__)
    caplog.set_level("INFO")
    assert not compiled.suits(torch.zeros(2, 3))
    assert reason in caplog.text


def test_a_processor_without_fused_multiply_adds_runs_in_pytorch(passes, tmp_path, monkeypatch, caplog):
    """Emulated they would be slow, and left out they would change the bits."""
    flags = ("-mno-fma", "-mno-avx512f")
    if passes is not compiled or not knows(compiler := shutil.which("c++") or "g++", flags):
        pytest.skip("needs machine code, and a processor whose multiply-adds can be done without")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setattr(machine_code, "FLAGS", (*machine_code.FLAGS, *flags))
    monkeypatch.setattr(compiled, "library", compiled.library.__wrapped__)
    caplog.set_level("INFO")
    assert not compiled.suits(torch.zeros(2, 3))
    assert "no fused multiply-add" in caplog.text


@pytest.mark.parametrize("passes", [compiled, torch_passes])
def test_outputs_in_memory_that_is_used_again_have_the_same_bits(passes):
    if passes is compiled and compiled.library() is None:
        pytest.skip("no machine code here")
    torch.manual_seed(0)
    weight, bias = torch.randn(150, 7), torch.randn(150)
    plain = Targets(torch.randn(2, 150), torch.rand(1, 150), 0.3)
    held, places = plain._replace(memory=Memory()), set()
    for _ in range(3):
        centre, radius = torch.randn(3, 7), torch.rand(2, 7)
        expected, found = (passes.forward(centre, radius, weight, bias, some) for some in (plain, held))
        assert all(map(torch.equal, found, expected))
        places.add((found.theta.data_ptr(), found.rho.data_ptr()))
    assert len(places) == 1
    fewer = passes.forward(centre[1:], radius, weight, bias, held)
    assert fewer.theta.shape == (2, 150), "other memory for another number of boxes"
