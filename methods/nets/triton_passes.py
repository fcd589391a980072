"""The output layer's passes as Triton kernels: on CUDA, in float32, for at most MAX_BOXES boxes.

Forward reads W once. Backward reads W and both moments once and writes them once; a tile of W meets its gradient in
registers, and the sums over rows that the inputs' gradients are stay there until the end. Products run on tensor cores
as three TF32 products each, which together are as exact as float32 but for the last bits; exact ones would spill
registers by the kilobyte. Nothing waits for the device. Before first use the kernels are tried on a small layer.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from methods.nets import blockwise
from methods.nets.passes import Cotangents, Images, Step, Targets

MAX_BOXES = 32
"""More would not stay in registers."""
ROWS, COLUMNS, WARPS = 32, 64, 8
"""A tile of W, and the warps that share it: the largest that no register spills for on compute capability 9.0."""

log = logging.getLogger(__name__)
# The kernels' bodies are Triton's dialect of Python: types are checked when they are compiled.
# pyright: reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportAttributeAccessIssue=false
# pyright: reportOptionalSubscript=false, reportCallIssue=false


@triton.jit
def _tile(base, rows, columns, n_rows, n_columns):
    """A tile of a row-major matrix; zero outside."""
    inside = (rows[:, None] < n_rows) & (columns[None, :] < n_columns)
    return tl.load(base + rows[:, None].to(tl.int64) * n_columns + columns[None, :], mask=inside, other=0.0)


@triton.jit
def _residuals(values, held, boxes, rows, k, own, n):
    """Outputs (boxes, rows) less their targets for boxes from `own` on, and the sum of these squares."""
    is_held = (boxes[:, None] >= own) & (boxes[:, None] < k) & (rows[None, :] < n)
    values -= tl.load(held + (boxes[:, None] - own).to(tl.int64) * n + rows[None, :], mask=is_held, other=0.0)
    return values, tl.sum(tl.sum(tl.where(is_held, values * values, 0.0), 1), 0)


@triton.jit
def _cotangents(given, residual, scale, boxes, rows, k, own, n):
    """Gradients by the outputs (boxes, rows): given for the first `own` boxes, scaled residuals for the others."""
    at = boxes[:, None].to(tl.int64) * n + rows[None, :]
    inside = rows[None, :] < n
    first = tl.load(given + at, mask=(boxes[:, None] < own) & inside, other=0.0)
    others = tl.load(residual + at, mask=(boxes[:, None] >= own) & (boxes[:, None] < k) & inside, other=0.0)
    return first + scale * others


@triton.jit
def _forward(
    centre, radius, weight, bias, held_theta, held_rho, theta, rho, sums, n, h, k, k_own, m, m_own,
    BK: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BH: tl.constexpr, RADII: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    rows = block * BN + tl.arange(0, BN)
    ks, ms = tl.arange(0, BK), tl.arange(0, BM)
    middle, spread = tl.zeros((BK, BN), tl.float32), tl.zeros((BM, BN), tl.float32)
    for start in range(0, h, BH):
        columns = start + tl.arange(0, BH)
        w = _tile(weight, rows, columns, n, h)
        middle += tl.dot(_tile(centre, ks, columns, k, h), tl.trans(w), input_precision="tf32x3")
        if RADII:
            spread += tl.dot(_tile(radius, ms, columns, m, h), tl.trans(tl.abs(w)), input_precision="tf32x3")
    middle += tl.load(bias + rows, mask=rows < n, other=0.0)[None, :]
    middle, square = _residuals(middle, held_theta, ks, rows, k, k_own, n)
    inside = rows[None, :] < n
    tl.store(theta + ks[:, None].to(tl.int64) * n + rows[None, :], middle, mask=(ks[:, None] < k) & inside)
    tl.store(sums + 2 * block, square)
    if RADII:
        spread, square = _residuals(spread, held_rho, ms, rows, m, m_own, n)
        tl.store(rho + ms[:, None].to(tl.int64) * n + rows[None, :], spread, mask=(ms[:, None] < m) & inside)
        tl.store(sums + 2 * block + 1, square)


@triton.jit
def _backward(
    centre, radius, weight, g_theta, theta, g_rho, rho, scales, grad_centre, grad_radius, written, mean, square, rule,
    n, h, k, k_own, m, m_own, beta1, rest1, beta2, rest2, eps,
    BK: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BH: tl.constexpr, RADII: tl.constexpr, ADAM: tl.constexpr,
):  # fmt: skip
    ks, ms = tl.arange(0, BK), tl.arange(0, BM)
    columns = tl.program_id(1) * BH + tl.arange(0, BH)
    c, q = _tile(centre, ks, columns, k, h), _tile(radius, ms, columns, m, h)
    sum_c, sum_q = tl.zeros((BK, BH), tl.float32), tl.zeros((BM, BH), tl.float32)
    for block in range(tl.program_id(0), tl.cdiv(n, BN), tl.num_programs(0)):
        rows = block * BN + tl.arange(0, BN)
        w = _tile(weight, rows, columns, n, h)
        g = _cotangents(g_theta, theta, tl.load(scales), ks, rows, k, k_own, n)
        grad = tl.dot(tl.trans(g), c, input_precision="tf32x3")
        sum_c += tl.dot(g, w, input_precision="tf32x3")
        if RADII:
            g = _cotangents(g_rho, rho, tl.load(scales + 1), ms, rows, m, m_own, n)
            sign = tl.where(w > 0, 1.0, tl.where(w < 0, -1.0, 0.0))
            grad += sign * tl.dot(tl.trans(g), q, input_precision="tf32x3")
            sum_q += tl.dot(g, tl.abs(w), input_precision="tf32x3")
        at = rows[:, None].to(tl.int64) * h + columns[None, :]
        inside = (rows[:, None] < n) & (columns[None, :] < h)
        if ADAM:
            first = beta1 * tl.load(mean + at, mask=inside, other=0.0) + rest1 * grad
            second = beta2 * tl.load(square + at, mask=inside, other=0.0) + rest2 * grad * grad
            tl.store(mean + at, first, mask=inside)
            tl.store(square + at, second, mask=inside)
            w -= tl.load(rule) * first / (tl.sqrt(second) * tl.load(rule + 1) + eps)
            tl.store(weight + at, w, mask=inside)
        else:
            tl.store(written + at, grad, mask=inside)
    part = tl.program_id(0)
    inside = columns[None, :] < h
    tl.store(grad_centre + (part * k + ks[:, None]) * h + columns[None, :], sum_c, mask=(ks[:, None] < k) & inside)
    if RADII:
        tl.store(grad_radius + (part * m + ms[:, None]) * h + columns[None, :], sum_q, mask=(ms[:, None] < m) & inside)


def suits(weight: Tensor, boxes: int) -> bool:
    """Whether these passes can serve a layer with this weight and so many boxes."""
    fits = weight.is_cuda and weight.dtype == torch.float32 and weight.is_contiguous() and 0 < boxes <= MAX_BOXES
    return fits and _works(weight.device)


def forward(centre: Tensor, radius: Tensor, weight: Tensor, bias: Tensor, held: Targets | None) -> Images:
    """As `blockwise.forward`."""
    (n, h), k, m = weight.shape, len(centre), len(radius)
    theta, rho = centre.new_empty(k, n), centre.new_empty(m, n)
    t, s = (len(held.theta), len(held.rho)) if held else (0, 0)
    blocks = triton.cdiv(n, ROWS)
    sums = centre.new_zeros(blocks, 2)
    held_theta, held_rho = (held.theta.contiguous(), held.rho.contiguous()) if held else (theta, rho)
    _forward[(blocks,)](
        centre.contiguous(), _given(radius.contiguous(), centre), weight, bias, _given(held_theta, theta),
        _given(held_rho, theta), theta, _given(rho, theta), sums, n, h, k, k - t, m, m - s, **_shape(k, m, h),
        num_warps=WARPS,
    )  # fmt: skip
    of_theta, of_rho = sums.sum(0)
    return Images(theta, rho, of_theta + held.radius_weight * of_rho if held else of_theta)


def backward(
    centre: Tensor, radius: Tensor, weight: Tensor, images: Images, cotangents: Cotangents, step: Step | Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """As `blockwise.backward`."""
    (n, h), k, m = weight.shape, len(centre), len(radius)
    own, radii = len(cotangents.theta), len(cotangents.rho)
    parts = min(_programs(weight.device), triton.cdiv(n, ROWS))
    grad_centre, grad_radius = centre.new_empty(parts, k, h), centre.new_empty(parts, m, h)
    scales = torch.stack([cotangents.theta_scale, cotangents.rho_scale]).to(weight.dtype)
    adam = not isinstance(step, Tensor)
    mean, square = step.moments if adam else (weight, weight)
    rule = step.device_rule() if adam else scales
    beta1, beta2, eps = (*step.betas, step.eps) if adam else (0.0, 0.0, 0.0)
    theta = images.theta
    _backward[(parts, triton.cdiv(h, COLUMNS))](
        centre.contiguous(), _given(radius.contiguous(), centre), weight, _given(cotangents.theta.contiguous(), theta),
        theta, _given(cotangents.rho.contiguous(), theta), _given(images.rho, theta), scales, grad_centre,
        _given(grad_radius, grad_centre), step if isinstance(step, Tensor) else weight, mean, square, rule,
        n, h, k, own, m, radii, beta1, 1 - beta1, beta2, 1 - beta2, eps, ADAM=adam, **_shape(k, m, h),
        num_warps=WARPS,
    )  # fmt: skip
    grad_bias = cotangents.theta.sum(0) + images.theta[own:].sum(0) * cotangents.theta_scale
    return grad_centre.sum(0), grad_radius.sum(0), grad_bias


def _given(tensor: Tensor, instead: Tensor) -> Tensor:
    """The tensor, or another one where it is empty and so has no address; the kernels do not read it then."""
    return tensor if tensor.numel() else instead


def _shape(k: int, m: int, h: int) -> dict[str, Any]:
    """Sizes of the kernels' tiles; the products need at least 16 of everything."""
    at_least_16 = [max(16, triton.next_power_of_2(size)) for size in (k, max(1, m), min(h, COLUMNS))]
    return {"BK": at_least_16[0], "BM": at_least_16[1], "BN": ROWS, "BH": at_least_16[2], "RADII": m > 0}


