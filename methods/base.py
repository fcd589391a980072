"""Interface of a continual-learning method: two functions to write, and the shared training loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from benchmarks import tally
from benchmarks.samples import Batch, Samples
from benchmarks.types import (
    ALL_SCENARIOS,
    CIL,
    DIL,
    TIL,
    Budget,
    Scenario,
    StreamSpec,
    Task,
    UserError,
    derived_seed,
)
from methods.abilities import Certifying, Claim, Inferring
from methods.networks import targets
from methods.registry import register
from methods.search import Range
from methods.shared import heads, parts, state, stepping
from methods.shared import schedule as schedules
from methods.shared.needs import Needs
from methods.shared.optimizers import adam
from methods.shared.order import batch_order

__all__ = [
    "CIL",
    "DIL",
    "TIL",
    "Batch",
    "Certifying",
    "Claim",
    "Diverged",
    "Exhibit",
    "Inferring",
    "Method",
    "Needs",
    "Progress",
    "Task",
    "adam",
    "batch_order",
    "register",
]

STEPS_BETWEEN_CHECKS = 50

Exhibit = Mapping[str, Sequence[float]]
"""A small table for the report: column name -> numbers, all columns of one length."""


class Diverged(Exception):
    """Loss that is no longer finite; the message names the task and the step."""

    def __init__(self, task: int, step: int, value: float) -> None:
        super().__init__(f"the loss of task {task} is {value} at step {step}")
        self.task, self.step = task, step


class Progress(NamedTuple):
    """Progress of training: task index, steps done, steps to do, the latest loss."""

    task: int
    step: int
    steps: int
    loss: float


class Optimizer(Protocol):
    """Interface that `fit` needs of an optimiser; every torch.optim.Optimizer has it."""

    def zero_grad(self, set_to_none: bool = True) -> None: ...
    def step(self) -> Any: ...


class Method(ABC):
    """A learner. Write `learn` and `predict`; most methods are a loss given to `fit` and a hook.

    A new method is one class in one file:

        @register("my_method")
        class MyMethod(Method):
            \"\"\"One line: what it is and the paper it comes from.\"\"\"
            supports = frozenset({TIL, DIL, CIL})      # other scenarios are recorded as skipped

            @dataclass(frozen=True)
            class Config:                              # every hyperparameter, each with a default
                lr: float = 1e-3
                \"\"\"Adam learning rate.\"\"\"

            def build(self): self.net = self.network()
            def learn(self, task): ...                 # task.x, task.y, task.validation, task.budget
            def predict(self, x, task_id=None): ...    # logits over the classes that may be answered

    Keep all state in attributes (modules, tensors, numbers, and lists, dicts or dataclasses of them), where
    `state_dict` finds it. Make networks and parameters in `build`. Torch's global random generator is seeded
    from the cell's seed before `build` and before each `learn`; use it freely.
    """

    name: ClassVar[str]
    supports: ClassVar[frozenset[Scenario]] = ALL_SCENARIOS
    rehearses: ClassVar[bool] = False
    """True if `task.previous` must hold the earlier tasks (their training data is then kept)."""
    resumable: ClassVar[bool] = True
    """True if `state_dict` suffices to resume; otherwise an interrupted cell starts over."""
    memory_samples: int = 0
    """Upper bound on the training samples of earlier tasks that the method keeps; declare it if it keeps any."""

    capturable: ClassVar[bool] = False
    """True if every step of one `fit` runs the same operations on the same tensors. Steps on a GPU are then captured
    as a CUDA graph. Losses and hooks of such a method must not depend on changing Python numbers (schedules read
    `self.step`), and must not fetch anything from the device."""

    @dataclass(frozen=True)
    class Config:
        """Hyperparameters; every field has a default and a docstring."""

    def __init__(self, spec: StreamSpec, config: Any = None, device: str | torch.device = "cpu", seed: int = 0) -> None:
        self.spec = spec
        self.config: Any = config if config is not None else self.Config()
        self.device = torch.device(device)
        self.seed = seed
        self.tasks_seen = 0
        """Number of tasks begun; `begin` counts them."""
        self.step = torch.zeros((), device=self.device)
        """Current step of `fit`, 0-d float tensor on the device, for schedules inside a loss."""
        self.progress: Callable[[Progress], None] = lambda _: None
        self.curve: list[Progress] = []
        """Loss curve of the latest task: one entry per check."""
        self.stepped = ""
        """Execution of the latest `fit`: step by step, with the reason, or captured as a CUDA graph."""
        self.step_by_step = ""
        """Reason to run capturable steps one by one all the same; the caller sets it before `learn`."""
        self._given: tuple[Budget, Budget] | None = None
        """Budget of the current task and a copy of it, to detect changes in place."""
        self._built: dict[str, Any] = {}
        torch.manual_seed(derived_seed(seed, spec.benchmark, spec.scenario, "init"))
        self.build()
        self._built = {"fixed": parts.fixed(self), "flags": parts.flags(self)}

    @classmethod
    def skip(cls, spec: StreamSpec, config: Any) -> str | None:
        """Reason why this method cannot run on this stream, or None if it can."""
        if spec.scenario not in cls.supports:
            return f"{cls.name} is not defined in {spec.scenario}"
        return None

    @classmethod
    def needs(cls, spec: StreamSpec, config: Any) -> Needs:
        """Memory needed beyond what `build` allocates, for the estimate of a cell's footprint."""
        return Needs()

    @classmethod
    def remarks(cls, spec: StreamSpec, config: Any, tuned: Collection[str]) -> list[str]:
        """Sentences for the user before a cell runs. Raises UserError for settings that cannot be meant.

        tuned: hyperparameters whose values were found on validation data of this very stream.
        """
        return []

    @classmethod
    def searched(cls, spec: StreamSpec, config: Any, ranges: Mapping[str, Range]) -> Mapping[str, Range]:
        """The `ranges` that tuning searches on this stream: as declared, unless the configuration changes a unit."""
        return ranges

    def build(self) -> None:  # noqa: B027 - a method without parameters needs none
        """Make networks and parameters (called once, with the generator seeded)."""

    def begin(self, task: Task) -> None:
        """Count the task and seed the generator; the runner calls it before `learn`."""
        self.tasks_seen = task.index + 1
        self.curve = []
        self._given = task.budget, replace(task.budget)
        torch.manual_seed(derived_seed(self.seed, self.spec.benchmark, self.spec.scenario, "learn", task.index))

    @abstractmethod
    def learn(self, task: Task) -> None:
        """Train on one task. Tasks arrive in order, each once."""

    @abstractmethod
    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        """Logits (b, admissible classes) for inputs (b, *input_shape).

        TIL: the classes of `task_id`, also of a task not yet learnt. DIL: the within-task labels.
        CIL: all classes seen so far; before the first task, those of the first. `task_id` is None
        in DIL and CIL. Must not change the method's state or depend on the other inputs of the batch.
        """

    # -- heads -----------------------------------------------------------------------------------

    def network(self, n_outputs: int | None = None) -> nn.Module:
        """The benchmark's target network on the device (default: outputs for the whole stream).

        It is in evaluation mode, except where `fit` trains it.
        """
        outputs = self.spec.n_outputs if n_outputs is None else n_outputs
        return targets.build(self.spec.network, self.spec.input_shape, outputs).to(self.device).eval()

    def answerable(self, logits: Tensor, task_id: int | Tensor | None) -> Tensor:
        """Select the admissible logits of (b, spec.n_outputs): the task's head (TIL), all (DIL) or those seen (CIL).

        In TIL `task_id` may be (b,), one task per sample; outputs that a smaller task has not are -1e30 then.
        """
        if self.spec.scenario is DIL:
            return logits
        if self.spec.scenario is CIL:
            return logits[:, : self.spec.outputs_before(max(1, self.tasks_seen))]
        if task_id is None:
            raise UserError(f"{self.name}: a task id is needed in TIL")
        if isinstance(task_id, int):
            return logits[:, self.spec.outputs_of(task_id)]
        return heads.each_own(logits, task_id, self.spec)

    def within_task(self, labels: Tensor, task: int | Tensor) -> Tensor:
        """Labels (b,) of `task` renumbered from 0, whatever the scenario's numbering."""
        return labels - heads.starts(labels, task, self.spec) if self.spec.scenario is CIL else labels

    # -- training --------------------------------------------------------------------------------

    def fit(
        self,
        task: Task,
        loss: Callable[[Batch], Tensor],
        optimizer: Optimizer | Iterable[Tensor],
        *,
        lr: float = 1e-3,
        samples: Samples | None = None,
        steps: int | None = None,
        first_step: int = 0,
        after_step: Callable[[], None] | None = None,
        on_check: Callable[[int], None] | None = None,
        check_every: int = STEPS_BETWEEN_CHECKS,
        capture: bool = True,
        scheduled: bool = True,
        judge: Callable[[Batch], Tensor] | None = None,
        keep: Iterable[Tensor] = (),
    ) -> None:
        """Shared inner loop: draw a batch, `loss`, backward, optimiser step, `steps` times.

        optimizer: an optimiser, or parameters for Adam with `lr`. samples, steps: replace the
        task's training samples and budget. first_step: first step of a training phase, which
        continues the data order and `self.step`. after_step: called after each step.
        on_check(steps done): called every `check_every` steps and at the end. capture: False for a
        loss that reads changing Python numbers in a method that is otherwise `capturable`.

        Under a `ValidatedBudget` the steps are the most that are taken: the validation loss decides the learning rate,
        the end and the weights kept (methods/shared/schedule.py); `on_check` is called at each epoch's end too.
        scheduled: False for a phase with a length, a rate or a selection of its own. judge: mean loss 0-d of a
        validation batch, of the network as it is trained now; None: cross-entropy of `predict`, over the validation
        samples of earlier tasks too where the method rehearses. keep: what training changes in addition to the
        optimiser's parameters and the buffers of the method's networks, as batch norm's statistics in other attributes.

        The host waits for the device once per check, never in between. Raises Diverged at the first
        loss that is not finite.
        """
        self.check_budget()
        samples = task.train if samples is None else samples
        steps = task.budget.steps_for(len(task.train)) if steps is None else steps
        if isinstance(optimizer, Iterable):
            optimizer = adam(optimizer, lr)
        networks = self._trained_networks(optimizer)
        size, last = task.budget.batch_size, first_step + steps
        order = batch_order(len(samples), size, task.order_seed, self.device)
        # Skip the batches of earlier phases, so that the data order continues where they ended.
        for _ in range(first_step):
            next(order)
        # One less than the first step, because each step adds 1 before it computes its loss.
        self.step.fill_(first_step - 1)

        def step(indices: Tensor) -> Tensor:
            self.step.add_(1)
            optimizer.zero_grad(set_to_none=True)
            value = loss(samples.training_batch(indices, self.step))
            value.backward()
            optimizer.step()
            if after_step is not None:
                after_step()
            return value.detach()

        runner = self._runner(step, optimizer, capture and self.capturable, min(check_every, steps), size)
        schedule = schedules.of_fit(self, task, steps, optimizer, judge, keep) if scheduled else None
        start = first_step
        while start < last:
            stop = min(start + check_every, last)
            if schedule is not None:
                stop = min(stop, first_step + schedule.next_look(start - first_step))
            _set_training(networks, True)
            with tally.loop(stop - start, size):
                losses = runner.run([next(order) for _ in range(start, stop)])
            _set_training(networks, False)
            self._check(task, start, last, losses)
            if on_check is not None:
                on_check(stop)
            start = stop
            if schedule is not None and schedule.ends(stop - first_step):
                break
        if schedule is not None:
            schedule.restore()
        self.stepped = runner.how
        if isinstance(runner, stepping.Replayed):
            optimizer.zero_grad(set_to_none=True)  # gradients lie in the recording's memory

    def _runner(
        self, step: stepping.Step, optimizer: Optimizer, capture: bool, longest: int, batch_size: int
    ) -> stepping.Plain | stepping.Replayed:
        """Runner of the steps, at most `longest` of them at once; captured where device and caller permit it."""
        record = stepping.recorder_for(self.device) if capture and not self.step_by_step else None
        if record is None:
            return stepping.Plain(step, self.step_by_step if capture else "")
        settings = partial(stepping.host_settings, optimizer)
        return stepping.Replayed(step, record, settings, self.device, longest, batch_size)

    def check_budget(self) -> None:
        """Raise UserError if the budget given to `begin` has been changed in place."""
        if self._given is not None and self._given[0] != self._given[1]:
            raise UserError(f"{self.name} has changed its budget, from {self._given[1]} to {self._given[0]}")

    def _trained_networks(self, optimizer: Optimizer) -> list[nn.Module]:
        """Modules in evaluation mode that the optimiser trains; `fit` puts them in training mode.

        So batch norm and dropout work without the method's help. A mode that the method sets itself is kept.
        """
        groups = getattr(optimizer, "param_groups", [])
        trained = {id(p) for group in groups for p in group["params"]}
        modules = [network for network in parts.networks(self).values() if not network.training]
        return [module for module in modules if any(id(p) in trained for p in module.parameters())]

    def _check(self, task: Task, start: int, steps: int, losses: Tensor) -> None:
        # The only transfer from the device per check.
        fetched = losses.cpu()
        finite = torch.isfinite(fetched)
        if not finite.all():
            bad = int((~finite).nonzero()[0])
            raise Diverged(task.index, start + bad, float(fetched[bad]))
        report = Progress(task.index, start + len(fetched), steps, float(fetched.mean()))
        self.curve.append(report)
        self.progress(report)

    @torch.no_grad()
    def accuracy(self, samples: Samples, task_id: int | None = None, batch_size: int = 2000) -> Tensor:
        """Share of samples that `predict` classifies correctly, 0-d on the device. Raises UserError for no samples."""
        if len(samples) == 0:
            raise UserError(f"{self.name}: there is no accuracy over no samples; this stream has no validation samples")
        right = torch.zeros((), device=self.device)
        for batch in samples.batches(batch_size):
            right += (self.predict(batch.x, task_id).argmax(1) == batch.y).sum()
        return right / len(samples)

    # -- state -----------------------------------------------------------------------------------

    def exhibits(self) -> dict[str, Exhibit]:
        """Small tables of what was learnt, by name; called once, after the last task; must have no side effects.

        The report draws `embeddings` (task, dimension, lower, middle, upper) and `mask-overlap` (task, other,
        overlap), tasks and dimensions counted from 0. Others are stored with the record unchanged.
        """
        return {}

    def state_dict(self) -> dict[str, Any]:
        """All state that `learn` may have changed, as tensors, numbers, strings, lists and dicts.

        A tensor that is shared between two places is shared again after loading. Raises StateError for
        values that cannot be serialised.
        """
        return state.collect(self)

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Restore a state that `state_dict` returned, on this method's device."""
        state.restore(self, saved)

    def parameters_trained(self) -> int:
        """Number of scalars that training may change, of networks and of free-standing parameters, each once."""
        return sum(p.numel() for p in parts.parameters(self) if p.requires_grad)

    def parameters_stored(self) -> int:
        """Size of what must be kept between tasks to predict and to learn further tasks, in numbers of 32 bits.

        It is the state without attributes that only the audit reads (`audit...`) and without `rebuilt`. A float64
        counts as two numbers, 32 packed bits of a mask as one.
        """
        return state.size(self.state_dict(), self.rebuilt())

    def rebuilt(self) -> Sequence[Tensor | Mapping[str, Tensor]]:
        """Tensors of the state that need not be kept between tasks, so that `parameters_stored` leaves them out.

        Copies of other state, values that the next task overwrites before it reads them, and the initial values of
        tasks not yet learnt.
        """
        return ()


def _set_training(networks: Iterable[nn.Module], training: bool) -> None:
    for network in networks:
        network.train(training)
