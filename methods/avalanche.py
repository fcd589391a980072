"""Strategies of Avalanche (https://avalanche.continualai.org) as methods: `avalanche:Replay`, `avalanche:GEM`, ...

`method(name)` makes a Method of any supervised strategy of `avalanche.training.supervised`. Its Config has the
optimiser, the learning rate and the parameters of the strategy's constructor. The strategy trains by its own code and
in its own batch order, on our stream, until our budget of iterations is spent. Its metrics are not used. Each task gets
a fresh optimiser, as in all methods here.

TIL: one output layer, of which each task's outputs are its head, by Avalanche's MultiTaskModule. CIL: outputs of unseen
classes are masked, as in Avalanche's IncrementalClassifier. Only this file and benchmarks/avalanche.py import
Avalanche. These methods do not resume, because a strategy does not serialise to plain tensors: an interrupted cell
starts over.
"""

from __future__ import annotations

import inspect
import random
import re
import typing
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import field, make_dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from benchmarks.samples import Samples
from benchmarks.types import StreamSpec, UserError, ValidatedBudget, suggestion
from methods.base import CIL, DIL, TIL, Method, Scenario, Task
from methods.search import LEARNING_RATE, Even, Log, Range, ranges
from methods.shared import optimizers

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Avalanche's own warnings; a user cannot act on them
    from avalanche.benchmarks import benchmark_from_datasets, with_classes_timeline, with_task_labels
    from avalanche.benchmarks.utils import AvalancheDataset
    from avalanche.core import SupervisedPlugin
    from avalanche.models import MultiTaskModule
    from avalanche.training import supervised
    from avalanche.training.plugins import EvaluationPlugin
    from avalanche.training.templates import SupervisedTemplate

from benchmarks.avalanche import dataset_of, forget_the_rest

PREFIX = "avalanche:"
MASKED = -1000.0
"""Logit of an unseen class; the value of Avalanche's IncrementalClassifier."""
STEPS_BETWEEN_CHECKS = 50
_GIVEN = {
    "self", "model", "optimizer", "criterion", "train_mb_size", "train_epochs", "eval_mb_size", "device", "plugins",
    "evaluator", "eval_every", "peval_mode", "base_kwargs", "kwargs", "verbose", "input_size", "lr",
}  # fmt: skip
_DEFAULTS: dict[str, Any] = {
    "ewc_lambda": 1000.0, "si_lambda": 1.0, "lambda_e": 1.0, "alpha": 1.0, "temperature": 2.0, "patterns_per_exp": 64,
    "mem_size": 200, "subsample": 50,
}  # fmt: skip
"""Defaults of parameters to which Avalanche gives none."""
_SEARCH: dict[str, Range] = {
    "lr": LEARNING_RATE, "ewc_lambda": Log(1e-1, 1e7), "si_lambda": Log(1e-3, 1e5), "lambda_reg": Log(1e-5, 1e3),
    "lambda_e": Log(1e-3, 1e5), "alpha": Log(1e-2, 1e2),
}  # fmt: skip
_SHARES: dict[str, dict[str, Range]] = {"MAS": {"alpha": Even(0.0, 1.0)}}
"""Parameters in [0, 1] that the strategy does not check; above 1, importances of MAS become negative."""
_NETWORK = "it brings or needs a network of its own, while the suite gives every method the same one"
_EXCLUDED = {
    "AETraining": "it trains an autoencoder",
    "VAETraining": "it trains a generator",
    "AR1": _NETWORK,
    "BiC": "its second stage trains outside of the budget that holds for all methods",
    "CWRStar": "it needs the name of an output layer of its own for every task",
    "CoPE": "it answers by prototypes, not by logits of its network",
    "ER_AML": _NETWORK,
    "ExpertGateStrategy": _NETWORK,
    "FeatureReplay": _NETWORK,
    "GenerativeReplay": "its generator trains outside of the budget that holds for all methods",
    "ICaRL": "it answers by the nearest mean of features, not by logits of its network",
    "LFL": _NETWORK,
    "JointTraining": "it learns from the whole stream at once; `joint` and avalanche:Cumulative are references here",
    "LearningToPrompt": _NETWORK,
    "MER": "it trains by a loop of its own, outside of the budget that holds for all methods",
    "PNNStrategy": _NETWORK,
    "PackNet": _NETWORK,
    "SCR": _NETWORK,
    "StreamingLDA": _NETWORK,
}
_ONLY_IN: dict[str, tuple[frozenset[Scenario], str]] = {
    "DER": (frozenset({DIL, CIL}), "it asks the network for answers without saying for which task"),
    "GSS_greedy": (frozenset({DIL, CIL}), "it asks the network for answers without saying for which task"),
    "MIR": (frozenset({CIL}), "it replays classes only that the latest batch lacks, and here every task has them all"),
}
_MEMORIES = {"mem_size": False, "patterns_per_exp": True}
"""Parameters that set how many samples are kept -> whether the number is per task (else in total)."""
_OF_THE_LATEST = {"experience", "adapted_dataset", "dataloader", "mbatch"}
"""Attributes through which a strategy would keep the latest task's data until the next task; cleared after each."""
_OF_A_STEP = re.compile("loss|mb_.*|batch_logits|reference_gradients|G")
"""Attributes of strategies and plugins that every step makes anew; they are not counted as stored."""
_UNMASKED = {"DER"}
"""Strategies that compare raw logits across tasks, which masking would falsify."""


