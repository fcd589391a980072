"""Show the hyperparameters of a method: default, range of tune.py, meaning with its source.

python runners/show.py ewc
python runners/show.py FILE.py:CLASS --suite quick
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder; with -m, not the working directory

from benchmarks.types import UserError
from methods import registry
from runners import command_line, completion
from runners.columns import Columns

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
MEANING = "meaning and source"


@app.command()
def show(
    method: Annotated[
        str,
        typer.Argument(
            metavar="METHOD|FILE.py:CLASS",
            help="The method; `avalanche:` lists Avalanche's strategies.",
            autocompletion=completion.method,
        ),
    ],
    suite: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Also show the values of a suite, with their sources.",
            autocompletion=completion.suites,
        ),
    ] = None,
) -> None:
    """Show the hyperparameters of a method: default, range of tune.py, meaning with its source."""
    console = command_line.console()
    if method == registry.AVALANCHE_PREFIX:
        from methods import avalanche

        console.print("\n".join(avalanche.names()), highlight=False, markup=False)
        return
    from runners.check_method import load
    from runners.conformance import mistakes

    cls: Any = load(method)
    scenarios = " ".join(mistakes.supported(cls))
    if mistake := mistakes.of_class(cls):
        raise UserError(f"{method}: {mistake}")
    rows = list(_rows(cls))
    summary = (cls.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    place = f"{cls.name} ({scenarios}): {' '.join(summary.split())}"
    console.print(place, highlight=False, markup=False)
    if rows:
        headings = ("hyperparameter", "default", "searched by tune.py", MEANING)
        console.print(Columns("Hyperparameters", headings, rows, frozenset({MEANING})))
    else:
        console.print("It has no hyperparameters.", highlight=False)
    if suite is not None:
        where = ("benchmark", "scenario", "values", "source")
        console.print(Columns(f"Values in {suite}", where, list(_in_suite(cls.name, suite)), frozenset(where[2:])))


def _rows(cls: Any) -> Iterator[tuple[str, ...]]:
    from methods import search
    from runners.document import meanings
    from runners.grid.hyperparameters import configure

    try:
        ranges = search.space(cls.name, cls.Config)
    except UserError:  # nothing to search
        ranges = {}
    said: dict[str, str] = {}
    for config in reversed(cls.Config.__mro__[:-1]):
        said |= meanings(config)
    default = configure(cls.name, cls.Config, {})
    for field in dataclasses.fields(cls.Config):
        found = ranges.get(field.name)
        yield (
            field.name,
            str(getattr(default, field.name)),
            "" if found is None else _in_words(found),
            said.get(field.name, ""),
        )


def _in_words(found: Any) -> str:
    from methods.search import Log, OneOf

    if isinstance(found, OneOf):
        return "one of " + ", ".join(map(str, found.values))
    return f"{found.low:g} to {found.high:g}{', log' if isinstance(found, Log) else ''}"


def _in_suite(name: str, suite: str) -> Iterator[tuple[str, ...]]:
    """Values that a suite sets for a method, later ones win; and those of its variants."""
    from runners.grid import suite as suites
    from runners.tuning.study import listed

    for found in suites.find([suite]):
        for block in found.settings:
            if block.method == name:
                scope = (block.benchmark or "all", str(block.scenario or "all"))
                yield (*scope, listed(block.values), block.source or "")
        for variant in found.variants:
            if variant.method == name:
                yield "all", " ".join(variant.scenarios) or "all", f"{variant.label}: {listed(variant.values)}", ""


if __name__ == "__main__":
    command_line.main(app)
