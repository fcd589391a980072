"""EWC: elastic weight consolidation, with every common reading of its Fisher information by name.

Kirkpatrick et al. (2017), PNAS 114:3521-3526. While task t is learnt, the loss is (their eq. 3, for many tasks)

    CE + lambda/2 * sum_{k<t} sum_i F_ki (theta_i - theta_ki)^2

with theta_k the parameters after task k and F_k the diagonal of the Fisher information on its training data. Online
EWC (Schwarz et al. 2018, Progress & Compress) keeps one anchor, the latest, and F <- gamma F + F_new.

Other heads need no special care: a logit that is not admissible for a task sends no gradient, so F is 0 there.
Running statistics of batch norm are no parameters: no penalty holds them, and they move with every task.

Implementations of EWC differ by orders of magnitude in F and so in the strength that suits them:
`fisher="avalanche"` and `"intercontinet"` reproduce two of them, both without the factor 1/2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from methods.base import Task, UserError, register
from methods.quadratic_penalty import QuadraticPenalty
from methods.search import LEARNING_RATE, Log, ranges
from methods.shared.fisher import fisher
from methods.shared.optimizers import OptimizerName


@register("ewc")
class EWC(QuadraticPenalty):
    """Elastic weight consolidation: parameters important to earlier tasks are held back (Kirkpatrick et al. 2017)."""

    @dataclass(frozen=True)
    class Config:
        lr: float = 1e-3
        """Learning rate."""
        strength: float = 1000.0
        """lambda, the weight of the penalty. Its best value depends on benchmark and scenario: 3 to 1e7 here."""
        mode: Literal["separate", "online"] = "separate"
        """One anchor for each task, or only the latest with accumulated importance (online EWC)."""
        decay: float = 1.0
        """gamma of online EWC: factor of the old importance when a task is added; unused with separate anchors."""
        fisher: Literal["exact", "sampled", "empirical", "batched", "avalanche", "intercontinet"] = "exact"
        """Estimate of F: expectation over the network's own answers, one answer drawn from them, the labels, or
        the squared mean gradients of batches ("batched"). The last two are complete official variants, with the
        penalty lambda instead of lambda/2: Avalanche 0.6 ("batched" F), InterContiNet's baseline (the sum, at the
        arg-max)."""
        fisher_samples: int | None = 2048
        """Training samples, drawn at random, from which F is estimated (none: all; the batch variants use all)."""
        optimizer: OptimizerName = "adam"
        """Adam, or plain SGD."""
        search = ranges(lr=LEARNING_RATE, strength=Log(1e-1, 1e7))

        def __post_init__(self) -> None:
            if self.strength < 0:
                raise UserError(f"strength = {self.strength} must not be negative")
            if not 0 <= self.decay <= 1:
                raise UserError(f"decay = {self.decay} must lie in [0, 1]")
            if self.fisher_samples is not None and self.fisher_samples < 1:
                raise UserError(f"fisher_samples = {self.fisher_samples} must be at least 1")

    @property
    def factor(self) -> float:
        """Factor of the penalty: lambda/2, in the official variants lambda."""
        official = self.config.fisher in ("avalanche", "intercontinet")
        return self.config.strength * (1.0 if official else 0.5)

    def consolidate(self, importance: Tensor) -> None:
        if self.config.mode == "separate":
            self.anchor.add(importance)
        else:
            self.anchor.move(importance, self.config.decay)

    def rebuilt(self) -> list[Tensor]:
        """The latest anchor, which is the network itself."""
        return [self.anchor.centre] if self.config.mode == "online" else []

    def importance(self, task: Task) -> Tensor:
        """F of the task just learnt, (P,)."""
        variant = "batched" if self.config.fisher == "avalanche" else self.config.fisher

        def answer(logits: Tensor) -> Tensor:
            return self.answerable(logits, task.index)

        return fisher(self.net, task.train, answer, variant, task.budget.batch_size, self.config.fisher_samples)


@register("ewc-online")
class OnlineEWC(EWC):
    """EWC with a single anchor and accumulated, decaying importance (Schwarz et al. 2018)."""

    @dataclass(frozen=True)
    class Config(EWC.Config):
        mode: Literal["separate", "online"] = "online"
        """One anchor, the latest (online EWC); "separate" would be plain EWC."""
