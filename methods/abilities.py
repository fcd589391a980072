"""Abilities that a method may have beyond `Method`: certificates, and the inference of a sample's task."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor


class Claim(NamedTuple):
    """State of a method's guarantee for one task; see `Certifying.audit`."""

    task: int
    contained: bool
    """True if the deployed parameters lie inside every region that the claim needs."""
    outside: int
    """Number of parameters outside."""
    drift: float
    """Largest movement of the task's region since the task was learnt, in units of weights."""
    median_width: float
    """Median of upper - lower over the weights of the task's region; where regions only shrink, as the task left it."""
    reason: str = ""
    """Reason why the claim is void; empty where it holds."""


@runtime_checkable
class Certifying(Protocol):
    """Method with a guarantee about old tasks; the runner measures how well it holds.

    If it also has `sampled(x, task_id) -> logits` of one network drawn at random from the region of `bounds`, the
    conformance suite tests the bounds on many such networks. If it has `unchanged(task_id) -> bool`, True where
    `bounds` gives for any inputs the same numbers as when the task had been learnt, the runner certifies that task's
    test samples once and not again after every later task.
    """

    def bounds(self, x: Tensor, task_id: int | None = None) -> tuple[Tensor, Tensor]:
        """Lower and upper logits, each shaped as `predict`'s, over the whole parameter region kept for a task.

        They may be float64 and describe networks computed without rounding. The runner checks sample by sample
        whether the answers of `predict` agree with them.

        `task_id` is given in every scenario: it names the region. Raises NotImplementedError in a scenario
        in which nothing is certified.
        """
        ...

    def audit(self) -> list[Claim]:
        """State of the guarantee for every task learnt so far."""
        ...


@runtime_checkable
class Inferring(Protocol):
    """Method that infers the task of a sample in CIL; the runner measures the accuracy of the inference."""

    def infer_task(self, x: Tensor) -> Tensor:
        """Inferred task of each sample of x (b, ...), one of those learnt, (b,) int64."""
        ...
