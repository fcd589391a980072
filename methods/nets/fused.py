"""The hypernetwork's output layer: by far the largest matrix, so it is read and written as rarely as possible.

Its weight W (N, h) has one row for every target weight. One product serves all embeddings; |W| and
W's gradient exist only for a block of rows that fits the cache; and Adam runs inside the backward
pass, block by block, while the rows are at hand. Traffic a step: W once forward, and once backward
W, and both Adam moments read and written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

CPU_BLOCK = 1 << 17
"""Scalars of W handled together on a CPU: 512 KiB of float32, so that a block and its moments stay in cache."""
CUDA_BLOCK = 1 << 26
"""The same on CUDA, where a block only bounds the memory of temporary results."""


class Targets(NamedTuple):
    """What the layer's outputs for t old boxes shall stay: centres (t, N) and radii (t, N), or (0, N) if free."""

    theta: Tensor
    rho: Tensor
    radius_weight: float = 1.0
    """Weight of a squared radius residual beside a squared centre residual."""


class OutputLayer(nn.Module):
    """Linear layer for the centres and radii of boxes; its optimiser may run inside the backward pass."""

    def __init__(self, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        reference = nn.Linear(n_inputs, n_outputs)
        self.weight, self.bias = reference.weight, reference.bias
        self.update: OutputAdam | None = None

    def forward(
        self, centre: Tensor, radius: Tensor | None = None, held: Targets | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes of inputs -> boxes of outputs, and how far the held ones have drifted.

        centre (k, h), radius (m, h) -> centre W' + b (k, N), radius |W|' (m, N), drift 0-d.
        With `held` targets for t boxes, the last t centres and (if radii are held) radii yield the
        drift, a sum of squared residuals, instead of outputs; their outputs are never materialised.
        """
        radius = centre.new_empty(0, centre.shape[1]) if radius is None else radius
        return _IntervalLinear.apply(centre, radius, self.weight, self.bias, held, self.update)


def _blocks(weight: Tensor) -> Iterator[slice]:
    rows, width = weight.shape
    size = max(1, (CUDA_BLOCK if weight.is_cuda else CPU_BLOCK) // width)
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def _sign(block: Tensor) -> Tensor:
    return block.mul(1e38).clamp_(-1, 1)  # PyTorch's sign is not vectorised on the CPU; 0 stays 0


class _IntervalLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, centre: Tensor, radius: Tensor, weight: Tensor, bias: Tensor,
        held: Targets | None, update: OutputAdam | None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        n = weight.shape[0]
        theta, rho = centre.new_empty(centre.shape[0], n), radius.new_empty(radius.shape[0], n)
        for rows in _blocks(weight):
            block = weight[rows]
            torch.addmm(bias[rows], centre, block.t(), out=theta[:, rows])
            if len(radius):
                torch.mm(radius, block.abs().t(), out=rho[:, rows])
            if held is not None:  # the held outputs become residuals while they are in the cache
                theta[-len(held.theta) :, rows].sub_(held.theta[:, rows])
                if len(held.rho):
                    rho[-len(held.rho) :, rows].sub_(held.rho[:, rows])
        k, m = len(centre) - (len(held.theta) if held else 0), len(radius) - (len(held.rho) if held else 0)
        drift = theta[k:].square().sum() if held else theta.new_zeros(())
        if held and len(held.rho):
            drift = drift + held.radius_weight * rho[m:].square().sum()
        # W changes inside backward, so these are no saved tensors with a version check
        ctx.inputs, ctx.residuals = (centre, radius, weight), (theta[k:], rho[m:])
        ctx.radius_weight, ctx.update = held.radius_weight if held else 0.0, update
        return theta[:k], rho[:m], drift

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (centre, radius, weight), update = ctx.inputs, ctx.update
        g_theta, g_rho, g_drift = grads
        theta_residual, rho_residual = ctx.residuals
        grad_centre, grad_radius = torch.zeros_like(centre), torch.zeros_like(radius)
        grad_weight = None if update else torch.empty_like(weight)
        grad_bias = centre.new_empty(weight.shape[0])
        centre_scale, radius_scale = 2 * g_drift, 2 * ctx.radius_weight * g_drift
        if update:
            update.begin()
        for rows in _blocks(weight):
            block = weight[rows]
            g = torch.cat([g_theta[:, rows], theta_residual[:, rows] * centre_scale])
            grad_centre.addmm_(g, block)
            grad_block = g.t() @ centre
            torch.sum(g, 0, out=grad_bias[rows])
            if len(radius):
                g = torch.cat([g_rho[:, rows], rho_residual[:, rows] * radius_scale])
                grad_radius.addmm_(g, block.abs())
                grad_block.addcmul_(g.t() @ radius, _sign(block))
            if update:
                update.step_rows(rows, grad_block)
            elif grad_weight is not None:
                grad_weight[rows] = grad_block
        if update:
            update.step_bias(grad_bias)
            return grad_centre, grad_radius, None, None, None, None
        return grad_centre, grad_radius, grad_weight, grad_bias, None, None


class OutputAdam:
    """Adam (Kingma & Ba 2015) for an output layer, one block of rows at a time, in PyTorch's fused kernel."""

    def __init__(
        self, layer: OutputLayer, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        self.lr, self.betas, self.eps = lr, betas, eps
        self.weight, self.bias = layer.weight.detach(), layer.bias.detach()
        self.moments = [torch.zeros_like(self.weight), torch.zeros_like(self.weight)]
        self.bias_moments = [torch.zeros_like(self.bias), torch.zeros_like(self.bias)]
        self.steps = torch.zeros((), device=layer.weight.device)

    def begin(self) -> None:
        """Count one step; call once before its rows."""
        self.steps += 1

    def step_rows(self, rows: slice, grad: Tensor) -> None:
        """Adam's step for W[rows], given their gradient."""
        self._adam(self.weight[rows], grad, self.moments[0][rows], self.moments[1][rows])

    def step_bias(self, grad: Tensor) -> None:
        """Adam's step for the bias."""
        self._adam(self.bias, grad, *self.bias_moments)

    def _adam(self, value: Tensor, grad: Tensor, mean: Tensor, square: Tensor) -> None:
        torch._fused_adam_(  # pyright: ignore[reportPrivateImportUsage] - what torch.optim.Adam(fused=True) calls
            [value], [grad], [mean], [square], [], [self.steps],
            amsgrad=False, lr=self.lr, beta1=self.betas[0], beta2=self.betas[1],
            weight_decay=0.0, eps=self.eps, maximize=False,
        )  # fmt: skip


class FusedAdam:
    """Adam over a hypernetwork and further parameters; the output layer steps inside the backward pass.

    A context manager: on leaving it the layer is an ordinary one again. One backward pass per step.
    """

    def __init__(self, layer: OutputLayer, others: Iterable[Tensor], lr: float) -> None:
        self.layer = layer
        others = list(others)
        on_cuda = layer.weight.is_cuda
        self.others = torch.optim.Adam(others, lr=lr, fused=True, capturable=on_cuda) if others else None
        self.output = OutputAdam(layer, lr)

    def __enter__(self) -> FusedAdam:
        self.layer.update = self.output
        return self

    def __exit__(self, *_: object) -> None:
        self.layer.update = None

    @property
    def lr(self) -> float:
        """Learning rate of all parameters."""
        return self.output.lr

    @lr.setter
    def lr(self, value: float) -> None:
        self.output.lr = value
        for group in self.others.param_groups if self.others else ():
            group["lr"] = value

    def zero_grad(self, set_to_none: bool = True) -> None:
        if self.others:
            self.others.zero_grad(set_to_none)

    def step(self) -> None:
        if self.others:
            self.others.step()
