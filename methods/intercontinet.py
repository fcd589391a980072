"""InterContiNet: one box of weights that every later task must stay in and shrinks further.

Wolczyk et al. (2022), "Continual Learning with Guarantees via Weight Interval Constraints", ICML.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from methods.base import CIL, TIL, Batch, Claim, Method, Task, register
from methods.nets.contraction import Gate, largest_factor
from methods.nets.interval_weights import Layout, head_names, linear_bias_names, nested, scale, shift
from methods.nets.intervals import Interval, certified, contains, propagate, worst_case

Optimizer = Literal["sgd", "adam"]


@register("intercontinet")
class InterContiNet(Method):
    """Trains inside a box of weights that only shrinks, so that what the box certifies is never forgotten."""

    @dataclass(frozen=True)
    class Config:
        optimizer: Optimizer = "sgd"
        """Optimiser of the first task's centres."""
        lr: float = 1.0
        """Its learning rate."""
        shift_optimizer: Optimizer = "sgd"
        """Optimiser of the shifts (and in TIL of the new head), later tasks."""
        shift_lr: float = 1.0
        """Its learning rate (in units of weights if `normalize_shift`)."""
        scale_optimizer: Optimizer = "sgd"
        """Optimiser of the contraction."""
        scale_lr: float = 0.01
        """Its learning rate."""
        momentum: float = 0.0
        """Momentum of SGD."""
        milestones: tuple[float, ...] = ()
        """Shares of a task's steps after which the rate of centres and shifts is multiplied by `milestone_factor`."""
        milestone_factor: float = 0.1
        """See `milestones`."""
        robust_weight: float = 1.0
        """Factor of the worst-case loss."""
        contraction_share: float = 1 / 3
        """Share of the steps given to contraction."""
        threshold: float = 0.9
        """Contract until worst-case accuracy reaches this share of accuracy."""
        lookback: int = 10
        """Batches that the gate averages over."""
        fit_box: bool = True
        """Shrink the whole box by one factor until the threshold is met on training data, if contraction did not."""
        fit_samples: int = 2000
        """Training samples on which that is checked."""
        start_fitted: bool = False
        """Also before contraction."""
        expand: float = 0.0
        max_radius: float = 1.0
        """Radius of the first box."""
        scale_init: float = 5.0
        """Raw scale at the start of a contraction: sigmoid(5) = 0.993 of the box."""
        normalize_shift: bool = True
        """s = tanh(u / r) instead of tanh(u)."""
        mask_unseen: bool = True
        """CIL: losses over the classes seen so far instead of all (the official code: all)."""
        official_gate: bool = False
        """The gate's window goes on from phase to phase, accuracy 0 closes it, and a closed gate still steps."""

    def build(self) -> None:
        self.net = self.network()
        heads = head_names(self.net) if self.spec.scenario is TIL else []
        self.layout = Layout.of({n: p for n, p in self.net.named_parameters() if n not in heads})
        parameters = dict(self.net.named_parameters())
        with torch.no_grad():
            for name in linear_bias_names(self.net, self.layout.shapes):
                parameters[name].zero_()
        self.lower, self.upper = self._first_box(self._centre())
        self.outside: list[int] = []
        self.widths: list[float] = []
        self.certified_at_end: list[float] = []

    def learn(self, task: Task) -> None:
        steps = task.budget.steps_for(len(task.train))
        contraction = round(steps * self.config.contraction_share)
        gate = self._gate()
        if task.index == 0:
            raw_shift = self._centre_phase(task, steps - contraction, gate)
        else:
            raw_shift = self._shift_phase(task, steps - contraction, gate)
        if not self.config.official_gate:
            gate = self._gate()
        raw_scale = self._scale_phase(task, raw_shift, steps - contraction, contraction, gate)
        self.end_task(task, raw_shift, raw_scale)

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        return self.answerable(self.net(x), task_id)

    # -- the box ---------------------------------------------------------------------------------

    def _first_box(self, centre: Tensor) -> Interval:
        return Interval(centre - self.config.max_radius, centre + self.config.max_radius)

    def _centre(self) -> Tensor:
        return self.layout.flatten(dict(self.net.named_parameters())).detach()

    def _radius(self) -> Tensor:
        centre = self._centre()
        return torch.minimum(centre - self.lower, self.upper - centre).clamp(min=0)

    def _points(self) -> dict[str, Tensor]:
        return {n: p for n, p in self.net.named_parameters() if n not in self.layout.shapes}

    def _bounds(self, box: Interval, x: Tensor, rounded: bool = False) -> Interval:
        weights = self.layout.boxes(box) | {n: Interval.point(p) for n, p in self._points().items()}
        return propagate(self.net, weights, x, nonnegative_inputs=self.spec.nonnegative_inputs, rounded=rounded)

    def _trained(self, logits: Tensor, task_id: int | Tensor) -> Tensor:
        """The logits that the losses look at."""
        if self.spec.scenario is CIL and not self.config.mask_unseen:
            return logits
        return self.answerable(logits, task_id)

    def _worst(self, box: Interval, batch: Batch) -> Tensor:
        bounds = self._bounds(box, batch.x)
        selected = Interval(self._trained(bounds.lower, batch.task), self._trained(bounds.upper, batch.task))
        return worst_case(selected, batch.y)

    # -- phases ----------------------------------------------------------------------------------

    def _optimizer(self, kind: Optimizer, parameters: Iterable[Tensor], lr: float) -> torch.optim.Optimizer:
        if kind == "sgd":
            return torch.optim.SGD(parameters, lr, momentum=self.config.momentum, fused=True)
        return torch.optim.Adam(parameters, lr, fused=True, capturable=self.device.type == "cuda")

    def _gate(self) -> Gate:
        c = self.config
        return Gate(c.threshold, c.lookback, not c.official_gate, self.device)

    def _observe(self, gate: Gate, logits: Tensor, worst: Tensor, y: Tensor) -> None:
        gate.observe((logits.argmax(1) == y).float().mean(), (worst.argmax(1) == y).float().mean())

    def _centre_phase(self, task: Task, steps: int, gate: Gate) -> Tensor:
        """Task 0: plain training of all weights; the first box is drawn around them."""
        optimizer = self._optimizer(self.config.optimizer, self.net.parameters(), self.config.lr)
        self.net.train()
        contraction = torch.ones_like(self.lower)
        if self.config.official_gate:
            kept = torch.sigmoid(torch.tensor(self.config.scale_init)).item()
            views = self.layout.views(contraction)
            for name in linear_bias_names(self.net, self.layout.shapes):
                views[name].fill_(kept)

        def box() -> Interval:
            return Interval.around(self._centre(), self.config.max_radius * contraction.to(self._centre()))

        self._fit_middle(task, steps, optimizer, lambda batch: self.net(batch.x), gate, box)
        self.lower, self.upper = self._first_box(self._centre())
        return torch.zeros_like(self.lower)

    def _shift_phase(self, task: Task, steps: int, gate: Gate) -> Tensor:
        """Later tasks: the centre moves inside the box; in TIL the task's head is trained beside it."""
        centre, radius = self._centre(), self._radius()
        raw = torch.zeros_like(centre, requires_grad=True)
        points = self._points()

        def forward(batch: Batch) -> Tensor:
            weights = self.layout.views(centre + shift(raw, radius, self.config.normalize_shift) * radius)
            return functional_call(self.net, weights | points, (batch.x,))

        def box() -> Interval:
            s = shift(raw, radius, self.config.normalize_shift)
            k = scale(torch.full_like(s, self.config.scale_init), s)
            return Interval.around(centre + s * radius, k * radius)

        optimizer = self._optimizer(self.config.shift_optimizer, [raw, *points.values()], self.config.shift_lr)
        self._fit_middle(task, steps, optimizer, forward, gate, box)
        return raw.detach()

    def _fit_middle(
        self,
        task: Task,
        steps: int,
        optimizer: torch.optim.Optimizer,
        forward: Callable[[Batch], Tensor],
        gate: Gate,
        box: Callable[[], Interval],
    ) -> None:
        def loss(batch: Batch) -> Tensor:
            logits = self._trained(forward(batch), batch.task)
            if self.config.official_gate:
                with torch.no_grad():
                    self._observe(gate, logits, self._worst(box(), batch), batch.y)
            return cross_entropy(logits, batch.y)

        total = task.budget.steps_for(len(task.train))
        marks = {round(share * total) for share in self.config.milestones}
        edges = sorted({0, steps} | {mark for mark in marks if 0 < mark < steps})
        for start, stop in pairwise(edges):
            if start:
                for group in optimizer.param_groups:
                    group["lr"] *= self.config.milestone_factor
            self.fit(task, loss, optimizer, first_step=start, steps=stop - start)

    def _scale_phase(self, task: Task, raw_shift: Tensor, first: int, steps: int, gate: Gate) -> Tensor:
        """All tasks: the box shrinks around the middle until it certifies enough."""
        config, radius = self.config, self._radius()
        s = shift(raw_shift, radius, config.normalize_shift)
        middle, room = self._centre() + s * radius, (1 - s.abs()) * radius
        self.net.eval()
        points = {name: p.detach() for name, p in self._points().items()}
        named = self.layout.views(middle) | points
        init = config.scale_init
        if config.start_fitted:
            target = config.threshold * self._certified_share(task, Interval.point(middle))
            with torch.no_grad():
                f = largest_factor(lambda f: self._certified_share(task, Interval.around(middle, room * f)) >= target)
            init = min(init, torch.logit(torch.tensor(max(f, 1e-9), dtype=torch.float64)).item())
        raw = torch.full_like(middle, init, requires_grad=True)
        optimizer = self._optimizer(config.scale_optimizer, [raw], config.scale_lr)
        optimizer.found_inf = torch.zeros((), device=self.device)  # type: ignore[attr-defined]

        def loss(batch: Batch) -> Tensor:
            worst = self._worst(Interval.around(middle, torch.sigmoid(raw) * room), batch)
            with torch.no_grad():
                logits = functional_call(self.net, named, (batch.x,))
                self._observe(gate, self._trained(logits, batch.task), worst, batch.y)
                is_open = gate.open()
            robust = config.robust_weight * cross_entropy(worst, batch.y)
            if config.expand:
                return robust * is_open - config.expand * torch.nn.functional.logsigmoid(raw).mean() * ~is_open
            if config.official_gate:
                return robust * is_open
            optimizer.found_inf.copy_(~is_open)  # type: ignore[attr-defined]
            return robust

        if steps:
            self.fit(task, loss, optimizer, first_step=first, steps=steps)
        return raw.detach()

    # -- the end of a task -----------------------------------------------------------------------

    @torch.no_grad()
    def end_task(self, task: Task, raw_shift: Tensor, raw_scale: Tensor) -> None:
        """Freeze: the shifted, contracted box becomes the box of all later tasks."""
        before, radius = Interval(self.lower, self.upper), self._radius()
        s = shift(raw_shift, radius, self.config.normalize_shift)
        middle = (self._centre() + s * radius).clamp(*before)
        kept = scale(raw_scale, s) * radius
        self._load(middle)
        if self.config.fit_box:
            target = self.config.threshold * self._certified_share(task, Interval.point(middle))
            kept *= largest_factor(lambda f: self._certified_share(task, Interval.around(middle, kept * f)) >= target)
        self.lower, self.upper = nested(Interval.around(middle, kept), before)
        box = Interval(self.lower, self.upper)
        self.outside.append(int((~contains(before, box)).sum()))
        self.widths.append(box.width.median().item())
        self.certified_at_end.append(self._certified_share(task, box))

    def _load(self, flat: Tensor) -> None:
        named = dict(self.net.named_parameters())
        for name, value in self.layout.views(flat).items():
            named[name].copy_(value)

    def _certified_share(self, task: Task, box: Interval) -> float:
        """Share of (the first `fit_samples`) training samples that every network in the box answers rightly."""
        right, seen = torch.zeros((), device=self.device), 0
        for batch in task.train.batches(1000):
            bounds = self._bounds(box, batch.x)
            selected = Interval(self._trained(bounds.lower, batch.task), self._trained(bounds.upper, batch.task))
            right += certified(selected, batch.y).sum()
            seen += len(batch.y)
            if seen >= self.config.fit_samples:
                break
        return (right / seen).item()

    # -- the guarantee ---------------------------------------------------------------------------

    @torch.no_grad()
    def bounds(self, x: Tensor, task_id: int | None = None) -> tuple[Tensor, Tensor]:
        """Logit bounds over the present box, which holds every network that later tasks can lead to."""
        box = self._bounds(Interval(self.lower, self.upper), x, rounded=True)
        return self.answerable(box.lower, task_id), self.answerable(box.upper, task_id)

    def audit(self) -> list[Claim]:
        return []
