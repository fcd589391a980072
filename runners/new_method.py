"""Write a template of a new method: it runs unchanged, and comments mark the places for your idea.

python runners/new_method.py my_method
"""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder; with -m, not the working directory

from benchmarks import paths
from benchmarks.modules import PROJECT
from benchmarks.types import UserError
from runners import command_line
from runners.records.folder import share

TEMPLATE = Path(__file__).with_name("new_method.txt")
TAKEN = frozenset({*sys.stdlib_module_names, *PROJECT, "torch", "numpy"})
"""Modules that a file of this name would stand in for, in its folder."""
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def new_method(
    name: Annotated[str, typer.Argument(help="Name in tables and suites: lower case, digits, '_' and '-'.")],
    into: Annotated[Path, typer.Option("--into", help="Folder of the new file.")] = Path("."),
) -> None:
    """Write NAME.py, the template of a method; it runs unchanged."""
    file = write(name, into)
    console = command_line.console()
    reference = f"{file}:{class_name(name)}"
    console.print(f"{file} is written; next commands:", soft_wrap=True, highlight=False)
    for line in (
        f"  continual-intervals check {reference}",
        f"  continual-intervals compare --suite quick --method {reference}",
    ):
        console.print(line, soft_wrap=True, highlight=False)


def write(name: str, into: Path) -> Path:
    """Write the new file and return its path.

    Raises UserError for an invalid or used name, an existing file, and a folder that cannot be written.
    """
    from methods import registry

    if not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
        raise UserError(
            f"{name!r}: a method's name has lower case letters, digits, '_' and '-', and begins with a letter"
        )
    if len(name) > paths.NAME_BYTES:
        raise UserError(f"{name[:40]!r}...: a method's name has at most {paths.NAME_BYTES} letters")
    stem = name.replace("-", "_")
    if keyword.iskeyword(class_name(name)) or stem in TAKEN:
        raise UserError(
            f"{name!r} is a word of Python or the name of a module that methods import; choose another name"
        )
    if name in registry.available():
        raise UserError(f"{name!r} is the name of an existing method; choose another one")
    file = into / f"{stem}.py"
    if file.exists():
        raise UserError(f"{file} exists and is not overwritten; choose another name or --into another folder")
    if not into.is_dir():
        raise UserError(f"--into {into}: there is no such folder")
    text = TEMPLATE.read_text(encoding="utf-8")
    share(file, text.replace("my_method", name).replace("MyMethod", class_name(name)).encode())
    return file


def class_name(name: str) -> str:
    """Name of the class: `my_method` -> `MyMethod`."""
    return "".join(part.capitalize() for part in re.split("[_-]", name))


if __name__ == "__main__":
    command_line.main(app)
