"""Several results folders as one: each cell once, and no cell with two different results.

The same cell is the same key, whatever its label, or everything but the code equal (`identity`). Where two folders
have different numbers of one cell, nothing says which is right: such cells are named, and nothing is merged.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from benchmarks import paths
from benchmarks.types import UserError
from reports.schema import CELL_FOLDERS, RECORD
from reports.words import count, join
from runners.records.folder import CHECKPOINT, LOCK, TRACEBACK, CellFolder, StorageError, probe, share, write_atomically
from runners.records.record import BrokenRecord, Record, Status
from runners.records.reference_records import SHEET, identity

NUMBERS = ("accuracy.csv", "certified.csv", "inferred.csv", "claims.csv")
"""Tables that must agree. Loss curves and exhibits of shipped records are thinned out."""
TUNING = "tuning"
CONFLICTS_SHOWN = 20


@dataclass(frozen=True)
class Source:
    """A record in one of the folders."""

    root: Path
    folder: Path
    record: Record

    @property
    def place(self) -> str:
        return self.folder.relative_to(self.root).as_posix()

    @property
    def title(self) -> str:
        record = self.record
        return f"{record.benchmark} {record.scenario} {record.label} seed {record.seed}"


@dataclass(frozen=True)
class Merged:
    """One record of each cell, of the first folder that has it finished."""

    roots: tuple[Path, ...]
    cells: tuple[Source, ...]
    same: int
    """Finished records that another folder has with the same numbers."""
    left_out: tuple[tuple[Path, str], ...]
    """Folders without a usable record, and cells that are running, with the reason."""


def merged(roots: Sequence[Path]) -> Merged:
    """The cells of several results folders. Raises UserError for conflicts and for folders without a record."""
    roots = tuple(dict.fromkeys(root.resolve() for root in roots))
    found: list[Source] = []
    left_out: list[tuple[Path, str]] = []
    for root in roots:
        if not root.is_dir():
            raise UserError(f"there is no results folder {root}")
        folders = sorted(root.glob(CELL_FOLDERS))
        if not folders:
            raise UserError(f"{root} holds no record (<benchmark>/<scenario>/<method>/seed...)")
        for folder in folders:
            try:
                record = CellFolder(folder).read()
            except BrokenRecord as error:
                left_out.append((folder, str(error)))
                continue
            if record is None:
                continue
            if not record.status.finished and _held(folder):
                left_out.append((folder, "is running; merge again when it has ended"))
            else:
                found.append(Source(root, folder, record))
    if not found:
        nothing = f"{join([str(root) for root in roots])} hold no record that could be taken"
        raise UserError("\n".join([nothing, *map(_left, left_out)]))
    _refuse_conflicts(found)
    chosen: dict[str, Source] = {}
    for source in found:
        known = chosen.get(source.place)
        if known is None or (source.record.status.finished and not known.record.status.finished):
            chosen[source.place] = source
    finished = sum(source.record.status.finished for source in found)
    same = finished - sum(source.record.status.finished for source in chosen.values())
    return Merged(roots, tuple(chosen.values()), same, tuple(left_out))


def write(found: Merged, into: Path, say: Callable[[str], None]) -> int:
    """Copy the cells that `into` lacks, each whole, and return their number; the folders stay as they are.

    `say` gets words on each unusable record of `into`, which is set aside. A copy that is cut off is completed by the
    next call. Raises StorageError, and UserError where a cell of `into` is held by another command.
    """
    into = into.resolve()
    probe(into)
    written = 0
    for source in found.cells:
        if source.root == into:
            continue
        target = CellFolder(into / source.place)
        with target.lock() as held:
            if not held:
                raise UserError(f"{source.title}: another command runs it in {into}; merge again when it has ended")
            target.usable(source.record.key, say)
            _copy(source, target)
        written += 1
    for path, name in _shared(found.roots):
        if not (into / name).exists():
            share(into / name, _content(path))
    return written


def link(found: Merged, into: Path) -> None:
    """Make `into` a results folder of links to the cells, for reading alone."""
    places = [(source.folder, source.place) for source in found.cells]
    for path, name in (*places, *_shared(found.roots)):
        place = into / name
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(path, place)


def notes(found: Merged) -> list[str]:
    """Sentences on what was left out."""
    said = map(_left, found.left_out)
    return [*said, *(f"{name}: the folders have different ones; the first is kept" for name in _differing(found))]


def _left(one: tuple[Path, str]) -> str:
    folder, reason = one
    return f"left out {folder}: {reason}"


def _differing(found: Merged) -> list[str]:
    """Names of tuning files that two folders have with different contents."""
    contents: dict[str, set[bytes]] = defaultdict(set)
    for path, name in _shared(found.roots):
        if name.startswith(f"{TUNING}/"):
            contents[name].add(_content(path))
    return [name for name, some in contents.items() if len(some) > 1]


def _content(path: Path) -> bytes:
    try:
        return paths.read_bytes(path, paths.CHECKPOINT_BYTES)
    except OSError as error:
        raise StorageError(f"{path} cannot be copied: {error}; nothing of it is lost") from error


def in_words(found: Merged) -> str:
    """`12 cells (11 done, 1 failed) of A and B, 3 of them in several folders with the same numbers`."""
    counts = Counter(source.record.status for source in found.cells)
    statuses = ", ".join(f"{counts[status]} {status}" for status in Status if counts[status])
    again = f", {count(found.same, 'further record')} with the same numbers" if found.same else ""
    return f"{count(len(found.cells), 'cell')} ({statuses}) of {join([str(root) for root in found.roots])}{again}"


def _copy(source: Source, target: CellFolder) -> None:
    record = source.record
    try:
        text = paths.read_text(source.folder / RECORD, paths.RECORD_BYTES)
        tables = {
            name: paths.read_text(source.folder / name, paths.TABLE_BYTES)
            for name in record.files
            if record.status.finished or (source.folder / name).is_file()
        }
        trace = source.folder / TRACEBACK
        said = paths.read_text(trace, paths.RECORD_BYTES) if trace.is_file() else None
        if not record.status.finished and (source.folder / CHECKPOINT).is_file():
            content = paths.read_bytes(source.folder / CHECKPOINT, paths.CHECKPOINT_BYTES)
            write_atomically(target.path / CHECKPOINT, content)
    except (OSError, ValueError) as error:
        raise StorageError(f"{source.folder} cannot be copied: {error}; nothing of it is lost") from error
    target.write_texts(text, record.status, said, tables)


def _shared(roots: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """Files that cells share: sheets of sample images, results of tuning."""
    for root in roots:
        for path in sorted([*root.glob(f"*/{SHEET}"), *root.glob(f"{TUNING}/*")]):
            if path.is_file():
                yield path, path.relative_to(root).as_posix()


def _held(folder: Path) -> bool:
    """Check whether a process runs the cell; writes nothing where there is no lock yet."""
    if not (folder / LOCK).exists():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # of a folder that may only be read: nobody runs there
        return False


def _refuse_conflicts(found: Sequence[Source]) -> None:
    """Raise UserError where two folders have different numbers of one cell."""
    by_cell: dict[str, dict[Path, list[Source]]] = defaultdict(lambda: defaultdict(list))
    for source in found:
        if source.record.status.finished:
            data = {key: value for key, value in source.record.definition.items() if value is not None}
            by_cell[identity(source.record) + json.dumps(data, sort_keys=True)][source.root].append(source)
            by_cell[source.record.key][source.root].append(source)
    lines: dict[str, None] = {}
    for folders in by_cell.values():
        for one, other in _pairs(list(folders.values())):
            if reason := _difference(one, other):
                lines[f"{one.title}: {one.folder} and {other.folder} {reason}"] = None
    if lines:
        shown = list(lines)[:CONFLICTS_SHOWN]
        more = [f"... and {len(lines) - len(shown)} more"] if len(lines) > len(shown) else []
        heading = f"{count(len(lines), 'cell')} with different numbers in two folders; nothing was merged. "
        advice = "Remove or rename the record that is not to count, or run the cell again:"
        raise UserError("\n".join([heading + advice, *shown, *more]))


def _pairs(folders: Sequence[Sequence[Source]]) -> Iterator[tuple[Source, Source]]:
    """Records of one cell in two folders: those of one key, and the newest where neither folder knows the other's."""
    for i, some in enumerate(folders):
        for others in folders[i + 1 :]:
            mine = {source.record.key: source for source in some}
            yours = {source.record.key: source for source in others}
            yield from ((mine[key], yours[key]) for key in mine.keys() & yours.keys())
            one, other = (max(group, key=lambda source: source.record.finished or "") for group in (some, others))
            if one.record.key not in yours and other.record.key not in mine:
                yield one, other


def _difference(one: Source, other: Source) -> str | None:
    """Words for the difference of two results of a cell, or None."""
    a, b = one.record, other.record
    if a.status is not b.status:
        what = f"are {a.status} and {b.status}"
    else:
        tables = [name for name in NUMBERS if a.files.get(name) != b.files.get(name)]
        if not tables:
            return None
        what = f"differ in {join(tables)}"
    if (a.source, a.parts) != (b.source, b.parts):
        return f"{what} (other code)"
    machines = [str(record.environment.get("device_name") or "an unknown machine") for record in (a, b)]
    return f"{what} ({machines[0]}, {machines[1]})"
