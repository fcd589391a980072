"""The console command `continual-intervals`: the commands of this folder as subcommands, with shell completion.

continual-intervals compare --suite quick
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder; with -m, not the working directory

from runners import command_line

COMMANDS = {
    "compare": ("compare", "Run a grid of methods and benchmarks, then write the report."),
    "report": ("report", "Write the report of a results folder, from its records alone."),
    "merge": ("merge", "Copy the records of several results folders into one."),
    "tune": ("tune", "Choose hyperparameters on validation data."),
    "data": ("data", "List, prepare and check the data sets on this machine."),
    "show": ("show", "Show the hyperparameters of a method: default, range, source."),
    "new": ("new_method", "Write a template of a new method."),
    "check": ("check_method", "Check a method against the requirements of every method."),
    "speed": ("speed", "Measure time per training step and memory."),
    "reference": ("reference", "Add finished cells to the records that ship, or compare with them."),
}
"""Subcommand -> module of this folder, and its summary; a module is imported when it is needed, some need seconds."""


class Commands(TyperGroup):
    """Group whose commands are imported when they are called or completed; help and lists show their summaries."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and command is not None:
            command = get_command(importlib.import_module(f"runners.{COMMANDS[name][0]}").app)
            command.name = name
            command_line.refuse_unclear(command, rest)
        return name, command, rest


app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def callback() -> None:
    """Compare continual-learning methods on the same task streams. Each command has --help."""


def _stand_in() -> None:
    """Command in help and lists, in place of one that is not imported yet."""


for _name, (_, _summary) in COMMANDS.items():
    app.command(_name, help=_summary)(_stand_in)


def main() -> None:
    command_line.main(app)


if __name__ == "__main__":
    main()
