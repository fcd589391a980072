"""Stateless target network; weights are passed in."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.func import functional_call

from methods.intervals import bounding
from methods.intervals.bounding import Interval
from methods.intervals.weights import head_names
from methods.networks.tied import to_meta
from methods.shared.features import inputs_of

Weights = Tensor | Mapping[str, Tensor]
"""Weights of a network, flat (N,) or by parameter name."""
Statistics = dict[str, Tensor]
"""Buffers of a network by name, e.g. batch norm's running mean."""


class FunctionalNetwork:
    """Stateless network, called with flat weights (N,).

    The order of the weights is that of the network's parameters; for an MLP weight and bias, layer
    by layer, each row-major. Batch norm's statistics are passed in too, so that every task can have
    its own; `first_statistics` are those of a new network (empty without batch norm).
    """

    stateless = True

    def __init__(self, network: nn.Module) -> None:
        self.first_statistics: Statistics = {name: b.clone() for name, b in network.named_buffers()}
        self.network = to_meta(network)
        self.shapes = {name: p.shape for name, p in network.named_parameters()}
        self.sizes = [shape.numel() for shape in self.shapes.values()]
        self.n_weights = sum(self.sizes)

    def named(self, flat: Weights) -> Mapping[str, Tensor]:
        """Views into flat weights (N,) by parameter name; what a vector has beyond N is left out."""
        if not isinstance(flat, Tensor):
            return flat
        rest = len(flat) - self.n_weights
        parts = flat.split([*self.sizes, rest] if rest else self.sizes)
        return {name: part.view(shape) for part, (name, shape) in zip(parts, self.shapes.items(), strict=False)}

    def __call__(
        self, flat: Weights, x: Tensor, statistics: Statistics | None = None, training: bool = False
    ) -> Tensor:
        """Logits (b, C) of the network with weights `flat` (N,) on inputs (b, *input_shape).

        In training, batch norm uses the batch's own statistics and updates `statistics` in place.
        """
        if self.network.training != training:
            self.network.train(training)
        return functional_call(self.network, {**self.named(flat), **(statistics or self.first_statistics)}, (x,))

    def features(self, flat: Tensor, x: Tensor, statistics: Statistics | None = None) -> Tensor:
        """Inputs of the output layer, flattened (b, d), in evaluation mode."""
        layer = self.network.get_submodule(head_names(self.network)[0].rpartition(".")[0])
        return inputs_of(layer, lambda: self(flat, x, statistics))

    def bounds(
        self, lower: Weights, upper: Weights, x: Tensor, nonnegative_inputs: bool,
        statistics: Statistics | None = None, rounded: bool = False,
    ) -> Interval:  # fmt: skip
        """Sound bounds of the logits, each (b, C), over all weights in [lower, upper] (N,).

        Batch norm uses the given statistics. rounded: for certificates, see `propagate`.
        """
        low, up = self.named(lower), self.named(upper)
        weights = {name: Interval(low[name], up[name]) for name in self.shapes}
        return bounding.propagate(
            self.network, weights, x, nonnegative_inputs=nonnegative_inputs,
            buffers=statistics or self.first_statistics, rounded=rounded,
        )  # fmt: skip

    def endpoints(
        self, lower: Tensor, middle: Tensor, upper: Tensor, x: Tensor,
        statistics: Statistics | None = None, training: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Official heuristic of three forwards: (lower, middle, upper) logits, not a bound.

        Ordinary forwards at the two corners and the centre, then two pairwise exchanges. In training
        each forward uses its own batch statistics; only the centre's update `statistics`.
        """
        scratch = [{name: s.clone() for name, s in (statistics or self.first_statistics).items()} for _ in range(2)]
        a, d = self(lower, x, scratch[0], training), self(upper, x, scratch[1], training)
        return exchanged(a, self(middle, x, statistics, training), d)


def exchanged(a: Tensor, b: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Official exchange rule, half a sort: order a and b, then b and d, but not a and b again."""
    a, b = a.minimum(b), a.maximum(b)
    return a, b.minimum(d), b.maximum(d)
