"""WSN: winning subnetworks; each task trains free weights and a mask, which may reuse the frozen weights of others.

Kang et al. (2022), "Forget-free Continual Learning with Winning Subnetworks", ICML. Shared are weights W and scores V,
one per weight; every task has a head. A tensor's mask has the share c (`capacity`) of largest scores,

    m = 1 where |V| >= the k-th smallest |V|,   k = 1 + round((1 - c) (n - 1))      (ties at the threshold are included)

and each step uses the mask of the present scores, with gradients straight through:

    forward W * m,   dW = g * m, but 0 where M = 1,   dV = g * W * sign(V)

by a fresh Adam for each task. At its end the task's mask m_t is kept and M <- M or m_t: the weights of M are frozen.
Task t is answered by W * m_t and its head. Scores are not drawn anew, so that later masks build on earlier ones.

The promise is exact: masks, heads and the weights in masks never change, so old answers are the same bit by bit. After
each step the frozen weights are set back to their frozen values, so no optimiser can move them, Adam's
memory and weight decay included. `audit` compares all numbers of the networks with copies. The table `capacity` of a
record has CAP.

DIL and CIL by the shared task inference are an addition to the paper, which has TIL only. So are biases
and running statistics of batch norm (the code's networks have no biases; the norms of its AlexNet and ResNet use the
statistics of the test batch): each task has its own, or one of the options below.

Deviations from the official code, and the option that restores its behaviour:
- The kept mask is that of the kept scores. There it is the mask of the last training batch, made from the scores
  before the last step, also where validation restores earlier weights and scores (mask_of="last-batch"). Nothing is
  forgotten either way, since the kept mask is the frozen one.
- Old answers are measured after every task. There the accuracies of some benchmarks are copied from the row above, so
  that their backward transfer is 0 by construction.
- The threshold stays on the device; official code fetches it for every tensor in every step.
- Heads have the classes of the task alone, and per-task networks are kept as copies.
- Under a plain budget the rate is not lowered on a plateau (`selection = "val"` keeps the best epoch). A validated
  budget lowers it, unless `selection = "val"` is chosen.

Published settings: Adam 1e-3, c in 0.03, 0.05, 0.1, 0.3, 0.5; batches of 10 for Permuted MNIST and Tiny ImageNet, of 64
for CIFAR-100.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from methods.base import Task, UserError, register
from methods.search import LEARNING_RATE, OneOf, ranges
from methods.shared.grouped import Group, Named, Point, layer_of
from methods.shared.ownership import holding, pack, unpack
from methods.shared.topk import from_rank, straight_through
from methods.subnetworks import Subnetworks


@register("wsn")
class WSN(Subnetworks):
    """Winning subnetworks: a trained mask for each task over weights that are trained once (Kang et al. 2022)."""

    @dataclass(frozen=True)
    class Config(Subnetworks.Config):
        capacity: float = 0.5
        """Share c of each tensor's weights in a task's mask."""
        mask_of: Literal["restored", "last-batch"] = "restored"
        """Mask that is kept: of the scores that are kept, or of the last training batch (official code)."""
        biases: Literal["per-task", "masked", "none"] = "per-task"
        """Biases below the head: a copy for each task, under masks like weights (official layers), or zero."""
        search = ranges(lr=LEARNING_RATE, capacity=OneOf((0.03, 0.05, 0.1, 0.3, 0.5)))

        def __post_init__(self) -> None:
            if not 0 < self.capacity <= 1:
                raise UserError(f"wsn: capacity = {self.capacity} must be a share above 0 and up to 1")
            Subnetworks.check("wsn", self)

    config: Config

    @classmethod
    def biases_in(cls, config: Any) -> Group:
        """Group of the biases."""
        return {"per-task": Group.OWN, "masked": Group.MASKED, "none": Group.ABSENT}[config.biases]

    def build(self) -> None:
        super().build()
        self.scores = nn.Parameter(first_scores(self.target.shapes[Group.MASKED]).to(self.weights))
        self.masks: list[Tensor] = []
        """Masks of the learnt tasks, as packed bits."""

    def present_mask(self) -> Tensor:
        """0-1 mask (n,) of the present scores, as floats."""
        sizes = self.target.sizes(Group.MASKED)
        return from_rank(self.scores.detach().abs(), sizes, [rank(n, self.config.capacity) for n in sizes])

    def mask(self, task: int) -> Tensor:
        """Mask (n,) bool of a learnt task."""
        return unpack(self.masks[task], len(self.weights))

    def under(self, mask: Tensor) -> Point:
        """Network in training under a mask (n,)."""
        return Point(self.weights * mask, self.fixed, self.own, self.statistics_of(len(self.kept)))

    def live(self) -> Point:
        """Network in training under the mask of the present scores."""
        return self.under(self.present_mask())

    def learn(self, task: Task) -> None:
        self.start(task)
        free = torch.ones_like(self.weights, dtype=torch.bool)
        for earlier in range(len(self.masks)):
            free &= ~self.mask(earlier)
        official, last = self.config.mask_of == "last-batch", self.present_mask()
        shapes, sizes = self.target.shapes[Group.MASKED].items(), self.target.sizes(Group.MASKED)

        def masked() -> Named:
            mask = self.present_mask()
            if official:
                last.copy_(mask)
            parts = straight_through(self.weights, self.scores, mask, sizes)
            return {name: part.view(shape) for part, (name, shape) in zip(parts, shapes, strict=True)}

        judged = (lambda: self.under(last)) if official else self.live
        self.train(task, masked, [self.weights, self.scores], holding(self.weights, free), judged=judged)
        self.masks.append(pack((last if official else self.present_mask()).bool()))
        self.finish(task)


def rank(n: int, capacity: float) -> int:
    """Number of a tensor's n entries below the threshold, in the arithmetic and rounding of the official code."""
    return round(0.01 * (100 * (1 - capacity)) * (n - 1))


def first_scores(shapes: Mapping[str, torch.Size]) -> Tensor:
    """Initial scores (n,) of parameters by name, flat: U(+-1/sqrt(inputs)), a bias with the inputs of its layer."""
    of_layers = {layer_of(name): math.prod(shape[1:]) for name, shape in shapes.items() if len(shape) > 1}
    # A layer may hold more weights than one, e.g. a gain (o, 1, 1, 1): each has its own inputs.
    inputs = {name: math.prod(s[1:]) if len(s) > 1 else of_layers[layer_of(name)] for name, s in shapes.items()}
    bounds = {name: 1 / math.sqrt(n) for name, n in inputs.items()}
    return torch.cat(
        [torch.empty(shape.numel()).uniform_(-bounds[name], bounds[name]) for name, shape in shapes.items()]
    )