def names() -> list[str]:
    """Names `avalanche:NAME` of the strategies that can run as methods."""
    return [PREFIX + name for name in sorted(_strategies()) if name not in _EXCLUDED]


@cache
def method(name: str) -> type[Method]:
    """Return the Method that runs the strategy `avalanche:NAME`. Raises UserError for a name unknown to Avalanche."""
    known = _strategies()
    plain = name.removeprefix(PREFIX)
    if plain not in known:
        hint = suggestion(plain, known, PREFIX)
        raise UserError(f"Avalanche has no supervised strategy {plain!r}.{hint} It has: {', '.join(sorted(known))}")
    strategy = known[plain]
    body = {
        "__doc__": f"Avalanche's {plain}: {_summary(strategy)}",
        "__module__": __name__,
        "name": PREFIX + plain,
        "strategy_class": strategy,
        "rehearses": plain == "Cumulative",
        "Config": _config(plain, strategy),
    }
    return type(f"Avalanche{plain}", (AvalancheMethod,), body)


def _strategies() -> dict[str, type]:
    return {
        name: found
        for name, found in vars(supervised).items()
        if inspect.isclass(found) and (issubclass(found, SupervisedTemplate) or name == "MER")
    }


def _summary(strategy: type) -> str:
    return (inspect.getdoc(strategy) or "").split("\n")[0].rstrip(".") + "."


def _config(name: str, strategy: type) -> type:
    """Make a frozen dataclass of the optimiser and the strategy's own parameters."""
    entries: list[tuple[str, Any, Any]] = [
        ("lr", float, field(default=1e-3)),
        ("optimizer", Literal["adam", "sgd"], field(default="adam")),
    ]
    for parameter in inspect.signature(strategy.__init__).parameters.values():
        if parameter.name in _GIVEN or parameter.kind is parameter.VAR_KEYWORD:
            continue
        default = _DEFAULTS.get(parameter.name) if parameter.default is parameter.empty else parameter.default
        kind = _type(parameter.annotation, default)
        if kind is not None:
            entries.append((parameter.name, kind, field(default=default)))
    shares = _SHARES.get(name, {})

    def check(config: Any) -> None:
        if wrong := [key for key in shares if not 0 <= getattr(config, key) <= 1]:
            raise UserError(f"{wrong[0]} = {getattr(config, wrong[0])} must lie in [0, 1]")

    made = make_dataclass("Config", entries, frozen=True, namespace={"__post_init__": check})
    made.__module__, made.__qualname__ = __name__, f"Avalanche{name}.Config"
    made.search = ranges(**{key: each for key, each in (_SEARCH | shares).items() if key in {e[0] for e in entries}})  # type: ignore[attr-defined]
    return made


def _type(annotation: Any, default: Any) -> Any:
    """Type of a parameter in a suite file; None where neither text nor number can express it."""
    plain = {int, float, bool, str}
    options = [option for option in typing.get_args(annotation) or (annotation,) if option in plain]
    if default is None:
        return options[0] | None if options else None
    if type(default) not in plain:
        return None
    fits = (kind for kind in options if kind is type(default) or (kind is float and type(default) is int))
    return next(fits, type(default))  # an annotation may be wrong: `temperature: int = 0.1`


