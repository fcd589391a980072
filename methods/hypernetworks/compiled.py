"""The output layer's passes as machine code: output_layer.cpp, compiled once per machine and cached.

The library also has drift.cpp, which `compiled_drift` calls. Used for float32 on a CPU with fused multiply-adds and a
C++ compiler. Elsewhere the log gives the reason, and the same arithmetic runs block by block in PyTorch
(`torch_passes`). The two differ by rounding only. The bits of the machine code's results depend on neither processor
nor compiler.

CXX names the compiler (default c++, g++ or clang++). CONTINUAL_COMPILED=0 turns the machine code off.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from methods.hypernetworks import ownership
from methods.hypernetworks.passes import Cotangents, Images, Step, Targets, outputs

SOURCES = tuple(Path(__file__).with_name(name) for name in ("output_layer.cpp", "drift.cpp"))
HEADER = Path(__file__).with_name("vectors.h")
SOURCE_DIGEST = "7e41b0a6a384e33562a9dcf28a522a4d2ead74f574d929508093f9723be1f13c"
"""SHA-256 of HEADER and SOURCES: a cell is keyed by Python code, which thereby names the machine code too."""
# In the C++ code `fetch` is always_inline, for GCC 12 drops the calls of a function that does nothing but prefetch.
# -ffp-contract=off: which products a compiler would fuse with a sum depends on the processor that it tunes for.
FLAGS = (
    "-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-std=c++17", "-shared", "-fPIC", "-Wno-psabi",
)  # fmt: skip
SECONDS_TO_COMPILE = 120
ROWS_A_THREAD = 2000
"""Least rows per thread; for fewer, waking another thread costs more than it saves."""

log = logging.getLogger(__name__)
Pointer = ctypes.c_void_p
FUNCTIONS: dict[str, list[Any]] = {
    "output_forward": [*[ctypes.c_long] * 3, *[ctypes.c_int] * 3, Pointer, *[ctypes.c_int] * 2, *[Pointer] * 8],
    "output_backward": [
        *[ctypes.c_long] * 3, *[ctypes.c_int] * 3, Pointer, *[ctypes.c_int] * 2, *[Pointer] * 4, ctypes.c_float,
        *[Pointer] * 2, ctypes.c_float, *[Pointer] * 6, *[ctypes.c_float] * 5,
    ],
    "step_ahead": [ctypes.c_long, *[Pointer] * 4, *[ctypes.c_float] * 5, Pointer],
    "look_ahead": [*[ctypes.c_long] * 3, ctypes.c_int, *[Pointer] * 7, *[ctypes.c_float] * 5, *[Pointer] * 2],
    "drift_gradient": [*[ctypes.c_long] * 3, ctypes.c_int, *[Pointer] * 5, ctypes.c_float, *[Pointer] * 2],
}  # fmt: skip
"""Functions of the library and the types of their arguments; they return nothing."""


@cache
def library() -> ctypes.CDLL | None:
    """Load the compiled passes, or return None and log the reason once."""
    try:
        return _built()
    except (OSError, subprocess.SubprocessError) as error:
        log.info("the output layer runs without machine code: %s", error)
        return None


def _opened(target: Path) -> ctypes.CDLL:
    found = ctypes.CDLL(str(target))
    for name, types in FUNCTIONS.items():
        function = getattr(found, name)
        function.argtypes, function.restype = types, None
    return found


def _built() -> ctypes.CDLL:
    if os.environ.get("CONTINUAL_COMPILED", "1") == "0":
        raise OSError("CONTINUAL_COMPILED is 0")
    named = os.environ.get("CXX")
    compiler = shutil.which(named) if named else next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if compiler is None:
        raise OSError(f"there is no C++ compiler {named}" if named else "there is no C++ compiler")
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=20, check=True).stdout
    # The library's name covers all that its machine code depends on.
    key = "\n".join([SOURCE_DIGEST, *FLAGS, version, platform.platform(), _processor()])
    name = f"output_layer-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    with ExitStack() as stack:
        try:
            target = _kept(name)
        except (OSError, RuntimeError) as error:  # RuntimeError: pathlib, for a user without a home
            log.info("the machine code of the output layer is compiled for this process alone: %s", error)
            target = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="continual-intervals-"))) / name
        if not target.exists():
            _compile(compiler, target)
        return _opened(target)  # a loaded library outlives its file


def _kept(name: str) -> Path:
    """Path of the library in the user's cache folder; deletes a file there that others could have written.

    Loading a library runs its code. Raises OSError if others can write the folder, or if it is not writable.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = root / "continual-intervals" / name
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if doubt := ownership.distrusted_folder(target.parent, root):
        raise OSError(doubt)
    if os.path.lexists(target) and (doubt := ownership.distrusted(target)):
        log.warning("%s; it is compiled anew", doubt)
        target.unlink()
    if not target.exists() and not os.access(target.parent, os.W_OK):
        raise OSError(f"{target.parent} cannot be written")
    return target


