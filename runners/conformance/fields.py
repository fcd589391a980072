"""Check that every field of the Config has an effect."""

from __future__ import annotations

import dataclasses
import hashlib
import time
import typing
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from types import UnionType
from typing import Any, Literal, NamedTuple, Union

import torch

from benchmarks.stream import Stream
from methods.base import Certifying, Inferring, Method
from methods.search import Even, Log, OneOf
from runners.conformance.check import Check
from runners.conformance.trial import Trial

SECONDS = 30.0


class _Run(NamedTuple):
    """Result of a short run, and the fields of the Config that it read."""

    digest: str
    read: frozenset[str]


def unused(trials: Sequence[Trial], seconds: float = SECONDS) -> Iterator[str]:
    """Fields without effect: their other values change no number, alone or combined with one changed other field.

    A field that a run did not read cannot have changed it, so it is tried only where it is read; combinations
    that make a run read it come before those that read it anyhow. Fields that seem idle in short runs (of schedules,
    of model selection) get longer ones, in which every step is an epoch, and then a network with batch norm. seconds:
    of processor time; no further combinations are tried after it, and what is then still open is not reported; nor are
    fields for which no other value is known (text that is no Literal).
    """
    deadline = time.process_time() + seconds
    idle = {item.name for item in dataclasses.fields(trials[0].config) if _others(trials[0], item.name)}
    for stream in ("three", "three_longer", "three_normed"):
        pairs = [(trial, getattr(trial, stream)) for trial in trials] if idle else []
        if stream == "three":
            for trial, short in pairs:  # a method that raises here would seem to read no field
                _tried(trial, short, {})
        idle = _idle(pairs, idle, deadline) if idle else idle
    if time.process_time() <= deadline:
        yield from (f"changing {name} changes no number in any scenario" for name in sorted(idle))


def _idle(trials: Sequence[tuple[Trial, Stream]], names: Iterable[str], deadline: float) -> set[str]:
    idle = set(names)
    alone = [(trial, stream, run) for trial, stream in trials if (run := _run(trial, stream, {})) is not None]
    for trial, stream, run in alone:
        idle -= set(_effective(trial, stream, {}, run, idle & run.read, deadline))
    beside = []
    for (trial, stream, first), context in product(alone, variants(trials[0][0])):
        if not idle or time.process_time() > deadline:
            break
        if (run := _run(trial, stream, context)) is not None:
            beside.append((trial, stream, context, run, run.read & first.read))
            idle -= set(_effective(trial, stream, context, run, idle & run.read - first.read, deadline))
    for trial, stream, context, run, read in beside:
        idle -= set(_effective(trial, stream, context, run, idle & read, deadline))
    return idle


def variants(trial: Trial) -> Iterator[dict[str, Any]]:
    """Other values of each field with few values or switched off: some fields matter only together with these."""
    for item in dataclasses.fields(trial.config):
        kind = _hints(trial)[item.name]
        if kind is bool or typing.get_origin(kind) is Literal or not getattr(trial.config, item.name):
            for value in _others(trial, item.name):
                yield {item.name: value}


def _effective(
    trial: Trial, stream: Stream, context: dict[str, Any], base: _Run, names: Iterable[str], deadline: float
) -> Iterator[str]:
    for name in sorted(set(names) - set(context)):
        for value in _others(trial, name):
            if time.process_time() > deadline:
                return
            changed = _run(trial, stream, {**context, name: value})
            if changed is not None and changed.digest != base.digest:
                yield name
                break


def _run(trial: Trial, stream: Stream, values: dict[str, Any]) -> _Run | None:
    """Run through the three tasks of a stream; None where the values are refused."""
    try:
        return _tried(trial, stream, values)
    except (Exception, SystemExit):
        return None


def _tried(trial: Trial, stream: Stream, values: dict[str, Any]) -> _Run | None:
    """Same as `_run`, but raises what the method raises."""
    config, read = _watched(dataclasses.replace(trial.config, **values))
    if trial.cls.skip(stream.spec, config) is not None:
        return None
    method = trial.learn(trial.made(stream, config), stream, range(3))
    found = [trial.answer(method, stream.test(j).x[:40], j) for j in range(3)]
    found += _extras(method, stream.test(0).x[:40])
    digest = hashlib.sha256()
    for tensor in found:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return _Run(digest.hexdigest(), frozenset(read))


def _watched(config: Any) -> tuple[Any, set[str]]:
    """Config whose class records every field that is read from now on, and that record."""
    names, read = {item.name for item in dataclasses.fields(config)}, set[str]()

    def look(self: Any, name: str) -> Any:
        if name in names:
            read.add(name)
        return object.__getattribute__(self, name)

    watching = type(type(config).__name__, (type(config),), {"__getattribute__": look})
    copied = object.__new__(watching)
    for name in names:
        object.__setattr__(copied, name, getattr(config, name))
    return copied, read


@torch.no_grad()
def _extras(method: Method, x: torch.Tensor) -> list[torch.Tensor]:
    """Certificates and inferred tasks, where there are any."""
    found: list[torch.Tensor] = []
    try:
        found += [method.infer_task(x)] if isinstance(method, Inferring) else []
        found += list(method.bounds(x, 0)) if isinstance(method, Certifying) else []
    except (NotImplementedError, AttributeError, RuntimeError, ValueError):
        pass
    return found


def _hints(trial: Trial) -> dict[str, Any]:
    return typing.get_type_hints(type(trial.config))


def _others(trial: Trial, name: str) -> list[Any]:
    """Values of a field other than its own."""
    value, kind = getattr(trial.config, name), _hints(trial)[name]
    declared = getattr(type(trial.config), "search", {}).get(name)
    found = [*_declared(declared), *_of_kind(kind, value)]
    return [other for other in found if other != value]


def _declared(wanted: Log | Even | OneOf | None) -> list[Any]:
    if isinstance(wanted, OneOf):
        return list(wanted.values)
    if isinstance(wanted, Log):
        return [(wanted.low * wanted.high) ** 0.5, wanted.low, wanted.high]
    return [0.3 * wanted.low + 0.7 * wanted.high] if isinstance(wanted, Even) else []


def _of_kind(kind: Any, value: Any) -> list[Any]:
    if typing.get_origin(kind) is Literal:
        return list(typing.get_args(kind))
    if typing.get_origin(kind) in (Union, UnionType):
        return [other for option in typing.get_args(kind) for other in _of_kind(option, value)]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float) or value is None:
        number = value or 1
        if kind is int:
            return [number + 1, 2 * number, max(1, number // 8), 3]
        return [float(number) * 0.3, 0.6, float(number) * 5] if kind is float else []
    if isinstance(value, tuple | list):
        changed = [part + 3 if isinstance(part, int) else part * 0.5 for part in value]
        return [type(value)(other) for other in ([changed] if value else ([0.25], [0.25, 0.5]))]
    return []


CHECK = Check(
    "fields",
    "every field of the Config changes something",
    "A field without effect is searched, reported and defended for nothing, and often is a value lost on its way.",
    lambda trial: unused([trial]),
)
