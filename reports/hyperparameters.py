"""Hyperparameters of every method, and the sources of their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reports.distinct_names import pretty
from reports.labels import shown
from reports.record import Record
from reports.study import Group, Study
from reports.tables import Cell, Notes, Table, method_cell

DEFAULTS = "defaults"


def hyperparameters(study: Study) -> Table:
    """Table of what differs from every method's defaults and of its sources; the CSV has all values.

    A method has one row for all places with the same values.
    """
    rows: list[tuple[Cell, ...]] = []
    notes = Notes()
    for label in study.labels:
        records: dict[Group, Record] = {}
        for entry in study.entries:
            if entry.label == label:
                records.setdefault(entry.group, entry.record)
        keys = list(dict.fromkeys(key for record in records.values() for key in record.config))
        varies = {key for key in keys if len({repr(r.config[key]) for r in records.values() if key in r.config}) > 1}
        places: dict[tuple[str, str], list[Group]] = {}
        for group in study.groups:
            if group in records:
                config, chosen = records[group].config, records[group].chosen
                places.setdefault((repr(dict(config)), repr(dict(chosen))), []).append(group)
        for groups in places.values():
            everywhere = len(places) == 1 and len(groups) > 1
            where = "everywhere" if everywhere else _places(groups)
            rows.append((method_cell(label), Cell(where), *_settings(records[groups[0]], varies, notes)))
    return Table(
        "hyperparameters",
        "Hyperparameters of every method, as recorded with each cell: those that are not the method's defaults or that "
        "differ between places, to three digits. Letters name the source of the values before them; the sources are "
        "under the table. The CSV of this table has all values in full.",
        ("method", "where", "settings", "how chosen"),
        tuple(rows),
        notes.lines(),
        small=True,
        text_columns=frozenset(range(4)),
        named_once=1,
    )


def _places(groups: Sequence[Group]) -> str:
    """Groups in words: `Split Digits TIL, CIL; Split MNIST TIL`."""
    found: dict[str, list[str]] = {}
    for group in groups:
        found.setdefault(pretty(group.benchmark), []).append(group.scenario.upper())
    return "; ".join(f"{name} {', '.join(scenarios)}" for name, scenarios in found.items())


def _settings(record: Record, varies: set[str], notes: Notes) -> tuple[Cell, Cell]:
    """Cells of the values and of their sources, in the same order; in the CSV all values, and the sources in words."""
    sources: dict[str, list[str]] = {}
    for key in record.config:
        if key in record.chosen or key in varies:
            sources.setdefault(record.chosen.get(key, DEFAULTS), []).append(key)
    values = "; ".join(_short({key: record.config[key] for key in keys}) for keys in sources.values())
    letters = "; ".join(DEFAULTS if source == DEFAULTS else notes.mark(source) for source in sources)
    named = [f"{', '.join(keys)}: {source}" for source, keys in sources.items() if source != DEFAULTS]
    others = f"others: {DEFAULTS}" if named else DEFAULTS
    all_sourced = set(record.config) <= set(record.chosen)
    words = "; ".join([*named, *([] if all_sourced else [others])])
    return Cell(values or "–", key=settings_text(record.config)), Cell(letters or DEFAULTS, key=words)


def _short(config: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} = {f'{value:.3g}' if isinstance(value, float) else shown(value)}" for key, value in config.items()
    )


def settings_text(config: Mapping[str, Any]) -> str:
    """Configuration in words: `lr=0.001, beta=0.01`."""
    parts = (f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in config.items())
    return ", ".join(parts) or "none"
