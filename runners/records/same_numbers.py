"""Transfer of records to later code, once cells run with both versions have shown identical numbers.

A record's key holds the hash of the code, so that any change of a method, even a pure speed-up, makes its
records stale. Where cells of the earlier and of the later code, run on one machine, agree in every table to the last
digit, the shipped records of the earlier code get the keys of the later one, and say so (`Record.carried`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, replace
from typing import Any

from benchmarks import catalogue
from benchmarks.types import UserError
from methods import registry
from reports.words import count
from runners.grid import hyperparameters
from runners.grid.build import parts_of
from runners.grid.cells import Cell
from runners.records.environment import CPU_KERNELS
from runners.records.record import Record
from runners.records.reference_records import ReferenceCell, identity

SAME_MACHINE = ("device_name", "torch", "threads", "steps", "output_layer", *CPU_KERNELS)
"""Fields of the environment that may change a number without a change of code; equal in both runs."""


@dataclass(frozen=True)
class Shown:
    """Cells of one method that have the same numbers under two hashes of its code."""

    method: str
    earlier: str
    later: str
    records: tuple[Record, ...]
    """Of the later code."""
    parts: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Name and earlier hash of other code of these cells (their network's, ...) -> its later hash."""
    added: Mapping[str, Any] = field(default_factory=dict)
    """Hyperparameters that the later code alone has, with their defaults."""

    @property
    def scenarios(self) -> set[str]:
        return {str(record.scenario) for record in self.records}

    def in_words(self) -> str:
        """Summary of the comparison and its place."""
        places = Counter(f"{r.benchmark} {r.scenario}" for r in self.records)
        at = self.records[0].environment
        cells = ", ".join(f"{name} {n}" for name, n in sorted(places.items()))
        return f"{count(len(self.records), 'cell')} on {at.get('device_name')}, torch {at.get('torch')}: {cells}"


def compare(earlier: Iterable[Record], later: Iterable[Record]) -> list[Shown]:
    """Methods whose code differs between two runs of the same cells while all numbers are equal.

    A hyperparameter that the later code alone has, at its default, makes no other cell of it. Raises UserError where a
    cell lacks its counterpart, was run under other conditions or has other numbers, and where nothing was compared.
    """
    run = list(later)
    counterparts = {identity(record): record for record in run}
    found: dict[tuple[str, str, str], list[tuple[Record, Record]]] = {}
    for record in earlier:
        other = counterparts.get(identity(record)) or _with_more_defaults(record, run)
        if other is None:
            raise UserError(f"{_title(record)}: run with the earlier code only; run it with the later code too")
        known = record.parts and other.parts
        if record.source == other.source and not (known and record.parts != other.parts):
            continue
        _check_alike(record, other)
        found.setdefault((record.method, record.source, other.source), []).append((record, other))
    if not found:
        raise UserError("the two runs have no cell whose code differs: nothing can be shown by them")
    return [
        Shown(*names, tuple(later for _, later in pairs), _parts(pairs), _added(*pairs[0]))
        for names, pairs in found.items()
    ]


def _with_more_defaults(earlier: Record, run: Iterable[Record]) -> Record | None:
    """The cell of the later code that differs in hyperparameters alone which are new and have their defaults."""
    for later in run:
        added = _added(earlier, later)
        if added and later.method == earlier.method:
            defaults = hyperparameters.as_json(registry.load(later.method).Config())
            known = {name: value for name, value in later.config.items() if name not in added}
            alike = identity(replace(later, config=known)) == identity(earlier)
            if alike and all(defaults.get(name, MISSING) == value for name, value in added.items()):
                return later
    return None


def _added(earlier: Record, later: Record) -> dict[str, Any]:
    return {name: value for name, value in later.config.items() if name not in earlier.config}


def _parts(pairs: Sequence[tuple[Record, Record]]) -> dict[tuple[str, str], str]:
    return {
        (name, digest): later.parts[name]
        for earlier, later in pairs
        for name, digest in earlier.parts.items()
        if name in later.parts
    }


def _check_alike(earlier: Record, later: Record) -> None:
    for record in (earlier, later):
        if record.environment.get("resumed_from"):
            raise UserError(f"{_title(record)}: resumed under other conditions; run it again without a stop (--rerun)")
    recorded = earlier.environment.keys() & later.environment.keys()
    for name in SAME_MACHINE:
        if name in CPU_KERNELS and name not in recorded:
            continue  # code from before these were recorded: not known, which is no difference
        before, now = earlier.environment.get(name), later.environment.get(name)
        if before != now:
            raise UserError(f"{_title(earlier)}: {name} was {before} and is {now}; run both under the same conditions")
    if earlier.status is not later.status:
        raise UserError(f"{_title(earlier)}: {earlier.status} with the earlier code, {later.status} with the later one")
    names = earlier.files.keys() | later.files.keys()
    other = sorted(name for name in names if earlier.files.get(name) != later.files.get(name))
    if other:
        raise UserError(
            f"{_title(earlier)}: the later code gives other numbers ({', '.join(other)}); run the cells anew"
        )


def carry(cells: Sequence[ReferenceCell], shown: Iterable[Shown]) -> Iterator[ReferenceCell]:
    """Reference records in which those of earlier code have the keys of the later code.

    Records in scenarios that were not compared keep their keys: nothing is known of them.
    """
    by_source = {(one.method, one.earlier): one for one in shown}
    for cell in cells:
        one = by_source.get((cell.record.method, cell.record.source))
        compared = one is not None and str(cell.record.scenario) in one.scenarios
        yield replace(cell, record=_carried(cell.record, one)) if one and compared else cell


def left_out(cells: Sequence[ReferenceCell], shown: Iterable[Shown]) -> dict[str, int]:
    """Number of reference records of the earlier code by "method scenario", where the scenario was not compared."""
    by_source = {(one.method, one.earlier): one for one in shown}
    records = [cell.record for cell in cells if (cell.record.method, cell.record.source) in by_source]
    return Counter(
        f"{r.method} {r.scenario}" for r in records if str(r.scenario) not in by_source[r.method, r.source].scenarios
    )


def _carried(record: Record, shown: Shown) -> Record:
    """Record with the key of the later code; unchanged if its key is stale for another reason."""
    config = {**shown.added, **record.config}
    cell = Cell(
        method=record.method, reference="", label=record.label, config=record.config, benchmark=record.benchmark,
        definition=record.definition, scenario=record.scenario, seed=record.seed, budget=record.budget,
        network=record.network, source=record.source,
        parts=record.parts or parts_of(catalogue.find(record.benchmark), record.network),
    )  # fmt: skip
    if cell.key != record.key:
        return record
    words = f"computed by source {record.source[:12]}, which gives the same numbers: {shown.in_words()}"
    carried = f"{record.carried}; {words}" if record.carried else words
    parts = {name: shown.parts.get((name, digest), digest) for name, digest in cell.parts.items()}
    key = replace(cell, source=shown.later, parts=parts, config=config).key
    return replace(record, key=key, source=shown.later, parts=parts, config=config, carried=carried)


def _title(record: Record) -> str:
    return f"{record.benchmark} {record.scenario} {record.label} seed {record.seed}"
