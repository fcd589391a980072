"""Names of benchmarks and variants: extended by what distinguishes them, worded for readers, and fit for files."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks import catalogue
from reports.record import Record
from reports.words import count

WORDS = {
    "mnist": "MNIST",
    "emnist": "EMNIST",
    "cifar": "CIFAR",
    "imagenet": "ImageNet",
    "fecam": "(FeCAM order)",
    "wsn": "(WSN)",
}
"""Words of benchmarks' names that are not written with one capital."""
IN_WORDS = {
    "network": "{}",
    "steps": "{} steps",
    "epochs": "{} epochs",
    "batch_size": "batch {}",
    "tasks": "{} tasks",
    "classes": "{} classes",
    "files": "data {}",
    "source": "data of code {}",
}
"""Wording of a benchmark's name for each property that departs from the catalogue."""


def file_stem(name: str) -> str:
    """Name for files and labels: letters, digits and hyphens, plus some digits of a hash if characters were lost.

    Without the hash `a b` and `a_b`, or two names in Chinese, would share a file.
    """
    plain = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")
    return plain if plain == name.strip("-") else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}".strip("-")


def pretty(benchmark: str) -> str:
    """Benchmark's name for readers: `split-mnist (200 steps)` -> `Split MNIST (200 steps)`."""
    name, bracket, rest = benchmark.partition(" (")
    words = " ".join(WORDS.get(word, word.capitalize()) for word in name.split("-"))
    words = re.sub(r"([A-Z]{3,}) (\d+)(?= |$)", r"\1-\2", words).replace("Fashion MNIST", "FashionMNIST")
    return re.sub(r"(\d+)x(\d+)", r"\1 × \2", words) + bracket + rest


def natural(text: str) -> list[tuple[int, float, str]]:
    """Sorting key that places `a2` before `a10`, and `a1e-05` before `a0.03` before `a0.1`."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)", text)
    return [(1, 0, part.lower()) if i % 2 == 0 else (0, float(part), "") for i, part in enumerate(parts) if part]


def setting(record: Record) -> dict[str, Any]:
    """Everything that makes a record's benchmark: budget, network, tasks, classes, and the rest of its definition."""
    return {
        **{key: value for key, value in record.budget.items() if value is not None},
        "network": record.network,
        "tasks": record.n_tasks,
        "classes": record.classes_per_task,
        **{key: value for key, value in record.definition.items() if key not in ("n_tasks", "classes_per_task")},
    }


def config(record: Record) -> dict[str, Any]:
    """Hyperparameters of a record."""
    return dict(record.config)


def distinct(
    records: Sequence[Record],
    where: Callable[[Record], tuple[str, str]],
    name: Callable[[Record], str],
    settings: Callable[[Record], Mapping[str, Any]],
    unusual: Callable[[Record], Iterable[str]],
) -> dict[Any, str]:
    """Map a folder to a name, extended by the settings that distinguish records of one name in one place.

    `unusual` settings are always added. A setting that differs only between places (a benchmark's own tuning) is not.
    """
    places: dict[tuple[str, tuple[str, str]], list[Mapping[str, Any]]] = defaultdict(list)
    for record in records:
        places[name(record), where(record)].append(settings(record))
    differing: dict[str, list[str]] = defaultdict(list)
    for (called, _), found in places.items():
        for key in dict.fromkeys(key for one in found for key in one):
            values = {repr(one[key]) for one in found if key in one}  # absent in older code, which had no such choice
            if len(values) > 1 and key not in differing[called]:
                differing[called].append(key)
    return {
        record.folder: _with(
            name(record), settings(record), dict.fromkeys([*differing[name(record)], *unusual(record)])
        )
        for record in records
    }


def _with(name: str, settings: Mapping[str, Any], keys: Iterable[str]) -> str:
    found = [(key, settings.get(key)) for key in keys]
    parts = [
        _worded(key, value) if key in IN_WORDS else f"{key}={_short(value)}"
        for key, value in found
        if value is not None or key not in IN_WORDS
    ]
    return f"{name} ({', '.join(parts)})" if parts else name


def _worded(key: str, value: Any) -> str:
    return (
        count(1, key.removesuffix("s"))
        if value == 1 and key in ("steps", "epochs", "tasks")
        else IN_WORDS[key].format(_short(value))
    )


def _short(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{32,}", value):  # a hash
        return value[:6]
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)


def departures(record: Record) -> list[str]:
    """Settings in which a record departs from its benchmark in the catalogue; its name shows them."""
    own = catalogue.BENCHMARKS.get(record.benchmark.removesuffix(catalogue.SHUFFLED_SUFFIX))
    if own is None:
        return []
    usual = {**vars(own.budget), "network": own.network}
    return [key for key, value in setting(record).items() if key in usual and value != usual[key]]
