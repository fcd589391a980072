"""Network inside a box of weights that bounds all later weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from methods.intervals.bounding import Interval, contains, propagate
from methods.intervals.weights import Layout, linear_bias_names, nested

Box = Interval | dict[str, Interval]
"""Bounds of all weights in a box: flat, (N,) each, or by name."""


class BoxedNetwork(nn.Module):
    """Network whose parameters lie in [lower, upper] (N,), except those named in `points`, which have no box.

    The parameters of `net` are the centres: the network that answers. Linear biases in the box start at zero.
    """

    lower: Tensor
    upper: Tensor

    def __init__(self, net: nn.Module, points: Iterable[str], max_radius: float) -> None:
        super().__init__()
        self.net, self.max_radius = net, max_radius
        left_out = set(points)
        self.layout = Layout.of({name: p for name, p in net.named_parameters() if name not in left_out})
        parameters = dict(net.named_parameters())
        with torch.no_grad():
            for name in self.linear_biases():
                parameters[name].zero_()
        self.register_buffer("lower", self.centres() - max_radius)
        self.register_buffer("upper", self.centres() + max_radius)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def linear_biases(self) -> list[str]:
        """Names of the linear biases in the box."""
        return linear_bias_names(self.net, self.layout.shapes)

    def points(self) -> dict[str, Tensor]:
        """Parameters without a box."""
        return {name: p for name, p in self.net.named_parameters() if name not in self.layout.shapes}

    @property
    def box(self) -> Interval:
        """Bounds of the box, (N,) each."""
        return Interval(self.lower, self.upper)

    def centres(self) -> Tensor:
        """Current parameters in the box, (N,)."""
        return self.layout.flatten(dict(self.net.named_parameters())).detach()

    def radius(self) -> Tensor:
        """Half width of the box in every parameter, (N,)."""
        centres = self.centres()
        return torch.minimum(centres - self.lower, self.upper - centres).clamp(min=0)

    def draw_first_box(self) -> None:
        """Reset the box to `max_radius` around the current parameters."""
        self.lower, self.upper = self.centres() - self.max_radius, self.centres() + self.max_radius

    @torch.no_grad()
    def shrink(self, middle: Tensor, radius: Tensor) -> int:
        """Move the parameters to `middle` (N,) and the box to middle -+ radius, clipped to the old box.

        Returns the number of sides of the new box outside the old one: 0 unless there is a bug.
        """
        before = self.box
        middle = middle.clamp(*before)
        parameters = dict(self.net.named_parameters())
        for name, value in self.layout.views(middle).items():
            parameters[name].copy_(value)
        self.lower, self.upper = nested(Interval.around(middle, radius), before)
        return int((~contains(before, self.box)).sum())

    def astray(self) -> int:
        """Number of parameters outside the box."""
        return int((~contains(self.box, self.centres())).sum())

    def freeze_statistics(self) -> None:
        """Fix the batch-norm statistics from now on, even while the rest is in training mode."""
        for module in self.net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()

    def statistics(self) -> Tensor:
        """Batch-norm statistics, flat."""
        found = [b.flatten() for b in self.net.buffers() if b.is_floating_point()]
        return torch.cat([torch.zeros_like(self.lower[:0]), *found])

    def bounds(self, box: Box, x: Tensor, nonnegative_inputs: bool, rounded: bool = False) -> Interval:
        """Bounds of the outputs over `box`; parameters without a box are constants at their current values."""
        return propagate(self.net, self.weights(box), x, nonnegative_inputs=nonnegative_inputs, rounded=rounded)

    def weights(self, box: Box) -> dict[str, Interval]:
        """Bounds of the parameters over `box` by name."""
        boxes = self.layout.boxes(box) if isinstance(box, Interval) else box
        return boxes | {name: Interval.point(p.detach()) for name, p in self.points().items()}
