"""The output layer's passes as machine code: output_layer.cpp, compiled once per machine and cached.

The library also has drift.cpp, which `compiled_drift` calls. Used for float32 on a CPU with fused multiply-adds and a
C++ compiler. Elsewhere the log gives the reason, and the same arithmetic runs block by block in PyTorch
(`torch_passes`). The two differ by rounding only: Adam's 1 - beta2 is taken of a beta2 in float32 here, which makes it
1.3e-5 smaller, and the first steps 7e-6 larger. The bits of the machine code's results depend on neither processor
nor compiler.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from methods.compiled import threads
from methods.compiled.library import Library, Pointer
from methods.hypernetworks.passes import Cotangents, Images, Step, Targets, outputs

SOURCES = tuple(Path(__file__).with_name(name) for name in ("output_layer.cpp", "drift.cpp"))
HEADER = Path(__file__).with_name("vectors.h")
SOURCE_DIGEST = "5125721bf91a8150f4bd15ebc5856cc74315aa7f1457a4fe262d4a59ce256e69"
# In the C++ code `fetch` is always_inline, for GCC 12 drops the calls of a function that does nothing but prefetch.
ROWS_A_THREAD = 2000
"""Least rows per thread; for fewer, waking another thread costs more than it saves."""

FUNCTIONS: dict[str, list[Any]] = {
    "output_forward": [*[ctypes.c_long] * 3, *[ctypes.c_int] * 3, Pointer, *[ctypes.c_int] * 2, *[Pointer] * 8],
    "output_backward": [
        *[ctypes.c_long] * 3, *[ctypes.c_int] * 3, Pointer, *[ctypes.c_int] * 2, *[Pointer] * 4, ctypes.c_float,
        *[Pointer] * 2, ctypes.c_float, *[Pointer] * 6, *[ctypes.c_float] * 5,
    ],
    "step_ahead": [ctypes.c_long, *[Pointer] * 4, *[ctypes.c_float] * 5, Pointer],
    "look_ahead": [*[ctypes.c_long] * 3, ctypes.c_int, *[Pointer] * 7, *[ctypes.c_float] * 5, *[Pointer] * 2],
    "drift_gradient": [*[ctypes.c_long] * 3, ctypes.c_int, *[Pointer] * 7],
}  # fmt: skip
LIBRARY = Library("the output layer", (HEADER, *SOURCES), SOURCE_DIGEST, FUNCTIONS)


@cache
def library() -> ctypes.CDLL | None:
    """Compiled passes, or None; the log has the reason once."""
    return LIBRARY.load()


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
    return threads.parts(rows, ROWS_A_THREAD)


def in_parallel(run: Callable[[int, int, int], None], rows: int) -> None:
    """Call run(part, first row, last row) for as many parts as torch has threads; waits for all."""
    threads.in_parallel(run, rows, parts(rows))
