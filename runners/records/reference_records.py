"""Records shipped with the repository: compact, one file per scenario, used instead of running a cell again.

reports/reference/<benchmark>-<scenario>.jsonl holds a line for each finished cell: its cell.json and its tables, with
the loss curve thinned out and exhibits of seed 0 only. The environment (versions, device, commit), the same for many
cells, is stored once in environments.json; <benchmark>.png shows samples of its tasks. A cell's key decides whether it
may be taken: code, configuration, budget and seed must agree.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import paths, untrusted
from benchmarks.types import UserError
from reports.schema import CELL_FOLDERS, folder_name
from runners.grid.cells import Cell
from runners.records.folder import LOCK, CellFolder, hold, probe, remove_leftovers, share, storage
from runners.records.record import BrokenRecord, Record, Status, digest

FOLDER = Path(__file__).resolve().parents[2] / "reports" / "reference"
ENVIRONMENTS = "environments.json"
CURVE, CURVE_POINTS = "steps.csv", 20
"""The loss curve keeps so many points of each task."""
EXHIBIT, EXHIBIT_SEED = "exhibit-", 0
SHEET = "samples.png"
SECONDS_TO_WAIT = 600.0
"""Seconds to wait for another command that changes the reference records."""
REFERENCE_BYTES = 1 << 30
"""A file of reference records is not larger."""
ABSOLUTE_PATH = re.compile(r"(?<=[ =])/\S*/(?=[^/\s])")
"""Directories removed from a command before it ships: only the last part of a local path is useful."""


@dataclass(frozen=True)
class ReferenceCell:
    """A record with the texts of its tables, by file name."""

    record: Record
    tables: Mapping[str, str]

    @property
    def place(self) -> tuple[str, str, str, str, int]:
        """Place that a newer record overwrites: its axes, label and seed (with configuration; see `merged`)."""
        record = self.record
        return record.benchmark, str(record.scenario), record.method, record.label, record.seed

    def write(self, folder: CellFolder) -> None:
        """Write the cell as if it had been run there."""
        with storage(folder.path):
            folder.path.mkdir(parents=True, exist_ok=True)
        # A flush of eight files takes most of the time, and the reference records can be taken again.
        folder.write_files(self.record, self.tables, durable=False)


def read(folder: Path | None = None) -> dict[str, ReferenceCell]:
    """All reference records by key; none where the folder is not there.

    Raises UserError where a file is damaged, naming the file and the line.
    """
    folder = folder or FOLDER
    if not folder.is_dir():
        return {}
    environments = _environments(folder)
    found = {}
    for file in sorted(folder.glob("*.jsonl")):
        try:
            text = paths.read_text(file, REFERENCE_BYTES)
        except (OSError, ValueError) as error:
            raise UserError(f"{file} cannot be read ({error}); fetch the file again") from error
        environments |= _environments(folder)  # another command may just have written both
        # Not splitlines: texts may hold other ends of lines, a label U+0085 say.
        for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
            try:
                cell = _from_line(line, environments)
            except (ValueError, KeyError, TypeError, AttributeError, BrokenRecord) as error:
                raise UserError(
                    f"{file}, line {number}: no whole reference record ({error}); fetch the file again"
                ) from error
            found[cell.record.key] = cell
    return found


@contextmanager
def changing(folder: Path | None = None) -> Iterator[None]:
    """Hold the reference records from their reading to their writing. Raises UserError where another command does."""
    folder = folder or FOLDER
    with hold(folder / LOCK, SECONDS_TO_WAIT) as held:
        if not held:
            raise UserError(f"another command changes the records in {folder}; run this one again when it has ended")
        remove_leftovers(folder)
        yield


def write(cells: Iterable[ReferenceCell], folder: Path | None = None) -> None:
    """Write exactly these records, in an order that depends only on them. Raises StorageError.

    The caller holds the folder (`changing`), so that no records are lost that another command adds meanwhile. Each line
    names its environment, so new environments come before the lines and old ones go after them: the folder stays
    readable wherever this is cut off.
    """
    folder = folder or FOLDER
    probe(folder)
    environments: dict[str, dict[str, Any]] = {}
    lines: dict[str, list[str]] = {}
    for cell in sorted(cells, key=lambda cell: (*cell.place, cell.record.key)):
        lines.setdefault(f"{cell.record.benchmark}-{cell.record.scenario}", []).append(_to_line(cell, environments))
    _share_environments(folder, _environments(folder) | environments)
    for name, texts in lines.items():
        share(folder / f"{name}.jsonl", ("\n".join(texts) + "\n").encode())
    for file in folder.glob("*.jsonl"):
        if file.stem not in lines:
            file.unlink()
    _share_environments(folder, environments)


def _share_environments(folder: Path, environments: Mapping[str, Any]) -> None:
    share(folder / ENVIRONMENTS, (json.dumps(environments, indent=1, sort_keys=True) + "\n").encode())


def copy_sheets(results: Path, folder: Path | None = None) -> None:
    """Keep the sample images of a results folder. Raises StorageError, UserError for one that cannot be read."""
    for file in sorted(results.glob(f"*/{SHEET}")):
        share((folder or FOLDER) / f"{file.parent.name}.png", _sheet(file))


def collect(results: Path) -> Iterator[ReferenceCell]:
    """The finished cells of a results folder, compact. Raises UserError where a record is not whole."""
    for path, record in finished(results):
        try:
            tables = {name: paths.read_text(path / name, paths.TABLE_BYTES) for name in record.files}
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: {error}") from error
        yield _compact(record, tables)


def finished(results: Path) -> Iterator[tuple[Path, Record]]:
    """Folders and records of the finished cells, as they are.

    Raises UserError where a record is not whole, and where no cell is finished.
    """
    found = False
    for path in sorted(results.glob(CELL_FOLDERS)):
        try:
            record = CellFolder(path).read()
        except (BrokenRecord, OSError) as error:
            raise UserError(f"{path}: {error}") from error
        if record is not None and record.status.finished:
            found = True
            yield path, record
    if not found:
        raise UserError(f"{results} holds no finished cell (<benchmark>/<scenario>/<method>/seed...)")


def merged(known: Iterable[ReferenceCell], added: Iterable[ReferenceCell]) -> list[ReferenceCell]:
    """Known and added cells; an added one replaces one that differs from it in the code alone."""
    cells = {identity(cell.record): cell for cell in known}
    cells.update((identity(cell.record), cell) for cell in added)
    return list(cells.values())


def without_rows_of(known: Iterable[ReferenceCell], added: Iterable[ReferenceCell]) -> list[ReferenceCell]:
    """The known cells, except those of all seeds that `added` has under the same label with other values."""
    values: dict[str, list[Mapping[str, Any]]] = {}
    for cell in added:
        values.setdefault(_row(cell.record), []).append(cell.record.config)
    return [
        cell for cell in known if _row(cell.record) not in values or cell.record.config in values[_row(cell.record)]
    ]


def take(cells: Sequence[Cell], results: Path, say: Callable[[str], None], folder: Path | None = None) -> int:
    """Write the reference records of those cells that `results` lacks; return their number.

    They keep their own command, environment and clocks; label, suite and the words on how values were chosen become
    the grid's. `say` gets words on each unusable record there, which is set aside.
    """
    reference = read(folder)
    taken = 0
    for cell in cells:
        known = reference.get(cell.key)
        place = CellFolder(cell.folder(results))
        if known is None or _finished(place, cell.key):
            continue
        record = replace(known.record, label=cell.label, suite=cell.suite, chosen=dict(cell.chosen))
        with place.lock() as held:
            if held:
                place.usable(cell.key, say)
                ReferenceCell(record, known.tables).write(place)
                taken += 1
        _put_sheet(record.benchmark, results, folder)
    return taken


def existing(folder: Path | None = None) -> dict[str, ReferenceCell]:
    """All reference records by key, as `read` gives them. Raises UserError where there are none."""
    cells = read(folder)
    if not cells:
        raise UserError(f"{folder or FOLDER} holds no reference records")
    return cells


def unpack(results: Path, folder: Path | None = None) -> int:
    """Write all reference records as a new results folder; return their number.

    Raises UserError where there are none.
    """
    cells = existing(folder)
    for cell in cells.values():
        record = cell.record
        name = folder_name(record.seed, record.key)
        cell.write(CellFolder(results / record.benchmark / record.scenario / record.method / name))
        _put_sheet(record.benchmark, results, folder)
    return len(cells)


def _put_sheet(benchmark: str, results: Path, folder: Path | None) -> None:
    sheet, place = (folder or FOLDER) / f"{benchmark}.png", results / benchmark / SHEET
    if sheet.is_file() and not place.exists():
        share(place, _sheet(sheet))


def _sheet(file: Path) -> bytes:
    try:
        return paths.read_bytes(file, paths.TABLE_BYTES)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error}") from error


def _finished(place: CellFolder, key: str) -> bool:
    try:
        record = place.read()
    except BrokenRecord:
        return False
    return record is not None and record.key == key and record.status.finished


def identity(record: Record) -> str:
    """Everything except the code that decides a record's numbers; also defined for skipped and diverged records."""
    parts = [record.benchmark, record.scenario, record.method, record.label, record.seed, record.network]
    parts += [record.n_tasks, record.classes_per_task, record.config, vars(record.budget)]
    return json.dumps(parts, sort_keys=True)


