"""InterContiNet: one box of weights that every later task must stay in and shrinks further.

Wolczyk et al. (2022), "Continual Learning with Guarantees via Weight Interval Constraints", ICML.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from methods.base import CIL, TIL, Batch, Claim, Method, Task, register
from methods.nets.interval_weights import Layout, head_names, linear_bias_names, moved, nested, scale, shift
from methods.nets.intervals import Interval, certified, contains, propagate, worst_case

BISECTIONS = 14


class Gate:
    """Whether contraction shall go on: mean worst-case accuracy < threshold * mean accuracy of late batches."""

    def __init__(self, threshold: float, lookback: int, zero_is_open: bool, device: torch.device) -> None:
        self.threshold, self.zero_is_open = threshold, zero_is_open
        self.window = torch.full((2, lookback), float("nan"), device=device)

    def observe(self, right: Tensor, certain: Tensor) -> None:
        """Add a batch: the shares (0-d) of right answers of the middle and of the worst network."""
        latest = torch.stack([right, certain])[:, None].to(self.window)
        self.window = torch.cat([self.window[:, 1:], latest], dim=1)

    def open(self) -> Tensor:
        """0-d bool on the device."""
        right, certain = self.window.nanmean(dim=1)
        falls_short = certain < self.threshold * right
        return falls_short | (right == 0) if self.zero_is_open else falls_short


@register("intercontinet")
class InterContiNet(Method):
    """Trains inside a box of weights that only shrinks, so that what the box certifies is never forgotten."""

    @dataclass(frozen=True)
    class Config:
        optimizer: Literal["sgd", "adamw"] = "sgd"
        """Optimiser of all phases (AdamW without weight decay)."""
        momentum: float = 0.0
        """Momentum of SGD."""
        lr: float = 1.0
        """Learning rate of the centres, first task."""
        shift_lr: float = 1.0
        """Learning rate of the shifts, later tasks (in units of weights if `normalize_shift`)."""
        scale_lr: float = 0.01
        """Learning rate of the contraction."""
        robust_weight: float = 1.0
        """Factor of the worst-case loss."""
        milestones: tuple[float, ...] = ()
        """Shares of a task's steps after which the rate of centres and shifts is multiplied by `milestone_factor`."""
        milestone_factor: float = 0.1
        """See `milestones`."""
        contraction_share: float = 1 / 3
        """Share of the steps given to contraction."""
        threshold: float = 0.9
        """Contract until certified accuracy reaches this share of accuracy."""
        lookback: int = 10
        """Batches that the gate averages over."""
        shrink_to_threshold: bool = True
        """If contraction ends short of the threshold, shrink the whole box until it is met."""
        verify_samples: int = 2000
        """Training samples on which the threshold is checked at the end of a task."""
        max_radius: float = 1.0
        """Radius of the first box."""
        scale_init: float = 5.0
        """Raw scale at the start of a task: sigmoid(5) = 0.993 of the box."""
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
        self.lower, self.upper = Interval.around(self._centre(), torch.tensor(self.config.max_radius))
        self.heads_at_end: list[Tensor] = []
        self.outside: list[int] = []
        self.widths: list[float] = []
        self.certified_at_end: list[float] = []

    def learn(self, task: Task) -> None:
        steps = task.budget.steps_for(len(task.train))
        contraction = round(steps * self.config.contraction_share)
        gate = self._gate()
        if task.index == 0:
            self._centre_phase(task, steps - contraction, gate)
            raw_shift = torch.zeros_like(self.lower)
        else:
            raw_shift = self._shift_phase(task, steps - contraction, gate)
        raw_scale = self._scale_phase(task, raw_shift, steps - contraction, contraction, gate)
        self.end_task(task, raw_shift, raw_scale)

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        return self.answerable(self.net(x), task_id)

    # -- the box ---------------------------------------------------------------------------------

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

    def _optimizer(self, parameters: Iterable[Tensor], lr: float) -> torch.optim.Optimizer:
        if self.config.optimizer == "sgd":
            return torch.optim.SGD(parameters, lr, momentum=self.config.momentum, fused=True)
        return torch.optim.AdamW(parameters, lr, weight_decay=0.0, fused=True, capturable=self.device.type == "cuda")

    def _gate(self) -> Gate:
        c = self.config
        return Gate(c.threshold, c.lookback, not c.official_gate, self.device)

    def _segments(self, steps: int, total: int) -> list[tuple[int, int]]:
        marks = [round(share * total) for share in self.config.milestones]
        edges = [0, *sorted(m for m in marks if 0 < m < steps), steps]
        return list(zip(edges, edges[1:], strict=False))

    def _centre_phase(self, task: Task, steps: int, gate: Gate) -> None:
        """Equation-free: plain training of all weights, from which the first box is drawn."""
        optimizer = self._optimizer(self.net.parameters(), self.config.lr)
        self.net.train()
        self._fit_middle(task, steps, optimizer, lambda batch: self.net(batch.x), gate)
        self.lower, self.upper = Interval.around(self._centre(), torch.tensor(self.config.max_radius))

    def _shift_phase(self, task: Task, steps: int, gate: Gate) -> Tensor:
        centre, radius = self._centre(), self._radius()
        raw = torch.zeros_like(centre, requires_grad=True)
        points = self._points()

        def forward(batch: Batch) -> Tensor:
            weights = self.layout.views(centre + shift(raw, radius, self.config.normalize_shift) * radius)
            return functional_call(self.net, weights | points, (batch.x,))

        self._fit_middle(task, steps, self._optimizer([raw, *points.values()], self.config.shift_lr), forward, gate)
        return raw.detach()

    def _fit_middle(
        self, task: Task, steps: int, optimizer: torch.optim.Optimizer, forward: Callable[[Batch], Tensor], gate: Gate
    ) -> None:
        def loss(batch: Batch) -> Tensor:
            return cross_entropy(self._trained(forward(batch), batch.task), batch.y)

        for start, stop in self._segments(steps, task.budget.steps_for(len(task.train))):
            if start:
                for group in optimizer.param_groups:
                    group["lr"] *= self.config.milestone_factor
            self.fit(task, loss, optimizer, first_step=start, steps=stop - start)

    def _scale_phase(self, task: Task, raw_shift: Tensor, first: int, steps: int, gate: Gate) -> Tensor:
        config, radius = self.config, self._radius()
        s = shift(raw_shift, radius, config.normalize_shift)
        middle, room = self._centre() + s * radius, (1 - s.abs()) * radius
        raw = torch.full_like(middle, config.scale_init, requires_grad=True)
        optimizer = self._optimizer([raw], config.scale_lr)
        optimizer.found_inf = torch.zeros((), device=self.device)  # type: ignore[attr-defined]
        self.net.eval()
        named = self.layout.views(middle) | self._points()
        for p in self.net.parameters():
            p.requires_grad_(False)

        def loss(batch: Batch) -> Tensor:
            worst = self._worst(Interval.around(middle, torch.sigmoid(raw) * room), batch)
            with torch.no_grad():
                right = self._trained(functional_call(self.net, named, (batch.x,)), batch.task).argmax(1) == batch.y
                gate.observe(right.float().mean(), (worst.argmax(1) == batch.y).float().mean())
                is_open = gate.open()
            if config.official_gate:
                return config.robust_weight * cross_entropy(worst, batch.y) * is_open
            optimizer.found_inf.copy_(~is_open)  # type: ignore[attr-defined]
            return config.robust_weight * cross_entropy(worst, batch.y)

        if steps:
            self.fit(task, loss, optimizer, first_step=first, steps=steps)
        for p in self.net.parameters():
            p.requires_grad_(True)
        return raw.detach()

    # -- the end of a task -----------------------------------------------------------------------

    @torch.no_grad()
    def end_task(self, task: Task, raw_shift: Tensor, raw_scale: Tensor) -> None:
        """Freeze: the shifted, contracted box becomes the box of all later tasks."""
        radius = self._radius()
        s = shift(raw_shift, radius, self.config.normalize_shift)
        before = Interval(self.lower, self.upper)
        middle = (self._centre() + s * radius).clamp(self.lower, self.upper)
        halfwidth = scale(raw_scale, s) * radius
        self._load(middle)
        if self.config.shrink_to_threshold:
            halfwidth = self._shrunk(task, middle, halfwidth)
        self.lower, self.upper = nested(Interval.around(middle, halfwidth), before)
        self.outside.append(int((~contains(before, Interval(self.lower, self.upper))).sum()))
        self.widths.append((self.upper - self.lower).median().item())
        self.certified_at_end.append(self._certified_share(task, Interval(self.lower, self.upper)))

    def _load(self, flat: Tensor) -> None:
        named = dict(self.net.named_parameters())
        for name, value in self.layout.views(flat).items():
            named[name].copy_(value)

    def _shrunk(self, task: Task, middle: Tensor, halfwidth: Tensor) -> Tensor:
        target = self.config.threshold * self._certified_share(task, Interval.point(middle))
        if self._certified_share(task, Interval.around(middle, halfwidth)) >= target:
            return halfwidth
        good, bad = 0.0, 0.0  # exponents of 2
        low, high = -30.0, 0.0
        for _ in range(BISECTIONS):
            guess = (low + high) / 2
            if self._certified_share(task, Interval.around(middle, halfwidth * 2**guess)) >= target:
                low = guess
            else:
                high = guess
        return halfwidth * 2**low

    def _certified_share(self, task: Task, box: Interval) -> float:
        """Share of (the first `verify_samples`) training samples that every network in the box answers rightly."""
        right, seen = torch.zeros((), device=self.device), 0
        for batch in task.train.batches(1000):
            bounds = self._bounds(box, batch.x)
            selected = Interval(self._trained(bounds.lower, batch.task), self._trained(bounds.upper, batch.task))
            right += certified(selected, batch.y).sum()
            seen += len(batch.y)
            if seen >= self.config.verify_samples:
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
