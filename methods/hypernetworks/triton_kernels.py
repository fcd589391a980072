"""Triton kernels of `triton_passes`: the work of one program on its tiles of W (N, h).

A product of float32 matrices is three products on tensor cores: each matrix is split into a TF32 part and a remainder.
The result is as exact as float32 except for the last bits, while a single TF32 product keeps 11 bits of 24. Products
without tensor cores would spill registers by the kilobyte. Infinite or undefined inputs give undefined results.

`h` and the width of W's rows in memory, `stride`, are constants of a compiled kernel: if `stride` is a multiple of 4,
a thread reads and writes 16 bytes of W at once. Wider rows are padded with zeros, which stay zeros.
"""

from __future__ import annotations

import triton
import triton.language as tl

# The kernels' bodies are Triton's dialect of Python, which pyright cannot check; Triton does when it compiles them.
# pyright: reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportAttributeAccessIssue=false
# pyright: reportOptionalSubscript=false, reportCallIssue=false, reportPossiblyUnboundVariable=false

COUNTS = ["k", "k_own", "m", "m_own", "groups"]
"""Arguments that count boxes: they change with the tasks and must not trigger a new compilation."""


@triton.jit
def _split(x):
    """Split x into its TF32 rounding (11 bits) and the remainder, of which tensor cores drop at most the last bit."""
    high = ((x.to(tl.int32, bitcast=True) + 0x1000) & -0x2000).to(tl.float32, bitcast=True)
    return high, x - high


@triton.jit
def _product(a_high, a_low, b_high, b_low):
    """Product of two split matrices, small terms first; low times low is below the last bit and left out."""
    result = tl.dot(a_low, b_high, input_precision="tf32")
    result = tl.dot(a_high, b_low, result, input_precision="tf32")
    return tl.dot(a_high, b_high, result, input_precision="tf32")


@triton.jit
def _signed(x, w):
    """x where w is positive, -x where it is negative."""
    sign = w.to(tl.int32, bitcast=True) & -0x80000000
    return (x.to(tl.int32, bitcast=True) ^ sign).to(tl.float32, bitcast=True)


@triton.jit
def _tile(base, rows, columns, n_rows, width: tl.constexpr):
    """Load a tile of a row-major matrix, zero outside; one of the two indices is a row, the other a column."""
    return tl.load(base + rows.to(tl.int64) * width + columns, mask=(rows < n_rows) & (columns < width), other=0.0)


@triton.jit
def _write_images(images, values, held, rows, boxes, k, own, n):
    """Write outputs (rows, boxes), minus their targets from box `own` on; returns the sum of squares of the latter."""
    inside = (boxes < k) & (rows < n)
    is_held = inside & (boxes >= own)
    values -= tl.load(held + (boxes - own).to(tl.int64) * n + rows, mask=is_held, other=0.0)
    tl.store(images + boxes.to(tl.int64) * n + rows, values, mask=inside)
    return tl.sum(tl.sum(tl.where(is_held, values * values, 0.0), 1), 0)


@triton.jit
def _cotangents(given, residual, scale, boxes, rows, k, own, n):
    """Gradients by the outputs of boxes at rows: as given for the first `own` boxes, scaled residuals for the rest."""
    at, is_own = boxes.to(tl.int64) * n + rows, boxes < own
    values = tl.load(tl.where(is_own, given + at, residual + at), mask=(boxes < k) & (rows < n), other=0.0)
    return values * tl.where(is_own, 1.0, scale)


@triton.jit
def _corrections(steps, lr, log_beta1: tl.constexpr, log_beta2: tl.constexpr):
    """Adam's lr / (1 - beta1^i) and 1 / sqrt(1 - beta2^i) of step i; in float64: 1 - beta2^i is small at first."""
    i = tl.load(steps).to(tl.float64)
    rate, root = lr / (1 - tl.exp(i * log_beta1)), 1 / tl.sqrt(1 - tl.exp(i * log_beta2))
    return rate.to(tl.float32), root.to(tl.float32)


