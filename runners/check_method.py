"""Check a method against the requirements of every method; takes under a minute on the digits.

python runners/check_method.py path/to/file.py:MyMethod
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder; with -m, not the working directory

from runners import command_line, completion

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def check(
    method: Annotated[
        str, typer.Argument(metavar="FILE.py:CLASS|NAME", help="The method to check.", autocompletion=completion.method)
    ],
    scenarios: Annotated[
        str | None,
        typer.Option(metavar="til,dil,cil", help="Only these scenarios.", autocompletion=completion.scenarios),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "cpu",
    explain: Annotated[bool, typer.Option("--explain", help="Show all checks and why they matter.")] = False,
) -> None:
    """Run the conformance suite on two easy tasks of the digits. Exit code 1: findings."""
    import torch

    from methods import registry
    from runners.conformance import CHECKS, FIELDS, conform, scenarios_of
    from runners.process import cpu, devices

    console = command_line.console()
    device = devices.single(device)
    cpu.prepare(1)
    devices.use(torch.device(device))
    if explain:
        for known in (*CHECKS, FIELDS):
            console.print(f"[bold]{known.name}[/bold]: {known.holds}. {known.why}", highlight=False)
    cls = registry.load(method)
    wanted = command_line.scenarios(scenarios) or scenarios_of(cls)
    found = conform(cls, wanted, device=device)
    for finding in found:
        console.print(str(finding), style="red", highlight=False, markup=False)
    asked = f"{len(CHECKS) + 1} checks in {', '.join(wanted)}"
    console.print(f"{method}: {asked}, {len(found) or 'no'} finding{'' if len(found) == 1 else 's'}", highlight=False)
    raise typer.Exit(1 if found else 0)


if __name__ == "__main__":
    command_line.main(app)
