"""Quality of the interval methods' guarantees: certified against measured accuracy, and the claims' premises."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from reports.metrics import ACC, CERTIFIED, STANDING, Metric
from reports.record import ClaimRow, Record
from reports.study import Entry, Group, Study
from reports.tables import Cell, Notes, Table, measured, method_cell, percent, shorten, spread_words


@dataclass(frozen=True)
class Promise:
    """Guarantee of a method in one group, over all its finished seeds; counts are sums over seeds.

    Claims, certificates when learnt and standing ones are those of old tasks: nothing was learnt after the last task,
    so what was claimed of it holds trivially.
    """

    group: Group
    label: str
    standing: float | None
    """Mean over old tasks and seeds of the certified accuracy when learnt, 0 where the claim no longer holds."""
    certified: float | None
    """Mean over all tasks and seeds of the certified accuracy after the last task."""
    when_learnt: float | None
    """Mean over old tasks and seeds of the certified accuracy just after learning the task."""
    on_training: float | None
    """The same on training samples: one minus the papers' worst-case error."""
    claims: int
    holding: int
    violations: int
    broken: int
    """Number of violations of claims that still held, which a sound certificate excludes."""
    drift: float | None
    width: float | None
    """Median over tasks and seeds of the median weight interval width, after the last task."""
    logit_width: float | None
    """The same of the logits, where no task is inferred."""
    reasons: tuple[str, ...]
    """Reasons of all void claims about old tasks; see `_ranges`."""

    @property
    def about_numbers(self) -> bool:
        """True if there are claims, and certificates of answers were never given."""
        return bool(self.claims) and self.certified is None and self.when_learnt is None


NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")
ABOUT_NUMBERS = "no answer is certified: the claim is about the method's numbers, as its page says"


def promises(study: Study) -> list[Promise]:
    """Guarantees of every method and group with certificates or claims."""
    found = []
    for group in study.groups:
        for label in study.rows(group):
            entries = [e for e in study.done(group, label) if e.record.certified is not None or e.record.claims]
            if entries:
                found.append(_promise(group, label, entries))
    return found


def _promise(group: Group, label: str, entries: list[Entry]) -> Promise:
    final = [claim for entry in entries for claim in entry.record.claims if claim.after == entry.record.n_tasks]
    old = [claim for entry in entries for claim in old_claims(entry.record)]
    every = [claim for entry in entries for claim in entry.record.claims]
    learnt = [np.diagonal(e.record.certified[1:])[:-1] for e in entries if e.record.certified is not None]
    seen = [claim for e in entries for claim in e.record.claims if claim.task < e.record.n_tasks - 1]
    reasons = Counter(claim.reason for claim in old if claim.reason)
    return Promise(
        group=group,
        label=label,
        standing=_mean_of(entries, STANDING),
        certified=_mean_of(entries, CERTIFIED),
        when_learnt=_finite_mean(np.concatenate(learnt)) if learnt else None,
        on_training=_finite(np.mean, [claim.certified_train for claim in seen]),
        claims=len(old),
        holding=sum(claim.holds for claim in old),
        violations=sum(claim.violation for claim in every),
        broken=sum(claim.violation and claim.holds for claim in every),
        drift=_finite(max, [claim.drift for claim in final]),
        width=_finite(np.median, [claim.median_width for claim in final]),
        logit_width=_finite(np.median, [width for entry in entries for width in logit_widths(entry.record).values()]),
        reasons=tuple(_ranges(reasons)),
    )


def _ranges(reasons: Counter[str]) -> list[str]:
    """Reasons, the most frequent first; of those that differ in their numbers only, one with the range of each number.

    `3 of 9 weights have left the box`, `5 of 9 weights ...` -> `3 to 5 of 9 weights have left the box`.
    """
    alike: dict[tuple[str, ...], Counter[str]] = {}
    for reason, times in reasons.items():
        alike.setdefault(tuple(NUMBER.split(reason)), Counter())[reason] = times
    found = []
    for words, some in sorted(alike.items(), key=lambda pair: -pair[1].total()):
        columns = zip(*(NUMBER.findall(reason) for reason in some), strict=True)
        ends = [(min(numbers, key=float), max(numbers, key=float)) for numbers in columns]
        numbers = [low if low == high else f"{low} to {high}" for low, high in ends]
        found.append("".join(part for pair in zip(words, [*numbers, ""], strict=True) for part in pair))
    return found


