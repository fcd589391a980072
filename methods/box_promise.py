"""The promise of methods whose later weights stay in boxes that only shrink, and its audit.

What every network of a box classifies correctly is never forgotten while the weights stay in the box. TIL: each task
has a head of plain numbers, outside of the box and fixed once learnt, unless the method puts heads into the box. DIL,
CIL: one head, in the box. In CIL the bounds include future classes as competitors, because they could otherwise
overturn a certificate. Bounds are over the present boxes, the ones that are enforced from now on, and include float
rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import functional_call

from benchmarks.types import CIL
from methods.abilities import Claim
from methods.base import Batch, Method, Task
from methods.intervals.bounding import Interval, certified, contains, worst_case
from methods.intervals.box_search import BoxSearch
from methods.intervals.boxed import Box, BoxedNetwork
from methods.intervals.contraction import evenly, largest_factor
from methods.intervals.weights import nested
from methods.shared.digest import digest
from methods.shared.optimizers import adam


class BoxPromise(Method):
    """Method with a `BoxedNetwork` that calls `promise` in `build` and `record_promise` at the end of `learn`."""

    model: BoxedNetwork

    def promise(self, model: BoxedNetwork) -> None:
        """Take the network whose weights are promised to stay in its box."""
        self.model = model
        self.outside: list[int] = []
        self.widths: list[float] = []
        self.certified_at_end: list[float] = []
        self.points_at_end: list[Tensor] = []
        self.recorded_boxes = ""
        """Digest of the boxes that the latest task left."""

    def present_boxes(self) -> Sequence[Interval]:
        """Boxes of which one contains all later weights: the model's, unless a method has several to choose from."""
        return [self.model.box]

    def record_promise(self, task: Task, outside: int, width: Tensor) -> None:
        """Record a task's claim. outside: sides of its boxes beyond their predecessor; width (N,) of its region."""
        self.outside.append(outside)
        self.widths.append(width.median().item())
        self.certified_at_end.append(self._certified_share(task, *self.present_boxes()))
        self.points_at_end.append(self._kept_points(task.index))
        self.recorded_boxes = self._digest()

    def _digest(self) -> str:
        return digest(side for box in self.present_boxes() for side in box)

    # -- the guarantee ---------------------------------------------------------------------------

    @torch.no_grad()
    def bounds(self, x: Tensor, task_id: int | None = None) -> tuple[Tensor, Tensor]:
        """Lower and upper logits in exact arithmetic over all present boxes, float64, (b, classes as in `predict`).

        CIL: every upper bound is raised to the highest one of the future classes, which compete too. Where the only
        class so far does not exceed them, its lower bound is -inf, since no other answer shows them.
        """
        lower, upper = self._bounds_over(self.present_boxes()[0], x, task_id)
        for box in self.present_boxes()[1:]:
            low, high = self._bounds_over(box, x, task_id)
            lower, upper = torch.minimum(lower, low), torch.maximum(upper, high)
        return lower, upper

    def _bounds_over(self, box: Interval, x: Tensor, task_id: int | None) -> tuple[Tensor, Tensor]:
        logits = self.model.bounds(box, x, self.spec.nonnegative_inputs, rounded=True)
        if self.spec.scenario is not CIL:
            return self.answerable(logits.lower, task_id), self.answerable(logits.upper, task_id)
        lower, upper = self.answerable(logits.lower, None), self.answerable(logits.upper, None)
        to_come = logits.upper[:, upper.shape[1] :]
        if not to_come.shape[1]:
            return lower, upper
        rival = to_come.amax(1, keepdim=True)
        if lower.shape[1] == 1:
            lower = lower.masked_fill(~(lower > rival), -math.inf)
        return lower, torch.maximum(upper, rival)

    @torch.no_grad()
    def sampled(self, x: Tensor, task_id: int | None = None) -> Tensor:
        """Answers of a network drawn from one of the present boxes, with half of its weights on the box's faces."""
        boxes = self.present_boxes()
        lower, upper = boxes[int(torch.randint(len(boxes), ()))] if len(boxes) > 1 else boxes[0]
        drawn = torch.lerp(lower, upper, (2 * torch.rand_like(lower) - 0.5).clamp(0, 1)).clamp(lower, upper)
        return self.answerable(functional_call(self.model.net, self.model.layout.views(drawn), (x,)), task_id)

    def audit(self) -> list[Claim]:
        """Check the chain of boxes: each was compared with its predecessor, and the network is with the last ones.

        Boxes that are not those which the latest task left void every claim. `Claim.median_width` is the width that a
        task's box had when the task was learnt; every later box lies in it.
        """
        centres = self.model.centres()
        astray = min(int((~contains(box, centres)).sum()) for box in self.present_boxes())
        changed = bool(self.recorded_boxes) and self._digest() != self.recorded_boxes
        claims = []
        for j, (width, points) in enumerate(zip(self.widths, self.points_at_end, strict=True)):
            outside = astray + sum(self.outside[j + 1 :])
            change = (self._kept_points(j) - points).abs()
            drift = change.max().item() if change.numel() else 0.0
            reasons = ["the box is not the one that the latest task left"] if changed else []
            reasons += [f"{outside} weights left the box"] if outside else []
            reasons += [f"head or batch-norm statistics moved by {drift:.3g}"] if drift else []
            claims.append(Claim(j, outside == 0 and not changed, outside, drift, width, "; ".join(reasons)))
        return claims

    def _kept_points(self, task_id: int) -> Tensor:
        """Values other than the box that a task's claim needs unchanged: its head and the statistics, flat."""
        own = self.spec.outputs_of(task_id)
        heads = [p.detach()[own].flatten() for p in self.model.points().values()]
        return torch.cat([*heads, self.model.statistics()])

    def parameters_trained(self) -> int:
        """Number of centres, radii and head parameters."""
        return sum(p.numel() for p in self.model.parameters()) + self.model.lower.numel()

    def rebuilt(self) -> list[Tensor]:
        """Values that only `audit` reads."""
        return self.points_at_end

    # -- worst cases -----------------------------------------------------------------------------

    def _compared(self, logits: Tensor, task_id: int | Tensor) -> Tensor:
        """Select the logits for cross-entropy: the task's head, all, or in CIL all seen if `mask_unseen`."""
        everything = self.spec.scenario is CIL and not self.config.mask_unseen
        return logits if everything else self.answerable(logits, task_id)

    def _over(self, box: Box, batch: Batch) -> Interval:
        """Bounds of the logits that a certificate compares: in CIL all, including those of future classes."""
        bounds = self._propagated(box, batch)
        if self.spec.scenario is CIL:
            return bounds
        return Interval(self.answerable(bounds.lower, batch.task), self.answerable(bounds.upper, batch.task))

    def _propagated(self, box: Box, batch: Batch) -> Interval:
        """Bounds of all outputs over a box, for training."""
        return self.model.bounds(box, batch.x, self.spec.nonnegative_inputs)

    def _labels(self, batch: Batch) -> Tensor:
        """Number of each sample's class among the logits of `_over`, (b,)."""
        return batch.y

    def _worst(self, box: Box, batch: Batch) -> Tensor:
        return worst_case(self._over(box, batch), self._labels(batch))

    @torch.no_grad()
    def _certified_share(self, task: Task, *boxes: Interval) -> float:
        """Share of (`fit_samples`) training samples that every network in the boxes classifies correctly."""
        indices = evenly(len(task.train), self.config.fit_samples, self.device)
        right = torch.zeros((), device=self.device)
        for part in indices.split(1000):
            batch = task.train.batch(part)
            certain = [certified(self._over(box, batch), self._labels(batch)) for box in boxes]
            right += torch.stack(certain).all(0).sum()
        return right.item() / len(indices)

    # -- the search of a box ---------------------------------------------------------------------

    def _searched(self, task: Task, search: BoxSearch, first: int, steps: int, snapshots: int) -> list[Interval]:
        """Boxes at equal distances of `steps` steps of a search, from the earliest to the last, at most `snapshots`."""
        boxes: list[Interval] = []
        by_class = len(search.penalty) > 1

        def loss(batch: Batch) -> Tensor:
            groups = self.within_task(batch.y, batch.task) if by_class else torch.zeros_like(batch.y)
            worst = self._worst(Interval(search.lower, search.upper), batch)
            return search.loss(worst, self._labels(batch), groups)

        def look(_: int) -> None:
            boxes.append(search.box)

        optimizer = adam([search.lower, search.upper], search.rate)  # pyright: ignore[reportArgumentType]
        if steps:
            self.fit(
                task, loss, optimizer, first_step=first, steps=steps, scheduled=False,
                after_step=search.after_step, on_check=look, check_every=-(-steps // snapshots),
            )  # fmt: skip
        return boxes or [search.box]

    def _feasible(self, task: Task, theta: Tensor, boxes: list[Interval], limit: float) -> list[Interval]:
        """Boxes that certify at least `limit` of the fitting samples; if none, the last one shrunk towards theta."""

        def meets(box: Interval) -> bool:
            return self._certified_share(task, box) >= limit

        def by(factor: float) -> Interval:
            lower, upper = boxes[-1]
            return nested(Interval(torch.lerp(theta, lower, factor), torch.lerp(theta, upper, factor)), boxes[-1])

        return [box for box in boxes if meets(box)] or [by(largest_factor(lambda factor: meets(by(factor))))]
