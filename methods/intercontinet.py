"""InterContiNet: one box of weights; every later task must stay inside and shrinks it further.

Wolczyk et al. (2022), "Continual Learning with Guarantees via Weight Interval Constraints", ICML. Each weight
has a centre c and a radius r; [c - r, c + r] is its side of the box. A task is learnt in two phases:

1. Centre (first task): all c are trained by cross-entropy; the box is c -+ max_radius.
   Shift (later tasks): raw shifts u are trained, c' = c + s r with s = tanh(u / r) or tanh(u).
2. Contraction: raw scales v are trained, r' = k r with k = sigmoid(v) (1 - |s|), on the cross-entropy of the
   worst-case logits (lower bound of the label's, upper bounds of the others'), until the share of samples
   that every network of the box classifies correctly reaches threshold * accuracy.

At the end of the task c <- c', r <- r'. The new box lies in the old one for every u and v, because |s| + k <= 1:
all later networks classify correctly what a box certifies. TIL: each task has a head of plain numbers, trained in
phase 1 and then fixed. DIL, CIL: one head, in the box. In CIL the bounds include future classes as competitors,
because they could otherwise overturn a certificate. Bounds are over the current box, the one that is enforced from
now on, and include float rounding. Batch norm's statistics are fixed after the first task.

Contraction: the released settings leave the box far too large to certify anything (their weight of the worst-case
loss is never read). By default contraction starts from the largest uniformly shrunk box that meets the threshold,
uses only as many samples as the threshold requires, gives room back where it costs least while the threshold is met,
and ends with one factor on the box that meets it exactly. These are additions; the paper's contraction is
start_fitted=False, worst_case_on="all", expansion=0.

Deviations from the official code, and the option that restores its behaviour:
- A closed gate takes no step but the one that gives room back (with expansion=0 none), its window is reset with
  contraction, its accuracy is the middle's on `fit_samples` instead of a batch's, and zero accuracy leaves it open
  (official_gate=True: steps, keeps its window, closes; with the bounds of the official linear biases there).
- The task is frozen at its end, not at the start of the next (same numbers, a saved model is complete).
- The final box meets the threshold or the failure is reported (fit_box=False: the box as contraction left it);
  certified_at_end gives the share reached.
- One cap on radii, max_radius, for all layers (official: +0.1 in linear ones); radius_multiplier is folded into it.
- Inputs may have any sign; bounds are never repaired; with contraction="scales" no setting is without effect.
- CIL: cross-entropy of the middle network is over the classes seen (mask_unseen=False: over all from the start).
- Adam has no weight decay (the official AdamW's is 0 too).
- Layers without bias are supported, conv layers use scale_init and max_radius from the start, biases are scaled by
  their own radius, and batch norm (no shipped model has it) uses fixed statistics with torch's variance (there: errors,
  constants, or the weight's radius; statistics that drift and so void the claim).
- Rates apply to all parameter groups; evaluation does not run inside training; the last task is contracted too.
- contraction="primal-dual" replaces contraction by LID's search; the middle then moves to the middle of the box found.
  Of the settings of contraction only `contraction_share`, `threshold`, `fit_samples`, `max_radius` and `search_lr` then
  have an effect.
- normalize_scale and an expansion phase, unused there, are left out. Authors' settings: `intercontinet-released`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from benchmarks.types import StreamSpec
from methods.base import TIL, Batch, Needs, Task, adam, register
from methods.box_promise import BoxPromise
from methods.intervals.boundable import unbounded
from methods.intervals.bounding import Interval
from methods.intervals.box_search import BoxSearch, SearchOptions
from methods.intervals.boxed import BoxedNetwork
from methods.intervals.contraction import Gate, easiest_loss, largest_factor
from methods.intervals.scaled import scaled_box
from methods.intervals.weights import head_names, shift, sigmoid
from methods.search import Even, Log, Range, ranges
from methods.shared import domain
from methods.shared.needs import BOUNDS
from methods.shared.optimizers import SGD

Optimizer = Literal["sgd", "adam"]
SNAPSHOTS = 10
"""Boxes that are taken from a primal-dual search."""


@register("intercontinet")
class InterContiNet(BoxPromise):
    """Training inside a box of weights that only shrinks, so that certified answers are never forgotten."""

    capturable = True

    @dataclass(frozen=True)
    class Config:
        optimizer: Optimizer = "sgd"
        """Optimiser of the first task's centres."""
        lr: float = 1.0
        """Learning rate of `optimizer`."""
        shift_optimizer: Optimizer = "adam"
        """Optimiser of the shifts (in TIL also of the new head), later tasks."""
        shift_lr: float = 0.03
        """Learning rate of `shift_optimizer`: of s, or of the weights if `normalize_shift`."""
        normalize_shift: bool = False
        """Normalised shift s = tanh(u / r), else tanh(u)."""
        scale_optimizer: Optimizer = "adam"
        """Optimiser of the contraction."""
        scale_lr: float = 0.05
        """Learning rate of `scale_optimizer`."""
        momentum: float = 0.0
        """Momentum of SGD."""
        milestones: tuple[float, ...] = ()
        """Shares of a task's steps after which the rate of centres and shifts is multiplied by `milestone_factor`."""
        milestone_factor: float = 0.1
        """Factor of the learning rate at each of the `milestones`."""
        contraction: Literal["scales", "primal-dual"] = "scales"
        """Contraction by one scale of each radius; or by LID's search of two free sides (methods/lid.py)."""
        search_lr: float = 5e-4
        """Learning rate of the sides with contraction = primal-dual, in units of a weight."""
        contraction_share: float = 0.5
        """Share of the steps given to contraction."""
        threshold: float | None = None
        """Share of the accuracy that worst-case accuracy must reach. None: 0.9 in TIL, where a new head needs little
        room; 0.4 in DIL and CIL, where a box that certifies more leaves no room for later tasks."""
        lookback: int = 3
        """Number of batches over which the gate of the contraction averages."""
        robust_weight: float = 1.0
        """Factor of the worst-case loss (released code: 1; its scripts set 1 to 1000, which is never read)."""
        worst_case_on: Literal["all", "easiest"] = "easiest"
        """Samples of a batch in the worst-case loss: all, or as many of the easiest as the threshold requires."""
        start_fitted: bool = True
        """Start contraction from the largest uniformly shrunk box that meets the threshold, not from the full one."""
        expansion: float = 1.0
        """Weight of the mean of log k, which is maximised while the threshold is met. 0: no step then."""
        fit_box: bool = True
        """At the end, shrink the whole box by the largest factor that meets the threshold on training data."""
        fit_samples: int = 2000
        """Number of training samples for the check of `fit_box`."""
        max_radius: float = 1.0
        """Radius of the first box."""
        scale_init: float = 5.0
        """Raw scale at the start of a contraction from the full box: sigmoid(5) = 0.993 of it."""
        mask_unseen: bool = True
        """CIL: restrict cross-entropy in the first phase to the classes seen, so that logits of future classes are not
        lowered without need. The worst case always includes them. Official code: False."""
        official_gate: bool = False
        """Use the gate of the official code; see the deviations."""
        search = ranges(
            lr=Log(1e-2, 1e1),
            shift_lr=Log(1e-3, 1e1),
            scale_lr=Log(1e-3, 1e1),
            search_lr=Log(1e-5, 1e-2),
            threshold=Even(0.1, 0.99),
        )

        def __post_init__(self) -> None:
            name = "intercontinet"
            domain.between(name, self, 0, 1, "contraction_share", "threshold", "milestones", "momentum")
            domain.between(name, self, -100, 100, "scale_init")  # of a sigmoid
            domain.at_least(name, self, 1, "lookback", "fit_samples")
            rates = "lr", "shift_lr", "scale_lr", "search_lr", "milestone_factor"
            domain.at_least(name, self, 0, "max_radius", "expansion", "robust_weight", *rates)

    @classmethod
    def searched(cls, spec: StreamSpec, config: Any, ranges: Mapping[str, Range]) -> Mapping[str, Range]:
        """Leave out the rate of the other contraction."""
        idle = "search_lr" if config.contraction == "scales" else "scale_lr"
        return {name: values for name, values in ranges.items() if name != idle}

    @classmethod
    def skip(cls, spec: StreamSpec, config: Any) -> str | None:
        """Skip also networks without known bounds, and a frozen backbone in TIL.

        Heads are plain numbers in TIL, so a frozen backbone leaves no parameter with an interval.
        """
        if spec.scenario is TIL and "+frozen" in spec.network:
            return f"{cls.name}: {spec.network} has no weight below the heads, and in TIL heads have no interval"
        return super().skip(spec, config) or unbounded(cls.name, spec)

    @classmethod
    def needs(cls, spec: StreamSpec, config: Any) -> Needs:
        """Memory for training through bounds, and for float64 bounds in certificates."""
        return Needs(generated=8, passes=BOUNDS, passes_evaluated=2 * BOUNDS)

    def build(self) -> None:
        net = self.network()
        heads = head_names(net) if self.spec.scenario is TIL else []
        self.promise(BoxedNetwork(net, heads, self.config.max_radius).eval())
        given = self.config.threshold
        self.threshold = (0.9 if self.spec.scenario is TIL else 0.4) if given is None else given

    def learn(self, task: Task) -> None:
        steps = task.budget.steps_for(len(task.train))
        last = round(steps * self.config.contraction_share)
        gate = self._gate()
        shifts = (self._shift if task.index else self._centre)(task, steps - last, gate)
        if self.config.contraction == "primal-dual":
            self._search(task, shifts, steps - last, last)
            return
        scales = self._contract(task, shifts, steps - last, last, gate if self.config.official_gate else self._gate())
        self.end_task(task, shifts, scales)

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        return self.answerable(self.model(x), task_id)

    # -- the phases ------------------------------------------------------------------------------

    def _centre(self, task: Task, steps: int, gate: Gate) -> Tensor:
        """First task: train all centres and place the box around them. Returns raw shifts (N,): zero."""
        model = self.model.train()
        optimizer = self._optimizer(self.config.optimizer, model.parameters(), self.config.lr)

        def box() -> Interval:
            # The official linear layers contract their biases from the start; only the official gate uses these bounds.
            share = torch.ones_like(model.centres())
            for name in model.linear_biases():
                model.layout.views(share)[name].fill_(sigmoid(self.config.scale_init))
            return Interval.around(model.centres(), self.config.max_radius * share)

        self._train_middle(task, steps, optimizer, model, box, gate)
        model.draw_first_box()
        return torch.zeros_like(model.lower)

    def _shift(self, task: Task, steps: int, gate: Gate) -> Tensor:
        """Later tasks: move the centres inside the box; in TIL train the task's head too. Returns raw shifts (N,)."""
        config, model = self.config, self.model.train()
        model.freeze_statistics()
        centres, radius, points = model.centres(), model.radius(), model.points()
        raw = torch.zeros_like(centres, requires_grad=True)

        def forward(x: Tensor) -> Tensor:
            weights = model.layout.views(centres + shift(raw, radius, config.normalize_shift) * radius)
            return functional_call(model.net, weights | points, (x,))

        def box() -> Interval:
            s = shift(raw, radius, config.normalize_shift)
            return Interval.around(centres + s * radius, sigmoid(config.scale_init) * (1 - s.abs()) * radius)

        optimizer = self._optimizer(config.shift_optimizer, [raw, *points.values()], config.shift_lr)
        self._train_middle(task, steps, optimizer, forward, box, gate)
        return raw.detach()

    def _train_middle(
        self,
        task: Task,
        steps: int,
        optimizer: torch.optim.Optimizer,
        forward: Callable[[Tensor], Tensor],
        box: Callable[[], Interval],
        gate: Gate,
    ) -> None:
        """Train the middle network by cross-entropy; bounds are computed only for the official gate.

        A schedule by validation loss applies, unless `milestones` are one already.
        """

        def loss(batch: Batch) -> Tensor:
            logits = self._compared(forward(batch.x), batch.task)
            if self.config.official_gate:
                with torch.no_grad():
                    self._observe(gate, logits, self._worst(box(), batch), batch.y)
            return cross_entropy(logits, batch.y)

        def judge(batch: Batch) -> Tensor:
            return cross_entropy(self._compared(forward(batch.x), batch.task), batch.y)

        total = task.budget.steps_for(len(task.train))
        marks = {round(share * total) for share in self.config.milestones}
        for start, stop in pairwise(sorted({0, steps} | {mark for mark in marks if 0 < mark < steps})):
            if start:
                for group in optimizer.param_groups:
                    group["lr"] *= self.config.milestone_factor
            self.fit(
                task, loss, optimizer, first_step=start, steps=stop - start, scheduled=not self.config.milestones,
                judge=judge,
            )  # fmt: skip

    def _contract(self, task: Task, shifts: Tensor, first: int, steps: int, gate: Gate) -> Tensor:
        """All tasks: shrink the box around the middle until it certifies enough. Returns raw scales (N,)."""
        config, model = self.config, self.model.eval()
        middle, room = self._moved(shifts)
        weights = model.layout.views(middle) | model.points()
        right = torch.tensor(self._certified_share(task, Interval.point(middle)), device=self.device)
        share = float(right) * self.threshold
        raw = torch.full_like(middle, self._first_raw_scale(task, middle, room)).requires_grad_()
        optimizer = self._optimizer(config.scale_optimizer, [raw], config.scale_lr)
        closed = torch.zeros((), device=self.device)
        if not config.official_gate and not config.expansion:
            # Mixed precision's mechanism to skip a step on the device without telling the host.
            optimizer.found_inf = closed  # type: ignore[attr-defined]

        def loss(batch: Batch) -> Tensor:
            box, given_up = scaled_box(raw, middle, room, model.layout)
            worst = self._worst(box, batch)
            every = config.worst_case_on == "all"
            robust = cross_entropy(worst, batch.y) if every else easiest_loss(worst, batch.y, share)
            with torch.no_grad():
                if config.official_gate:
                    logits = functional_call(model.net, weights, (batch.x,))
                    self._observe(gate, self._compared(logits, batch.task), worst, batch.y)
                else:
                    gate.observe(right, (worst.argmax(1) == batch.y).float().mean())
                closed.copy_(~gate.open())
            return self._gated(config.robust_weight * robust, given_up * (config.expansion / raw.numel()), closed)

        if steps:
            self.fit(task, loss, optimizer, first_step=first, steps=steps, scheduled=False)
        return raw.detach()

    def _gated(self, robust: Tensor, given_up: Tensor, closed: Tensor) -> Tensor:
        """Loss while the gate is open, or room given up while it is closed (1, else 0), all 0-d."""
        if self.device.type != "cpu":
            return robust * (1 - closed) + given_up * closed
        # Reading the gate is no wait on a CPU, and saves the gradient of what would be multiplied by zero.
        return robust.detach() * 0 + given_up if closed else robust

    def _search(self, task: Task, shifts: Tensor, first: int, steps: int) -> None:
        """Contraction by LID's search: the latest box of it that meets the threshold, around its own middle."""
        model, config = self.model.eval(), self.config
        theta, _ = self._moved(shifts)
        limit = self.threshold * self._certified_share(task, Interval.point(theta))
        options, groups = SearchOptions(span=config.max_radius), self.spec.classes_per_task
        search = BoxSearch(theta, model.box, limit, groups, config.search_lr, options)
        found = self._searched(task, search, first, steps, SNAPSHOTS)
        box = self._feasible(task, theta, found, limit)[-1]
        outside = model.shrink((box.lower + box.upper) / 2, box.width / 2)
        self.record_promise(task, outside, model.box.width)

    def _first_raw_scale(self, task: Task, middle: Tensor, room: Tensor) -> float:
        if not self.config.start_fitted:
            return self.config.scale_init
        factor = min(self._fitted(task, middle, room), sigmoid(self.config.scale_init))
        return torch.tensor(factor, dtype=torch.float64).logit(eps=1e-12).item()

    def end_task(self, task: Task, shifts: Tensor, scales: Tensor) -> None:
        """Freeze the shifted, contracted box as the box of all later tasks."""
        middle, room = self._moved(shifts)
        radius = torch.sigmoid(scales) * room
        if self.config.fit_box:
            radius = radius * self._fitted(task, middle, radius)
        outside = self.model.shrink(middle, radius)
        self.record_promise(task, outside, self.model.box.width)

    def _moved(self, shifts: Tensor) -> tuple[Tensor, Tensor]:
        """Middle c + s r and largest radius (1 - |s|) r of the next box, (N,) each."""
        radius = self.model.radius()
        s = shift(shifts, radius, self.config.normalize_shift)
        return self.model.centres() + s * radius, (1 - s.abs()) * radius

    def _fitted(self, task: Task, middle: Tensor, radius: Tensor) -> float:
        """Largest factor of `radius` with which the box around `middle` meets the threshold."""
        wanted = self.threshold * self._certified_share(task, Interval.point(middle))
        return largest_factor(lambda f: self._certified_share(task, Interval.around(middle, f * radius)) >= wanted)

    def _optimizer(self, kind: Optimizer, parameters: Iterable[Tensor], lr: float) -> torch.optim.Optimizer:
        if kind == "sgd":
            return SGD(parameters, lr, momentum=self.config.momentum, fused=True)
        return adam(parameters, lr)

    def _gate(self) -> Gate:
        return Gate(self.threshold, self.config.lookback, not self.config.official_gate, self.device)

    def _observe(self, gate: Gate, logits: Tensor, worst: Tensor, y: Tensor) -> None:
        gate.observe((logits.argmax(1) == y).float().mean(), (worst.argmax(1) == y).float().mean())


