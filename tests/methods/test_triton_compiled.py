"""What the compiler makes of the Triton kernels for compute capability 9.0; no GPU is needed, and nothing runs.

The passes run on the CPU up to where they would launch a kernel. What they would launch is compiled, and the text of
its instructions is looked at.
"""

import os
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from methods.hypernetworks.output_layer import OutputAdam, OutputLayer, Targets
from methods.hypernetworks.passes import Cotangents, Images

triton = pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="kernels are interpreted here")
ROWS = 162
"""As many modulo 16 as Split MNIST's 475,202, which decides what the compiler may assume."""
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


class Launch(NamedTuple):
    """A kernel with all that decides what it is compiled to, hashable."""

    kernel: str
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, object], ...]
    aligned: tuple[int, ...]
    options: tuple[tuple[str, object], ...]


class Compiled(NamedTuple):
    ttir: str
    ptx: str
    registers: int
    spilled: int


class Recorder:
    """Stands in for a kernel and notes its launches, specialised as Triton does it."""

    def __init__(self, kernel, launches):
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid):
        return self.launch

    def launch(self, *args, **options):
        names, values = self.kernel.arg_names, dict(zip(self.kernel.arg_names, args, strict=False))
        values |= {name: options.pop(name) for name in names if name in options}
        types, constants, aligned = {}, {}, []
        for at, parameter in enumerate(self.kernel.params):
            name, value = parameter.name, values[parameter.name]
            known = isinstance(value, int) and not parameter.do_not_specialize
            if parameter.is_constexpr or (known and value == 1):
                types[name], constants[name] = "constexpr", value
                continue
            types[name] = "*fp32" if isinstance(value, torch.Tensor) else "i32" if isinstance(value, int) else "fp32"
            if (isinstance(value, torch.Tensor) and value.data_ptr() % 16 == 0) or (known and value % 16 == 0):
                aligned.append(at)
        decisive = tuple(types.items()), tuple(constants.items()), tuple(aligned), tuple(options.items())
        self.launches.append(Launch(self.kernel.__name__, *decisive))


@cache
def compiled(launch, folder):
    """Compiled for compute capability 9.0, in memory and below `folder`."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from methods.hypernetworks import triton_kernels

    attributes = {(at,): [["tt.divisibility", 16]] for at in launch.aligned}
    kernel = getattr(triton_kernels, launch.kernel)
    source = ASTSource(kernel, dict(launch.signature), dict(launch.constants), attributes)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=dict(launch.options))
    binary = folder / "kernel.cubin"
    binary.write_bytes(made.asm["cubin"])
    usage = subprocess.run([TOOLS / "cuobjdump", "-res-usage", binary], capture_output=True, text=True, check=True)
    found = re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", usage.stdout)
    return Compiled(made.asm["ttir"], made.asm["ptx"], int(found[1]), int(found[2]) + int(found[3]))


@pytest.fixture
def launches(monkeypatch):
    """What the passes would have launched, by the kernels' names."""
    from methods.hypernetworks import triton_kernels

    found = []
    for name in ("forward", "backward", "sums"):
        monkeypatch.setattr(triton_kernels, name, Recorder(getattr(triton_kernels, name), found))
    return found


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where Triton keeps what it compiles in these tests."""
    return tmp_path_factory.mktemp("triton")


@pytest.fixture
def kernels(launches, folder, monkeypatch):
    """Both passes' kernels for a layer and so many boxes, compiled, by name."""

    def of(k, m, h, adam=True):
        launches.clear()
        both_passes(k, m, h, adam, widen=adam)
        wanted = list(launches)
        monkeypatch.undo()  # the kernels are in their module again
        monkeypatch.setenv("TRITON_CACHE_DIR", str(folder))
        return {launch.kernel: compiled(launch, folder) for launch in wanted}

    return of


