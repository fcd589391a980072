"""Hyperparameters of every method, and the sources of their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reports.record import Record
from reports.study import Group, Study
from reports.tables import Table, text_cells


def hyperparameters(study: Study) -> Table:
    """Table of every method's configuration and its source: first the common values, then those that differ."""
    rows = []
    for label in study.labels:
        records: dict[Group, Record] = {}
        for entry in study.entries:
            if entry.label == label:
                records.setdefault(entry.group, entry.record)
        keys = list(dict.fromkeys(key for record in records.values() for key in record.config))
        varies = [key for key in keys if len({_with_source(record, key) for record in records.values()}) > 1]
        common, first = [key for key in keys if key not in varies], next(iter(records.values()))
        where = "everywhere" if len(records) > 1 else next(iter(records)).title
        rows.append((label, where, *_settings(first, common)))
        by_settings: dict[tuple[str, str], list[str]] = {}
        for group in study.groups:
            if group in records and varies:
                by_settings.setdefault(_settings(records[group], varies), []).append(group.title)
        rows += [("", "; ".join(groups), *texts) for texts, groups in by_settings.items()]
    return Table(
        "hyperparameters",
        "Hyperparameters of every method, as recorded with each cell, and the source of every value that is not the "
        "method's default.",
        ("method", "where", "settings", "how chosen"),
        tuple(text_cells(row, 0) for row in rows),
        text_columns=frozenset(range(4)),
    )


def _with_source(record: Record, key: str) -> tuple[str, str]:
    return repr(record.config.get(key)), record.chosen.get(key, "")


def _settings(record: Record, keys: Sequence[str]) -> tuple[str, str]:
    """Values of `keys`, and the sources of those that are not defaults."""
    sources: dict[str, list[str]] = {}
    for key in keys:
        if key in record.chosen:
            sources.setdefault(record.chosen[key], []).append(key)
    known = [key for key in keys if key in record.config]
    default = "" if len(known) == sum(map(len, sources.values())) else "others: defaults" if sources else "defaults"
    parts = [f"{', '.join(names)}: {source}" for source, names in sources.items()]
    return settings_text({key: record.config[key] for key in known}), "; ".join([*parts, *([default] * bool(default))])


def settings_text(config: Mapping[str, Any]) -> str:
    """Configuration in words: `lr=0.001, beta=0.01`."""
    shown = (f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in config.items())
    return ", ".join(shown) or "none"
