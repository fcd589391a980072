"""Primal-dual search of a large box of weights that keeps enough answers certain: LID's augmented Lagrangian.

Elmecker-Plakolm et al. (2025), arXiv 2512.01899. Around weights theta (N,) the two sides l <= theta <= u of a box are
free and need not be symmetric. The search maximises

    J(l, u) = mean_i [ (1 - alpha) (u_i - l_i) + alpha log(u_i - l_i + 1e-6) ]

under a constraint for every group of samples (a class): accuracy at the worst-case logits z at least `limit`. With
soft accuracy = mean softmax(T z)_y, hard accuracy = share of argmax z = y, g = limit - soft and h = limit - hard, a
step is, per group,

    penalty     c <- growth c if h > grace;  1 if h <= 0;  at most `most_penalty`
    multiplier  lambda <- max(0, lambda + dual_lr / m * h)
    sides       Adam with rate m * lr on  -J + sum ( (lambda + c g)+^2 - lambda^2 ) / (2 c)
    pace        m <- m / pace if some h > grace;  m pace if all are at most that and some h < 0;  in [1/20, 20]

and the sides are then clipped to theta -+ `span` and into the outer box. All state stays on the device, so that a step
can be captured. A group without samples in the batch is left as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from methods.intervals.interval import Interval
from methods.intervals.weights import nested

TINY = 1e-6
"""Width added before the logarithm of the objective."""


@dataclass(frozen=True)
class SearchOptions:
    """Constants of a search; the defaults are those of the official code."""

    alpha: float = 0.0
    """Weight of log widths in the objective, the rest is for plain widths."""
    dual_lr: float = 0.01
    """Rate of the multipliers."""
    temperature: float = 10.0
    """Factor T of the logits in soft accuracy."""
    grace: float = 0.05
    """Violation up to which penalty and pace are kept."""
    growth: float = 1.01
    """Factor of a penalty after a step with a larger violation."""
    most_penalty: float = 1000.0
    """Largest penalty."""
    pace: float = 1.1
    """Factor by which a step changes the pace m."""
    most_pace: float = 20.0
    """Largest pace; the least is its inverse."""
    span: float = 10.0
    """Largest distance of a side from theta."""
    radius: float = 0.0
    """Distance of the first sides from theta."""


class BoxSearch:
    """State of a search around `theta` (N,), inside `outer`.

    limit: the accuracy wanted of each of `n_groups` groups. lr: learning rate of the sides at pace 1, in units of a
    weight. start: the first sides; None: those at `options.radius`. The caller makes Adam of `lower` and `upper` with
    the learning rate `rate`, and in each step calls `loss`, then `after_step`.
    """

    def __init__(
        self,
        theta: Tensor,
        outer: Interval,
        limit: float,
        n_groups: int,
        lr: float,
        options: SearchOptions,
        start: Interval | None = None,
    ) -> None:
        self.theta, self.outer, self.limit, self.options, self.lr = theta, outer, limit, options, lr
        if start is None:
            start = Interval.around(theta, torch.full_like(theta, options.radius))
        self.lower, self.upper = (side.clone().requires_grad_() for side in start)
        self.multiplier, self.penalty = theta.new_zeros(n_groups), theta.new_ones(n_groups)
        self.pace = theta.new_ones(())
        self.rate = theta.new_full((), lr)
        """Learning rate of the next step; a tensor, so that a captured step reads its latest value."""
        self.strict, self.defect = theta.new_zeros(n_groups), theta.new_zeros(n_groups)
        """Violations h and g of the latest step."""
        self._clip_to_span()

    @property
    def box(self) -> Interval:
        """Present sides, inside the outer box, (N,) each."""
        return nested(Interval(self.lower.detach().clone(), self.upper.detach().clone()), self.outer)

    def loss(self, worst: Tensor, y: Tensor, groups: Tensor) -> Tensor:
        """Augmented Lagrangian, 0-d, after the update of penalties and multipliers.

        worst: worst-case logits (b, C) over [lower, upper]; y (b,): labels; groups (b,): number of a sample's group.
        """
        options = self.options
        member = (groups[:, None] == torch.arange(len(self.penalty), device=y.device)).to(worst)
        count = member.sum(0)
        present = count > 0
        chances = torch.softmax(options.temperature * worst, 1).gather(1, y[:, None])
        defect = torch.where(present, self.limit - (chances * member).sum(0) / count.clamp(min=1), 0)
        with torch.no_grad():
            right = (worst.argmax(1) == y)[:, None]
            strict = self.limit - (right * member).sum(0) / count.clamp(min=1)
            self._update_duals(strict, present)
            self.strict.copy_(torch.where(present, strict, self.strict))
            self.defect.copy_(torch.where(present, defect, self.defect))
        pushed = (self.multiplier + self.penalty * defect).clamp(min=0)
        terms = (pushed.square() - self.multiplier.square()) / (2 * self.penalty)
        return torch.where(present, terms, 0).sum() - self.objective()

    def objective(self) -> Tensor:
        """Objective J of the present sides, 0-d."""
        width, alpha = self.upper - self.lower, self.options.alpha
        return ((1 - alpha) * width + alpha * (width + TINY).log() if alpha else width).mean()

    def _update_duals(self, strict: Tensor, present: Tensor) -> None:
        options = self.options
        grown = (self.penalty * options.growth).clamp(max=options.most_penalty)
        penalty = torch.where(strict > options.grace, grown, self.penalty).masked_fill(strict <= 0, 1.0)
        multiplier = (self.multiplier + options.dual_lr / self.pace * strict).clamp(min=0)
        self.penalty.copy_(torch.where(present, penalty, self.penalty))
        self.multiplier.copy_(torch.where(present, multiplier, self.multiplier))
        self.rate.copy_(self.pace * self.lr)
        # The pace of the next step; this one's rate is fixed already.
        slower = (present & (strict > options.grace)).any()
        faster = (present & (strict < 0)).any()
        pace = torch.where(slower, self.pace / options.pace, torch.where(faster, self.pace * options.pace, self.pace))
        self.pace.copy_(pace.clamp(1 / options.most_pace, options.most_pace))

    @torch.no_grad()
    def after_step(self) -> None:
        """Clip the sides into theta -+ span, then into the outer box."""
        self._clip_to_span()
        inside = nested(Interval(self.lower, self.upper), self.outer)
        self.lower.copy_(inside.lower)
        self.upper.copy_(inside.upper)

    @torch.no_grad()
    def _clip_to_span(self) -> None:
        self.lower.clamp_(self.theta - self.options.span, self.theta)
        self.upper.clamp_(self.theta, self.theta + self.options.span)