@triton.jit(do_not_specialize=COUNTS)
def forward(
    centre, radius, weight, bias, held_theta, held_rho, theta, rho, squares, radius_weight,
    n, k, k_own, m, m_own, groups, h: tl.constexpr, stride: tl.constexpr,
    BK: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BH: tl.constexpr, RADII: tl.constexpr,
):  # fmt: skip
    """Images of one group of boxes under BN rows of W, and their part of the drift.

    Programs of the same rows are neighbours, so that W comes from memory once and from the cache for other groups.
    """
    group, block = tl.program_id(0) % groups, tl.program_id(0) // groups
    rows = (block * BN + tl.arange(0, BN))[:, None]
    ks, ms = (group * BK + tl.arange(0, BK))[None, :], (group * BM + tl.arange(0, BM))[None, :]
    middle, spread = tl.zeros((BN, BK), tl.float32), tl.zeros((BN, BM), tl.float32)
    for start in range(0, h, BH):
        columns = start + tl.arange(0, BH)
        w = _tile(weight, rows, columns[None, :], n, stride)
        w_high, w_low = _split(w)
        high, low = _split(_tile(centre, ks, columns[:, None], k, h))
        middle += _product(w_high, w_low, high, low)
        if RADII:
            high, low = _split(_tile(radius, ms, columns[:, None], m, h))
            spread += _product(tl.abs(w_high), _signed(w_low, w), high, low)
    middle += tl.load(bias + rows, mask=rows < n, other=0.0)
    square = _write_images(theta, middle, held_theta, rows, ks, k, k_own, n)
    if RADII:
        square += radius_weight * _write_images(rho, spread, held_rho, rows, ms, m, m_own, n)
    tl.store(squares + tl.program_id(0), square)


@triton.jit(do_not_specialize=COUNTS)
def backward(
    centre, radius, weight, g_theta, theta, g_rho, rho, theta_scale, rho_scale, sums, grad_bias, mean, square, steps,
    lr, beta1, rest1, beta2, rest2, eps, n, k, k_own, m, m_own, groups, h: tl.constexpr, stride: tl.constexpr,
    log_beta1: tl.constexpr, log_beta2: tl.constexpr, BK: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    BH: tl.constexpr, RADII: tl.constexpr, ADAM: tl.constexpr, SUMS: tl.constexpr,
):  # fmt: skip
    """Step of BH columns of W in every `parts`-th block of BN rows, or, without ADAM, their gradient into `mean`.

    With SUMS all boxes are one group, and the program writes its part of the gradients by centres and radii.
    Tiles are (columns, rows), because tensor cores need a long first side.
    """
    tiles = tl.cdiv(h, BH)
    tile, part, parts = tl.program_id(0) % tiles, tl.program_id(0) // tiles, tl.num_programs(0) // tiles
    columns = (tile * BH + tl.arange(0, BH))[:, None]
    ks, ms = tl.arange(0, BK), tl.arange(0, BM)
    c_scale, q_scale = tl.load(theta_scale), tl.load(rho_scale)
    if ADAM:
        rate, root = _corrections(steps, lr, log_beta1, log_beta2)
    if SUMS:
        c_high, c_low = _split(_tile(centre, ks[None, :], columns, k, h))
        sum_c, sum_q = tl.zeros((BH, BK), tl.float32), tl.zeros((BH, BM), tl.float32)
        if RADII:
            q_high, q_low = _split(_tile(radius, ms[None, :], columns, m, h))
    for block in range(part, tl.cdiv(n, BN), parts):
        rows = (block * BN + tl.arange(0, BN))[None, :]
        at, inside = rows.to(tl.int64) * stride + columns, (rows < n) & (columns < stride)
        w = tl.load(weight + at, mask=inside, other=0.0)
        if ADAM:  # loaded early, though needed last, so that the products hide the latency
            first, second = tl.load(mean + at, mask=inside, other=0.0), tl.load(square + at, mask=inside, other=0.0)
        w_high, w_low = _split(w)
        grad, bias = tl.zeros((BH, BN), tl.float32), tl.zeros((1, BN), tl.float32)
        for group in range(1 if SUMS else groups):
            if not SUMS:
                ks, ms = group * BK + tl.arange(0, BK), group * BM + tl.arange(0, BM)
                c_high, c_low = _split(_tile(centre, ks[None, :], columns, k, h))
            g = _cotangents(g_theta, theta, c_scale, ks[:, None], rows, k, k_own, n)
            bias += tl.sum(g, 0)[None, :]
            g_high, g_low = _split(g)
            grad += _product(c_high, c_low, g_high, g_low)
            if SUMS:
                sum_c += _product(w_high, w_low, tl.trans(g_high), tl.trans(g_low))
            if RADII:
                if not SUMS:
                    q_high, q_low = _split(_tile(radius, ms[None, :], columns, m, h))
                g_high, g_low = _split(_cotangents(g_rho, rho, q_scale, ms[:, None], rows, m, m_own, n))
                grad += tl.where(w == 0, 0.0, _signed(_product(q_high, q_low, g_high, g_low), w))
                if SUMS:
                    sum_q += _product(tl.abs(w_high), _signed(w_low, w), tl.trans(g_high), tl.trans(g_low))
        tl.store(grad_bias + rows, bias, mask=rows < tl.where(tile == 0, n, 0))  # the same sum in every tile
        if ADAM:
            first, second = beta1 * first + rest1 * grad, beta2 * second + rest2 * grad * grad
            tl.store(mean + at, first, mask=inside)
            tl.store(square + at, second, mask=inside)
            tl.store(weight + at, w - rate * first / (tl.sqrt(second) * root + eps), mask=inside)
        else:
            tl.store(mean + at, grad, mask=inside)
    if SUMS:
        _write_sums(sums, sum_c, sum_q, part, ks[None, :], ms[None, :], columns, k, m, h, RADII)


