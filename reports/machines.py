"""Machines that the times of records were measured on. Times of two machines do not compare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from reports.record import Record
from reports.study import Entry, Study
from reports.words import count, join

_SAME = {"tasks_done", "commit"}
"""Fields of a part of a resumed cell that name no condition its seconds depend on."""


def machine(record: Record) -> str:
    """Device and threads of a cell: `AMD EPYC, 1 thread`; empty if not recorded.

    A cell that was begun under other conditions is of no machine that others share: its seconds are of two.
    """
    environment = record.environment
    device = str(environment.get("device_name") or environment.get("processor") or "")
    threads = environment.get("threads")
    on_gpu = str(environment.get("device") or "").startswith("cuda")
    found = f"{device}, {count(threads, 'thread')}" if device and isinstance(threads, int) and not on_gpu else device
    begun = environment.get("resumed_from")
    elsewhere = isinstance(begun, list) and any(set(part) - _SAME for part in begun if isinstance(part, dict))
    return f"{found}, begun elsewhere" if elsewhere else found


def letters(study: Study) -> Mapping[str, str]:
    """Machine -> letter; empty if all times of the study are of one machine."""
    found = dict.fromkeys(machine(e.record) for e in study.entries if e.record.done and e.record.train_seconds)
    return dict(zip(found, _alphabet(len(found)), strict=True)) if len(found) > 1 else {}


def in_words(names: Mapping[str, str]) -> str:
    """`A: AMD EPYC, 1 thread; B: ...`."""
    return "; ".join(f"{letter}: {name or 'not recorded'}" for name, letter in names.items())


def by_machine(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Entries by machine, in order."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(machine(entry.record), []).append(entry)
    return found


def caution(entries: Iterable[Entry]) -> str:
    """Sentence for a figure whose times are of several machines; empty for one machine."""
    names = list(dict.fromkeys(machine(entry.record) or "a machine not recorded" for entry in entries))
    if len(names) < 2:
        return ""
    return f" The times are of {join(names)}, and only those of one machine compare."


def _alphabet(number: int) -> list[str]:
    return [chr(ord("A") + i) if number <= 26 else f"M{i + 1}" for i in range(number)]
