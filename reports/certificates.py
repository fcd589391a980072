"""Table of certificates by affine propagation and for inputs within a radius, next to those by interval bounds."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

from reports import statistics
from reports.distinct_names import pretty
from reports.schema import CertificateRow
from reports.study import Entry, Group, Study
from reports.tables import Cell, Notes, Table, method_cell, percent, spread_words
from reports.words import count

RADIUS = 1 / 255
"""The input radius of the table: a step of 8-bit images."""
NOT_MEASURED = "not measured"
_WAYS = [(how, radius) for radius in (0.0, RADIUS) for how in ("interval", "affine")]
COLUMNS = ("interval", "affine", "interval, 1/255", "affine, 1/255", "seconds, interval", "seconds, affine")


def certificate_table(study: Study) -> Table | None:
    """Table of the certifying methods whose records have such certificates; None without any."""
    found = [
        (group, label, entries)
        for group in study.groups
        for label in study.rows(group)
        if (entries := [e for e in study.done(group, label) if e.record.certified is not None])
    ]
    measured = [line for line in found if any(entry.record.certificates for entry in line[-1])]
    every = [row for *_, entries in measured for entry in entries for row in entry.record.certificates]
    if not every:
        return None
    notes, left = Notes(), len(found) - len(measured)
    lines = tuple(_line(group, label, entries, notes) for group, label, entries in measured)
    have = "has" if left == 1 else "have"
    older = (
        f"{count(left, 'further row')} of certifying methods {have} no such certificates: of an earlier version, or "
        "dropped with a note",
    )
    return Table(
        "certificates",
        "Certificates: input radius 1/255 and affine propagation. Certified accuracy after the last task in percent "
        f"({spread_words(study, {group for group, *_ in measured})}), on at most {max(row.samples for row in every)} "
        "test samples a task, the same in all columns; every pixel of a network's input may change by 1/255 of the "
        "pixels' range, within which it stays; seconds for all tasks and both radii.",
        ("scenario", "benchmark", "method", *COLUMNS),
        lines,
        (*notes.lines(), *(older if left else ())),
        small=True,
        text_columns=frozenset({0, 1, 2}),
        named_once=2,
    )


def _line(group: Group, label: str, entries: list[Entry], notes: Notes) -> tuple[Cell, ...]:
    measured = [entry.record.certificates for entry in entries if entry.record.certificates]
    older = ""
    if len(measured) < len(entries):
        older = notes.mark(
            f"{len(measured)} of {len(entries)} seeds: the others are of earlier versions, or were dropped with a note"
        )
    shares = [_cell([_share(rows, how, radius) for rows in measured], older, notes) for how, radius in _WAYS]
    seconds = [_seconds([_total(rows, how) for rows in measured if _any(rows, how)]) for how in ("interval", "affine")]
    return (Cell(group.scenario.upper()), Cell(pretty(group.benchmark)), method_cell(label), *shares, *seconds)


def _of(how: str, radius: float | None = None) -> Callable[[CertificateRow], bool]:
    return lambda row: row.propagation == how and (radius is None or abs(row.radius - radius) < 1e-9)


def _share(rows: tuple[CertificateRow, ...], how: str, radius: float) -> float | None:
    """Mean over the tasks; None if a task lacks it."""
    values = [row.certified for row in filter(_of(how, radius), rows)]
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _any(rows: tuple[CertificateRow, ...], how: str) -> bool:
    return any(row.certified is not None for row in filter(_of(how), rows))


def _total(rows: tuple[CertificateRow, ...], how: str) -> float:
    return sum(row.seconds for row in filter(_of(how), rows) if row.certified is not None)


def _cell(values: list[float | None], older: str, notes: Notes) -> Cell:
    known = [value for value in values if value is not None]
    if known:
        mean, deviation = fmean(known), statistics.spread(known)
        spread = "" if deviation is None else f" ± {percent(deviation)}"
        return Cell(percent(mean) + spread, mean, deviation, len(known), mark=older)
    refused = "the bounds of the method take no interval of inputs, or do not come from `propagate`"
    return Cell(NOT_MEASURED, mark=older or notes.mark(refused))


def _seconds(values: list[float]) -> Cell:
    return Cell(f"{fmean(values):.2g}" if values else NOT_MEASURED)
