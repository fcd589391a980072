"""Trial runs of a method on two easy tasks: one run shared by all checks, and short ones on demand."""

from __future__ import annotations

import io
import random
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks.catalogue import Benchmark, find
from benchmarks.samples import Samples
from benchmarks.stream import Stream, open_stream
from benchmarks.tally import counting
from benchmarks.types import CIL, TIL, Budget, Scenario, UserError
from methods.base import Certifying, Inferring, Method
from methods.shared import state
from runners.cell import network_used, stated, usage
from runners.conformance import mistakes
from runners.conformance.watch import Watch, watched
from runners.grid import hyperparameters as configuration

BENCHMARK = replace(find("split-digits"), n_tasks=2, network="mlp-20")
EASY, SHORT = Budget(32, steps=150), Budget(16, steps=12)
"""Enough to learn zeros and ones, and twos and threes; and enough to change every number that can change."""
BOUNDED = 40
"""Test samples of a task whose answers are bounded."""


class Broken(UserError):
    """The method cannot be run at all; says where."""


@dataclass(frozen=True)
class Run:
    """Observations while the two tasks were learnt."""

    method: Method
    early: Tensor
    """Answers to task 0 before any training."""
    untrained: float
    """Test accuracy before any training, on the worse of the two tasks; 0 where only one is asked about."""
    accuracies: list[float]
    """Test accuracy on each task when it had just been learnt."""
    saved: bytes
    """torch.save of the state after task 0."""
    answers: list[list[Tensor]]
    """answers[i][j]: logits for the test samples of task j after learning task i."""
    bounds: tuple[Tensor, Tensor] | None
    """Bounds of task 0 when it had just been learnt, of a method that has `unchanged`."""
    stored: list[int]
    updates: list[int]
    """Optimiser steps that torch counted in each task."""
    reported: list[int]
    """Steps in each task by the loss curve."""
    taken: list[dict[str, int]]
    """Budget use of each task; see runners.cell.usage."""
    watch: Watch


