"""What a method keeps of earlier tasks: an amount of training samples, or a word; the column `keeps` of the tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from reports.record import Record

if TYPE_CHECKING:
    from reports.study import Group, Study

COLUMN = "keeps"
ALL, NO_SAMPLES, UNKNOWN = "all samples", "no samples", "–"
_BY_WORD = {
    "nothing": ("finetune",),
    "weights": ("l2",),
    "importances": ("ewc", "ewc-online", "si", "mas"),
    "network": ("lwf",),
    "ranges": ("intact",),
    "embeddings": ("hnet", "hnet-lstm", "hypermask"),
    "boxes": ("hyperinterval",),
    "box": ("intercontinet", "intercontinet-released", "lid"),
    "networks": ("separate",),
    "masks": ("packnet", "wsn", "supsup"),
    "gates": ("hat",),
    "bases": ("gpm",),
    "sums": ("analytic",),
    ALL: ("joint",),
}
WORDS = {method: word for word, methods in _BY_WORD.items() for method in methods}
"""What a shipped method keeps besides the network that it answers with, by its id; `names.About.stored` says more."""


def samples(record: Record) -> int:
    """Training samples of earlier tasks that a record declares, or that were found if these are more."""
    held = record.fairness.get("held") or {}
    return max(held.get("declared", 0), held.get("found", 0))


def in_words(records: Iterable[Record]) -> str:
    """What the records of one row keep: `all samples`, `200 samples` (the most of any), `masks`, ...

    A shipped method has its word where its record measured no memory, as records of earlier versions; a method of the
    user's has `no samples` where none were declared or found, and a dash where nothing was measured.
    """
    found = list(records)
    if any((record.fairness.get("held") or {}).get("rehearses") for record in found):
        return ALL
    if most := max(map(samples, found), default=0):
        return f"{most:,} sample{'' if most == 1 else 's'}"
    measured = any("declared" in (record.fairness.get("held") or {}) for record in found)
    words = dict.fromkeys(WORDS.get(record.method, NO_SAMPLES if measured else UNKNOWN) for record in found)
    return " / ".join(words) or UNKNOWN


def of_rows(study: Study, labels: Sequence[str], groups: Iterable[Group]) -> list[str]:
    """What each of the rows keeps, in any of the groups."""
    wanted = set(groups)
    return [
        in_words(entry.record for entry in study.entries if entry.label == label and entry.group in wanted)
        for label in labels
    ]


def caption() -> str:
    """Sentence that defines the column, after a space."""
    return (
        " Keeps: what is kept of earlier tasks besides the network that answers; of training samples the number "
        "declared, or found if more, the most of any cell."
    )