def old_claims(record: Record) -> list[ClaimRow]:
    """Claims about old tasks, that is all but the last one, as they are after the last task."""
    last = record.n_tasks - 1
    return [claim for claim in record.claims if claim.after == record.n_tasks and claim.task < last]


def logit_widths(record: Record) -> dict[int, float]:
    """Median width of the logits' intervals by task, after the last task; none where the record's task is inferred.

    There the intervals hold the constant that the inference gives to the classes of tasks not chosen.
    """
    if record.inferred is not None:
        return {}
    return {claim.task: claim.median_logit_width for claim in record.claims if claim.after == record.n_tasks}


def _mean_of(entries: list[Entry], metric: Metric) -> float | None:
    values = [value for entry in entries if (value := entry.measures[metric.key].value) is not None]
    return float(np.mean(values)) if values else None


def _finite_mean(values) -> float | None:
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if len(kept) else None


def _finite(how, values: list[float]) -> float | None:
    kept = [value for value in values if value == value]
    return float(how(kept)) if kept else None


COLUMNS = (
    "benchmark",
    "method",
    "standing",
    "certified",
    "learnt",
    "training",
    "ACC",
    "old claims",
    "drift",
    "width",
    "logits",
    "violations",
)


def guarantee_table(study: Study) -> Table | None:
    """Table of standing certificates, certified against measured accuracy, and valid claims; None without any."""
    found = promises(study)
    if not found:
        return None
    notes = Notes()
    return Table(
        "guarantees",
        f"Guarantees, measured: percent, {spread_words(study, {p.group for p in found})}. Standing is the accuracy "
        "certified when an old task was learnt, 0 where the claim about it no longer holds after the last task; "
        "certified: certified anew after the last task, over all tasks; learnt and training: certified when an old "
        "task was learnt, on test and on training data, whether or not its claim still holds; ACC: measured accuracy. "
        "Old claims: those about old tasks (all but the last) that hold after the last task, of all, over seeds. "
        "Width and logits: median width of the intervals of the weights (where boxes only shrink, of the box that each "
        "task left), and of the logits at the end, where the task is not inferred. Violations: measured accuracy below "
        "the certificate from when the task was learnt, or a certified sample misclassified (in brackets: while the "
        "claim held).",
        COLUMNS,
        tuple(_row(study, promise, notes) for promise in found),
        notes.lines(),
        small=True,
        text_columns=frozenset({0, 1}),
        named_once=1,
    )


def _row(study: Study, promise: Promise, notes: Notes) -> tuple[Cell, ...]:
    def share(value: float | None) -> Cell:
        return Cell("–" if value is None else percent(value))

    void = "" if promise.holding == promise.claims or not promise.reasons else "; or ".join(promise.reasons)
    said = [f"void: {shorten(void)}"] if void else []
    said += [ABOUT_NUMBERS] if promise.about_numbers else []
    return (
        Cell(promise.group.title),
        method_cell(promise.label),
        measured(study, promise.group, promise.label, STANDING, notes),
        measured(study, promise.group, promise.label, CERTIFIED, notes),
        share(promise.when_learnt),
        share(promise.on_training),
        measured(study, promise.group, promise.label, ACC, notes),
        Cell(
            f"{promise.holding}/{promise.claims}" if promise.claims else "–",
            mark=notes.mark("; ".join(said)) if said else "",
            key=f"{promise.holding} of {promise.claims}" if promise.claims else "",  # spreadsheets read 6/8 as a date
        ),
        Cell(number(promise.drift)),
        Cell(number(promise.width)),
        Cell(number(promise.logit_width)),
        Cell(f"{promise.violations} ({promise.broken})" if promise.violations else "0"),
    )


def number(value: float | None) -> str:
    """Format a number with three significant digits; None is an en dash."""
    return "–" if value is None else f"{value:.3g}".replace("-", "−")
