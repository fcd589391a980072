"""The check that every field of the Config does something."""

from __future__ import annotations

import dataclasses
import hashlib
import time
import typing
from collections.abc import Iterator, Sequence
from itertools import chain
from types import UnionType
from typing import Any, Literal, Union

import torch

from methods.base import Certifying, Method
from methods.search import Even, Log, OneOf
from runners.conformance.check import Check
from runners.conformance.trial import Trial

SECONDS = 30.0
"""No further combinations are tried after this time; what is then still open is not reported."""


def unused(trials: Sequence[Trial]) -> Iterator[str]:
    """Fields whose other values change no number: alone, or beside another value of one other field."""
    deadline = time.monotonic() + SECONDS
    first = trials[0]
    open_fields = {item.name for item in dataclasses.fields(first.config)}
    for context in chain([{}], _contexts(first)):
        for trial in trials:
            open_fields -= set(_effective(trial, context, sorted(open_fields - set(context)), deadline))
        if not open_fields or time.monotonic() > deadline:
            break
    if time.monotonic() <= deadline:
        yield from (f"changing {name} changes no number in any scenario" for name in sorted(open_fields))


def _contexts(trial: Trial) -> Iterator[dict[str, Any]]:
    """Each other value of each field with few values: some fields matter only beside one of those."""
    for item in dataclasses.fields(trial.config):
        kind = _hints(trial)[item.name]
        if kind is bool or typing.get_origin(kind) is Literal or getattr(trial.config, item.name) is None:
            for value in _others(trial, item.name):
                yield {item.name: value}


def _effective(trial: Trial, context: dict[str, Any], names: Sequence[str], deadline: float) -> Iterator[str]:
    base = _digest(trial, context)
    if base is None:
        return
    for name in names:
        for value in _others(trial, name):
            if time.monotonic() > deadline:
                return
            changed = _digest(trial, {**context, name: value})
            if changed is not None and changed != base:
                yield name
                break


def _digest(trial: Trial, values: dict[str, Any]) -> str | None:
    """Hash of what a short run ends in; None where the values are refused."""
    try:
        config = dataclasses.replace(trial.config, **values)
        stream = trial.three
        if trial.cls.skip(stream.spec, config) is not None:
            return None
        method = trial.learn(trial.made(stream, config), stream, range(3))
        found = [trial.answer(method, stream.test(j).x[:40], j) for j in range(3)]
        found += _extras(method, stream.test(0).x[:40])
    except Exception:
        return None
    digest = hashlib.sha256()
    for tensor in found:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def _extras(method: Method, x: torch.Tensor) -> list[torch.Tensor]:
    """Certificates and inferred tasks, where there are any."""
    found: list[torch.Tensor] = []
    infer: Any = getattr(method, "infer_task", None)
    try:
        found += [infer(x)] if infer is not None else []
        found += list(method.bounds(x, 0)) if isinstance(method, Certifying) else []
    except (NotImplementedError, AttributeError, RuntimeError, ValueError):
        pass
    return found


def _hints(trial: Trial) -> dict[str, Any]:
    return typing.get_type_hints(type(trial.config))


def _others(trial: Trial, name: str) -> list[Any]:
    """Values of a field beside its own."""
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
        parts = list(value)
        changed = [part + 3 if isinstance(part, int) else part * 0.5 for part in parts] or [0.5]
        return [type(value)(changed)]
    return []


CHECK = Check(
    "fields",
    "every field of the Config changes something",
    "A field without effect is searched, reported and defended for nothing, and often is a value lost on its way.",
    lambda trial: unused([trial]),
)
