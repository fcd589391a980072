"""Check a method against the requirements of every method; takes under a minute on the digits.

python runners/check_method.py path/to/file.py:MyMethod
python runners/check_method.py --explain
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder; with -m, not the working directory

from benchmarks.types import UserError
from runners import command_line, completion

if TYPE_CHECKING:
    from benchmarks.types import Scenario
    from methods.base import Method
    from runners.conformance.check import Looked

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def check(
    method: Annotated[
        str | None,
        typer.Argument(metavar="FILE.py:CLASS|NAME", help="The method to check.", autocompletion=completion.method),
    ] = None,
    scenarios: Annotated[
        str | None,
        typer.Option(metavar="til,dil,cil", help="Only these scenarios.", autocompletion=completion.scenarios),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "cpu",
    explain: Annotated[
        bool, typer.Option("--explain", help="Show all checks and why they matter; no method is needed.")
    ] = False,
) -> None:
    """Run the conformance suite on two easy tasks of the digits. Exit code 1: findings."""
    import torch

    from runners.conformance import CHECKS, FIELDS, examine, scenarios_of
    from runners.process import cpu, devices

    console = command_line.console()
    if explain:
        for known in (*CHECKS, FIELDS):
            console.print(f"[bold]{known.name}[/bold]: {known.holds}. {known.why}", highlight=False)
    if method is None:
        if explain:
            return
        raise UserError("name a method, or FILE.py:CLASS; --explain alone lists the checks")
    device = devices.single(device)
    cpu.prepare(1)
    devices.use(torch.device(device))
    cls = load(method)
    wanted = command_line.scenarios(scenarios) or scenarios_of(cls)
    looked = examine(cls, wanted, device=device)
    found = [finding for each in looked for finding in each.found]
    for finding in found:
        console.print(str(finding), style="red", highlight=False, markup=False)
    for note in notes(looked, wanted):
        console.print(f"note: {note}", highlight=False, markup=False)
    asked = f"{len(CHECKS) + 1} checks in {', '.join(wanted)}"
    console.print(f"{method}: {asked}, {len(found) or 'no'} finding{'' if len(found) == 1 else 's'}", highlight=False)
    raise typer.Exit(1 if found else 0)


def notes(looked: Sequence[Looked], scenarios: Sequence[Scenario]) -> Iterator[str]:
    """Remarks of the checks that were passed, and the scenarios in which the method does not want to run."""
    for scenario in scenarios:
        here = [each for each in looked if each.scenario == scenario]
        if here and all(each.skipped for each in here):
            yield f"not checked in {scenario}: {here[0].skipped}"
    yield from (f"{each.check} ({each.scenario}): {each.note}" for each in looked if each.note)


def load(reference: str) -> type[Method]:
    """The class of a method. Raises UserError, with file and line where code of the author's raises anything."""
    from methods import registry
    from runners.conformance import mistakes

    try:
        return registry.load(reference)
    except UserError as error:
        at = mistakes.place(error.__cause__.__traceback__, set()) if error.__cause__ else ""
        if isinstance(error.__cause__, SyntaxError) or not at:
            raise
        raise UserError(f"{str(error).rstrip('.')} ({at})") from error
    except Exception as error:
        at = mistakes.place(error.__traceback__, set())
        said = f"{reference} cannot be loaded: {type(error).__name__}: {error}"
        raise UserError(f"{said} ({at})" if at else said) from error


if __name__ == "__main__":
    command_line.main(app)