def _compile(compiler: str, target: Path, *more: str) -> None:
    """Compile under a temporary name first, so that processes that start together do not interfere."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        output = Path(scratch) / target.name
        done = subprocess.run(
            [compiler, *FLAGS, *more, *map(str, SOURCES), "-o", str(output)],
            capture_output=True, text=True, timeout=SECONDS_TO_COMPILE,
        )  # fmt: skip
        if done.returncode:
            raise OSError(f"{compiler} fails: {done.stderr.strip()[-500:]}")
        output.chmod(0o700)  # the umask may let the group write, and `distrusted` would then refuse the file
        os.replace(output, target)


def _processor() -> str:
    """Properties of the processor on which -march=native depends."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def suits(weight: Tensor) -> bool:
    """Check whether these passes support a layer with this weight."""
    return not weight.is_cuda and weight.dtype == torch.float32 and weight.is_contiguous() and library() is not None


def forward(centre: Tensor, radius: Tensor, weight: Tensor, bias: Tensor, held: Targets | None) -> Images:
    """Forward pass; same contract as `torch_passes.forward`."""
    (n, h), k, m = weight.shape, len(centre), len(radius)
    theta, rho = outputs(centre, radius, n, held)
    centre, radius, bias = centre.contiguous(), radius.contiguous(), bias.contiguous()
    held_theta, held_rho = (held.theta.contiguous(), held.rho.contiguous()) if held else (theta[:0], rho[:0])
    tensors = [weight, bias, held_theta, held_rho, theta, rho]

    def run(part: int, first: int, last: int) -> None:
        library().output_forward(  # type: ignore[union-attr]
            first, last, n, h, k, len(held_theta), centre.data_ptr(), m, len(held_rho), radius.data_ptr(),
            *(tensor.data_ptr() for tensor in tensors), drifts[part].data_ptr(),
        )  # fmt: skip

    drifts = torch.zeros(parts(n), 2, dtype=torch.float64)
    in_parallel(run, n)
    of_theta, of_rho = drifts.sum(0).to(theta.dtype)
    drift = of_theta + held.radius_weight * of_rho if held else theta.new_zeros(())
    return Images(theta, rho, drift)


def backward(
    centre: Tensor, radius: Tensor, weight: Tensor, images: Images, cotangents: Cotangents, step: Step | Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Backward pass; same contract as `torch_passes.backward`."""
    (n, h), k, m = weight.shape, len(centre), len(radius)
    own, radii = len(cotangents.theta), len(cotangents.rho)
    centre, radius = centre.contiguous(), radius.contiguous()
    g_theta, g_rho = cotangents.theta.contiguous(), cotangents.rho.contiguous()
    theta_scale, rho_scale = float(cotangents.theta_scale), float(cotangents.rho_scale)
    grad_bias = centre.new_empty(n)
    grad_centres, grad_radii = centre.new_empty(parts(n), k, h), radius.new_empty(parts(n), m, h)
    if isinstance(step, Tensor):
        written: list[int | None] = [step.data_ptr(), grad_bias.data_ptr(), None, None]
        rule = (0.0,) * 5
    else:
        written = [None, grad_bias.data_ptr(), *(moment.data_ptr() for moment in step.moments)]
        rule = step.rule()

    def run(part: int, first: int, last: int) -> None:
        library().output_backward(  # type: ignore[union-attr]
            first, last, n, h, k, k - own, centre.data_ptr(), m, m - radii, radius.data_ptr(), weight.data_ptr(),
            g_theta.data_ptr(), images.theta[own:].data_ptr(), theta_scale,
            g_rho.data_ptr(), images.rho[radii:].data_ptr(), rho_scale,
            grad_centres[part].data_ptr(), grad_radii[part].data_ptr(), *written, *rule,
        )  # fmt: skip

    in_parallel(run, n)
    return grad_centres.sum(0), grad_radii.sum(0), grad_bias


def parts(rows: int) -> int:
    """Number of parts into which `in_parallel` divides so many rows."""
    return max(1, min(torch.get_num_threads(), rows // ROWS_A_THREAD))


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="output-layer")


def in_parallel(run: Callable[[int, int, int], None], rows: int) -> None:
    """Call run(part, first row, last row) for as many parts as torch has threads; waits for all."""
    n = parts(rows)
    edges = [rows * part // n for part in range(n + 1)]
    pool = _pool(os.getpid(), n - 1) if n > 1 else None
    others = [pool.submit(run, part, edges[part], edges[part + 1]) for part in range(1, n)] if pool else []
    run(0, 0, edges[1])
    for other in others:
        other.result()
