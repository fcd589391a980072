"""Output layer of a hypernetwork: by far the largest matrix, hence read and written as rarely as possible.

Its weight W (N, h) has one row per target weight. One product serves all embeddings. |W| and W's
gradient exist only for a block of rows that fits the cache. Adam runs inside the backward pass,
block by block, while the rows are in the cache. Traffic per step: W is read once forward; W and
both Adam moments are read and written once backward.

Backends of the two passes: `triton_passes` on CUDA, `compiled` (machine code) on a CPU with a C++ compiler, and
`torch_passes` (PyTorch) elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from methods.hypernetworks import compiled, torch_passes
from methods.hypernetworks.passes import Cotangents, Targets
from methods.shared.optimizers import adam

__all__ = ["FusedAdam", "OutputAdam", "OutputLayer", "Targets", "passes_for"]

log = logging.getLogger(__name__)


@cache
def _triton() -> ModuleType | None:
    """Import the Triton kernels, or None without Triton (it comes with PyTorch for CUDA on Linux)."""
    try:
        from methods.hypernetworks import triton_passes
    except ImportError as error:
        log.warning("the output layer runs without Triton: %s", error)
        return None
    return triton_passes


def passes_for(weight: Tensor, boxes: int) -> ModuleType:
    """Choose the module whose `forward` and `backward` serve a layer with this weight and number of boxes."""
    if weight.is_cuda:
        kernels = _triton()
        return kernels if kernels is not None and kernels.suits(weight, boxes) else torch_passes
    return compiled if compiled.suits(weight) else torch_passes


class OutputLayer(nn.Module):
    """Linear layer for the centres and radii of boxes; its optimiser may run inside the backward pass."""

    def __init__(self, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        reference = nn.Linear(n_inputs, n_outputs)
        self.weight, self.bias = reference.weight, reference.bias
        self.update: OutputAdam | None = None
        self.computed_by: set[str] = set()
        """Names of the modules whose passes have served this layer; their results differ by rounding."""

    def forward(
        self, centre: Tensor, radius: Tensor | None = None, held: Targets | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes of inputs -> boxes of outputs, and the drift of the held ones.

        centre (k, h), radius (m, h) -> centre W' + b (k, N), radius |W|' (m, N), drift 0-d.
        With `held` targets for t boxes, the last t centres and (if radii are held) radii yield the
        drift, a sum of squared residuals, instead of outputs; their outputs are never materialised.
        """
        radius = centre.new_empty(0, centre.shape[1]) if radius is None else radius
        passes = passes_for(self.weight, max(len(centre), len(radius)))
        if len(centre):
            self.computed_by.add(passes.__name__.rpartition(".")[2])
        return _IntervalLinear.apply(centre, radius, self.weight, self.bias, held, self.update, passes)


class _IntervalLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, centre: Tensor, radius: Tensor, weight: Tensor, bias: Tensor,
        held: Targets | None, update: OutputAdam | None, passes: ModuleType,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        ctx.passes = passes
        images = ctx.passes.forward(centre, radius, weight, bias, held)
        k, m = len(centre) - (len(held.theta) if held else 0), len(radius) - (len(held.rho) if held else 0)
        # Not `save_for_backward`: W changes inside backward, which its version check would refuse.
        ctx.inputs = (centre, radius, weight)
        ctx.images = images._replace(drift=images.drift.detach())  # a reference to the output would be a cycle and leak
        ctx.radius_weight, ctx.update = held.radius_weight if held else 0.0, update
        return images.theta[:k], images.rho[:m], images.drift

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (centre, radius, weight), update = ctx.inputs, ctx.update
        g_theta, g_rho, g_drift = grads
        cotangents = Cotangents(g_theta, g_rho, 2 * g_drift, 2 * ctx.radius_weight * g_drift)
        if update:
            update.begin()
        step = update or torch.empty_like(weight)
        grad_centre, grad_radius, grad_bias = ctx.passes.backward(centre, radius, weight, ctx.images, cotangents, step)
        if update:
            update.step_bias(grad_bias)
            return grad_centre, grad_radius, None, None, None, None, None
        return grad_centre, grad_radius, step, grad_bias, None, None, None


