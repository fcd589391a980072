"""Tighter certificates: logits, and differences of logits, bounded by affine forms through the layers before them.

Interval bounds forget that two logits depend on the same hidden units, and these on the same earlier ones. Here a
logit, or the difference of two, is a linear form of the last hidden layer, then of the one before, as far back as
`products` permit (`backward` has the rules and their derivation); at every layer the form is bounded by the interval
bounds of that layer, and the best is taken. So a result is never wider than the interval bounds, and an operation
without a rule here costs tightness only: its interval bounds are used. All numbers are float64 and rounded outwards,
as in `propagate` with `rounded`.

A method's `bounds` calls `propagate` with its own network and box. `propagation` changes how these calls are computed,
without a change of any method.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from benchmarks.types import UserError
from methods.intervals import backward_rules, bounding
from methods.intervals.arithmetic import Arithmetic, Value
from methods.intervals.backward import Relu, Step, least, part, rounded_down
from methods.intervals.interval import Interval, intersect, slack

Propagation = Literal["interval", "affine"]
"""Ways to bound a network; both are sound, and the second is never wider."""
PRODUCTS = 5e7
"""Multiplications for a sample after which forms go no further back. The ten logits of an MLP with two layers of 1,000
units take 4e7, from inputs that are intervals."""
_AT_ONCE = 1 << 20
"""Coefficients that a layer's forms may have at a time: 8 MiB."""


