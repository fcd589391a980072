"""Checks of a method's answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from benchmarks.types import CIL, TIL, UserError, derived_seed
from methods.base import Certifying, Inferring, Method
from runners.conformance.check import Check
from runners.conformance.trial import BENCHMARK, Trial, accuracy_of, equal
from runners.grid import hyperparameters

LEARNT = 0.9
PLAIN = "use numbers, texts, true or false, None, members of an Enum, and lists or tuples of them"
RELATIVE, ABSOLUTE = 1e-3, 1e-4
"""Batches of other sizes are summed in another order; nothing else may differ."""
ASKED = 20
"""Samples of a question whose answer does not matter."""
LARGE = 2000
"""As many samples as the evaluation gives a method at once."""


def _configuration(trial: Trial) -> Iterator[str]:
    config_class: Any = trial.cls.Config
    if not config_class.__dataclass_params__.frozen:
        yield "Config is not frozen: write @dataclass(frozen=True)"
    config = config_class()
    for name, value in hyperparameters.as_json(config).items():
        try:
            written = json.loads(json.dumps(value))
            again = hyperparameters.as_json(hyperparameters.configure(trial.cls.name, config_class, {name: written}))
        except (UserError, TypeError, ValueError, RecursionError) as error:
            yield f"{name} = {value!r:.60} does not come back from JSON ({error}); {PLAIN}"
            continue
        if again[name] != value:
            yield f"{name} = {value!r:.60} comes back from JSON as {again[name]!r:.60}"


def _learns(trial: Trial) -> Iterator[str]:
    # Each as a first task: how much room a promise to the first leaves for the second is a result, not an error.
    other = trial.other
    method = trial.learn(trial.made(other), other, [0])
    second = accuracy_of(trial.answer(method, other.test(0).x, 0), other.test(0))
    for name, accuracy in ((trial.stream.task_names[0], trial.run.accuracies[0]), (other.task_names[0], second)):
        if accuracy <= LEARNT:
            yield f"after learning to tell the digits {name} apart it is right for {accuracy:.0%} of the test samples"


def _logits(trial: Trial) -> Iterator[str]:
    run, per_task = trial.run, BENCHMARK.largest_task
    stages = [(0, 0, run.early)] + [(i + 1, j, x) for i, row in enumerate(run.answers) for j, x in enumerate(row)]
    for learnt, j, logits in stages:
        classes = per_task * max(1, learnt) if trial.scenario is CIL else per_task
        expected = (len(trial.stream.test(j)), classes)
        where = f"after {learnt} of {len(trial.stream)} tasks the logits for task {j}"
        if tuple(logits.shape) != expected:
            yield f"{where} have the shape {tuple(logits.shape)}, not {expected}"
        elif not torch.isfinite(logits).all():
            yield f"{where} are not all finite"
    x = trial.stream.test(0).x
    for size in (1, 2, 7):
        logits = trial.answer(run.method, x[:size], 0)
        if len(logits) != size:
            yield f"for a batch of {size} there are {len(logits)} rows of logits"


def _independence(trial: Trial) -> Iterator[str]:
    method, together = trial.run.method, trial.run.answers[-1]
    x = trial.stream.test(0).x
    alone = torch.cat([trial.answer(method, x[i : i + 1], 0) for i in range(16)])
    if not _close(alone, together[0][:16]):
        yield "a sample alone gets other logits than in a batch"
    if not _close(trial.answer(method, x.flip(0), 0).flip(0), together[0]):
        yield "the order of the samples in a batch changes their logits"
    if trial.scenario is not TIL:
        mixed = trial.answer(method, torch.stack([x[:20], trial.stream.test(1).x[:20]], 1).flatten(0, 1), 0)
        if not (_close(mixed[0::2], together[0][:20]) and _close(mixed[1::2], together[1][:20])):
            yield "samples of two tasks in one batch get other logits than apart"
        count = min(len(x), len(trial.stream.test(1).x))
        pair = torch.stack([x[:count], trial.stream.test(1).x[:count]], 1).flatten(0, 1)
        large = trial.answer(method, pair.repeat(-(-LARGE // len(pair)), *[1] * (pair.dim() - 1)), 0)[: len(pair)]
        if not (_close(large[0::2], together[0][:count]) and _close(large[1::2], together[1][:count])):
            yield f"samples of two tasks in a batch of {LARGE} or more get other logits than apart"


def _purity(trial: Trial) -> Iterator[str]:
    method, x = trial.run.method, trial.stream.test(0).x
    before, generator = method.state_dict(), torch.get_rng_state()
    trial.answer(method, x, 0)
    again = trial.answer(method, x, 0)
    changed = [
        name for name, value in method.state_dict().items() if name not in before or not equal(before[name], value)
    ]
    for name in changed:
        yield f"predict changes the attribute {name}"
    if not torch.equal(generator, torch.get_rng_state()):
        yield "predict draws from torch's global generator"
    for name, ask, lowest in _questions(trial):
        probe = 3 * trial.stream.test(0).x[:ASKED] + lowest  # beyond the range of pixels, where a clamp acts
        kept = probe.clone()
        with suppress(NotImplementedError), torch.no_grad():
            ask(probe)
        if not equal(kept, probe):
            yield f"{name} changes the samples that it is given"
    if not _close(again, trial.run.answers[-1][0]):
        yield "the same samples get other logits when asked again"


def _questions(trial: Trial) -> Iterator[tuple[str, Callable[[Tensor], Any], float]]:
    """Functions that get test samples, by name, and the lowest value of their inputs: bounds may take 0 for granted."""
    method: Any = trial.run.method
    yield "predict", lambda x: trial.answer(method, x, 0), -1.0
    if isinstance(method, Inferring) and trial.scenario is CIL:
        yield "infer_task", method.infer_task, -1.0
    if isinstance(method, Certifying):
        yield "bounds", lambda x: method.bounds(x, 0), 0.0


def _identity(trial: Trial) -> Iterator[str]:
    method, x = trial.run.method, trial.stream.test(0).x
    if trial.scenario is TIL:
        with torch.no_grad():
            first, second = method.predict(x, 0), method.predict(x, 1)
        if torch.equal(first, second):
            yield "in TIL the logits are the same for both task ids: the id has no effect"
        return
    with torch.no_grad():
        tasks = method.infer_task(x)  # type: ignore[attr-defined]
    known = 0 <= int(tasks.min()) <= int(tasks.max()) < 2
    if tasks.shape != (len(x),) or tasks.dtype != torch.int64 or not known:
        yield f"infer_task gives {tasks.dtype} of the shape {tuple(tasks.shape)}, not a known task for each"


def _no_identity(trial: Trial) -> str:
    if trial.scenario is TIL or (trial.scenario is CIL and isinstance(trial.run.method, Inferring)):
        return ""
    return "no task is told, and none is inferred"


def _seeds(trial: Trial) -> Iterator[str]:
    states, built, learnt = [], [], []
    for seed in (0, 0, 1):
        method = _made(trial, seed)
        built.append(torch.get_rng_state())
        states.append(trial.learn(method, trial.short, [0]).state_dict())
        learnt.append(torch.get_rng_state())
    for function, drawn in (("build", built), ("learn", learnt)):
        if torch.equal(drawn[0], drawn[2]):
            yield f"{function} seeds torch's generator: after it, runs with different seeds draw the same numbers"
    if not equal(states[0], states[1]):
        yield "two runs with the same seed end in different states"
    if equal(states[0], states[2]) and not (trial.in_closed_form and not _draws(trial)):
        yield "runs with different seeds end in the same state"


def _draws(trial: Trial) -> bool:
    """Check whether torch's generator, in which the seed is, is touched by building the method or learning a task."""
    method, task = _made(trial, 0), trial.short.task(0, previous=trial.cls.rehearses)
    built = torch.get_rng_state()
    torch.manual_seed(derived_seed(0, method.spec.benchmark, method.spec.scenario, "init"))
    touched = not torch.equal(built, torch.get_rng_state())
    method.begin(task)
    begun = torch.get_rng_state()
    method.learn(task)
    return touched or not torch.equal(begun, torch.get_rng_state())


