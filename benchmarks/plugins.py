"""Benchmarks and data sets that installed packages bring along. Imports no torch."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from benchmarks import unimported
from benchmarks.types import UserError

if TYPE_CHECKING:
    from benchmarks.catalogue import Benchmark
    from benchmarks.data import DataSet

ENTRY_POINT_GROUP = "continual_intervals.benchmarks"
"""Entry points of this group are `Benchmark`s; the name of the entry point is that of the benchmark."""


@cache
def points() -> dict[str, EntryPoint]:
    """The entry points of benchmarks by name; nothing is imported."""
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


@cache
def benchmark(name: str) -> Benchmark:
    """The benchmark of an entry point. Raises UserError where it cannot be imported or is none."""
    from benchmarks.catalogue import Benchmark

    point = points()[name]
    found = _imported(f"benchmark {name}", point.module, point.attr)
    if not isinstance(found, Benchmark):
        raise UserError(f"benchmark {name}: {point.value} is a {type(found).__name__}, not a Benchmark")
    if found.name != name:
        raise UserError(f"benchmark {name}: {point.value} calls itself {found.name!r}; give both the same name")
    return found


def described(name: str) -> Benchmark | None:
    """The benchmark of an entry point as its source states it; None where only an import can tell. Runs no code."""
    from benchmarks import catalogue, types
    from benchmarks.catalogue import Benchmark

    classes = {
        each.__name__: each
        for each in (
            Benchmark, catalogue.Kind, catalogue.ClassOrder, catalogue.Augmentation, catalogue.HeldOut,
            catalogue.Normalisation, types.Budget, types.ValidatedBudget, types.Scenario, MappingProxyType,
        )
    } | {str(scenario).upper(): scenario for scenario in types.Scenario}  # fmt: skip
    point = points()[name]
    try:
        found = unimported.value_of(point.module, point.attr, classes)
    except (unimported.Unreadable, UserError):
        return None
    return found if isinstance(found, Benchmark) and found.name == name else None


def is_reference(dataset: str) -> bool:
    """Check whether a data set is named by the function that makes it, `package.module:function`."""
    return ":" in dataset


def file_of(dataset: str) -> Path:
    """The source file of a data set's function. Raises UserError where its module cannot be imported."""
    module, _, name = dataset.partition(":")
    _imported(f"data set {dataset}", module, name)
    return Path(str(sys.modules[module].__file__))


def problem(dataset: str) -> str | None:
    """Reason why the module of a data set's function cannot be imported, or None."""
    try:
        file_of(dataset)
    except UserError as error:
        return str(error)
    return None


def make(dataset: str) -> DataSet:
    """Call the function `package.module:function`, which gives a DataSet on the CPU. Raises UserError.

    Called with one thread: sums of many numbers, as in standardising, depend on how many there are.
    """
    import torch

    from benchmarks.data import DataSet

    module, _, name = dataset.partition(":")
    function = _imported(f"data set {dataset}", module, name)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = function()
    finally:
        torch.set_num_threads(threads)
    if not isinstance(found, DataSet):
        raise UserError(f"data set {dataset}: the function gives a {type(found).__name__}, not a DataSet")
    return replace(found, notes=None, content="")  # what it says of itself is looked at


def _imported(what: str, module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # of the package's own code, which may raise anything
        said = str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
        raise UserError(f"{what}: {module}:{name} cannot be imported: {said}") from error
