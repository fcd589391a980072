"""The promise of methods whose old answers come from numbers that never move again, and its audit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from benchmarks.types import CIL, Scenario, StreamSpec
from methods.abilities import Claim
from methods.intervals.boundable import unbounded
from methods.intervals.interval import Interval, outward
from methods.shared import heads, inference
from methods.shared.digest import digest
from methods.shared.ownership import moved, pack, unpack


class Numbers(NamedTuple):
    """Numbers from which a task's answers come, as they are now."""

    shared: Tensor
    """Floats (n,) of which several tasks' networks are made; none if the tasks share nothing."""
    used: Tensor
    """Mask (n,) bool of the shared ones in this task's network."""
    own: Tensor
    """Floats (p,) of this task alone: its head, its biases, its norm layers' parameters and statistics."""


class PointPromise(ABC):
    """Mixin of methods whose task t is answered by one network that never changes once learnt: a box of width 0.

    Write it before `NetworkPerTask`, or a subclass of it, in a class's bases. The class's `build` calls `promise`, and
    its `learn` ends with `freeze`. The audit compares every number with what
    it was when it was frozen, bit by bit, and repairs nothing. A shared number is frozen once for all tasks, so that
    one vector of copies serves them all; masks are copied as bits, and a task's own numbers as they are.
    """

    name: ClassVar[str]
    inferred_in: ClassVar[frozenset[Scenario]]
    spec: StreamSpec
    config: Any
    tasks_seen: int
    audit_frozen: Tensor
    """Shared numbers (n,) at the time when they were frozen."""
    audit_taken: Tensor
    """Those frozen so far, as packed bits."""
    audit_own: list[Tensor]
    audit_used: list[Tensor]
    """Masks of the tasks, as packed bits."""
    audit_latest: str
    """Where the task is inferred: digest of all tasks' numbers once the latest was learnt. Its claim needs them all."""

    @abstractmethod
    def numbers(self, task: int) -> Numbers:
        """Numbers behind the answers to a task; the same shapes at every call."""

    @abstractmethod
    def logit_bounds(self, x: Tensor, task: int) -> Interval:
        """Bounds (b, C) of the within-task logits of a task's network, by `propagate` with rounded=True."""

    def promise(self, shared: Tensor) -> None:
        """Make room for the audit's copies of shared numbers (n,)."""
        self.audit_frozen = torch.zeros_like(shared, requires_grad=False)
        self.audit_taken = pack(torch.zeros_like(shared, dtype=torch.bool))
        self.audit_own, self.audit_used = [], []
        self.audit_latest = ""

    @torch.no_grad()
    def freeze(self, task: int) -> None:
        """Copy the numbers of a task that has been learnt; numbers of earlier tasks keep their copies."""
        shared, used, own = self.numbers(task)
        self.freeze_shared(shared, used)
        self.audit_used.append(pack(used))
        self.audit_own.append(own.clone())
        self.audit_latest = self._digest()

    def freeze_shared(self, shared: Tensor, used: Tensor) -> None:
        """Copy those of the shared numbers (n,) that a task is the first to use (n,)."""
        taken = unpack(self.audit_taken, len(shared))
        self.audit_frozen = torch.where(used & ~taken, shared, self.audit_frozen)
        self.audit_taken = pack(used | taken)

    def _digest(self) -> str:
        """Digest of the numbers of all tasks learnt, read task by task; empty where no task is inferred."""
        if self.spec.scenario not in self.inferred_in:
            return ""
        every = (self.numbers(task) for task in range(len(self.audit_own)))
        return digest(part for shared, used, own in every for part in (pack(used), torch.where(used, shared, 0), own))

    def frozen_shared(self) -> Tensor:
        """Shared numbers (n,) as they were when they were frozen; others have any value."""
        return self.audit_frozen

    @torch.no_grad()
    def audit(self) -> list[Claim]:
        """Compare the numbers of every task with their copies.

        `outside` counts numbers that moved and mask entries that changed; `drift` is the largest movement. Where the
        task is inferred, the promise of a task's network does not cover its answers once other tasks have joined.
        """
        then = self.frozen_shared()
        return [self._claim(task, then) for task in range(len(self.audit_own))]

    @torch.no_grad()
    def unchanged(self, task_id: int) -> bool:
        """Check whether `bounds` are those of when the task was learnt: none of its numbers has moved by a bit.

        False where the task is inferred: the networks of other tasks take part in the answers there.
        """
        alone = self.spec.scenario not in self.inferred_in
        return alone and not self._claim(task_id, self.frozen_shared()).outside

    def _claim(self, task: int, then: Tensor) -> Claim:
        shared, used, own = self.numbers(task)
        n = len(shared)
        frozen = unpack(self.audit_used[task], n)
        differs = torch.cat([moved(shared, then) & frozen, moved(own, self.audit_own[task])])
        change = torch.cat([shared - then, own - self.audit_own[task]]).abs()
        drift = torch.where(differs, change, 0).amax() if len(differs) else torch.zeros(())
        counts = torch.stack([differs.sum(), (used != frozen).sum(), frozen.sum() + len(own)]).tolist()
        outside = counts[0] + counts[1]
        reasons = [f"{counts[0]} of {counts[2]} frozen numbers moved"] if counts[0] else []
        reasons += [f"{counts[1]} entries of the mask changed"] if counts[1] else []
        latest = task + 1 == len(self.audit_own)
        if latest and not reasons and self.audit_latest and self._digest() != self.audit_latest:
            reasons = [inference.OTHERS_CHANGED]
        contained = not reasons
        if contained and self.spec.scenario in self.inferred_in:
            reasons = inference.no_certificate(getattr(self.config, "inference", ""), latest)
        return Claim(task, contained, outside, float(drift), 0.0, "; ".join(reasons))

    @torch.no_grad()
    def bounds(self, x: Tensor, task_id: int | None = None) -> tuple[Tensor, Tensor]:
        """Bounds of the answers in exact arithmetic, float64: equal but for the rounding that they account for.

        Where the task is inferred they are over all choices that the entropy may make within the rounding. Raises
        NotImplementedError there with FeCAM, and for a network with a layer of unknown bounds.
        """
        reason = unbounded(self.name, self.spec)
        if reason:
            raise NotImplementedError(reason)
        if self.spec.scenario not in self.inferred_in:
            found = self.logit_bounds(x, task_id or 0)
            own = slice(self.spec.classes_of(task_id or 0))
            return Interval(found.lower[:, own], found.upper[:, own]) if self.spec.sizes else found
        if self.config.inference == "fecam":
            raise NotImplementedError("bounds of the distances to classes are not computed")
        every = [self.logit_bounds(x, task) for task in range(max(1, self.tasks_seen))]
        lower, upper = heads.stacked([b.lower for b in every]), heads.stacked([b.upper for b in every])
        if self.spec.scenario is CIL:
            lower, upper = heads.without_gaps(lower, self.spec), heads.without_gaps(upper, self.spec)
            weights = heads.per_capacity(None, self.spec, len(lower), lower)
            sides = inference.over_all_classes_bounds(lower, upper, weights)
            return outward(Interval(*(heads.side_by_side(side, self.spec) for side in sides)))
        return chosen_bounds(lower, upper)


def chosen_bounds(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds (b, C) of the logits of the task of least entropy, from bounds (k, b, C) of all tasks' logits.

    A task is left out if its least entropy exceeds another's largest.
    """
    least, most = inference.entropy_bounds(*inference.log_softmax_bounds(lower, upper))
    out = (least > most.amin(0))[..., None]
    return lower.masked_fill(out, torch.inf).amin(0), upper.masked_fill(out, -torch.inf).amax(0)
