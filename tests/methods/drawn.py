"""Networks drawn at random: branches of any sign, and operations with unusual arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = 6
"""All values on the way are (b, SIZE)."""


class Operation(NamedTuple):
    """One operation of a drawn network, on the values a and b computed before; `net` has layers and weights."""

    name: str
    apply: Callable[[Any, Tensor, Tensor], Tensor]
    bounded: bool = True
    """Whether bounds are known; else it must be refused."""


def _plane(x: Tensor) -> Tensor:
    return x.view(x.size(0), 1, 2, 3)


def _row(x: Tensor) -> Tensor:
    return x.unsqueeze(1)


def _padded(x: Tensor, value: float) -> Tensor:
    return F.pad(x, (1, 2), value=value)[:, :SIZE]


def _maximum_and_place(x: Tensor) -> Any:
    return F.max_pool1d(_row(x), 3, 1, 1, return_indices=True)


def _fractional(x: Tensor) -> Tensor:
    return F.fractional_max_pool2d(_plane(x), 1, (2, 3)).flatten(1)


def _divided(x: Tensor, divisor: int) -> Tensor:
    return F.avg_pool2d(_plane(x), (1, 3), 1, (0, 1), divisor_override=divisor).flatten(1)


def _changed(x: Tensor, change: Callable[[Tensor], Any]) -> Tensor:
    """The sum of a tensor and what it is changed into in place, which both are the latter."""
    y = x * 1
    z = change(y)
    return y + z


def _added(x: Tensor, other: Any) -> Tensor:
    x += other
    return x


def _subtracted(x: Tensor, other: Any) -> Tensor:
    x -= other
    return x


def _scaled(x: Tensor, factor: Any) -> Tensor:
    x *= factor
    return x


def _view_changed(x: Tensor) -> Tensor:
    y = x * 1
    F.relu(_row(y), inplace=True)
    return y


def _twice(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(torch.tanh(layer(x)))


# fmt: off
OPERATIONS = [
    Operation("linear", lambda net, a, b: net.linear(a)),
    Operation("linear twice", lambda net, a, b: _twice(net.linear, a)),
    Operation("tied weights", lambda net, a, b: net.tied(torch.tanh(net.linear(a)))),
    Operation("functional linear", lambda net, a, b: F.linear(a, net.matrix, bias=net.vector)),
    Operation("transposed weights", lambda net, a, b: F.linear(a, net.linear.weight.t())),
    Operation("convolution", lambda net, a, b: net.convolution(_plane(a)).flatten(1)),
    Operation("functional convolution", lambda net, a, b: F.conv2d(_plane(a), net.kernel, padding=1).flatten(1)),
    Operation("batch norm", lambda net, a, b: net.norm(a)),
    Operation("batch norm of a batch", lambda net, a, b: net.plain_norm(a), bounded=False),
    Operation("layer norm", lambda net, a, b: F.layer_norm(a, (SIZE,)), bounded=False),
    Operation("softmax", lambda net, a, b: a.softmax(1), bounded=False),
    Operation("relu", lambda net, a, b: a.relu()),
    Operation("relu in place", lambda net, a, b: _changed(a, lambda y: F.relu(y, inplace=True))),
    Operation("relu layer in place", lambda net, a, b: _changed(a, net.rectifier)),
    Operation("relu6", lambda net, a, b: F.relu6(a)),
    Operation("leaky", lambda net, a, b: F.leaky_relu(a, 0.3)),
    Operation("leaky, falling", lambda net, a, b: F.leaky_relu(a, -0.5), bounded=False),
    Operation("leaky layer, falling", lambda net, a, b: net.falling(a), bounded=False),
    Operation("elu", lambda net, a, b: F.elu(a, 2.0)),
    Operation("elu, falling", lambda net, a, b: F.elu(a, -2.0), bounded=False),
    Operation("elu layer, falling", lambda net, a, b: net.falling_elu(a), bounded=False),
    Operation("celu", lambda net, a, b: F.celu(a, 0.5)),
    Operation("celu, negative", lambda net, a, b: F.celu(a, -1.0), bounded=False),
    Operation("selu", lambda net, a, b: F.selu(a)),
    Operation("parametric relu", lambda net, a, b: net.parametric(a), bounded=False),
    Operation("gelu", lambda net, a, b: F.gelu(a), bounded=False),
    Operation("tanh", lambda net, a, b: torch.tanh(a)),
    Operation("sigmoid", lambda net, a, b: a.sigmoid()),
    Operation("hard sigmoid", lambda net, a, b: F.hardsigmoid(a)),
    Operation("softsign", lambda net, a, b: F.softsign(a)),
    Operation("hard tanh", lambda net, a, b: F.hardtanh(a)),
    Operation("hard tanh, negative", lambda net, a, b: net.clipped(a)),
    Operation("hard tanh, positive", lambda net, a, b: F.hardtanh(a, 0.5, 2.0)),
    Operation("softplus", lambda net, a, b: F.softplus(a, beta=3.0)),
    Operation("softplus, low threshold", lambda net, a, b: F.softplus(a, 1.0, threshold=0.0)),
    Operation("softplus, negative threshold", lambda net, a, b: F.softplus(a, 2.0, -2.0)),
    Operation("softplus, negative", lambda net, a, b: net.negative_softplus(a), bounded=False),
    Operation("max pooling", lambda net, a, b: F.max_pool1d(_row(a), 3, 1, 1).squeeze(1)),
    Operation("max pooling of torch", lambda net, a, b: torch.max_pool1d(_row(a), 3, 1, padding=1).squeeze(1)),
    Operation("max pooling with places", lambda net, a, b: _maximum_and_place(a)[0].squeeze(1), bounded=False),
    Operation("average pooling", lambda net, a, b: F.avg_pool1d(_row(a), 3, 1, 1).squeeze(1)),
    Operation("average pooling of planes", lambda net, a, b: net.pool(_plane(a)).flatten(1)),
    Operation("average pooling, own divisor", lambda net, a, b: _divided(a, 2)),
    Operation("average pooling, negative divisor", lambda net, a, b: _divided(a, -4), bounded=False),
    Operation("adaptive pooling", lambda net, a, b: a + F.adaptive_avg_pool2d(_plane(a), 1).flatten(1)),
    Operation("fractional pooling", lambda net, a, b: _fractional(a), bounded=False),
    Operation("mean", lambda net, a, b: a + b.mean(1, keepdim=True)),
    Operation("sum", lambda net, a, b: a + b.sum(dim=1, keepdim=True)),
    Operation("largest", lambda net, a, b: a + b.amax(1, keepdim=True)),
    Operation("padded, negative", lambda net, a, b: _padded(a, -1.5)),
    Operation("padded, positive", lambda net, a, b: _padded(a, 0.5)),
    Operation("padded by mirroring", lambda net, a, b: F.pad(_row(a), (1, 0), "reflect").squeeze(1)[:, :SIZE]),
    Operation("joined", lambda net, a, b: torch.cat([a, b], dim=1)[:, 3 : SIZE + 3]),
    Operation("joined, the other way", lambda net, a, b: torch.cat((b, a), 1)[:, 2 : SIZE + 2]),
    Operation("joined, positive first", lambda net, a, b: torch.cat([a.relu(), b], 1)[:, 3 : SIZE + 3]),
    Operation("joined, positive last", lambda net, a, b: torch.cat([b, a.relu()], 1)[:, 3 : SIZE + 3]),
    Operation("positive and signed added", lambda net, a, b: a.relu() + b),
    Operation("signed and positive added", lambda net, a, b: a + b.relu()),
    Operation("positive and signed multiplied", lambda net, a, b: a.sigmoid() * b),
    Operation("signed and positive multiplied", lambda net, a, b: a * b.relu()),
    Operation("positive times a weight", lambda net, a, b: a.relu() * net.vector),
    Operation("sum of two", lambda net, a, b: a + b),
    Operation("three times added", lambda net, a, b: torch.add(a, b, alpha=3)),
    Operation("subtracted by alpha", lambda net, a, b: a.add(b, alpha=-2)),
    Operation("difference", lambda net, a, b: a - b),
    Operation("scaled difference", lambda net, a, b: torch.sub(a, b, alpha=-0.5)),
    Operation("product of two", lambda net, a, b: a * b),
    Operation("negative", lambda net, a, b: -a),
    Operation("plus a negative literal", lambda net, a, b: a + -1.5),
    Operation("plus a positive literal", lambda net, a, b: 0.5 + a),
    Operation("times a negative literal", lambda net, a, b: a * -2),
    Operation("from a literal", lambda net, a, b: 1 - a),
    Operation("times a weight", lambda net, a, b: a * net.vector),
    Operation("plus a weight", lambda net, a, b: a.relu() + net.vector),
    Operation("plus a buffer", lambda net, a, b: a.relu() + net.shift),
    Operation("plus a tensor made", lambda net, a, b: a.relu() + torch.full((a.size(0), SIZE), -1.5)),
    Operation("divided", lambda net, a, b: a / -2, bounded=False),
    Operation("added in place", lambda net, a, b: _changed(a, lambda y: _added(y, b))),
    Operation("subtracted in place", lambda net, a, b: _changed(a, lambda y: _subtracted(y, 1.5))),
    Operation("scaled in place", lambda net, a, b: _changed(a, lambda y: _scaled(y, -2))),
    Operation("added by method", lambda net, a, b: _changed(a, lambda y: y.add_(b, alpha=2))),
    Operation("changed through a view", lambda net, a, b: _view_changed(a), bounded=False),
    Operation("dropout in evaluation", lambda net, a, b: net.dropout(F.dropout(a, 0.5, training=False))),
    Operation("dropout in training", lambda net, a, b: F.dropout(a, 0.5), bounded=False),
    Operation("transposed by property", lambda net, a, b: a + b.T.mean(), bounded=False),
    Operation("shapes", lambda net, a, b: a.reshape(a.shape[0], 2, 3).permute(0, 2, 1).transpose(1, 2).flatten(1)),
]
# fmt: on


class Drawn(nn.Module):
    """A program of operations, each on two earlier values, and a layer `probe` that shows the sign of the last one.

    Where the probe's weights are a diagonal that straddles zero, bounds that take a signed value for a nonnegative one
    are wrong.
    """

    def __init__(self, program: list[tuple[Operation, int, int]]) -> None:
        super().__init__()
        self.program = program
        self.linear, self.tied = nn.Linear(SIZE, SIZE), nn.Linear(SIZE, SIZE)
        self.tied.weight = self.linear.weight
        self.matrix, self.vector = nn.Parameter(torch.randn(SIZE, SIZE) / 2), nn.Parameter(torch.randn(SIZE))
        self.convolution, self.kernel = nn.Conv2d(1, 1, 3, padding=1), nn.Parameter(torch.randn(1, 1, 3, 3) / 2)
        self.norm, self.plain_norm = nn.BatchNorm1d(SIZE), nn.BatchNorm1d(SIZE, track_running_stats=False)
        self.norm.running_mean = torch.randn(SIZE)
        self.norm.running_var = torch.rand(SIZE) + 0.1
        self.register_buffer("shift", torch.randn(SIZE))
        self.rectifier, self.parametric, self.dropout = nn.ReLU(inplace=True), nn.PReLU(), nn.Dropout(0.5)
        self.falling, self.falling_elu = nn.LeakyReLU(-0.2), nn.ELU(alpha=-1.5)
        self.clipped, self.negative_softplus = nn.Hardtanh(-2.0, -1.0), nn.Softplus(beta=-1)
        self.pool = nn.AvgPool2d((1, 3), 1, (0, 1), count_include_pad=False)
        self.probe = nn.Linear(SIZE, SIZE, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for operation, first, second in self.program:
            values.append(operation.apply(self, values[first % len(values)], values[second % len(values)]))
        return self.probe(values[-1])