@dataclass(frozen=True)
class Pass:
    """Propagation of a batch through a network."""

    steps: list[Step]
    answer: Value
    logits: Interval
    """Interval bounds of the logits, (b, C), float64."""
    products: float

    def lower(self, forms: Tensor, samples: Tensor) -> Tensor:
        """Lower bounds (k, r) of the forms (k, r, C) of the logits of the samples (k,) int64."""
        widest = max([step.output.bounds.lower[0].numel() for step in self.steps], default=1)
        at_once = max(1, _AT_ONCE // (forms.shape[1] * widest))
        parts = zip(forms.split(at_once), samples.split(at_once), strict=True)
        return torch.cat([self._lower(form, rows) for form, rows in parts])

    def tightened(self) -> Interval:
        """Bounds of the logits, (b, C)."""
        n, classes = self.logits.lower.shape
        signs = torch.eye(classes, dtype=torch.float64, device=self.logits.lower.device)
        every = torch.arange(n, device=signs.device)
        found = self.lower(torch.cat([signs, -signs]).expand(n, -1, -1), every)
        return intersect(self.logits, Interval(found[:, :classes], -found[:, classes:]))

    def exceeds(self, own: Tensor, rivals: Tensor, samples: Tensor) -> Tensor:
        """Check for the samples (k,) that the logits `own` (k,) exceed those of the columns `rivals` (r,), (k,) bool.

        True where they do in every network of the box. A logit is no rival of itself.
        """
        classes = self.logits.lower.shape[1]
        signs = torch.eye(classes, dtype=torch.float64, device=own.device)
        below = self.lower(signs[own][:, None] - signs[rivals][None], samples)
        floor = self.logits.lower[samples].gather(1, own[:, None])
        apart = floor > self.logits.upper[samples][:, rivals]
        itself = (own[:, None] == rivals) & floor.isfinite()  # an undefined bound certifies nothing
        return ((below > 0) | apart | itself).all(1)

    def _lower(self, a: Tensor, rows: Tensor) -> Tensor:
        pending = {id(self.answer): (self.answer, a)}
        constant, error, size = (a.new_zeros(a.shape[:2]) for _ in range(3))
        best = torch.full_like(constant, -torch.inf)
        spent = 0  # multiplications for a sample

        def bound() -> Tensor:
            ends = [least(form, part(value, rows)) for value, form in pending.values()]
            values = torch.stack([constant, *(value for value, _ in ends)])
            sizes = torch.stack([size, *(value.abs() for value, _ in ends)]).sum(0)
            errors = torch.stack([error, *(own for _, own in ends)]).sum(0)
            # 1.01: the sums of the errors are rounded themselves.
            slip = 1.01 * errors + slack(sizes, len(self.steps) + len(ends))
            return torch.maximum(best, rounded_down(values.sum(0), slip))

        for step in reversed(self.steps):
            if id(step.output) not in pending:
                continue
            if step.products or isinstance(step.push, Relu):  # both may lose more than they gain
                best = bound()
            spent += step.products * a.shape[1]
            if spent > self.products:
                return best
            _, form = pending.pop(id(step.output))
            pushed = step.push(form, rows)
            for value, coefficients in zip(step.inputs, pushed.coefficients, strict=True):
                if id(value) in pending:
                    other = pending[id(value)][1]
                    bounds = part(value, rows)
                    error = error + least(other, bounds)[1] + least(coefficients, bounds)[1]  # of their sum
                    coefficients = coefficients + other
                pending[id(value)] = value, coefficients
            if pushed.constant is not None:
                constant, size = constant + pushed.constant, size + pushed.constant.abs()
            if pushed.error is not None:
                error = error + pushed.error
        return bound()


@dataclass
class Recording:
    """Calls of `propagate` in a block of `propagation`."""

    propagation: Propagation
    products: float
    calls: int = 0
    latest: Pass | None = field(default=None, repr=False)
    """Latest call for certificates."""


@contextmanager
def propagation(how: str, products: float = PRODUCTS) -> Iterator[Recording]:
    """Compute certificates in this block by `how`, a `Propagation`; yields the recording of the block's calls.

    Only calls with `rounded` change: bounds for training, and of networks without numbers, stay as they are. Raises
    UserError for another name.
    """
    if how not in get_args(Propagation):
        raise UserError(f"propagation = {how!r} is not known; choose {' or '.join(get_args(Propagation))}")
    recording = Recording("affine" if how == "affine" else "interval", products)

    def recorded(*arguments: Any) -> _Recorded:
        return _Recorded(recording, *arguments)

    outer = bounding.TRAVERSAL.set(recorded)
    try:
        yield recording
    finally:
        bounding.TRAVERSAL.reset(outer)


def propagate(
    network: nn.Module,
    weights: Mapping[str, Interval],
    x: Tensor | Interval,
    how: str = "affine",
    *,
    nonnegative_inputs: bool = False,
    buffers: Mapping[str, Tensor] | None = None,
    products: float = PRODUCTS,
) -> Interval:
    """Bounds as of `bounding.propagate` with `rounded`, by the `Propagation` how; raises UserError for another name."""
    with propagation(how, products):
        return bounding.propagate(
            network, weights, x, nonnegative_inputs=nonnegative_inputs, buffers=buffers, rounded=True
        )


class _Recorded(bounding.Traversal):
    """Pass through a network that notes the steps on the way."""

    def __init__(
        self,
        recording: Recording,
        network: nn.Module,
        weights: Mapping[str, Interval],
        buffers: Mapping[str, Tensor],
        arithmetic: Arithmetic,
    ) -> None:
        super().__init__(network, weights, buffers, arithmetic)
        self.recording = recording
        self.steps: list[Step] = []
        self.batch = 0
        """Number of samples; 0 if nothing is noted."""

    def run(self, x: Interval, nonnegative: bool) -> Interval:
        if self.arithmetic.rounded and not x.lower.is_meta and x.lower.dim():
            self.batch = x.lower.shape[0]
            # Interval inputs may reach below zero where the data do not.
            nonnegative = nonnegative and bool((x.lower >= 0).all())
        return super().run(x, nonnegative)

    def _answer(self, result: Any) -> Interval:
        bounds = super()._answer(result)
        if not self.batch or bounds.lower.dim() != 2 or bounds.lower.shape[0] != self.batch:
            return bounds
        self.recording.calls += 1
        self.recording.latest = Pass(self.steps, result, bounds, self.recording.products)
        return self.recording.latest.tightened() if self.recording.propagation == "affine" else bounds

    def _layer(self, name: str, arguments: list[Any]) -> Value:
        found = super()._layer(name, arguments)
        module = self.network.get_submodule(name)
        self._note(found, lambda: backward_rules.of_layer(module, lambda own: self._tensor(f"{name}.{own}"), arguments))
        return found

    def _function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        found = super()._function(target, args, kwargs)
        self._note(found, lambda: backward_rules.of_function(target, args, kwargs))
        return found

    def _note(self, output: Any, rule: Any) -> None:
        """Note a step, unless its values mix samples or have no rule: then the output's interval bounds are used."""
        if not self.batch or not isinstance(output, Value):
            return
        found = rule()
        if found is None or any(value is output for value in found.inputs):
            return
        values = [*found.inputs, output]
        if all(value.bounds.lower.dim() and value.bounds.lower.shape[0] == self.batch for value in values):
            step = backward_rules.fitting(found, output)
            self.steps += [step] if step else []
