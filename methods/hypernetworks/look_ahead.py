"""The loss of a hypernetwork whose regulariser looks ahead: at theta + dtheta, dtheta the task's own step of Adam.

Source: von Oswald et al. (2020), arXiv 1906.00695, eq. 2; dtheta is a constant in the gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from methods.hypernetworks import compiled, compiled_drift, drift
from methods.hypernetworks.drift import Frozen
from methods.hypernetworks.held import HeldOutputs
from methods.hypernetworks.network import ChunkedHypernetwork


def regularised(
    value: Tensor, network: nn.Module, embedding: Tensor, optimizer: torch.optim.Adam, held: HeldOutputs, beta: float
) -> Tensor:
    """The task's loss plus beta times the mean drift of old outputs at the parameters after the task's own step, 0-d.

    value: the task's loss, 0-d, of the network at `embedding`. Needs the optimiser's moments.
    """
    parameters = dict(network.named_parameters())
    trained = [*parameters.values(), embedding]
    gradients = torch.autograd.grad(value, trained)
    if isinstance(network, ChunkedHypernetwork) and held.frozen is not None and _in_machine_code(network, optimizer):
        return _chunked(value.detach(), gradients, network, embedding, optimizer, held, beta)
    value = _Differentiated.apply(value.detach(), gradients, *trained)
    steps = next_step(optimizer, list(parameters.values()), gradients[:-1])
    ahead = {name: p + d for (name, p), d in zip(parameters.items(), steps, strict=True)}
    return value + beta * held.drift_of(network, held.draw(), ahead)


@torch.no_grad()
def next_step(optimizer: torch.optim.Adam, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
    """Adam's step for these gradients at its present moments, without taking it.

    As in the authors' look-ahead, eps joins the root of the second moment before its bias correction
    (Adam's own step adds it after), which differs only where a gradient is as small as eps.
    """
    group = optimizer.param_groups[0]
    beta1, beta2 = group["betas"]
    steps = []
    for p, g in zip(parameters, gradients, strict=True):
        kept = optimizer.state.get(p, {})
        count = kept["step"].double() + 1 if kept else torch.ones((), dtype=torch.float64, device=p.device)
        mean = kept["exp_avg"].lerp(g, 1 - beta1) if kept else (1 - beta1) * g
        square = kept["exp_avg_sq"] * beta2 + (1 - beta2) * g * g if kept else (1 - beta2) * g * g
        size = group["lr"] * (1 - beta2**count).sqrt() / (1 - beta1**count)
        steps.append(-size.to(p.dtype) * mean / (square.sqrt() + group["eps"]))
    return steps


class _Differentiated(torch.autograd.Function):
    """Value whose gradients by its inputs are already known, so that they are not computed twice."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Sequence[Tensor], *inputs: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, *(gradient * cotangents[0] for gradient in ctx.gradients))


# -- a chunked hypernetwork in machine code --------------------------------------------------------


class _OutputStep(NamedTuple):
    """Step ahead of the output layer: the task's gradients, which are overwritten, and what the first pass needs."""

    weight: Tensor
    bias: Tensor
    moments: Mapping[str, Tensor]
    bias_ahead: Tensor
    rule: compiled_drift.Rule
    since: Frozen
    edge: int


def _in_machine_code(network: ChunkedHypernetwork, optimizer: torch.optim.Adam) -> bool:
    """Check whether the passes over the output layer can be machine code; Adam's first step has no moments yet."""
    weight = network.output.weight
    return compiled.suits(weight) and weight in optimizer.state


def _chunked(
    value: Tensor, gradients: Sequence[Tensor], network: ChunkedHypernetwork, embedding: Tensor,
    optimizer: torch.optim.Adam, held: HeldOutputs, beta: float,
) -> Tensor:  # fmt: skip
    """The same sum, with two passes over the output layer: its step ahead with B'B, and the gradient from it."""
    assert held.frozen is not None
    rows, output, rule = held.draw(), network.output, _rule(optimizer, network.output.weight)
    of: dict[Tensor, Tensor] = dict(zip(network.parameters(), gradients, strict=False))
    of_weight, of_bias = of.pop(output.weight).contiguous(), of.pop(output.bias).contiguous()
    value = _Differentiated.apply(value, [*of.values(), gradients[-1]], *of, embedding)
    ahead = {p: _Ahead.apply(p, gradient, optimizer.state[p], rule) for p, gradient in of.items()}
    inputs = network.hidden(held.embeddings[rows], ahead)
    moments, of_biases = optimizer.state[output.weight], optimizer.state[output.bias]
    bias_ahead = compiled_drift.step_ahead(output.bias.detach(), of_bias, of_biases, rule)
    step = _OutputStep(of_weight, of_bias, moments, bias_ahead, rule, held.frozen.of(rows), network.edge)
    return _Regularised.apply(value, inputs, output.weight, output.bias, step, beta / len(inputs))


def _rule(optimizer: torch.optim.Adam, weight: Tensor) -> compiled_drift.Rule:
    """Numbers of `next_step`, on the host."""
    group = optimizer.param_groups[0]
    beta1, beta2 = group["betas"]
    count = float(optimizer.state[weight]["step"]) + 1
    size = float(group["lr"]) * (1 - beta2**count) ** 0.5 / (1 - beta1**count)
    return compiled_drift.Rule(1 - beta1, beta2, 1 - beta2, group["eps"], size)


class _Ahead(torch.autograd.Function):
    """Parameter after its step, which is a constant in the gradient."""

    @staticmethod
    def forward(ctx: Any, parameter: Tensor, gradient: Tensor, moments: Any, rule: compiled_drift.Rule) -> Tensor:
        return compiled_drift.step_ahead(parameter, gradient, moments, rule)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        return cotangents[0], None, None, None


class _Regularised(torch.autograd.Function):
    """value + factor * drift; the output layer's gradient is the task's plus the drift's."""

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, inputs: Tensor, weight: Tensor, bias: Tensor, step: _OutputStep, factor: float
    ) -> Tensor:
        ahead, outer = compiled_drift.look_ahead(
            weight, step.weight, step.moments, step.rule, step.bias_ahead, step.since, step.edge
        )
        a, inner = drift.of_inputs(inputs, step.since)
        ctx.kept = a, inner, ahead, outer, step, factor
        return value + factor * (inner * outer).sum().to(value.dtype)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        a, inner, ahead, outer, step, factor = ctx.kept
        scale = 2 * factor * cotangents[0]
        compiled_drift.add_gradient(
            step.weight, step.bias, float(cotangents[0]), ahead, step.bias_ahead, step.since,
            drift.for_weights(inner * scale).to(a.dtype), step.edge,
        )  # fmt: skip
        return cotangents[0], drift.for_inputs(a, (outer * scale).to(a.dtype)), step.weight, step.bias, None, None
