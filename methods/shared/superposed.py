"""A network under a mixture of masks, and the gradient of an objective with respect to each mask's share.

With weights W * sum_i alpha_i m_i every layer is linear in the shares alpha, so that for one sample

    dF / d alpha_i = sum over layers l of <d_l, L_l(a_l; W_l * m_i,l)>,

where L_l(a; W) is the layer without a bias, a_l its inputs, and d_l the gradient of the objective F with respect to its
outputs. For equal shares one forward and one backward pass give a_l and d_l of all samples, and each mask costs one
more product a layer. Shares that differ from sample to sample make a forward pass as long as one for each mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from methods.shared.grouped import Group, GroupedNetwork, Point

Objective = Callable[[Tensor], Tensor]
"""Logits (b, outputs) -> a number for each sample (b,)."""
Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]


class Call(NamedTuple):
    """One use of a layer in a forward pass."""

    layer: str
    inputs: Tensor
    nought: Tensor
    """Zeros that were added to its outputs, so that their gradient is that of the outputs."""


class Superposed:
    """Networks of k masks over one point, in evaluation mode, whose masked layers are linear in their weight.

    A sample enters each of these layers as one row. point: its masked group has all weights W (n,). masks: (k, n) bool.
    """

    stateless = True

    def __init__(self, target: GroupedNetwork, point: Point, masks: Tensor) -> None:
        self.target, self.point, self.masks = target, point, masks
        self.layers = {name.rpartition(".")[0]: name for name in target.shapes[Group.MASKED]}
        """Layer -> name of its weight."""
        self.weights = target.views(point.masked, Group.MASKED)
        self.parts = [target.views(mask, Group.MASKED) for mask in masks]

    def gradients(self, x: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
        """Objective (b,) and its gradient (b, k) at equal shares, by the product formula."""
        calls: list[Call] = []
        k = len(self.masks)

        def record(layer: str) -> Hook:
            def hook(_: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> Tensor:
                # a sum, because a layer that follows may overwrite the outputs in place
                nought = torch.zeros_like(outputs, requires_grad=True)
                calls.append(Call(layer, inputs[0].detach(), nought))
                return outputs + nought

            return hook

        mixed = self.point.masked * (self.masks.sum(0).to(self.point.masked) / k)
        with torch.enable_grad(), self._hooked(record):
            value = objective(self.target(self.point._replace(masked=mixed), x))
            deltas = torch.autograd.grad(value.sum(), [call.nought for call in calls], materialize_grads=True)
        found = value.new_zeros(len(x), k)
        for i in range(k):
            for call, delta in zip(calls, deltas, strict=True):
                found[:, i] += (self._product(call.layer, i, call.inputs) * delta).flatten(1).sum(1)
        return value.detach(), found

    def gradients_at(self, shares: Tensor, x: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
        """Objective (b,) and its gradient (b, k) at each sample's own shares (b, k)."""
        shares = shares.detach().requires_grad_()
        busy = False

        def superpose(layer: str) -> Hook:
            def term(inputs: Tensor, share: Tensor, i: int) -> Tensor:
                outputs = self._product(layer, i, inputs)
                return outputs * share.view(-1, *[1] * (outputs.dim() - 1))

            def hook(_: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> Tensor | None:
                nonlocal busy
                if busy:  # a product is a call of the same layer
                    return None
                busy, total = True, torch.zeros_like(outputs)
                for i, share in enumerate(shares.unbind(1)):
                    # recomputed in the backward pass, so that the outputs of all masks are never held at once
                    total = total + checkpoint(term, inputs[0], share, i, use_reentrant=False, preserve_rng_state=False)
                busy = False
                return total

            return hook

        with torch.enable_grad():
            with self._hooked(superpose):
                value = objective(self.target(self.point, x))
            (found,) = torch.autograd.grad(value.sum(), shares)
        return value.detach(), found

    def _product(self, layer: str, i: int, inputs: Tensor) -> Tensor:
        """Outputs of a layer without a bias under one mask."""
        name = self.layers[layer]
        given = {own.rpartition(".")[2]: zeros for own, zeros in self.target.zeros.items() if in_layer(own, layer)}
        given[name.rpartition(".")[2]] = self.weights[name] * self.parts[i][name]
        return functional_call(self.target.network.get_submodule(layer), given, (inputs,))

    @contextmanager
    def _hooked(self, make: Callable[[str], Hook]) -> Iterator[None]:
        modules = {layer: self.target.network.get_submodule(layer) for layer in self.layers}
        handles = [module.register_forward_hook(make(layer)) for layer, module in modules.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


@torch.no_grad()
def unlike_samples(network: nn.Module, layers: Iterable[str], input_shape: tuple[int, ...]) -> str | None:
    """First of the layers whose input has another first dimension than the batch; network: on the meta device."""
    batch, found = 3, list[str]()

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if len(inputs[0]) != batch:
                found.append(name)

        return look

    handles = [network.get_submodule(name).register_forward_pre_hook(watch(name)) for name in layers]
    try:
        network.eval()(torch.zeros(batch, *input_shape, device="meta"))
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def in_layer(name: str, layer: str) -> bool:
    """True for a parameter of the very layer."""
    return name.rpartition(".")[0] == layer


def lowest(values: Tensor, among: Tensor, count: int) -> Tensor:
    """Mask (b, k) of the `count` smallest values of each row (b, k) among (b, k) bool; of equal ones the first."""
    order = values.masked_fill(~among, torch.inf).sort(dim=1, stable=True).indices[:, :count]
    return torch.zeros_like(among).scatter_(1, order, True)