def both_passes(k, m, h, adam=True, widen=True, count=None):
    """Both passes for k boxes, m of them with radii, one of each not held."""
    from methods.hypernetworks import triton_passes

    layer = OutputLayer(h, ROWS)
    rule = OutputAdam(layer, 0.01)
    if widen:
        rule.move_into(layer, triton_passes.widened)
    centre, radius = torch.ones(k, h), torch.ones(m, h)
    own, radii = min(1, k), min(1, m)
    held = Targets(torch.ones(k - own, ROWS), torch.ones(m - radii, ROWS), 0.3)
    given = Cotangents(torch.ones(own, ROWS), torch.ones(radii, ROWS), torch.tensor(0.1), torch.tensor(0.2))
    images = Images(torch.ones(k, ROWS), torch.ones(m, ROWS), torch.tensor(0.0))
    step = rule if adam else torch.empty_like(rule.weight)
    with count or torch.no_grad():
        triton_passes.forward(centre, radius, rule.weight, layer.bias.detach(), held)
        triton_passes.backward(centre, radius, rule.weight, images, given, step)


MANY = pytest.param(100, 100, 100, id="100 boxes")


@pytest.mark.parametrize(("k", "m", "h"), [(1, 1, 100), (10, 10, 100), (20, 20, 100), (32, 32, 100), MANY, (10, 1, 75)])
def test_nothing_spills(kernels, k, m, h):
    for name, made in kernels(k, m, h).items():
        assert made.spilled == 0, (name, made)


@pytest.mark.slow
@pytest.mark.parametrize(("k", "m"), [(10, 0), (32, 1), (32, 32), (33, 0), (100, 1), (100, 100)])
@pytest.mark.parametrize("h", [3, 25, 64, 75, 76, 128, 200])
@pytest.mark.parametrize("adam", [True, False])
def test_nothing_spills_for_other_layers(kernels, k, m, h, adam):
    for name, made in kernels(k, m, h, adam).items():
        assert made.spilled == 0, (name, made)


def vectors(ptx):
    """How many instructions move 16 bytes: asynchronous copies from global memory, loads, stores."""
    copies = re.findall(r"cp\.async\.cg\.shared\.global[^;]*, 0x10", ptx)
    return len(copies), ptx.count("ld.global.v4.b32"), ptx.count("st.global.v4.b32")


@pytest.mark.parametrize(("h", "others"), [(100, 4), (75, 0)])
def test_a_thread_moves_16_bytes_of_w_at_once(kernels, h, others):
    """75 weights too, in rows of 76. `others`: where h is a multiple of 4, those of centres and radii."""
    made = kernels(10, 10, h)
    tile = 128 * 16 // (4 * 32 * 4)
    assert vectors(made["forward"].ptx)[0] >= 2 * tile  # in the loop and ahead of it
    tile = 16 * 64 // (4 * 32 * 4)
    assert vectors(made["backward"].ptx)[1:] == (3 * tile + others, 3 * tile + others)


DOT = re.compile(r"(%[\w#]+) = tt\.dot (%[\w#]+), (%[\w#]+), (%[\w#]+), inputPrecision = (\w+)")


@pytest.mark.parametrize(("k", "m"), [(10, 10), (100, 100)])
def test_no_product_is_one_of_tf32_alone(kernels, k, m):
    """Each is low times high, plus high times low, plus high times high, on tensor cores."""
    for name, made in kernels(k, m, 100).items():
        dots = DOT.findall(made.ttir)
        assert len(dots) == made.ttir.count("tt.dot ") > 0
        assert {precision for *_, precision in dots} == {"tf32"}
        for (first, low, high, _, _), (second, high2, low2, into, _), (_, high3, high4, into2, _) in zip(
            dots[::3], dots[1::3], dots[2::3], strict=True
        ):
            assert (into, into2) == (first, second), name
            assert (high2, high) == (high3, high4), name
            assert low != high3, name
            assert low2 != high4, name
        assert re.search(r"mma[\w.]*\.tf32\.tf32", made.ptx), name


class Kernels(TorchDispatchMode):
    """Counts PyTorch's operations that are kernels on a GPU."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not func.is_view and "empty" not in func.name():
            self.names.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("k", "m", "expected"), [(10, 1, 2), (10, 10, 2), (100, 100, 3)])
def test_two_small_kernels_stand_beside_those_of_w(launches, k, m, expected):
    """The drift's sum and that of the inputs' gradients; each costs 2 microseconds or more of a captured step."""
    count = Kernels()
    both_passes(k, m, 75, widen=False, count=count)
    assert count.names == ["aten::sum", "aten::sum.dim_IntList"]
    assert len(launches) == expected