class OutputAdam:
    """Adam (Kingma & Ba 2015) for an output layer, block of rows by block of rows, in PyTorch's fused kernel."""

    def __init__(
        self, layer: OutputLayer, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        self.lr, self.betas, self.eps = lr, betas, eps
        self.weight, self.bias = layer.weight.detach(), layer.bias.detach()
        self.moments = [torch.zeros_like(self.weight), torch.zeros_like(self.weight)]
        self.bias_moments = [torch.zeros_like(self.bias), torch.zeros_like(self.bias)]
        self.steps = torch.zeros((), device=layer.weight.device)

    def move_into(self, layer: OutputLayer, memory: Callable[[Tensor], Tensor]) -> None:
        """Move the layer's weight and its moments to the layout of `memory`; the parameter stays the same object."""
        layer.weight.data = memory(layer.weight.data)
        self.weight, self.moments = layer.weight.detach(), [memory(moment) for moment in self.moments]

    def begin(self) -> None:
        """Count one step; call once before its rows."""
        self.steps += 1

    def rule(self) -> tuple[float, float, float, float, float]:
        """beta1, beta2, eps, and the current step's lr / (1 - beta1^i) and 1 / sqrt(1 - beta2^i), on the host."""
        i, (beta1, beta2) = float(self.steps), self.betas
        return beta1, beta2, self.eps, float(self.lr) / (1 - beta1**i), (1 - beta2**i) ** -0.5

    def step_rows(self, rows: slice, grad: Tensor) -> None:
        """Take Adam's step for W[rows], given their gradient (rows, h)."""
        tensors = [tensor[rows] for tensor in (self.weight, *self.moments)]
        (n, h), width = grad.shape, self.weight.stride(0)
        if width > h:  # the fused kernel needs gapless rows: the padding zeros take the step too and stay 0
            tensors = [tensor.as_strided((n, width), (width, 1)) for tensor in tensors]
            grad = nn.functional.pad(grad, (0, width - h))
        self._adam(tensors[0], grad, *tensors[1:])

    def step_bias(self, grad: Tensor) -> None:
        """Take Adam's step for the bias."""
        self._adam(self.bias, grad, *self.bias_moments)

    def _adam(self, value: Tensor, grad: Tensor, mean: Tensor, square: Tensor) -> None:
        torch._fused_adam_(  # pyright: ignore[reportPrivateImportUsage] - the kernel of torch.optim.Adam(fused=True)
            [value], [grad], [mean], [square], [], [self.steps],
            amsgrad=False, lr=self.lr, beta1=self.betas[0], beta2=self.betas[1],
            weight_decay=0.0, eps=self.eps, maximize=False,
        )  # fmt: skip


class FusedAdam:
    """Adam over a hypernetwork and further parameters; the output layer steps inside the backward pass.

    Use as a context manager; on exit the layer is an ordinary one again. One backward pass per step.
    """

    def __init__(self, layer: OutputLayer, others: Iterable[Tensor], lr: float) -> None:
        self.layer = layer
        others = list(others)
        self.others = adam(others, lr) if others else None
        self.output = OutputAdam(layer, lr)

    def __enter__(self) -> FusedAdam:
        widened = getattr(passes_for(self.layer.weight, 1), "widened", None)
        if widened is not None:
            self.output.move_into(self.layer, widened)
        self.layer.update = self.output
        return self

    def __exit__(self, *_: object) -> None:
        self.layer.update = None
        weight = self.layer.weight.data
        if weight.stride(0) > weight.shape[1]:  # `contiguous` would leave a single row with the stride of its padding
            self.layer.weight.data = weight.clone(memory_format=torch.contiguous_format)

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
