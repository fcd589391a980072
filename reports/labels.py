"""Labels of rows with their names for readers: a variant is named by the hyperparameters in which it differs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reports.names import SYMBOLS, Label, display
from reports.record import Record

LENGTH_AT_MOST = 40
"""Largest number of characters of a variant's name that hyperparameters may fill; the rest is an ellipsis."""

_BETWEEN = re.compile(r", (?![^\[]*\])")
"""Comma between the parts of an id, not one within a list."""


def labelled(records: Sequence[Record], texts: Mapping[Path, str]) -> dict[Path, Label]:
    """Label of each record by its folder. texts: the ids of the rows by folder, as in CSV files."""
    of_label: dict[str, list[Record]] = {}
    for record in records:
        of_label.setdefault(texts[record.folder], []).append(record)
    names: dict[str, str] = {}
    for text, own in of_label.items():
        name = display(text) if own[0].label == own[0].method else _variant(text, own, records)
        names[text] = text if name in names.values() else name
    found = {text: Label(text, names[text], own[0].method) for text, own in of_label.items()}
    return {record.folder: found[texts[record.folder]] for record in records}


def _variant(text: str, own: Sequence[Record], records: Sequence[Record]) -> str:
    """Name of a variant: its method's name and its own values; the id if it has none."""
    settings = _own_settings(own, records)
    distinctive = text.removeprefix(own[0].label).removeprefix(" (").removesuffix(")")
    further = [part for part in _BETWEEN.split(distinctive) if part and part.partition("=")[0] not in settings]
    parts = [f"{SYMBOLS.get((own[0].method, key), key)} = {shown(value)}" for key, value in settings.items()]
    name = display(own[0].method)
    parts = _fitting(name, [*parts, *(part.replace("=", " = ") for part in further)])
    return f"{name} ({', '.join(parts)})" if parts else text


def _fitting(name: str, parts: Sequence[str]) -> list[str]:
    """The first parts that a name has room for, at least one."""
    kept: list[str] = []
    for part in parts:
        if kept and len(f"{name} ({', '.join([*kept, part])})") > LENGTH_AT_MOST:
            return [*kept, "…"]
        kept.append(part)
    return kept


def _own_settings(own: Sequence[Record], records: Sequence[Record]) -> dict[str, Any]:
    """Values in which a variant differs from the row of its method in the same place.

    Without such a row: the chosen values that its id names, or else all chosen ones. Values that the variant itself
    has differently in several places do not name it.
    """
    plain = {_place(r): r for r in records if r.method == own[0].method and r.label == r.method}
    found: dict[str, list[Any]] = {}
    for record in {_place(record): record for record in own}.values():
        base = plain.get(_place(record))
        if base:
            keys = [key for key in record.config if key in base.config and record.config[key] != base.config[key]]
        else:
            chosen = [key for key in record.config if key in record.chosen]
            keys = [key for key in chosen if key in record.label] or chosen
        for key in keys:
            found.setdefault(key, []).append(record.config[key])
    return {key: values[0] for key, values in found.items() if all(value == values[0] for value in values)}


def _place(record: Record) -> tuple[Any, ...]:
    return record.benchmark, record.scenario, record.network, repr(sorted(record.budget.items()))


def shown(value: Any) -> str:
    """Value of a hyperparameter in words: `0.1`, `400-400`, `none`."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return "-".join(map(shown, value)) or "none"
    return "none" if value is None else str(value)
