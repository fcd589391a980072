"""LID: a large certified box of weights is searched after each task, and later training is clipped into it.

Elmecker-Plakolm et al. (2025), arXiv 2512.01899: locally invariant domains. Written after the official code; of the
paper the abstract and the introduction were readable. A task has two phases:

1. Training by Adam on cross-entropy + l2 * sum of the tensors' norms + unbias * sum over a batch of noise of
   |softmax(f(noise)) - 1/C|. After each step the weights are clipped into one of the boxes of the previous task.
2. Search around the weights theta, which stay: the sides l <= theta <= u of a box are free, and their mean width grows
   as long as every class keeps `limit` = max(a - allowance, least * a) of accuracy at the worst-case logits, with a the
   accuracy of theta (`methods/intervals/box_search.py`). The box is taken at several times of the search. The last one
   that keeps the limit on training samples is the box of the next task and the outer box of its search (`choose`: or
   all that do are, and training ends in one of them). If none does, the last one is shrunk towards theta until it does.

The promise is that of InterContiNet: boxes are nested, and what the present box certifies is never forgotten. Where
several boxes are kept, bounds are over all of them until the next task has ended in one.
TIL: each task has a head of plain numbers, fixed once learnt. DIL, CIL: one head, in the box. In CIL the bounds
include future classes as competitors. Batch norm's statistics are fixed after the first task.

The table `regions` has for each task the limit (NaN without a search), the certified share of the fitting samples, the
boxes kept and the median width of their union. With `choose = "last"` and `keep = "feasible"` a certified share below
the limit means that no box around theta met it. Of several boxes the share is that of samples certain in each of them,
while `bounds` covers all of them at once and so certifies no more. With arithmetic="rump" the search and the share use
midpoint-radius bounds without rounding; `bounds` is the exact one in any case.

Deviations from the official code, and the option that restores its behaviour:
- Box and limit are fitted on training samples (there: on the task's test set, and certified on the same samples;
  not offered).
- The search is a share of the task's steps and batches, at a rate that does not depend on the network's size
  (search_lr=None: 0.33 / N, on 200 further steps there).
- TIL: a certificate compares the classes of the task, and both sides of each (there: logits of other tasks times 0 are
  rivals, heads="boxed"; and from the second class on a label is compared with 0 alone, til_rivals="official").
- What lies outside is clipped (tolerance=1e-6: left there up to this squared distance).
- Boxes that miss the limit are not returned (keep="all").
- One box is enforced (choose="sample_largest_closest" for MNIST there, "best_loss" for CIFAR): a sample that several
  boxes are to keep must be certain in each of them, which costs certified accuracy.
- The last task has a box too (last_region=False: none, so that its certificate is that of the earlier box).
- Interval arithmetic is the exact one of a layer (arithmetic="rump": midpoint and radius).
- CIL: cross-entropy is over the classes seen (mask_unseen=False: over all from the start).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from benchmarks.types import StreamSpec, UserError
from methods.base import DIL, TIL, Batch, Exhibit, Needs, Task, register
from methods.box_promise import BoxPromise
from methods.intervals.boundable import unbounded
from methods.intervals.bounding import Interval, contains
from methods.intervals.box_search import BoxSearch, SearchOptions
from methods.intervals.boxed import Box, BoxedNetwork
from methods.intervals.choice import Choice, project, stacked
from methods.intervals.midpoint import propagate_midpoint
from methods.intervals.weights import head_names, nested
from methods.search import LEARNING_RATE, Even, Log, OneOf, ranges
from methods.shared import heads
from methods.shared.needs import BOUNDS

OFFICIAL_RATE = 0.33
"""Official rate of the search, divided by the number of weights."""


@register("lid")
class LID(BoxPromise):
    """Adam clipped into certified boxes of weights that a primal-dual search makes large (LID, arXiv 2512.01899)."""

    capturable = True

    @dataclass(frozen=True)
    class Config:
        lr: float = 1e-3
        """Adam learning rate."""
        search_lr: float | None = 5e-4
        """Learning rate of a box's sides, in units of a weight. None: 0.33 / number of weights (official)."""
        search_share: float = 0.3
        """Share of a task's steps given to the search."""
        allowance: float = 0.12
        """Accuracy that the worst case may lose on each class."""
        least: float = 0.5
        """Share of the accuracy that the worst case must keep, whatever the allowance."""
        groups: Literal["class", "task"] = "class"
        """Constraint for each class, or one for the task."""
        alpha: float = 0.0
        """Weight of log widths in the objective of the search, the rest is for plain widths."""
        dual_lr: float = 0.01
        """Rate of the multipliers of the constraints."""
        snapshots: int = 10
        """Number of boxes taken from a search."""
        keep: Literal["feasible", "all"] = "feasible"
        """Boxes kept: those that meet the limit, or all (official)."""
        choose: Choice = "last"
        """Only the last box of a search is kept; or all of it, and weights outside are clipped into the closest, that
        of the least cross-entropy (official for CIFAR), or one drawn by width and distance (official for MNIST)."""
        tolerance: float = 0.0
        """Squared distance from a box up to which weights are not clipped (official: 1e-6)."""
        heads: Literal["frozen", "boxed"] = "frozen"
        """TIL: heads are numbers, each fixed after its task; or in the box, and foreign logits times 0 (official)."""
        til_rivals: Literal["task", "official"] = "task"
        """TIL: rivals of a label in the search: the task's classes; or, but for the first class, 0 (official)."""
        arithmetic: Literal["exact", "rump"] = "exact"
        """Interval arithmetic of the search; `bounds` is always exact and rounded outwards."""
        fit_samples: int = 2000
        """Number of training samples on which limit and boxes are judged."""
        last_region: bool = True
        """Search after the last task too (official: False)."""
        l2: float = 0.01
        """Weight of the sum of the tensors' Euclidean norms."""
        unbias: float = 0.01
        """Weight of the distance of answers to noise from the uniform distribution."""
        mask_unseen: bool = True
        """CIL: restrict cross-entropy to the classes seen (official: False). Certificates never are."""
        search = ranges(
            lr=LEARNING_RATE,
            search_lr=Log(1e-5, 1e-2),
            allowance=Even(0.02, 0.6),
            choose=OneOf(("closest", "last")),
        )

        def __post_init__(self) -> None:
            for name in ("search_share", "allowance", "least", "alpha"):
                if not 0 <= getattr(self, name) <= 1:
                    raise UserError(f"lid: {name} = {getattr(self, name)} must be in [0, 1]")
            if self.snapshots < 1 or self.fit_samples < 1:
                raise UserError(
                    f"lid: snapshots = {self.snapshots} and fit_samples = {self.fit_samples} must be at least 1"
                )

    @classmethod
    def skip(cls, spec: StreamSpec, config: Any) -> str | None:
        """Skip also networks without known bounds, and in TIL a frozen backbone below heads without a box."""
        if spec.scenario is TIL and "+frozen" in spec.network and config.heads == "frozen":
            return f"{cls.name}: {spec.network} has no weight below the heads, and in TIL heads have no interval"
        return super().skip(spec, config) or unbounded(cls.name, spec)

    @classmethod
    def needs(cls, spec: StreamSpec, config: Any) -> Needs:
        """Memory for several boxes and projections, training through bounds, and float64 bounds in certificates."""
        kept = 0 if config.choose == "last" else 2 * config.snapshots
        return Needs(
            per_task=-(-kept // spec.n_tasks),
            generated=8 + 5 * config.snapshots,
            passes=BOUNDS,
            passes_evaluated=2 * BOUNDS,
        )

    def build(self) -> None:
        net = self.network()
        self.boxed_heads = self.spec.scenario is TIL and self.config.heads == "boxed"
        points = head_names(net) if self.spec.scenario is TIL and not self.boxed_heads else []
        self.options = SearchOptions(alpha=self.config.alpha, dual_lr=self.config.dual_lr)
        begun = {name: value.clone() for name, value in net.state_dict().items()}
        self.promise(BoxedNetwork(net, points, self.options.span).eval())
        net.load_state_dict(begun)  # with the linear biases that the boxed network has set to zero
        self.regions = self.model.lower.new_empty(0, 2, len(self.model.lower))
        """Lower and upper sides of the boxes of the last search, (K, 2, N), where the next task has several."""
        self.chosen = torch.zeros((), dtype=torch.int64, device=self.device)
        """Number of the region that the latest step has clipped into."""
        self.limits: list[float] = []
        self.kept: list[int] = []

    def present_boxes(self) -> list[Interval]:
        return [Interval(*sides) for sides in self.regions] or [self.model.box]

    def learn(self, task: Task) -> None:
        steps = task.budget.steps_for(len(task.train))
        searched = self.config.last_region or task.index + 1 < self.spec.n_tasks
        last = round(steps * self.config.search_share) if searched else 0
        self._train(task, steps - last)
        if not task.index:
            self.model.draw_first_box()
        if searched:
            found = self._found(task, steps - last, last)
        else:
            found = [self.model.box]
            self.limits.append(math.nan)
        outside = sum(int((~contains(self.model.box, box)).sum()) for box in found)
        self._enter(found)
        self.kept.append(len(found))
        union = Interval(*(stacked(found).lower.amin(0), stacked(found).upper.amax(0)))
        self.record_promise(task, outside, union.width)

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        return self.answerable(self.model(x), task_id)

    def exhibits(self) -> dict[str, Exhibit]:
        tasks = list(range(len(self.limits)))
        return {
            "regions": {
                "task": tasks, "limit": self.limits, "certified": self.certified_at_end, "boxes": self.kept,
                "median width": self.widths,
            }
        }  # fmt: skip

    # -- training --------------------------------------------------------------------------------

    def _train(self, task: Task, steps: int) -> None:
        """Train the weights (in TIL also the task's head), after the first task inside the present boxes."""
        model = self.model.train()
        if task.index:
            model.freeze_statistics()
        boxes = stacked(self.present_boxes())
        latest: list[Batch] = []

        def loss(batch: Batch) -> Tensor:
            latest[:] = [batch]
            value = cross_entropy(self._compared(model(batch.x), batch.task), self._labels(batch))
            return value + self._regulariser(batch)

        def clip() -> None:
            self._clip(boxes, latest[0])

        after = clip if task.index else None
        self.fit(task, loss, model.net.parameters(), lr=self.config.lr, steps=steps, after_step=after,
                 keep=[self.chosen])  # fmt: skip
        model.eval()
        if task.index:
            self._enter([self.present_boxes()[int(self.chosen)]])

    @torch.no_grad()
    def _clip(self, boxes: Interval, batch: Batch) -> None:
        """Move the weights into one of the boxes (K, N)."""
        model, config = self.model, self.config

        def losses(clipped: Tensor) -> Tensor:
            each = [functional_call(model.net, model.layout.views(weights), (batch.x,)) for weights in clipped]
            return torch.stack([cross_entropy(self._compared(z, batch.task), self._labels(batch)) for z in each])

        weights, index = project(model.centres(), boxes, config.choose, config.tolerance, losses)
        parameters = dict(model.net.named_parameters())
        for name, value in model.layout.views(weights).items():
            parameters[name].copy_(value)
        self.chosen.copy_(index)

    def _enter(self, boxes: list[Interval]) -> None:
        """Enforce these boxes from now on; a single one becomes the model's box."""
        self.chosen.zero_()
        several = boxes if len(boxes) > 1 else []
        self.regions = torch.stack([torch.stack(box) for box in several]) if several else self.regions[:0].clone()
        if not several:
            self.model.lower, self.model.upper = boxes[0]

    def _regulariser(self, batch: Batch) -> Tensor:
        """Penalty of norms and of answers to noise, 0-d; in TIL of the body and the task's own head."""
        config, net = self.config, self.model.net
        total = batch.x.new_zeros(())
        if config.l2:
            assert isinstance(batch.task, int)
            own = self.spec.outputs_of(batch.task)
            points = self.model.points()
            tensors = [p[own] if name in points else p for name, p in net.named_parameters()]
            total = total + config.l2 * sum(torch.linalg.vector_norm(p) for p in tensors)
        if config.unbias:
            noise = torch.randn_like(batch.x) if self.spec.scenario is DIL else torch.rand_like(batch.x)
            # Buffers are copies, so that noise does not enter batch norm's statistics.
            buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
            chances = self._compared(functional_call(net, buffers, (noise,)), batch.task).softmax(1)
            total = total + config.unbias * torch.linalg.vector_norm(chances - 1 / chances.shape[1], dim=1).sum()
        return total

    # -- the search ------------------------------------------------------------------------------

    def _found(self, task: Task, first: int, steps: int) -> list[Interval]:
        """Boxes for the next task, inside the model's box."""
        outer, theta = self.model.box, self.model.centres()
        limit = self._limit(self._certified_share(task, Interval.point(theta)))
        self.limits.append(limit)
        if self._certified_share(task, outer) > limit:
            return [outer]
        if limit <= 0:
            return [nested(Interval.around(theta, torch.full_like(theta, self.options.span)), outer)]
        found = self._snapshots(task, outer, limit, first, steps)
        if self.config.keep == "feasible":
            found = self._feasible(task, theta, found, limit)
        return found[-1:] if self.config.choose == "last" else found

    def _limit(self, accuracy: float) -> float:
        return min(max(accuracy - self.config.allowance, accuracy * self.config.least), 1.0)

    def _snapshots(self, task: Task, outer: Interval, limit: float, first: int, steps: int) -> list[Interval]:
        config, theta = self.config, self.model.centres()
        rate = OFFICIAL_RATE / len(theta) if config.search_lr is None else config.search_lr
        groups = self.spec.classes_per_task if config.groups == "class" else 1
        search = BoxSearch(theta, outer, limit, groups, rate, self.options, self._start(task.index, theta))
        return self._searched(task, search, first, steps, config.snapshots)

    def _start(self, task: int, theta: Tensor) -> Interval:
        """First sides of a search: theta, or theta -+ span in other tasks' heads if they are in the box."""
        radius = torch.full_like(theta, self.options.radius)
        if self.boxed_heads:
            views = self.model.layout.views(radius)
            for name in head_names(self.model.net):
                views[name].fill_(self.options.span)
                views[name][self.spec.outputs_of(task)] = self.options.radius
        return Interval.around(theta, radius)

    # -- worst cases -----------------------------------------------------------------------------

    def _labels(self, batch: Batch) -> Tensor:
        return batch.y + heads.starts(batch.y, batch.task, self.spec) if self.boxed_heads else batch.y

    def _compared(self, logits: Tensor, task_id: int | Tensor) -> Tensor:
        return logits * self._mask(logits, task_id) if self.boxed_heads else super()._compared(logits, task_id)

    def _mask(self, logits: Tensor, task: int | Tensor) -> Tensor:
        """1 for the outputs of the task, 0 for others, (outputs,)."""
        assert isinstance(task, int)
        own, outputs = self.spec.outputs_of(task), torch.arange(logits.shape[1], device=logits.device)
        return ((outputs >= own.start) & (outputs < own.stop)).to(logits)

    def _propagated(self, box: Box, batch: Batch) -> Interval:
        if self.config.arithmetic == "exact":
            return super()._propagated(box, batch)
        return propagate_midpoint(self.model.net, self.model.weights(box), batch.x)

    def _over(self, box: Box, batch: Batch) -> Interval:
        if not self.boxed_heads:
            return super()._over(box, batch)
        bounds = self._propagated(box, batch)
        mask = self._mask(bounds.lower, batch.task)
        # Least and largest of two, as there: at zero width the gradient of both goes to the lower side.
        both = torch.stack([bounds.lower * mask, bounds.upper * mask])
        return Interval(both.min(0).values, both.max(0).values)

    def _worst(self, box: Box, batch: Batch) -> Tensor:
        worst = super()._worst(box, batch)
        if self.spec.scenario is not TIL or self.config.til_rivals == "task":
            return worst
        own = self._labels(batch)[:, None] == torch.arange(worst.shape[1], device=worst.device)
        return torch.where(own | (batch.y == 0)[:, None], worst, 0.0)