@triton.jit
def _write_sums(sums, sum_c, sum_q, part, ks, ms, columns, k, m, h: tl.constexpr, RADII: tl.constexpr):
    """Write a part's sums (columns, boxes): those of the k centres, then those of the m radii."""
    first = part.to(tl.int64) * (k + m)
    tl.store(sums + (first + ks) * h + columns, sum_c, mask=(ks < k) & (columns < h))
    if RADII:
        tl.store(sums + (first + k + ms) * h + columns, sum_q, mask=(ms < m) & (columns < h))


@triton.jit(do_not_specialize=COUNTS)
def sums(
    weight, g_theta, theta, g_rho, rho, theta_scale, rho_scale, sums, n, k, k_own, m, m_own, groups,
    h: tl.constexpr, stride: tl.constexpr,
    BK: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BH: tl.constexpr, RADII: tl.constexpr,
):  # fmt: skip
    """Gradients by one group of centres and radii, in the layout of `backward` with SUMS; W is only read."""
    tiles = tl.cdiv(h, BH)
    group, rest = tl.program_id(0) % groups, tl.program_id(0) // groups
    tile, part, parts = rest % tiles, rest // tiles, tl.num_programs(0) // (groups * tiles)
    columns = (tile * BH + tl.arange(0, BH))[:, None]
    ks, ms = (group * BK + tl.arange(0, BK))[None, :], (group * BM + tl.arange(0, BM))[None, :]
    c_scale, q_scale = tl.load(theta_scale), tl.load(rho_scale)
    sum_c, sum_q = tl.zeros((BH, BK), tl.float32), tl.zeros((BH, BM), tl.float32)
    for block in range(part, tl.cdiv(n, BN), parts):
        rows = block * BN + tl.arange(0, BN)
        w = _tile(weight, rows[None, :], columns, n, stride)
        w_high, w_low = _split(w)
        g_high, g_low = _split(_cotangents(g_theta, theta, c_scale, ks, rows[:, None], k, k_own, n))
        sum_c += _product(w_high, w_low, g_high, g_low)
        if RADII:
            g_high, g_low = _split(_cotangents(g_rho, rho, q_scale, ms, rows[:, None], m, m_own, n))
            sum_q += _product(tl.abs(w_high), _signed(w_low, w), g_high, g_low)
    _write_sums(sums, sum_c, sum_q, part, ks, ms, columns, k, m, h, RADII)