class AvalancheMethod(Method):
    """Base of the methods that run a strategy; `method(name)` makes the subclass."""

    strategy_class: type
    data_set: Callable[[Samples, int], AvalancheDataset] = staticmethod(dataset_of)
    """Factory of the data set that a strategy trains on, from samples and their task label."""
    resumable = False

    @classmethod
    def skip(cls, spec: StreamSpec, config: Any) -> str | None:
        plain = cls.name.removeprefix(PREFIX)
        if plain in _EXCLUDED:
            return f"Avalanche's {plain} cannot run here: {_EXCLUDED[plain]}"
        scenarios, reason = _ONLY_IN.get(plain, (frozenset(Scenario), ""))
        if spec.scenario not in scenarios:
            return f"Avalanche's {plain} is not run in {spec.scenario}: {reason}"
        parameters = inspect.signature(cls.strategy_class.__init__).parameters.values()
        needed = [p.name for p in parameters if p.default is p.empty and p.kind is p.KEYWORD_ONLY]
        missing = [name for name in needed if name not in _GIVEN and not hasattr(config, name)]
        return f"Avalanche's {plain} needs {', '.join(missing)}, which no suite file can give" if missing else None

    def build(self) -> None:
        unmasked = self.name.removeprefix(PREFIX) in _UNMASKED
        self.now = _Now()
        model = _Heads(self.network(), self.spec) if self.spec.scenario is TIL else None
        self.model: Any = model or _Shared(self.network(), self.spec, None if unmasked else self.now).to(self.device)
        sizes = ((getattr(self.config, key, 0), each) for key, each in _MEMORIES.items())
        self.memory_samples = sum(size * (self.spec.n_tasks if each else 1) for size, each in sizes)
        self.strategy: Any = None

    def learn(self, task: Task) -> None:
        if isinstance(task.budget, ValidatedBudget):
            raise UserError(
                f"{self.name}: the budget of {self.spec.benchmark} is a schedule by validation loss, which Avalanche's "
                "training loop does not follow; leave the method out there"
            )
        steps = task.budget.steps_for(len(task.train))
        with _own_randomness():
            if self.strategy is None:
                self.strategy = self._made(task.budget.batch_size)
            self.now.task = task.index
            self.strategy.plugins.insert(0, limit := _Limit(self, task, steps))
            self.strategy.optimizer = optimizers.make(self.config.optimizer, self.model.parameters(), self.config.lr)
            self.strategy.optimized_param_id = None
            # More epochs than the budget needs, because `_Limit` ends training after `steps` iterations.
            self.strategy.train_epochs = steps + 1
            try:
                self.strategy.train(self._experience(task))
            finally:
                self.strategy.plugins.remove(limit)
                self.strategy._stop_training = False
            self.model = self.strategy.model  # some strategies put another one in its place
            for name in _OF_THE_LATEST & set(vars(self.strategy)):
                setattr(self.strategy, name, None)
            forget_the_rest(part for part in self._kept() if not isinstance(part, Tensor))

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        was, self.model.training = self.model.training, False
        self.model.eval()
        try:
            return self.answerable(self.model.net(x), task_id)
        finally:
            self.model.train(was)

    def parameters_stored(self) -> int:
        """Scalars of the network and of all tensors and samples that strategy and plugins keep, copies included."""
        network = sum(p.numel() for p in self.model.state_dict().values())
        sample = torch.Size(self.spec.input_shape).numel() + 1
        parts = (p.numel() if isinstance(p, Tensor) else len(p) * sample + _attached(p) for p in self._kept())
        return network + sum(parts)

    def _kept(self) -> Iterator[Tensor | AvalancheDataset]:
        """Yield the tensors and data sets reachable from the strategy and its plugins, except the network's."""
        if self.strategy is None:
            return
        network = (*self.model.modules(), *self.model.parameters(), *self.model.buffers())
        known = {id(self.strategy), id(self.strategy.optimizer), *map(id, network)}
        for holder in (self.strategy, *self.strategy.plugins):
            known |= {id(value) for name, value in vars(holder).items() if _OF_A_STEP.fullmatch(name)}
        for root in (*self.strategy.plugins, vars(self.strategy)):
            yield from _below(root, known)

    def state_dict(self) -> dict[str, Any]:
        """State of the network only, for inspection; see `resumable`."""
        return {"model": {key: value.detach().clone() for key, value in self.model.state_dict().items()}}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        raise UserError(f"{self.name} cannot resume from a checkpoint: Avalanche's strategies keep more than tensors")

    def _made(self, batch_size: int) -> Any:
        shaped = "input_size" in inspect.signature(self.strategy_class.__init__).parameters
        options: dict[str, Any] = {"input_size": list(self.spec.input_shape)} if shaped else {}
        options |= {key: getattr(self.config, key) for key in vars(self.config) if key not in ("lr", "optimizer")}
        try:
            return self.strategy_class(
                model=self.model,
                optimizer=optimizers.make(self.config.optimizer, self.model.parameters(), self.config.lr),
                criterion=nn.CrossEntropyLoss(),
                train_mb_size=batch_size,
                eval_mb_size=batch_size,
                device=self.device,
                evaluator=EvaluationPlugin(),
                **options,
            )
        except (AssertionError, ValueError) as error:  # its own checks of options
            raise UserError(f"{self.name} does not run with {options}: {error}") from error

    def _experience(self, task: Task) -> Any:
        """Convert the task to Avalanche's experience; task labels are given in TIL only."""
        label = task.index if self.spec.scenario is TIL else 0
        alone = benchmark_from_datasets(train=[self.data_set(task.train, label)])
        stream: Any = with_classes_timeline(with_task_labels(alone))
        experience: Any = next(iter(stream.train_stream))
        experience.current_experience = task.index
        return experience