class Trial:
    """A method's class in one scenario."""

    def __init__(
        self, cls: type, scenario: Scenario, *, device: str = "cpu", settings: dict[str, Any] | None = None
    ) -> None:
        self.cls: Any = cls
        self.scenario, self.device, self.settings = scenario, torch.device(device), settings or {}

    def skipped(self) -> str | None:
        """The method's own reason for not running here. Raises Broken."""
        config = self.config
        return self._tried("skip", "skip", lambda: self.cls.skip(self.stream.spec, config))

    @cached_property
    def config(self) -> Any:
        """Configuration with the settings that the method has. Raises Broken."""
        if mistake := mistakes.of_class(self.cls):
            raise Broken(mistake)
        return self._tried("Config, made from its defaults,", "Config", self._configured)

    def _configured(self) -> Any:
        names = set(configuration.as_json(self.cls.Config()))
        kept = {key: value for key, value in self.settings.items() if key in names}
        return configuration.configure(self.cls.name, self.cls.Config, kept)

    @cached_property
    def stream(self) -> Stream:
        return self.opened(EASY)

    @cached_property
    def short(self) -> Stream:
        return self.opened(SHORT)

    @cached_property
    def other(self) -> Stream:
        """A stream that begins with other digits."""
        return self.opened(EASY, replace(BENCHMARK.shuffled(), n_tasks=1))

    @cached_property
    def three(self) -> Stream:
        """Three tasks, the fewest on which some options differ."""
        return self.opened(replace(SHORT, steps=6), replace(BENCHMARK, n_tasks=3))

    @cached_property
    def three_longer(self) -> Stream:
        """The same for schedules: each step is an epoch."""
        return self.opened(Budget(400, steps=48), replace(BENCHMARK, n_tasks=3))

    @cached_property
    def three_normed(self) -> Stream:
        """The same on a network with batch norm, each step an epoch."""
        return self.opened(Budget(400, steps=6), replace(BENCHMARK, n_tasks=3, network="resnet-8"))

    def opened(self, budget: Budget, benchmark: Benchmark = BENCHMARK) -> Stream:
        return open_stream(benchmark, self.scenario, 0, device=self.device, budget=budget)

    def made(self, stream: Stream, config: Any = None, seed: int = 0) -> Method:
        method = self.cls(stream.spec, self.config if config is None else config, self.device, seed)
        if mistake := mistakes.of_instance(method):
            raise Broken(mistake)
        return method

    def learn(self, method: Method, stream: Stream, tasks: Iterable[int]) -> Method:
        """The tasks, as the runner has them learnt."""
        for j in tasks:
            task = stream.task(j, previous=method.rehearses)
            random.seed(method.seed + j)
            np.random.seed(method.seed + j)
            method.begin(task)
            method.learn(task)
        return method

    @torch.no_grad()
    def answer(self, method: Method, x: Tensor, j: int) -> Tensor:
        """Logits for inputs of task j, whose number is told in TIL only. Raises UserError where it is no tensor."""
        logits: Any = method.predict(x, j if self.scenario is TIL else None)
        if not isinstance(logits, Tensor):
            kind = "nothing (is a return missing?)" if logits is None else f"a {type(logits).__name__}"
            raise UserError(f"predict gives {kind}, not a tensor of logits")
        return logits

    def bounds(self, method: Any, j: int) -> tuple[Tensor, Tensor] | None:
        """Bounds of the answers to some test samples of task j; None where nothing is certified."""
        return self._certified(method, self.stream.test(j).x[:BOUNDED], j)

    @torch.no_grad()
    def _certified(self, method: Any, x: Tensor, j: int) -> tuple[Tensor, Tensor] | None:
        try:
            return method.bounds(x, j)
        except NotImplementedError:
            return None

    @torch.no_grad()
    def _also_asked(self, method: Any, x: Tensor, j: int) -> None:
        """Ask for what the evaluation asks for in addition to answers."""
        if isinstance(method, Inferring) and self.scenario is CIL:
            method.infer_task(x)
        if isinstance(method, Certifying):
            self._certified(method, x, j)

    @cached_property
    def run(self) -> Run:
        """The shared run. Raises Broken."""
        stream = self.stream
        with watched() as watch:
            method = self._tried("build", "build", lambda: self.made(stream))
        both = [stream.test(j) for j in range(len(stream))]
        with watched(watch):  # as the evaluation asks: in CIL about no task that is still to come
            first = [
                self._tried("predict before the first task", "predict", lambda j=j: self.answer(method, both[j].x, j))
                for j in range(1 if self.scenario is CIL else len(stream))
            ]
        right = [accuracy_of(logits, some) for logits, some in zip(first, both, strict=False)]
        accuracies, answers, stored, updates, reported, taken = [], [], [], [], [], []
        saved, bounds = b"", None
        for j in range(len(stream)):
            task = stream.task(j, previous=method.rehearses)
            counted: list[int] = []
            handle = register_optimizer_step_post_hook(lambda *_, counted=counted: counted.append(1))
            try:
                with watched(watch), counting() as tally:
                    self._tried(
                        f"learn, on task {j},", "learn", lambda task=task: (method.begin(task), method.learn(task))
                    )
            finally:
                handle.remove()
            updates.append(len(counted))
            taken.append(usage.of_task(tally, task))
            curve = self._tried("reading the loss curve", "learn", lambda: stated.curve(method))
            reported.append(curve[-1][1] if curve else 0)
            with watched(watch):
                answers.append(
                    [
                        self._tried("predict", "predict", lambda i=i: self.answer(method, both[i].x, i))
                        for i in range(j + 1)
                    ]
                )
                if j == 0 and hasattr(method, "unchanged"):
                    bounds = self._tried("bounds", "bounds", lambda: self._certified(method, both[0].x[:BOUNDED], 0))
                with suppress(Exception):  # found by the checks of these functions
                    self._also_asked(method, both[j].x[:BOUNDED], j)
            accuracies.append(accuracy_of(answers[j][j], both[j]))
            saved = saved or self._tried("state_dict after a task", "state_dict", lambda: packed(method))
            stored.append(self._tried("parameters_stored", "parameters_stored", lambda: _stored(method)))
        untrained = min(right) if len(right) == len(both) else 0.0
        return Run(
            method, first[0], untrained, accuracies, saved, answers, bounds, stored, updates, reported, taken, watch
        )

    @property
    def in_closed_form(self) -> bool:
        """True if no optimiser step was counted and the method holds nothing that has gradients."""
        stepped = any(task["steps"] for task in self.run.taken)
        return not stepped and network_used.trained_numbers(usage.attributes(self.run.method)) == 0

    def _tried(self, what: str, function: str, action: Any) -> Any:
        """Result of an action. Raises Broken for what the method's function raises."""
        try:
            return action()
        except Broken:
            raise
        except (Exception, SystemExit) as error:
            own = function == "build" and self.cls.__init__ is not Method.__init__
            said = mistakes.told(what, error, self.cls, "__init__" if own else function)
            hint = "; leave __init__ out and make networks in build" if own else ""
            raise Broken(f"{said}{hint}") from error


def _stored(method: Method) -> int:
    return stated.whole(method.parameters_stored(), "parameters_stored")


def packed(method: Method) -> bytes:
    """The method's state as it is written into checkpoints. Raises UserError for a state that cannot be."""
    kept: Any = method.state_dict()
    if method.resumable and type(method).state_dict is not Method.state_dict and (why := state.unplain(kept)):
        raise UserError(why)
    buffer = io.BytesIO()
    torch.save(kept, buffer)
    return buffer.getvalue()


def unpacked(saved: bytes) -> dict[str, Any]:
    return torch.load(io.BytesIO(saved), map_location="cpu", weights_only=True)


def equal(a: Any, b: Any) -> bool:
    """Check whether two states, or parts of them, are equal bit by bit."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.shape == b.shape and torch.equal(a.cpu(), b.cpu())
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


def accuracy_of(logits: Tensor, samples: Samples) -> float:
    if logits.dim() != 2 or len(logits) != len(samples):
        return 0.0
    return float((logits.argmax(1) == samples.labels).float().mean())
