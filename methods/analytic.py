"""Analytic learning: fixed features and a ridge head that is exact after every task, without gradients.

Zhuang et al. (2022), "ACIL: Analytic Class-Incremental Learning with Absolute Memorization and Privacy Protection",
NeurIPS; for classes that return, Zhuang et al. (2024), "GACL", arXiv 2403.15706. An input has the features

    phi(x) = relu(B z(x)),   B (M, d) from the seed, entries U(+-1/sqrt d)

where z(x) are its pixels or the outputs of a `+frozen` backbone, and the head W (M, C) is that of ridge regression on
the one-hot labels of all samples so far, W = (sum phi phi' + gamma I)^-1 sum phi y'.

One pass, whatever the budget is: each training sample is read once, without augmentation. The steps and epochs of a
budget have no effect, except on the network of `features = "first-task"`; reports mark that no step was taken.

Promise, DIL, CIL and TIL with til="joint": the head is the one that all tasks together would have given on the same
features, in any order. The features of "gaussian" and "first-task" themselves depend on which task comes first.
It is not a promise that old answers stay, since columns move as tasks come, so nothing is certified (`bounds` raises
NotImplementedError). `audit` compares W with W*, a direct solution from sums accumulated apart: `drift` is the largest
|W - W*|, the same for every task; `outside` counts entries with |W - W*| > 1e-6 max |W*| ("recursive"), or with a
residual |(G + gamma I) W - Q| > 1e-6 max |Q| ("gram", whose weights are exact up to the condition of G). The table
`joint-ridge` has the largest difference, the largest weight and the relative residual of each class. With
stream="dual" the second stream depends on the order of the tasks, and the claims are void after the second task.

Promise, TIL with til="own" (an addition to the papers, which have CIL only): each task has a head of its own on the
fixed features, so old answers are the same bit by bit. `bounds` are those of a point, rounded outward, and `audit`
compares B and the heads with copies.

DIL: one head on the labels within a task. TIL joint: the columns of a joint head that belong to the task.

Options, and the papers that they come from:
- features="gaussian": kernels exp(-|z - m_k|^2 / (2 sigma^2)) around M training samples of the first task (GKEAL,
  Zhuang et al. 2023, CVPR), which are kept and declared. "none": phi(x) = z(x). "first-task": z(x) is the last hidden
  layer of the benchmark's network, trained on the first task by cross-entropy within its budget, then constant.
- stream="dual": a second ridge on tanh(B z(x)) learns what the first leaves of a task's labels, in the columns of the
  task's classes, and is added times `compensation` (DS-AL, Zhuang et al. 2024, AAAI). Both have one gamma, as by its
  defaults there.
- balance: classes of different sizes count alike (AIR, Fang et al. 2024, arXiv 2408.10349); sums for each class.
- solver="recursive": the published recursion for R = (G + gamma I)^-1 and W, batch by batch, instead of the sums G.

Kept: M^2 + 2 M C numbers of 64 bits, more than any other method at M = 2000; with til="own" the heads alone.

Deviations from the official code:
- float64 throughout; the published recursion in float32 is wrong by 8 % to 18 times the largest weight at M = 400.
- DS-AL's residual is that of the whole task, and its columns are those of the labels that occur. There, it is taken for
  each mini-batch, so that it depends on the size of batches, and in the last columns whatever the labels are.
- Centres are drawn from all samples, and the weights of mixtures, where there are too few, sum to 1
  (centres="official": the first M samples, and sums over the mixtures).
- No backbone is trained on half of the classes beforehand.

Published settings: gamma 0.1, M 8192, sigma 10, compensation 0.6 (CIFAR-100) and 1.5 (ImageNet).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks.types import StreamSpec, UserError
from methods.base import CIL, DIL, TIL, Claim, Exhibit, Needs, Task, register
from methods.fixed_features import CONSTANT, MATRIX, FeatureName, FixedFeatures
from methods.intervals.boundable import unbounded
from methods.intervals.interval import Interval
from methods.point_promise import Numbers, PointPromise
from methods.search import LEARNING_RATE, Log, OneOf, Range, ranges
from methods.shared.expansions import CentreRule
from methods.shared.ridge import ClassSums, Direct, Distance, Recursion, Ridge, Sums

SAMPLES_AT_ONCE = 1000
"""Samples in a batch; affects numbers by rounding only."""
TOLERANCE = 1e-6
"""Difference from joint ridge, relative to the largest number, up to which the audit calls two numbers equal."""


@register("analytic")
class Analytic(PointPromise, FixedFeatures):
    """Analytic learning: joint ridge regression on fixed features, in one pass (ACIL, Zhuang et al. 2022)."""

    supports = frozenset({TIL, DIL, CIL})
    inferred_in = frozenset()

    @dataclass(frozen=True)
    class Config:
        width: int = 2000
        """Features M; published: 8192."""
        gamma: float = 0.1
        """Ridge strength."""
        features: FeatureName = "random"
        """Inputs of the random matrix: pixels or a frozen backbone, or a network trained on the first task; or no
        matrix; or Gaussian kernels (GKEAL)."""
        bias: bool = False
        """Add a constant feature 1."""
        solver: Literal["gram", "recursive"] = "gram"
        """Solve from sums at the end of a task, or update the head batch by batch (official code)."""
        til: Literal["own", "joint"] = "own"
        """TIL: a ridge for each task, or the task's columns of a joint one."""
        balance: bool = False
        """Let classes of different sizes count alike (AIR)."""
        stream: Literal["single", "dual"] = "single"
        """One ridge, or a second one for what it leaves (DS-AL)."""
        compensation: float = 0.6
        """With stream = dual: factor of the second ridge's answers."""
        sigma: float = 10.0
        """With features = gaussian: width of the kernels."""
        centres: CentreRule = "drawn"
        """With features = gaussian: choice of the samples at the centres (official code: of the first M)."""
        lr: float = 1e-3
        """With features = first-task: Adam learning rate of the first task."""
        search = ranges(width=OneOf((250, 500, 1000, 2000)), gamma=Log(1e-3, 10.0), lr=LEARNING_RATE)

        def __post_init__(self) -> None:
            if self.width < 1:
                raise UserError(f"analytic: width = {self.width} must be at least 1")
            if self.gamma <= 0 or self.sigma <= 0:
                raise UserError(f"analytic: gamma = {self.gamma} and sigma = {self.sigma} must be above 0")
            if self.compensation < 0:
                raise UserError(f"analytic: compensation = {self.compensation} must not be negative")
            if self.balance and (self.solver == "recursive" or self.stream == "dual"):
                raise UserError('analytic: balance needs sums for each class: write solver = "gram", stream = "single"')
            if self.stream == "dual" and self.solver == "recursive":
                raise UserError('analytic: the residual of a whole task needs sums: with stream = "dual" write "gram"')
            if self.stream == "dual" and self.features not in MATRIX:
                raise UserError(
                    f'analytic: stream = "dual" has two activations of one random matrix, which features = '
                    f'"{self.features}" has not; write "random" or "first-task"'
                )

    config: Config

    # -- shapes and memory -------------------------------------------------------------------------

    @classmethod
    def skip(cls, spec: StreamSpec, config: Any) -> str | None:
        """Skip also a first task that would train nothing below the head."""
        if config.features == "first-task" and CONSTANT in spec.network:
            return f'analytic: features = "first-task" trains nothing in {spec.network}; write "random"'
        return super().skip(spec, config)

    @classmethod
    def needs(cls, spec: StreamSpec, config: Any) -> Needs:
        """Memory at 64 bits, of which `build` allocates a part that is counted at 32."""
        own, (main, second) = _owns(spec, config), cls.rows(spec, config)
        columns = spec.classes_per_task if own else spec.n_outputs
        inputs, head = cls.inputs(spec, config), (main + second) * columns
        fixed = 0 if config.features == "none" else config.width * inputs
        statistics = (columns if config.balance else 1) * main**2 + second**2 + head
        kept = fixed if own else statistics + head + (columns if config.balance else 1) * (main + columns) ** 2
        solution = 2 * main**2 + second * (main + columns + second)
        batch = SAMPLES_AT_ONCE * (inputs + 2 * (main + second))
        doubles = kept + 2 * (fixed + solution + batch + (statistics if own else 0))
        # a task's head and its copy; the mask of the features, which are all used
        per_task = 4 * head + fixed // 32 + 1 if own else 0
        return Needs(floats_per_task=per_task + math.ceil(doubles / spec.n_tasks))

    @classmethod
    def searched(cls, spec: StreamSpec, config: Any, ranges: Mapping[str, Range]) -> Mapping[str, Range]:
        """Leave out what the features do not depend on."""
        idle = {"width"} if config.features == "none" else set[str]()
        idle |= {"lr"} if config.features != "first-task" else set()
        return {name: found for name, found in ranges.items() if name not in idle}

    def build(self) -> None:
        super().build()
        self.main_rows, self.second_rows = self.rows(self.spec, self.config)
        self.own = _owns(self.spec, self.config)
        """True if each task has a ridge of its own."""
        self.columns = self.spec.classes_per_task if self.own else self.spec.n_outputs
        self.weights = self._zeros(self.main_rows + self.second_rows, self.columns)
        """Head (M, C) of the latest ridge, that of the second stream below that of the first."""
        self.heads: list[Tensor] = []
        """Heads of the learnt tasks, where each has its own."""
        if self.own:
            self.promise(self.fixed_numbers())
        else:
            self.main, self.second = self.fresh()
            self.audit_sums = Direct.zeros(self.main_rows, self.columns, self.config.balance, self.device)

    def _zeros(self, *size: int) -> Tensor:
        return torch.zeros(size, dtype=torch.float64, device=self.device)

    def fresh(self) -> tuple[Ridge, Sums]:
        """Ridges of the two streams before any sample."""
        gamma, sizes = self.config.gamma, (self.main_rows, self.columns)
        kind = Recursion if self.config.solver == "recursive" else ClassSums if self.config.balance else Sums
        return kind.zeros(*sizes, gamma, self.device), Sums.zeros(self.second_rows, self.columns, gamma, self.device)

    # -- training ----------------------------------------------------------------------------------

    def learn(self, task: Task) -> None:
        self.prepare(task)
        main, second = self.fresh() if self.own else (self.main, self.second)
        # Of the second stream's features K the sums K'K and K'[H, Y]: with them its residual needs no second pass.
        passing = Sums.zeros(self.second_rows, self.main_rows + self.columns, self.config.gamma, self.device)
        counts = self._zeros(self.columns)
        for batch in task.train.batches(SAMPLES_AT_ONCE):
            with torch.no_grad():
                h, *others = self.streams(batch.x)
                y = self.targets(batch.y, task.index)
                main.add(h, y)
                counts += y.sum(0)
                for k in others:
                    passing.add(k, torch.cat([h, y], 1))
                if not self.own:
                    self.audit_sums.add(h, y)
        with torch.no_grad():
            self.solve(main, second, passing, counts)
        if self.own:
            self.heads.append(self.weights)
            self.freeze(task.index)

    def targets(self, labels: Tensor, task: int) -> Tensor:
        """One-hot targets (b, C) float64 of the labels of a task."""
        joint_til = self.spec.scenario is TIL and not self.own
        column = labels + self.spec.outputs_before(task) if joint_til else labels
        return (column[:, None] == torch.arange(self.columns, device=labels.device)).to(torch.float64)

    def solve(self, main: Ridge, second: Sums, passing: Sums, counts: Tensor) -> None:
        """Set the head; first add to the second ridge what the main one leaves of the task, in its classes' columns."""
        weights = main.weights()
        if self.second_rows:
            with_main, with_labels = passing.cross.split([self.main_rows, self.columns], 1)
            second.gram += passing.gram
            second.cross += (with_labels - with_main @ weights) * (counts > 0)
            weights = torch.cat([weights, self.config.compensation * second.weights()])
        self.weights = weights

    def parameters_trained(self) -> int:
        """Numbers of the head for all tasks, and of a network that the first task trains."""
        return super().parameters_trained() + len(self.weights) * self.spec.n_outputs

    # -- answers -----------------------------------------------------------------------------------

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        with torch.no_grad():
            logits = torch.cat(self.streams(x), 1) @ self.head_of(task_id)
        return logits if self.own else self.answerable(logits, task_id)

    def head_of(self, task: int | None) -> Tensor:
        """Head (M, C) that answers; that of the latest task for one not yet learnt."""
        if not self.own:
            return self.weights
        if task is None:
            raise UserError(f"{self.name}: a task id is needed in TIL")
        head = self.heads[task] if task < len(self.heads) else self.weights
        return head[:, : self.spec.classes_of(task)]

    # -- promise -----------------------------------------------------------------------------------

    def numbers(self, task: int) -> Numbers:
        """The fixed features, all of them used, and the task's own head."""
        shared = self.fixed_numbers()
        return Numbers(shared, torch.ones_like(shared, dtype=torch.bool), self.heads[task].flatten())

    def logit_bounds(self, x: Tensor, task: int) -> Interval:
        """Bounds (b, C) of the answers of a task's head, without rounding, float64."""
        return self.head_bounds(x, self.head_of(task))

    @torch.no_grad()
    def bounds(self, x: Tensor, task_id: int | None = None) -> tuple[Tensor, Tensor]:
        """Bounds of the answers of a head of its own; NotImplementedError for a joint head, which changes."""
        if not self.own:
            raise NotImplementedError("a joint head equals joint ridge regression, which moves old answers")
        if self.config.features == "first-task" and (reason := unbounded(self.name, self.spec)):
            raise NotImplementedError(reason)
        return self.logit_bounds(x, task_id or 0)

    def distance(self) -> Distance:
        """Distance of the main stream's joint head from the direct solution of the audit's sums."""
        return self.audit_sums.distance(self.weights[: self.main_rows], self.config.gamma)

    @torch.no_grad()
    def audit(self) -> list[Claim]:
        """Heads of their own: bit by bit. A joint head: its equality with joint ridge, the same for every task."""
        if self.own:
            return super().audit()
        found = self.distance()
        wrong, size = found[:2] if self.config.solver == "recursive" else found[2:]
        outside = (~(wrong <= TOLERANCE * size.abs().amax())).sum()  # NaN is outside, too
        counts = torch.stack([outside.to(size.dtype), found.difference.amax(), found.direct.abs().amax()]).tolist()
        n, drift, largest = int(counts[0]), counts[1], counts[2]
        reason = f"differs from joint ridge by {drift / largest if largest else drift:.2g} of its largest weight"
        if not n:
            later = self.second_rows and self.tasks_seen > 1
            reason = "the second stream depends on the order of the tasks" if later else ""
        return [Claim(task, not n, n, drift, 0.0, reason) for task in range(self.tasks_seen)]

    def exhibits(self) -> dict[str, Exhibit]:
        """With a joint head, its difference from joint ridge for each class."""
        if self.own:
            return {}
        difference, direct, residual, right = self.distance()
        relative = (residual.norm(dim=0) / right.norm(dim=0)).nan_to_num()  # 0 / 0 for a class without samples
        columns = torch.stack([difference.amax(0), direct.abs().amax(0), relative]).tolist()
        names = ("difference", "largest", "residual")
        return {"joint-ridge": {"class": list(range(self.columns)), **dict(zip(names, columns, strict=True))}}


def _owns(spec: StreamSpec, config: Any) -> bool:
    return spec.scenario is TIL and config.til == "own"
