"""Passes of the output layer as Triton kernels: on CUDA, in float32; the kernels are in `triton_kernels`.

Forward reads W once. Backward reads W and both moments once and writes them once. A tile of W meets its gradient in
registers, where the sums over rows for the inputs' gradients stay until the end. With more than GROUP boxes, groups
share W's tile in the cache, and backward reads W twice: for the sums, then for the step.

In addition to the kernels of W, a step has one small kernel forward (the drift's sum) and one backward (the sum of the
inputs' gradients). Nothing waits for the device. Before first use the kernels are tested on a small layer.
"""

from __future__ import annotations

import logging
import math
from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor

from methods.hypernetworks import torch_passes, triton_kernels
from methods.hypernetworks.passes import Cotangents, Images, Step, Targets

# Kernels are called with parts of argument lists, whose lengths have no types.
# pyright: reportCallIssue=false

GROUP = 32
"""Boxes per program; more would not fit in registers."""
# Shape of W's tile (rows BN, columns BH) and launch options. Triton 3.10 fuses products and sums only on request.
FORWARD = {"BN": 128, "BH": 16, "num_warps": 4, "num_stages": 3, "enable_fp_fusion": True}
BACKWARD = {"BN": 16, "BH": 64, "num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}
MANY = {**BACKWARD, "BN": 32}
"""Options of `backward` after `sums`: more rows per tile, because it reads all centres and radii for each."""
SUMS = {"BN": 32, "BH": 64, "num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}
REGISTERS = 168
"""Registers per thread with which three blocks of `backward` fit a multiprocessor of compute capability 9.0."""

log = logging.getLogger(__name__)


def suits(weight: Tensor, boxes: int) -> bool:
    """Check whether these passes support a layer with this weight and number of boxes."""
    fits = weight.is_cuda and weight.dtype == torch.float32 and weight.stride(1) == 1 and boxes > 0
    return fits and _works(weight.device)


def widened(weight: Tensor) -> Tensor:
    """Copy the weight (N, h) to memory in which each row starts at a multiple of 16 bytes, padded with zeros."""
    n, h = weight.shape
    width = 4 * triton.cdiv(h, 4)
    return weight if weight.stride(0) == width else weight.new_zeros(n, width)[:, :h].copy_(weight)


def forward(centre: Tensor, radius: Tensor, weight: Tensor, bias: Tensor, held: Targets | None) -> Images:
    """Forward pass; same contract as `torch_passes.forward`."""
    n, k, m = len(weight), len(centre), len(radius)
    theta, rho = centre.new_empty(k, n), centre.new_empty(m, n)
    t, s = (len(held.theta), len(held.rho)) if held else (0, 0)
    held_theta, held_rho = (held.theta.contiguous(), held.rho.contiguous()) if held else (theta, rho)
    sizes = _sizes(k, m, weight)
    squares = centre.new_empty(sizes["groups"] * triton.cdiv(n, FORWARD["BN"]))
    triton_kernels.forward[(len(squares),)](
        centre.contiguous(), _given(radius.contiguous(), centre), weight, bias, _given(held_theta, theta),
        _given(held_rho, theta), theta, _given(rho, theta), squares, held.radius_weight if held else 0.0,
        n, k, k - t, m, m - s, **sizes, **FORWARD,
    )  # fmt: skip
    return Images(theta, rho, squares.sum())


def backward(
    centre: Tensor, radius: Tensor, weight: Tensor, images: Images, cotangents: Cotangents, step: Step | Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Backward pass; same contract as `torch_passes.backward`. Moments or gradient have rows as wide as W's."""
    (n, h), k, m = weight.shape, len(centre), len(radius)
    theta, sizes = images.theta, _sizes(k, m, weight)
    outputs = [
        _given(cotangents.theta.contiguous(), theta), theta,
        _given(cotangents.rho.contiguous(), theta), _given(images.rho, theta),
        cotangents.theta_scale, cotangents.rho_scale,
    ]  # fmt: skip
    counts = (n, k, len(cotangents.theta), m, len(cotangents.rho))
    one_group = sizes["groups"] == 1
    tile = BACKWARD if one_group else MANY
    parts = min(_programs(weight.device), triton.cdiv(n, tile["BN"]))
    kept = parts if one_group else triton.cdiv(parts, sizes["groups"])
    sums, grad_bias = centre.new_empty(kept, k + m, h), centre.new_empty(n)
    if not one_group:
        programs = kept * triton.cdiv(h, SUMS["BH"]) * sizes["groups"]
        triton_kernels.sums[(programs,)](weight, *outputs, sums, *counts, **sizes, **SUMS)
    few = {"maxnreg": REGISTERS} if sizes["BK"] == sizes["BM"] == 16 and sizes["stride"] % 4 == 0 else {}
    moved, rule, logs = _adam(step)
    assert all(tensor.stride() == weight.stride() for tensor in moved[:2])
    triton_kernels.backward[(parts * triton.cdiv(h, tile["BH"]),)](
        centre.contiguous(), _given(radius.contiguous(), centre), weight, *outputs, sums, grad_bias, *moved, *rule,
        *counts, **sizes, **logs, ADAM=not isinstance(step, Tensor), SUMS=one_group, **tile, **few,
    )  # fmt: skip
    total = sums.sum(0)
    return total[:k], total[k:], grad_bias


def _adam(step: Step | Tensor) -> tuple[list[Tensor], list[float], dict[str, float]]:
    """Arguments of `backward` for a step: tensors that it writes and the count, numbers, logarithms of the betas."""
    if isinstance(step, Tensor):
        return [step, step, step], [0.0] * 6, {"log_beta1": 0.0, "log_beta2": 0.0}
    (beta1, beta2), (mean, square) = step.betas, step.moments
    numbers = [float(step.lr), beta1, 1 - beta1, beta2, 1 - beta2, step.eps]
    return [mean, square, step.steps], numbers, {"log_beta1": math.log(beta1), "log_beta2": math.log(beta2)}


def _given(tensor: Tensor, instead: Tensor) -> Tensor:
    """Return the tensor, or `instead` if it is empty and has no address; the kernels do not read it then."""
    return tensor if tensor.numel() else instead


def _sizes(k: int, m: int, weight: Tensor) -> dict[str, Any]:
    """Sizes of the groups of k centres and m radii, and W's widths; `tl.dot` needs at least 16 of each."""
    groups = max(1, triton.cdiv(max(k, m), GROUP))
    bk, bm = (16 if boxes <= 16 else GROUP for boxes in (k, m))
    return {"groups": groups, "h": weight.shape[1], "stride": weight.stride(0), "BK": bk, "BM": bm, "RADII": m > 0}


@cache
def _programs(device: torch.device) -> int:
    """Number of programs that iterate over the rows: enough to fill the device."""
    return 4 * torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 3


@cache
def _works(device: torch.device) -> bool:
    """Check whether the kernels compile here and agree with PyTorch on a small layer; logs a failure once."""
    try:
        difference = max(self_check(device, boxes) for boxes in (3, GROUP + 1))
    except Exception as error:  # compilers fail in many ways; each costs only speed, as PyTorch takes over
        log.warning("the output layer runs without Triton: %s: %s", type(error).__name__, error)
        return False
    if difference > 1e-4:
        log.warning("the output layer runs without Triton: its results are off by %.1e", difference)
    return difference <= 1e-4


@torch.no_grad()
def self_check(device: torch.device, k: int = 3) -> float:
    """Largest relative difference to `torch_passes` over all results on a small layer with k boxes, most held."""
    generator = torch.Generator().manual_seed(0)
    t, m, s, n, h = k - 1, k - 1, k - 2, 150, 75

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    centre, radius, weight, bias = drawn(k, h), drawn(m, h).abs(), drawn(n, h), drawn(n)
    held = Targets(drawn(t, n), drawn(s, n), 0.5)
    given = Cotangents(drawn(k - t, n), drawn(m - s, n), drawn(), drawn())
    results = []
    for passes in (forward, backward), (torch_passes.forward, torch_passes.backward):
        images = passes[0](centre, radius, weight, bias, held)
        gradient = torch.empty_like(weight)
        results.append([*images, *passes[1](centre, radius, weight, images, given, gradient), gradient])
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*results, strict=True))
