"""Shell completion: names that may stand where the cursor is. Imports no torch, except for `avalanche:`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import typer

from benchmarks.types import Scenario, UserError
from reports.schema import CELL_FOLDERS

Names = Callable[[], Iterable[str]]


def suites(incomplete: str) -> list[str]:
    """Names of suites, or paths of suite files."""
    return _matching(_suites, incomplete) + _files(incomplete, ".toml")


def method(incomplete: str) -> list[str]:
    """A registered method, or a Python file with one; after `avalanche:` its strategies."""
    return _matching(_methods(incomplete), incomplete) + files(incomplete)


def methods(incomplete: str) -> list[str]:
    """A list of methods, `a,b`."""
    return _last_of_list(_methods(incomplete.rpartition(",")[2]), incomplete)


def benchmarks(incomplete: str) -> list[str]:
    """A list of benchmarks, `a,b`."""
    return _last_of_list(_benchmarks, incomplete)


def scenarios(incomplete: str) -> list[str]:
    """A list of scenarios, `til,dil`."""
    return _last_of_list(lambda: list(Scenario), incomplete)


def loggers(incomplete: str) -> list[str]:
    """A list of loggers, `a,b`."""
    from runners.loggers.registry import KNOWN

    return _last_of_list(lambda: KNOWN, incomplete)


def cells(ctx: typer.Context, incomplete: str) -> list[str]:
    """A cell on record in the results folder that is typed so far, by default `results`."""
    results = Path(ctx.params.get("results") or "results")
    found = (folder.relative_to(results).as_posix() for folder in sorted(results.glob(CELL_FOLDERS)))
    return _matching(lambda: found, incomplete)


def data_sets(incomplete: str) -> list[str]:
    """A data set, a benchmark, or `all`."""
    from benchmarks import preparation

    return _matching(lambda: [preparation.ALL, *preparation.known(), *_benchmarks()], incomplete)


def files(incomplete: str) -> list[str]:
    """A Python file, and its registered classes once its name is complete: FILE.py:CLASS."""
    from methods import registry

    path, colon, _ = incomplete.partition(".py:")
    if not colon:
        return _files(incomplete, ".py")
    try:
        found = registry.describe(Path(f"{path}.py"))
    except (OSError, SyntaxError, ValueError):
        return []
    return _matching(lambda: [f"{path}.py:{info.class_name}" for info in found], incomplete)


def python_files(incomplete: str) -> list[str]:
    """A Python file."""
    return _files(incomplete, ".py")


def _methods(incomplete: str) -> Names:
    from methods import registry

    if not incomplete.startswith(registry.AVALANCHE_PREFIX):
        return lambda: [*registry.available(), registry.AVALANCHE_PREFIX]
    from methods import avalanche

    return avalanche.names


def _suites() -> list[str]:
    from runners.grid import suite

    return [*suite.shipped(), *suite.points(), suite.ALL]


def _benchmarks() -> list[str]:
    from benchmarks import catalogue, plugins

    return [*catalogue.BENCHMARKS, *plugins.points()]


def _matching(names: Names, incomplete: str) -> list[str]:
    """Names that begin so; none where a broken package hides them, since a shell shows no error while one types."""
    try:
        return [name for name in names() if name.startswith(incomplete)]
    except UserError:
        return []


def _last_of_list(names: Names, incomplete: str) -> list[str]:
    before, comma, last = incomplete.rpartition(",")
    taken = before.split(",")
    return [f"{before}{comma}{name}" for name in _matching(names, last) if name not in taken]


def _files(incomplete: str, suffix: str) -> list[str]:
    """Files of a suffix and folders, below the folder that is typed so far."""
    folder, slash, begun = incomplete.rpartition("/")
    try:
        found = sorted(Path(folder + slash or ".").iterdir())
    except OSError:
        return []
    fitting = (path for path in found if path.name.startswith(begun) and (begun or not path.name.startswith(".")))
    return [
        f"{folder}{slash}{path.name}{'/' if path.is_dir() else ''}"
        for path in fitting
        if path.is_dir() or path.suffix == suffix
    ]