@register("intercontinet-released")
class ReleasedInterContiNet(InterContiNet):
    """InterContiNet as released: the authors' MNIST settings for TIL, their gate, and no check of the final box."""

    @dataclass(frozen=True)
    class Config(InterContiNet.Config):
        shift_optimizer: Optimizer = "sgd"
        """Optimiser SGD; the authors use Adam for everything in CIL on MNIST."""
        shift_lr: float = 1.0
        """Value for TIL; the authors use 10 in DIL and 0.001 in CIL, on MNIST with Adam, like `lr`."""
        normalize_shift: bool = True
        """Normalised shift s = tanh(u / r); the authors use tanh(u) in CIL."""
        scale_optimizer: Optimizer = "sgd"
        """Same as `shift_optimizer`."""
        scale_lr: float = 0.01
        """Value for all scenarios."""
        contraction_share: float = 1 / 3
        """Share of 10 in 30 epochs."""
        threshold: float | None = 0.9
        """Value for TIL; the authors use 0.8 in DIL, and in CIL on MNIST."""
        lookback: int = 10
        """Value for all scenarios."""
        worst_case_on: Literal["all", "easiest"] = "all"
        """Not in the released code."""
        start_fitted: bool = False
        """Not in the released code."""
        expansion: float = 0.0
        """Not in the released code."""
        fit_box: bool = False
        """Not in the released code."""
        mask_unseen: bool = False
        """Same as the released code, in which the mask is commented out."""
        official_gate: bool = True
        """Same as the released code."""