def _made(trial: Trial, seed: int) -> Method:
    return trial.made(trial.short, seed=seed)


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a.float(), b.float(), rtol=RELATIVE, atol=ABSOLUTE)


CHECKS = (
    Check(
        "configuration",
        "Config is a frozen dataclass with a default for every field, and survives being written as JSON",
        "Records, suite files and the command line carry a configuration as JSON; what does not come back is not run.",
        _configuration,
    ),
    Check(
        "learns",
        f"two easy tasks of the digits are learnt to more than {LEARNT:.0%}",
        "A method that does not learn these two tasks with its defaults will look bad for the wrong reason.",
        _learns,
    ),
    Check(
        "logits",
        "logits are finite and have one column for each class that may be answered, for any batch size",
        "Accuracy is the arg-max over exactly those classes; one column more or less is another task.",
        _logits,
    ),
    Check(
        "independence",
        "an answer depends on its sample alone",
        "Test samples come one by one in use; statistics of the test batch give away its task and its classes.",
        _independence,
    ),
    Check(
        "purity",
        "predict changes neither the method nor its samples nor the random generator",
        "Evaluation would train the method on test samples, and results would depend on how often it is evaluated.",
        _purity,
    ),
    Check(
        "task identity",
        "in TIL the task id chooses the answers; in CIL a guess of the task names one that was learnt",
        "In TIL only the right head counts; the accuracy of task inference is reported separately.",
        _identity,
        _no_identity,
    ),
    Check(
        "seeds",
        "the same seed gives the same numbers, another seed gives others (unless they are computed in closed form)",
        "Without the first a record cannot be made again; without the second the spread over seeds is a fiction.",
        _seeds,
    ),
)
