"""Types that all rooms share: scenario, budget, stream specification, task. Imports no torch."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.samples import Samples


class UserError(Exception):
    """A mistake the user can correct; its text says what was wrong, where, and what to do."""


class Scenario(StrEnum):
    """Van de Ven, Tuytelaars & Tolias (2022), Nature Machine Intelligence 4:1185-1197."""

    TIL = "til"
    """Task identity given in training and at test; answers over the task's own classes."""
    DIL = "dil"
    """Identity not given at test; within-task labels, one head."""
    CIL = "cil"
    """Identity not given at test; answers range over all classes seen so far."""


TIL, DIL, CIL = Scenario.TIL, Scenario.DIL, Scenario.CIL
ALL_SCENARIOS = frozenset(Scenario)


def suggestion(name: str, known: Iterable[str], prefix: str = "", most: int = 3) -> str:
    """` Did you mean A or B?`, of names like a misspelt one, `prefix` before each; empty where none is like it."""
    near = difflib.get_close_matches(name, list(known), n=most, cutoff=0.5)
    return f" Did you mean {' or '.join(prefix + other for other in near)}?" if near else ""


def derived_seed(*names: str | int) -> int:
    """A 63-bit seed from named axes, the same on every machine (SHA-256)."""
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True)
class Budget:
    """Training budget of every method on one task: either `steps` or `epochs` is given."""

    batch_size: int
    steps: int | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise UserError("budget: give exactly one of steps and epochs")
        for name in ("batch_size", "steps", "epochs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"budget: {name} = {value} must be at least 1")

    def steps_for(self, n_samples: int) -> int:
        """Optimiser steps for a task with `n_samples` training samples."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return -(-n_samples // self.batch_size) * self.epochs

    def scaled(self, factor: float) -> Self:
        """The budget times `factor`, at least one step or epoch."""
        if self.steps is not None:
            return replace(self, steps=max(1, round(self.steps * factor)))
        assert self.epochs is not None
        return replace(self, epochs=max(1, round(self.epochs * factor)))

    @staticmethod
    def of(fields: Mapping[str, Any]) -> Budget:
        """The budget with these fields, as `vars` gives them and a record holds them."""
        return (ValidatedBudget if "patience" in fields else Budget)(**fields)


@dataclass(frozen=True)
class ValidatedBudget(Budget):
    """Budget whose steps or epochs are the most that a task may take: its validation loss decides the rest.

    The loss is measured after each epoch. After `patience` epochs without a lower one the learning rate is divided;
    training ends instead where the rate would fall below `lowest_rate`. The weights with the lowest loss are kept.
    The rule of the codes of HAT, GPM and WSN, for all methods alike: `Method.fit` obeys it.
    """

    patience: int = 6
    """Epochs without a lower validation loss before the learning rate is divided."""
    divisor: float = 2.0
    """Divisor of the learning rate."""
    lowest_rate: float = 1e-6
    """Learning rate below which training ends."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patience < 1:
            raise UserError(f"budget: patience = {self.patience} must be at least 1")
        if not self.divisor > 1:
            raise UserError(f"budget: divisor = {self.divisor} must be above 1")
        if not self.lowest_rate > 0:
            raise UserError(f"budget: lowest_rate = {self.lowest_rate} must be positive")


@dataclass(frozen=True)
class StreamSpec:
    """Properties of a stream known to every method before it starts.

    Labels count from 0 within the task in TIL and DIL, and in CIL over all tasks, in order of appearance. In TIL and
    CIL each task has outputs of its own, as many as classes, in the order of the tasks. In DIL all tasks share one
    head, as wide as the largest task.
    """

    benchmark: str
    scenario: Scenario
    n_tasks: int
    classes_per_task: int
    """Classes of each task, of the largest one where the numbers differ."""
    input_shape: tuple[int, ...]
    network: str
    """Name of the target network, e.g. `mlp-400-400`; see methods/networks/targets.py."""
    nonnegative_inputs: bool = False
    """True if no input is negative, in any split, after all transforms: found in the data by the stream, which refuses
    a declaration that the data contradict. Bounds of the first layer are tighter and cheaper then."""
    sizes: tuple[int, ...] = ()
    """Classes of each task where the numbers differ; empty where they are equal, and in DIL, whose answers are those of
    the one head."""

    @property
    def n_outputs(self) -> int:
        """Outputs of a network that must answer for the whole stream (TIL: one head a task)."""
        return self.classes_per_task if self.scenario is DIL else self.outputs_before(self.n_tasks)

    def classes_of(self, task: int) -> int:
        """Classes that a task's answers range over in TIL and DIL."""
        return self.sizes[task] if self.sizes else self.classes_per_task

    def outputs_before(self, task: int) -> int:
        """Outputs of all tasks before a task: its first one, and in CIL its first label."""
        return sum(self.sizes[:task]) if self.sizes else self.classes_per_task * task

    def outputs_of(self, task: int) -> slice:
        """Outputs of a task among those of the whole stream (TIL, CIL)."""
        return slice(self.outputs_before(task), self.outputs_before(task + 1))


@dataclass(frozen=True)
class Task:
    """One task, as a method sees it: training and validation samples, never test samples.

    `previous` holds the earlier tasks for methods that declare `rehearses = True`, else nothing.
    """

    index: int
    train: Samples
    validation: Samples
    budget: Budget
    order_seed: int
    """Seed of the order in which training samples are drawn; the same for every method."""
    previous: tuple[Task, ...] = ()

    @property
    def x(self) -> Tensor:
        """All training inputs, float32 (n, *input_shape), on the device (materialised at each call)."""
        return self.train.x

    @property
    def y(self) -> Tensor:
        """All training labels, int64 (n,), on the device."""
        return self.train.labels
