"""The hypernetwork's output layer: by far the largest matrix, so it is read and written as rarely as possible.

Its weight W (N, h) has one row for every target weight. One product serves all embeddings; |W| and
W's gradient exist only for a block of rows that fits the cache; and Adam runs inside the backward
pass, block by block, while the rows are at hand. Traffic a step: W once forward, and once backward
W, and both Adam moments read and written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

CPU_BLOCK = 1 << 16
"""Scalars of W handled together on a CPU: 256 KiB of float32, so that a block and its moments stay in cache."""
CUDA_BLOCK = 1 << 26
"""The same on CUDA, where a block only bounds the memory of temporary results."""


class OutputLayer(nn.Module):
    """Linear layer for the centres and radii of boxes; its optimiser may run inside the backward pass."""

    def __init__(self, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        reference = nn.Linear(n_inputs, n_outputs)
        self.weight, self.bias = reference.weight, reference.bias
        self.update: OutputAdam | None = None

    def forward(self, centre: Tensor, radius: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """centre (k, h), radius (m, h) -> centre W' + b (k, N), radius |W|' (m, N)."""
        return interval_linear(centre, radius, self.weight, self.bias, self.update)


def interval_linear(
    centre: Tensor, radius: Tensor | None, weight: Tensor, bias: Tensor, update: OutputAdam | None = None
) -> tuple[Tensor, Tensor | None]:
    """(centre W' + b, radius |W|'); with `update`, the backward pass also takes W's optimiser step.

    An `update` sees the gradient of exactly one call, so call this once per backward pass.
    """
    if radius is None:
        radius = centre.new_empty(0, centre.shape[1])
        return _IntervalLinear.apply(centre, radius, weight, bias, update)[0], None
    return _IntervalLinear.apply(centre, radius, weight, bias, update)


def _blocks(weight: Tensor) -> Iterator[slice]:
    rows, width = weight.shape
    size = max(1, (CUDA_BLOCK if weight.is_cuda else CPU_BLOCK) // width)
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


class _IntervalLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, centre: Tensor, radius: Tensor, weight: Tensor, bias: Tensor, update: OutputAdam | None
    ) -> tuple[Tensor, Tensor]:
        ctx.tensors, ctx.update = (centre, radius, weight), update  # W changes inside backward: no version check
        theta = centre.new_empty(centre.shape[0], weight.shape[0])
        rho = radius.new_empty(radius.shape[0], weight.shape[0])
        for rows in _blocks(weight):
            block = weight[rows]
            torch.addmm(bias[rows], centre, block.t(), out=theta[:, rows])
            if radius.shape[0]:
                torch.mm(radius, block.abs().t(), out=rho[:, rows])
        return theta, rho

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (centre, radius, weight), update = ctx.tensors, ctx.update
        grad_theta, grad_rho = grads
        grad_centre, grad_radius = torch.zeros_like(centre), torch.zeros_like(radius)
        grad_weight = None if update else torch.empty_like(weight)
        if update:
            update.begin()
        for rows in _blocks(weight):
            block, g_theta = weight[rows], grad_theta[:, rows]
            grad_centre.addmm_(g_theta, block)
            g_block = g_theta.t() @ centre
            if radius.shape[0]:
                g_rho = grad_rho[:, rows]
                grad_radius.addmm_(g_rho, block.abs())
                g_block.addcmul_(g_rho.t() @ radius, block.sign())
            if update:
                update.step_rows(rows, g_block)
            elif grad_weight is not None:
                grad_weight[rows] = g_block
        grad_bias = grad_theta.sum(0)
        if update:
            update.step_bias(grad_bias)
            grad_bias = None
        return grad_centre, grad_radius, grad_weight, grad_bias, None


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
        torch._fused_adam_(
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