@cache
def _programs(device: torch.device) -> int:
    """Programs that walk over the rows: enough to fill the device."""
    return 4 * torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 3


@cache
def _works(device: torch.device) -> bool:
    """Whether the kernels compile here and agree with PyTorch on a small layer; says so once if not."""
    try:
        difference = self_check(device)
    except Exception as error:  # compilers fail in many ways, and each only costs speed
        log.warning("the output layer runs without Triton: %s: %s", type(error).__name__, error)
        return False
    if difference > 1e-4:
        log.warning("the output layer runs without Triton: its results are off by %.1e", difference)
    return difference <= 1e-4


@torch.no_grad()
def self_check(device: torch.device) -> float:
    """Largest relative difference to `blockwise` over all results on a small layer, held boxes and radii included."""
    generator = torch.Generator().manual_seed(0)
    k, t, m, s, n, h = 3, 2, 2, 1, 150, 75

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    centre, radius, weight, bias = drawn(k, h), drawn(m, h).abs(), drawn(n, h), drawn(n)
    held = Targets(drawn(t, n), drawn(s, n), 0.5)
    given = Cotangents(drawn(k - t, n), drawn(m - s, n), drawn(), drawn())
    results = []
    for passes in (forward, backward), (blockwise.forward, blockwise.backward):
        images = passes[0](centre, radius, weight, bias, held)
        gradient = torch.empty_like(weight)
        results.append([*images, *passes[1](centre, radius, weight, images, given, gradient), gradient])
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*results, strict=True))
