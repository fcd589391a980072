"""`--rerun`: single cells are run again, and each old record stays in its place until the new one is complete.

New records are made below `.rerun/` in the results folder. A finished one takes the place of the old one by two
renames; where a crash comes between them, the next command puts the old one back. One command at a time does so.
"""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.types import UserError, suggestion
from reports.schema import CELL_FOLDERS, RECORD
from runners.engines.scheduler import Outcome, finished_record
from runners.grid.cells import Cell
from runners.records.folder import CellFolder, hold, storage
from runners.records.record import BrokenRecord

SCRATCH, LOCK = ".rerun", ".rerun.lock"
OLD, COPY = ".old", ".new"
"""Ends of the names of folders next to a record: the old one, and a copy from another file system."""
SECONDS_TO_WAIT = 60.0
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


def put_in_place(outcomes: Sequence[Outcome], results: Path, say: Callable[[str], None]) -> list[Outcome]:
    """Let finished new records take the places of the old ones; the outcomes with their last folders.

    A cell that failed keeps its old record. `say` gets words on each unusable old record, which is set aside.
    Raises UserError where another command holds a cell.
    """
    with hold(results / LOCK, SECONDS_TO_WAIT) as held:
        if not held:
            raise UserError(
                f"another command puts its records in place in {results}; the new ones wait in {scratch(results)}, and "
                "the same command puts them in place later"
            )
        with storage(results):
            _recover(results)
            placed = [_placed(outcome, results, say) if outcome.status.finished else outcome for outcome in outcomes]
        if not any(scratch(results).glob(CELL_FOLDERS)):
            shutil.rmtree(scratch(results), ignore_errors=True)
    return placed


def recover(results: Path) -> None:
    """Put back old records whose replacement was cut off by a crash, and remove those that were replaced.

    Leaves it to a command that is just putting records in place.
    """
    if scratch(results).is_dir():
        with hold(results / LOCK) as held, storage(results):
            if held:
                _recover(results)


def _recover(results: Path) -> None:
    for old in sorted(results.glob(f"{CELL_FOLDERS.rpartition('/')[0]}/.*{OLD}")):
        place = old.with_name(old.name[1:].removesuffix(OLD))
        with CellFolder(place).lock() as held:
            if held:
                _settle(old, place)


def _settle(old: Path, place: Path) -> None:
    """Put an old record back, unless there is a finished one in its place, or an unfinished one like it."""
    if _finished(place) or ((place / RECORD).exists() and not _finished(old)):
        _remove(old, place)
    else:
        shutil.rmtree(place)
        os.replace(old, place)


def _finished(folder: Path) -> bool:
    try:
        record = CellFolder(folder).read()
    except BrokenRecord:
        return False
    return record is not None and record.status.finished


def _placed(outcome: Outcome, results: Path, say: Callable[[str], None]) -> Outcome:
    new, place = outcome.folder, outcome.cell.folder(results)
    with CellFolder(place).lock() as held:
        if not held:
            raise UserError(
                f"{outcome.cell.title}: another command holds the old record; the new one waits in {new}, and the same "
                "command puts it in place later"
            )
        if finished_record(new, outcome.cell.key) is not None:  # else another --rerun has put it in its place
            CellFolder(place).usable(outcome.cell.key, say)  # an unusable one is set aside, and stays
            _swap(new, place)
    sheet, shared = scratch(results) / outcome.cell.benchmark / SHEET, results / outcome.cell.benchmark / SHEET
    if sheet.exists() and not shared.exists():
        shutil.move(sheet, shared)
    return replace(outcome, folder=place)


def _swap(new: Path, place: Path) -> None:
    old, near = (place.with_name(f".{place.name}{end}") for end in (OLD, COPY))
    if old.exists():
        _settle(old, place)
    shutil.rmtree(near, ignore_errors=True)  # of a copy that was cut off
    elsewhere = new.stat().st_dev != place.parent.stat().st_dev
    if elsewhere:
        shutil.copytree(new, near)
    os.replace(place, old)
    os.replace(near if elsewhere else new, place)
    _remove(old, place)
    if elsewhere:
        shutil.rmtree(new)


def _remove(old: Path, place: Path) -> None:
    """Remove an old record; what had been set aside in its folder stays."""
    for aside in old.glob("aside-*"):
        if not (place / aside.name).exists():
            shutil.move(aside, place)
    if old.is_symlink():
        old.unlink()
    else:
        shutil.rmtree(old)


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