def _row(record: Record) -> str:
    """Row of a table, regardless of seed and values."""
    parts = [record.benchmark, record.scenario, record.method, record.label, record.network]
    return json.dumps([*parts, record.n_tasks, record.classes_per_task, vars(record.budget)], sort_keys=True)


def _compact(record: Record, tables: Mapping[str, str]) -> ReferenceCell:
    tables = {k: text for k, text in tables.items() if record.seed == EXHIBIT_SEED or not k.startswith(EXHIBIT)}
    if CURVE in tables:
        tables[CURVE] = _thinned(tables[CURVE])
    files = {name: digest(text) for name, text in tables.items()}
    command = ABSOLUTE_PATH.sub("", record.command)
    return ReferenceCell(replace(record, files=files, command=command), tables)


def _thinned(text: str) -> str:
    """A loss curve with at most CURVE_POINTS points a task, evenly spread, the last one among them."""
    header, *rows = list(csv.reader(io.StringIO(text)))
    by_task: dict[str, list[list[str]]] = {}
    for row in rows:
        by_task.setdefault(row[0], []).append([row[0], row[1], f"{float(row[2]):.6g}"])
    kept = [header]
    for points in by_task.values():
        every = -(-len(points) // CURVE_POINTS)
        kept += points[::-1][::every][::-1]
    return "".join(",".join(row) + "\n" for row in kept)


def _to_line(cell: ReferenceCell, environments: dict[str, dict[str, Any]]) -> str:
    body = json.loads(cell.record.to_json())
    environment = body.pop("environment")
    name = hashlib.sha256(json.dumps(environment, sort_keys=True).encode()).hexdigest()[:12]
    environments[name] = environment
    return json.dumps({"environment": name, "record": body, "tables": dict(cell.tables)}, ensure_ascii=False)


def _from_line(line: str, environments: Mapping[str, Any]) -> ReferenceCell:
    data = untrusted.parse(line)
    record = Record.from_body({**data["record"], "environment": environments[data["environment"]]})
    tables = data["tables"]
    if {name: digest(text) for name, text in tables.items()} != record.files:
        raise BrokenRecord("a table was altered")
    if record.status is Status.DONE and "accuracy.csv" not in tables:
        raise BrokenRecord("it has no accuracies")
    return ReferenceCell(record, tables)


def _environments(folder: Path) -> dict[str, Any]:
    try:
        return dict(untrusted.parse(paths.read_text(folder / ENVIRONMENTS, paths.RECORD_BYTES)))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{folder / ENVIRONMENTS} is damaged ({error}); fetch the file again") from error
