"""A target network whose weights somebody else owns."""

from __future__ import annotations

from torch import Tensor, nn
from torch.func import functional_call

from methods.nets import intervals
from methods.nets.intervals import Interval


class FunctionalNetwork:
    """A network without weights of its own, called with flat weights (N,).

    The order of the weights is that of the network's parameters; for an MLP weight and bias, layer
    by layer, each row-major.
    """

    stateless = True

    def __init__(self, network: nn.Module) -> None:
        self.network = network.to("meta")
        self.shapes = {name: p.shape for name, p in network.named_parameters()}
        self.sizes = [shape.numel() for shape in self.shapes.values()]
        self.n_weights = sum(self.sizes)

    def named(self, flat: Tensor) -> dict[str, Tensor]:
        """Views of flat weights (N,) by parameter name."""
        parts = flat.split(self.sizes)
        return {name: part.view(shape) for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)}

    def __call__(self, flat: Tensor, x: Tensor) -> Tensor:
        """Logits (b, C) of the network with weights `flat` (N,) on inputs (b, *input_shape)."""
        return functional_call(self.network, self.named(flat), (x,))

    def bounds(self, lower: Tensor, upper: Tensor, x: Tensor, nonnegative_inputs: bool) -> Interval:
        """Sound bounds of the logits, each (b, C), over all weights in [lower, upper] (N,)."""
        low, up = self.named(lower), self.named(upper)
        weights = {name: Interval(low[name], up[name]) for name in self.shapes}
        return intervals.propagate(self.network, weights, x, nonnegative_inputs=nonnegative_inputs)

    def endpoints(self, lower: Tensor, middle: Tensor, upper: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The official three-forward heuristic: (lower, middle, upper) logits, not a bound.

        Ordinary forwards at the two corners and the centre, then two pairwise exchanges.
        """
        a, b, d = self(lower, x), self(middle, x), self(upper, x)
        a, b = a.minimum(b), a.maximum(b)
        return a, b.minimum(d), b.maximum(d)
