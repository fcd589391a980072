"""The base of methods that generate a box of weights for each task, with the promise of the box and its audit."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from methods.base import CIL, Claim
from methods.hypernetworks.stateless import FunctionalNetwork, Statistics
from methods.intervals.bounding import Interval, contains, outward
from methods.network_per_task import NetworkPerTask
from methods.shared import heads, inference, state
from methods.shared.archive import Archive
from methods.shared.digest import digest


class BoxPerTask(NetworkPerTask):
    """HyperInterval's promise: what is certified of a task's box holds while the deployed weights lie in it.

    A subclass sets `target` in `build`, calls `promise_box` once a task is learnt, and its `Config` has the fields
    `inference`, `fecam_answer` and `fecam_tukey`.
    """

    target: FunctionalNetwork

    def build(self) -> None:
        super().build()
        self.audit_boxes = Archive()
        """Lower and upper weights (2, N) of each task, as they were when it was learnt."""
        self.audit_statistics: list[str] = []
        """Digest of each task's batch-norm statistics at that time."""
        self.audit_latest = ""
        """CIL: digest of all from which boxes are made, when the latest task was learnt. Its claim needs all boxes."""

    @abstractmethod
    def weights(self, task: int | slice, radii: bool = True) -> tuple[Tensor, Tensor]:
        """Centres (k, N) and radii (k, N) of the tasks' weights; radii (0, N) without `radii`."""

    @abstractmethod
    def middle(self, theta: Tensor, x: Tensor, task: int) -> Tensor:
        """Logits (b, C) of a task's network with weights theta (N,)."""

    @abstractmethod
    def statistics_of(self, task: int) -> Statistics:
        """Batch norm's statistics of a task."""

    @abstractmethod
    def generators(self) -> Iterable[Tensor]:
        """All tensors from which the boxes and statistics of all tasks are made."""

    def deployed(self, newest: Tensor | None = None) -> Tensor | None:
        """Weights (N,) that answer for all tasks; None: each task has its own, the centre of its box.

        newest: embedding (1, E) of the last task, while it is being learnt.
        """
        return None

    @torch.no_grad()
    def promise_box(self, task: int) -> None:
        """Keep a learnt task's box and a digest of its statistics for the audit."""
        theta, rho = self.weights(task)
        self.audit_boxes.append(torch.cat([theta - rho, theta + rho]))
        self.audit_statistics.append(digest(self.statistics_of(task).values()))
        self.audit_latest = digest(self.generators()) if self.spec.scenario is CIL else ""

    def bounds(self, x: Tensor, task_id: int | None = None) -> tuple[Tensor, Tensor]:
        """Certified bounds of the answers over the box of task `task_id`, float64: those of exact arithmetic.

        In CIL: over the boxes of all tasks seen, with every choice that the entropy can make.
        Raises NotImplementedError in CIL with FeCAM.
        """
        if self.spec.scenario is not CIL:
            task = task_id or 0
            found = self._certified_logits(x, slice(task, task + 1))[0]
            return Interval(self.of_task(found.lower, task), self.of_task(found.upper, task))
        if self.config.inference == "fecam":
            raise NotImplementedError("which class is nearest for all weights of a box is not computed")
        every = self._certified_logits(x, slice(0, max(1, self.tasks_seen)))
        weights = self.every_head(x)[1] if self.config.inference == "interval" or self.spec.sizes else None
        lower, upper = (heads.without_gaps(torch.stack(side), self.spec) for side in zip(*every, strict=True))
        sides = inference.over_all_classes_bounds(lower, upper, weights)
        return outward(Interval(*(heads.side_by_side(side, self.spec) for side in sides)))

    @torch.no_grad()
    def sampled(self, x: Tensor, task_id: int | None = None) -> Tensor:
        """Answers of a network drawn from the region of `bounds`, with half of its weights on the region's faces."""

        def drawn(j: int) -> Tensor:
            theta, rho = self.weights(j)
            return self.middle(theta[0] + rho[0] * (4 * torch.rand_like(rho[0]) - 2).clamp(-1, 1), x, j)

        if self.spec.scenario is not CIL:
            return self.of_task(drawn(task_id or 0), task_id or 0)
        logits = heads.without_gaps(torch.stack([drawn(j) for j in range(max(1, self.tasks_seen))]), self.spec)
        answers = inference.over_all_classes(logits, inference.least_entropy(logits, self.every_head(x)[1]))
        return heads.side_by_side(answers, self.spec)

    def _certified_logits(self, x: Tensor, tasks: slice) -> list[Interval]:
        theta, rho = self.weights(tasks)
        box = Interval(theta - rho, theta + rho)  # the same box that `audit` compares the deployed weights with
        nonnegative, first = self.spec.nonnegative_inputs, tasks.start or 0
        return [
            self.target.bounds(lower, upper, x, nonnegative, self.statistics_of(first + i), rounded=True)
            for i, (lower, upper) in enumerate(zip(box.lower, box.upper, strict=True))
        ]

    @torch.no_grad()
    def outside(self, newest: Tensor | None = None) -> Tensor:
        """Number of weights (k,) that the deployed network of each of the k learnt tasks has outside its certified box.

        newest: embedding (1, E) of the task being learnt, if any; its own box is not there yet.
        """
        return torch.stack([outside for _, outside in self._boxes(newest)] or [self.step.new_zeros(0)]).long()

    def _boxes(self, newest: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Certified box (2, N) of each learnt task, and the number of deployed weights outside, 0-d; see `outside`."""
        deployed = self.deployed(newest)
        for j, box in enumerate(self.audit_boxes):
            lower, upper = box = box.to(self.device)
            used = self.weights(j, radii=False)[0][0] if deployed is None else deployed
            yield box, (~contains(Interval(lower, upper), used)).sum()

    @torch.no_grad()
    def audit(self) -> list[Claim]:
        """Check for every task whether the deployed weights still lie in its certified box, its statistics unchanged.

        In CIL a certificate covers the tasks known when it was issued; it is void once others join.
        """
        claims = []
        for j, ((lower, upper), count) in enumerate(self._boxes()):
            (theta, rho), outside = self.weights(j), int(count)
            drift = torch.maximum((theta[0] - rho[0] - lower).abs().max(), (theta[0] + rho[0] - upper).abs().max())
            reasons = [f"{outside} of {theta.numel()} weights have left the box"] if outside else []
            known = self.audit_statistics[j : j + 1]
            if known and known != [digest(self.statistics_of(j).values())]:
                reasons += ["batch-norm statistics moved"]
            latest = j + 1 == len(self.audit_boxes)
            if latest and not reasons and self.audit_latest and digest(self.generators()) != self.audit_latest:
                reasons = [inference.OTHERS_CHANGED]
            contained = not reasons
            if contained and self.spec.scenario is CIL:
                reasons = inference.no_certificate(self.config.inference, latest)
            width = float(2 * rho.median())
            claims.append(Claim(j, contained, outside, float(drift), width, "; ".join(reasons)))
        return claims

    # -- state -------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """State with the boxes that the audit compares with, which are otherwise in a file."""
        return {**super().state_dict(), "audit_boxes": [box.to(self.device) for box in self.audit_boxes]}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        super().load_state_dict({key: value for key, value in saved.items() if key != "audit_boxes"})
        self.audit_boxes = Archive(saved["audit_boxes"])

    def parameters_stored(self) -> int:
        """Size of what must be kept between tasks; does not read the audit's boxes from their file."""
        return state.size(super().state_dict(), self.rebuilt())
