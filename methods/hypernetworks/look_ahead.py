"""The loss of a hypernetwork whose regulariser looks ahead: at theta + dtheta, dtheta the task's own step of Adam.

Source: von Oswald et al. (2020), arXiv 1906.00695, eq. 2; dtheta is a constant in the gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from methods.hypernetworks import compiled, compiled_drift, drift
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
        # Given up here, so that they become the parameters' gradients without a copy.
        gradients, ctx.gradients, scale = ctx.gradients, None, cotangents[0]
        if _known_to_be_one(scale):
            return (None, None, *gradients)
        return (None, None, *(gradient * scale for gradient in gradients))


def _known_to_be_one(scale: Tensor) -> bool:
    return not scale.is_cuda and bool(scale == 1)  # on CUDA the host would wait


# -- a chunked hypernetwork in machine code --------------------------------------------------------


def _in_machine_code(network: ChunkedHypernetwork, optimizer: torch.optim.Adam) -> bool:
    """Check whether the passes over the output layer can be machine code; Adam's first step has no moments yet."""
    weight = network.output.weight
    return compiled.suits(weight) and weight in optimizer.state


def _chunked(
    value: Tensor, gradients: Sequence[Tensor], network: ChunkedHypernetwork, embedding: Tensor,
    optimizer: torch.optim.Adam, held: HeldOutputs, beta: float,
) -> Tensor:  # fmt: skip
    """The same sum, with two passes over the output layer: its step ahead with B'B, and the gradient from it.

    All gradients are computed here, so that the backward pass only hands them on.
    """
    assert held.frozen is not None
    rows, output, rule = held.draw(), network.output, _rule(optimizer, network.output.weight)
    since, state, edge = held.frozen.of(rows), optimizer.state, network.edge
    of: dict[Tensor, Tensor] = dict(zip(network.parameters(), gradients, strict=False))
    of_weight, of_bias = of.pop(output.weight).contiguous(), of.pop(output.bias).contiguous()
    ahead = {p: compiled_drift.step_ahead(p.detach(), g, state[p], rule).requires_grad_() for p, g in of.items()}
    inputs = network.hidden(held.embeddings[rows], ahead)
    bias = compiled_drift.step_ahead(output.bias.detach(), of_bias, state[output.bias], rule)
    weight, outer = compiled_drift.look_ahead(
        output.weight.detach(), of_weight, state[output.weight], rule, bias, since, edge
    )
    a, inner = drift.of_inputs(inputs.detach(), since)
    factor = beta / len(inputs)
    value = value + factor * (inner * outer).sum().to(value.dtype)
    products = drift.for_weights(inner * (2 * factor)).to(a.dtype)
    compiled_drift.add_gradient(of_weight, of_bias, weight, bias, since, products, edge)
    moved = [*ahead.values(), *([held.embeddings] if held.embeddings.requires_grad else [])]
    found = torch.autograd.grad(inputs, moved, drift.for_inputs(a, (outer * (2 * factor)).to(a.dtype)))
    given = {p: g + more for (p, g), more in zip(of.items(), found, strict=False)}
    given |= {output.weight: of_weight, output.bias: of_bias, embedding: gradients[-1]}
    if held.embeddings.requires_grad:
        given[held.embeddings] = found[-1]
    return _Differentiated.apply(value, list(given.values()), *given)


def _rule(optimizer: torch.optim.Adam, weight: Tensor) -> compiled_drift.Rule:
    """Numbers of `next_step`, on the host."""
    group = optimizer.param_groups[0]
    beta1, beta2 = group["betas"]
    count = float(optimizer.state[weight]["step"]) + 1
    size = float(group["lr"]) * (1 - beta2**count) ** 0.5 / (1 - beta1**count)
    return compiled_drift.Rule(1 - beta1, beta2, 1 - beta2, group["eps"], size)
