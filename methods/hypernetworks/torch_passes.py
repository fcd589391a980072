"""Passes of the output layer in PyTorch, block of rows by block of rows: any device, any dtype."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from methods.hypernetworks.passes import Cotangents, Images, Step, Targets, outputs

CPU_BLOCK = 1 << 17
"""Scalars of W per block on a CPU: 512 KiB of float32, so that a block and its moments stay in the cache."""
CUDA_BLOCK = 1 << 26
"""Scalars of W per block on CUDA, where a block only bounds the memory of temporary results."""


def _blocks(weight: Tensor) -> Iterator[slice]:
    rows, width = weight.shape
    size = max(1, (CUDA_BLOCK if weight.is_cuda else CPU_BLOCK) // width)
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def _sign(block: Tensor) -> Tensor:
    return block.mul(1e38).clamp_(-1, 1)  # PyTorch's sign is not vectorised on the CPU; 0 stays 0


def forward(centre: Tensor, radius: Tensor, weight: Tensor, bias: Tensor, held: Targets | None) -> Images:
    """Centres (k + t, h) and radii (m + s, h) -> their images under W (N, h), b (N,) and |W|; t and s as held."""
    n = weight.shape[0]
    theta, rho = outputs(centre, radius, n, held)
    t, s = (len(held.theta), len(held.rho)) if held else (0, 0)
    k, m = len(centre) - t, len(radius) - s
    for rows in _blocks(weight):
        block = weight[rows]
        torch.addmm(bias[rows], centre, block.t(), out=theta[:, rows])
        if len(radius):
            torch.mm(radius, block.abs().t(), out=rho[:, rows])
        if held is not None and t:  # turn held outputs into residuals while they are in the cache
            theta[k:, rows].sub_(held.theta[:, rows])
        if held is not None and s:
            rho[m:, rows].sub_(held.rho[:, rows])
    drift = _square(theta[k:])
    if held is not None and s:
        drift = drift + held.radius_weight * _square(rho[m:])
    return Images(theta, rho, drift)


def _square(residuals: Tensor) -> Tensor:
    flat = residuals.reshape(-1)
    return torch.dot(flat, flat)


def backward(
    centre: Tensor, radius: Tensor, weight: Tensor, images: Images, cotangents: Cotangents, step: Step | Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by centre (k + t, h), radius (m + s, h) and bias (N,); W takes its step, or its gradient is written.

    step: the optimiser's step, which updates W in place, or a tensor like W that receives the gradient.
    """
    grad_centre, grad_radius = torch.zeros_like(centre), torch.zeros_like(radius)
    k, m = len(cotangents.theta), len(cotangents.rho)
    # scaling k + t rows of h scalars spares scaling as many of N
    scaled_centre = torch.cat([centre[:k], centre[k:] * cotangents.theta_scale])
    scaled_radius = torch.cat([radius[:m], radius[m:] * cotangents.rho_scale])
    for rows in _blocks(weight):
        block = weight[rows]
        g = torch.cat([cotangents.theta[:, rows], images.theta[k:, rows]])
        grad_centre.addmm_(g, block)
        grad_block = g.t() @ scaled_centre
        if len(radius):
            g = torch.cat([cotangents.rho[:, rows], images.rho[m:, rows]])
            grad_radius.addmm_(g, block.abs())
            grad_block.addcmul_(g.t() @ scaled_radius, _sign(block))
        if isinstance(step, Tensor):
            step[rows] = grad_block
        else:
            step.step_rows(rows, grad_block)
    grad_centre[k:] *= cotangents.theta_scale
    grad_radius[m:] *= cotangents.rho_scale
    grad_bias = cotangents.theta.sum(0) + images.theta[k:].sum(0) * cotangents.theta_scale
    return grad_centre, grad_radius, grad_bias
