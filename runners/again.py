"""`--rerun`: single cells are run again, and each old record stays in its place until the new one is complete.

New records are made below `.rerun/` in the results folder. A finished one takes the place of the old one by two
renames; where a crash comes between them, the next command puts the old one back.
"""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.types import UserError, suggestion
from reports.schema import CELL_FOLDERS
from runners.engines.scheduler import Outcome
from runners.grid.cells import Cell
from runners.records.folder import CellFolder

SCRATCH, OLD = ".rerun", ".old"
SHEET = "samples.png"


def chosen(cells: Sequence[Cell], names: Sequence[str]) -> list[Cell]:
    """The cells of these names: as `--dry-run --verbose` or `--status` prints them, or their folders.

    Raises UserError for a name that no cell has, and for one that several have.
    """
    known: dict[str, dict[str, Cell]] = defaultdict(dict)
    for cell in cells:
        for name in _names(cell):
            known[name][cell.key] = cell
    found: dict[str, Cell] = {}
    for name in names:
        some = _lookup(name, known)
        if not some:
            hint = suggestion(name, known, most=1)
            raise UserError(
                f"--rerun {name}: this grid has no such cell.{hint} --dry-run --verbose prints the names of its cells"
            )
        if len(some) > 1:
            listed = ", ".join(sorted(cell.place for cell in some.values()))
            raise UserError(f"--rerun {name}: {len(some)} cells have this name; write one of {listed}")
        found |= some
    return list(found.values())


def scratch(results: Path) -> Path:
    """Folder of the new records until they are complete."""
    return results / SCRATCH


def put_in_place(outcomes: Sequence[Outcome], results: Path) -> list[Outcome]:
    """Let finished new records take the places of the old ones; the outcomes with their last folders.

    A cell that failed keeps its old record. Raises UserError where another command holds a cell.
    """
    placed = [_placed(outcome, results) if outcome.status.finished else outcome for outcome in outcomes]
    if not any(scratch(results).glob(CELL_FOLDERS)):
        shutil.rmtree(scratch(results), ignore_errors=True)
    return placed


def recover(results: Path) -> None:
    """Put back old records whose replacement was cut off by a crash, and remove those that were replaced."""
    for old in sorted(scratch(results).glob(f"{CELL_FOLDERS}{OLD}")):
        place = results / old.relative_to(scratch(results)).with_name(old.name.removesuffix(OLD))
        if place.exists():
            shutil.rmtree(old)
        else:
            os.replace(old, place)


def _placed(outcome: Outcome, results: Path) -> Outcome:
    new, place = outcome.folder, outcome.cell.folder(results)
    old = new.with_name(new.name + OLD)
    with CellFolder(place).lock() as held:
        if not held:
            raise UserError(
                f"{outcome.cell.title}: another command holds the old record; the new one waits in {new}, and the same "
                "command puts it in place later"
            )
        os.replace(place, old)
        os.replace(new, place)
    shutil.rmtree(old)
    sheet, shared = scratch(results) / outcome.cell.benchmark / SHEET, results / outcome.cell.benchmark / SHEET
    if sheet.exists() and not shared.exists():
        os.replace(sheet, shared)
    return replace(outcome, folder=place)


def _names(cell: Cell) -> set[str]:
    folder = Path(cell.place)
    short = f"seed{cell.seed}"
    places = {
        cell.place,
        *(f"{cell.benchmark}/{cell.scenario}/{name}/{short}" for name in (cell.label, *folder.parts[2:3])),
    }
    return {*places, *(place.replace("/", " ") for place in places), cell.title}


def _lookup(name: str, known: dict[str, dict[str, Cell]]) -> dict[str, Cell]:
    """Cells of a name, which may be a path that ends in one."""
    parts = name.strip().rstrip("/").split("/")
    names = (name.strip(), *("/".join(parts[k:]) for k in range(len(parts))))
    return next((known[each] for each in names if each in known), {})