class _Now:
    """Index of the current task, shared by all copies of a network."""

    task = 0

    def __deepcopy__(self, _memo: dict[int, Any]) -> _Now:
        return self


class _Shared(nn.Module):
    """DIL and CIL: one network for all tasks; in CIL logits of future classes are masked if `now` is given."""

    def __init__(self, net: nn.Module, spec: StreamSpec, now: _Now | None) -> None:
        super().__init__()
        self.net, self.spec = net, spec
        self.now = now if spec.scenario is CIL else None

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        if self.now is None:
            return logits
        seen = self.spec.outputs_before(self.now.task + 1)
        to_come = torch.arange(logits.shape[1], device=logits.device) >= seen
        return logits.masked_fill(to_come, MASKED)


class _Heads(MultiTaskModule):
    """TIL: each task's outputs are its head."""

    def __init__(self, net: nn.Module, spec: StreamSpec) -> None:
        super().__init__()
        self.net, self.spec = net, spec

    def adaptation(self, experience: Any) -> None:
        """Register the task's label; the heads exist from the start."""
        self.max_class_label = self.spec.classes_per_task
        if self.training:
            self.known_train_tasks_labels |= set(experience.task_labels)

    def forward_single_task(self, x: Tensor, task_label: int) -> Tensor:
        own = self.net(x)[:, self.spec.outputs_of(task_label)]
        gap = self.spec.classes_per_task - own.shape[1]  # Avalanche would fill it with logits of 0
        return pad(own, (0, gap), value=MASKED) if gap else own


class _Limit(SupervisedPlugin):
    """Plugin that stops training after the budget's iterations and reports the loss as `Method.fit` does."""

    def __init__(self, owner: AvalancheMethod, task: Task, steps: int) -> None:
        super().__init__()
        self.owner, self.of, self.steps = owner, task, steps
        self.losses: list[Tensor] = []
        self.done = 0

    def after_training_iteration(self, strategy: Any, *_: Any, **__: Any) -> None:
        self.losses.append(strategy.loss.detach())
        if len(self.losses) == STEPS_BETWEEN_CHECKS or self.done + len(self.losses) == self.steps:
            self.owner._check(self.of, self.done, self.steps, torch.stack(self.losses))
            self.done += len(self.losses)
            self.losses = []
        if self.done == self.steps:
            strategy.stop_training()


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Seed Python's and NumPy's generators from torch's and restore all three on exit; silences warnings."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    # `begin` seeds torch's generator per task, so these two are seeded per task as well. NumPy takes 32 bits.
    seed = torch.initial_seed() % 2**32
    random.seed(seed)
    np.random.seed(seed)
    try:
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def _attached(data: AvalancheDataset) -> int:
    """Scalars that a data set keeps with its samples besides labels, e.g. DER's logits."""
    own = (each for name, each in data._data_attributes.items() if name not in ("targets", "targets_task_labels"))
    return sum(value.numel() if isinstance(value, Tensor) else 1 for each in own for value in each)


def _below(value: Any, known: set[int]) -> Iterator[Tensor | AvalancheDataset]:
    """Yield the tensors and data sets reachable through attributes and containers, each once."""
    if id(value) in known or isinstance(value, AvalancheMethod | Task | str):
        return
    known.add(id(value))
    if isinstance(value, Tensor | AvalancheDataset):
        yield value
        return
    if isinstance(value, dict):
        parts: Any = value.values()
    elif isinstance(value, list | tuple | set):
        parts = value
    else:
        parts = vars(value).values() if hasattr(value, "__dict__") and not inspect.isclass(value) else ()
    for part in list(parts):
        yield from _below(part, known)
