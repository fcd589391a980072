"""Targets that keep a hypernetwork's outputs for the embeddings of old tasks, with a weight per output.

Source: von Oswald et al. (2020), arXiv 1906.00695, eq. 2 and appendix; the variants are those of the authors' code.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import mse_loss

from methods.hypernetworks.network import ChunkedHypernetwork
from methods.hypernetworks.stateless import FunctionalNetwork


class HeldOutputs:
    """Targets for t old tasks, fixed before a new one is learnt.

    network: the hypernetwork, embeddings (t, E) -> outputs (t, N). embeddings: (t, E), as they are now.
    weights: (t, N), factors of the squared residuals; None: all 1. at_once: number of old tasks drawn anew for
    each step (0: all). online: keep a copy of the network instead of its outputs and compute targets on demand,
    so that memory does not grow with the tasks. trained: train the embeddings together with the network.

    Where a chunked network's outputs all count alike and are of low rank (see `drift.py`), neither outputs nor targets
    are computed, and `frozen` replaces both.
    """

    def __init__(
        self, network: nn.Module, embeddings: Tensor, weights: Tensor | None = None,
        at_once: int = 0, online: bool = False, trained: bool = False,
    ) -> None:  # fmt: skip
        self.start = embeddings.clone()
        self.embeddings = nn.Parameter(embeddings.clone(), requires_grad=trained)
        self.weights, self.at_once = weights, at_once
        self.frozen = None
        if weights is None and isinstance(network, ChunkedHypernetwork):
            at_most = min(at_once or len(embeddings), len(embeddings))
            self.frozen = network.frozen(self.start) if network.of_low_rank(at_most) else None
        stored = self.frozen is None and not online
        self.network = copy.deepcopy(network).requires_grad_(False) if self.frozen is None and online else None
        with torch.no_grad():
            self.targets = network(self.start) if stored else None

    @property
    def plain(self) -> bool:
        """True if all outputs of all old tasks have weight 1 and stored targets."""
        everything = not self.at_once or self.at_once >= len(self.start)
        return everything and self.weights is None and self.targets is not None

    def draw(self) -> slice | Tensor:
        """Draw the old tasks of a step: all, or `at_once` different ones at random.

        On CUDA the draw is on the device, because a copy from the host would break the capture of a step.
        """
        t = len(self.start)
        if not self.at_once or self.at_once >= t:
            return slice(0, t)
        if self.start.is_cuda:
            return torch.rand(t, device=self.start.device).argsort()[: self.at_once]
        return torch.randperm(t)[: self.at_once]

    def drift_of(
        self, network: nn.Module, rows: slice | Tensor, parameters: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Mean over the drawn tasks of their weighted squared drift in a network, 0-d.

        rows: the drawn tasks. parameters: values by name instead of the network's own.
        """
        embeddings, named = self.embeddings[rows], dict(parameters or {})
        if self.frozen is None:
            return self.drift(functional_call(network, named, (embeddings,)), rows)
        return functional_call(network, named, (embeddings, self.frozen.of(rows))) / len(embeddings)

    def drift(self, outputs: Tensor, rows: slice | Tensor) -> Tensor:
        """Mean over the drawn tasks of their weighted squared drift, 0-d; outputs (k, N) are those of `rows`."""
        targets = self._targets(rows)
        if self.weights is None:
            return mse_loss(outputs, targets, reduction="sum") / len(outputs)
        return ((outputs - targets).square() * self.weights[rows]).sum() / len(outputs)

    @torch.no_grad()
    def _targets(self, rows: slice | Tensor) -> Tensor:
        if self.targets is not None:
            return self.targets[rows]
        assert self.network is not None
        return self.network(self.start[rows])


def own_head(target: FunctionalNetwork, head: list[str], classes: list[slice]) -> Tensor:
    """Factors (t, N): 0 for the weights of other tasks' heads, 1 for all others.

    head: names of the output layer's parameters; classes: the rows of each of the t tasks in it.
    """
    mask = torch.ones(len(classes), target.n_weights)
    for row, own in zip(mask, classes, strict=True):
        for name in head:
            part = target.named(row)[name]
            kept = part[own].clone()
            part.zero_()
            part[own] = kept
    return mask
