"""Benchmarks and data sets of installed packages and of users' files. Imports no torch."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from benchmarks import unimported
from benchmarks.types import UserError
from benchmarks.user_files import import_file

if TYPE_CHECKING:
    from benchmarks.data import DataSet
    from benchmarks.definition import Benchmark

    DataSource = str | Callable[[], DataSet]
    """A data set: its name, `package.module:function`, or a function at the top level of a module, which gives it."""

ENTRY_POINT_GROUP = "continual_intervals.benchmarks"
"""Entry points of this group are `Benchmark`s; the name of the entry point is that of the benchmark."""


def is_file(name: str) -> bool:
    """Check whether a benchmark or method is named by its file, `FILE.py:NAME` or `FILE.py`."""
    return ".py:" in name or name.endswith(".py")


def file_in(reference: str) -> tuple[Path, str]:
    """File and name of a reference `FILE.py:NAME`; the name is empty where there is none."""
    path, _, attribute = reference.removesuffix(".py").partition(".py:")
    return Path(f"{path}.py").expanduser().resolve(), attribute


def forget() -> None:
    """Run files again, although they are the same, since modules that they import have changed."""
    _of_file.cache_clear()


def of_file(reference: str) -> tuple[str, Benchmark]:
    """The benchmark `FILE.py:NAME`, or the only one of `FILE.py`; before it, its reference with the absolute path.

    This runs the file, again only after a change. Raises UserError for a file that is missing, does not import, or does
    not hold the benchmark.
    """
    file, attribute = file_in(reference)
    if not file.is_file():
        raise UserError(f"benchmark {reference}: there is no file {file}")
    stamp = file.stat()
    return _of_file(file, attribute, (stamp.st_mtime_ns, stamp.st_size))


@cache
def _of_file(file: Path, attribute: str, _stamp: tuple[int, int]) -> tuple[str, Benchmark]:
    from benchmarks.catalogue import BENCHMARKS
    from benchmarks.definition import Benchmark

    names = vars(import_file(file))
    held = {name: value for name, value in names.items() if isinstance(value, Benchmark)}
    if not attribute and len(held) == 1:
        attribute = next(iter(held))
    if attribute not in held:
        kind = f"{attribute} is a {type(names[attribute]).__name__}; " if attribute in names else ""
        raise UserError(f"{file} holds no Benchmark {attribute!r}; {kind}it holds: {', '.join(held) or 'none'}")
    found = held[attribute]
    if found.name in BENCHMARKS or found.name in points():
        raise UserError(f"{file}:{attribute} is called {found.name!r}, as another benchmark is; choose another name")
    return f"{file}:{attribute}", found


@cache
def points() -> dict[str, EntryPoint]:
    """The entry points of benchmarks by name; nothing is imported."""
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


@cache
def benchmark(name: str) -> Benchmark:
    """The benchmark of an entry point. Raises UserError where it cannot be imported or is none."""
    from benchmarks.definition import Benchmark

    point = points()[name]
    found = _imported(f"benchmark {name}", point.module, point.attr)
    if not isinstance(found, Benchmark):
        raise UserError(f"benchmark {name}: {point.value} is a {type(found).__name__}, not a Benchmark")
    if found.name != name:
        raise UserError(f"benchmark {name}: {point.value} calls itself {found.name!r}; give both the same name")
    return found


def described(name: str) -> Benchmark | None:
    """The benchmark of an entry point as its source states it; None where only an import can tell. Runs no code."""
    from benchmarks import definition, types
    from benchmarks.definition import Benchmark

    classes = {
        each.__name__: each
        for each in (
            Benchmark, definition.Kind, definition.ClassOrder, definition.Augmentation, definition.HeldOut,
            definition.Normalisation, types.Budget, types.ValidatedBudget, types.Scenario, MappingProxyType,
        )
    } | {str(scenario).upper(): scenario for scenario in types.Scenario}  # fmt: skip
    point = points()[name]
    try:
        found = unimported.value_of(point.module, point.attr, classes)
    except (unimported.Unreadable, UserError):
        return None
    return found if isinstance(found, Benchmark) and found.name == name else None


def is_reference(dataset: DataSource) -> bool:
    """Check whether a data set is given by the function that makes it, or by its name, `package.module:function`."""
    return callable(dataset) or ":" in dataset


def named(dataset: DataSource) -> str:
    """The data set's name, which does not depend on where the file of its function lies."""
    return dataset if isinstance(dataset, str) else _home(dataset)[1]


def file_of(dataset: DataSource) -> Path:
    """The source file of a data set's function. Raises UserError where its module cannot be imported."""
    if not isinstance(dataset, str):
        return _home(dataset)[0]
    module, _, name = dataset.partition(":")
    _imported(f"data set {dataset}", module, name)
    return Path(str(sys.modules[module].__file__))


def problem(dataset: DataSource) -> str | None:
    """Reason why the module of a data set's function cannot be imported, or None."""
    try:
        file_of(dataset)
    except UserError as error:
        return str(error)
    return None


def make(dataset: DataSource) -> DataSet:
    """Call the data set's function, which gives a DataSet on the CPU. Raises UserError.

    Called with one thread: sums of many numbers, as in standardising, depend on how many there are.
    """
    import torch

    from benchmarks.data import DataSet

    function = dataset if callable(dataset) else _imported(f"data set {dataset}", *dataset.split(":", 1))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = function()
    finally:
        torch.set_num_threads(threads)
    if not isinstance(found, DataSet):
        raise UserError(f"data set {named(dataset)}: the function gives a {type(found).__name__}, not a DataSet")
    return replace(found, notes=None, content="")  # what it says of itself is looked at


def _home(function: Callable[[], DataSet]) -> tuple[Path, str]:
    """File and name of a data set's function, which its module must have under this name. Raises UserError."""
    name = getattr(function, "__qualname__", "")
    if not inspect.isfunction(function) or not name.isidentifier():
        raise UserError(
            f"data set {name or function!r}: write a function without arguments at the top level of a file, since keys "
            "of results follow its code"
        )
    return Path(inspect.getfile(function)).resolve(), name


def _imported(what: str, module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # of the package's own code, which may raise anything
        said = str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
        raise UserError(f"{what}: {module}:{name} cannot be imported: {said}") from error
