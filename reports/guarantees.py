"""Quality of the interval methods' guarantees: certified against measured accuracy, and the claims' premises."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from reports.metrics import ACC, CERTIFIED
from reports.record import ClaimRow
from reports.study import Entry, Group, Study, pretty
from reports.tables import Cell, Notes, Table, measured, percent, shorten, spread_words


@dataclass(frozen=True)
class Promise:
    """Guarantee of a method in one group, over all its finished seeds; counts are sums over seeds."""

    group: Group
    label: str
    certified: float | None
    when_learnt: float | None
    """Mean over tasks and seeds of the certified accuracy just after learning the task."""
    on_training: float | None
    """Mean certified accuracy on training samples just after learning: one minus the papers' worst-case error."""
    claims: int
    holding: int
    violations: int
    broken: int
    """Number of violations of claims that still held, which a sound certificate excludes."""
    drift: float | None
    width: float | None
    """Median over tasks and seeds of the median weight interval width, after the last task."""
    logit_width: float | None
    reasons: tuple[str, ...]

    @property
    def about_numbers(self) -> bool:
        """True if there are claims, and certificates of answers were never given."""
        return bool(self.claims) and self.certified is None and self.when_learnt is None


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
    every = [claim for entry in entries for claim in entry.record.claims]
    certified = [v for e in entries if (v := e.measures[CERTIFIED.key].value) is not None]
    learnt = [np.diagonal(e.record.certified[1:]) for e in entries if e.record.certified is not None]
    reasons = Counter(claim.reason for claim in final if claim.reason)
    return Promise(
        group=group,
        label=label,
        certified=float(np.mean(certified)) if certified else None,
        when_learnt=_finite_mean(np.concatenate(learnt)) if learnt else None,
        on_training=_finite(np.mean, [claim.certified_train for claim in every]),
        claims=len(final),
        holding=sum(holds(claim) for claim in final),
        violations=sum(claim.violation for claim in every),
        broken=sum(claim.violation and holds(claim) for claim in every),
        drift=_finite(max, [claim.drift for claim in final]),
        width=_finite(np.median, [claim.median_width for claim in final]),
        logit_width=_finite(np.median, [claim.median_logit_width for claim in final]),
        reasons=tuple(reason for reason, _ in reasons.most_common(3)),
    )


def holds(claim: ClaimRow) -> bool:
    """Check whether the premise of a claim still holds."""
    return claim.contained and not claim.reason


def _finite_mean(values) -> float | None:
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if len(kept) else None


def _finite(how, values: list[float]) -> float | None:
    kept = [value for value in values if value == value]
    return float(how(kept)) if kept else None


def guarantee_table(study: Study) -> Table | None:
    """Table of certified against measured accuracy and of valid claims; None if no method certifies."""
    found = promises(study)
    if not found:
        return None
    notes = Notes()
    rows = []
    for promise in found:
        void = "" if promise.holding == promise.claims or not promise.reasons else "; ".join(promise.reasons)
        said = [f"void: {shorten(void)}"] if void else []
        said += [ABOUT_NUMBERS] if promise.about_numbers else []
        rows.append(
            (
                Cell(promise.group.scenario.upper()),
                Cell(pretty(promise.group.benchmark)),
                Cell(promise.label),
                measured(study, promise.group, promise.label, ACC, notes),
                measured(study, promise.group, promise.label, CERTIFIED, notes),
                Cell("–" if promise.when_learnt is None else percent(promise.when_learnt)),
                Cell("–" if promise.on_training is None else percent(promise.on_training)),
                Cell(
                    f"{promise.holding}/{promise.claims}" if promise.claims else "–",
                    mark=notes.mark("; ".join(said)) if said else "",
                ),
                Cell(number(promise.drift)),
                Cell(number(promise.width)),
                Cell(number(promise.logit_width)),
                Cell(f"{promise.violations} ({promise.broken})" if promise.violations else "0"),
            )
        )
    caption = (
        f"Guarantees, measured: ACC and certified accuracy after the last task and certified accuracy when "
        f"learnt, on test and on training data (percent, {spread_words(study, {p.group for p in found})}); "
        "claims that hold after the last task (summed "
        "over seeds); largest drift of a task's region; median width of the weight and the logit intervals; "
        "violations: measured accuracy below the certificate from when the task was learnt, or a certified sample "
        "misclassified (in brackets: while the claim held)."
    )
    columns = (
        "scenario",
        "benchmark",
        "method",
        "ACC",
        "certified",
        "when learnt",
        "on training",
        "claims hold",
        "drift",
        "width",
        "logit width",
        "violations",
    )
    return Table(
        "guarantees",
        caption,
        columns,
        tuple(rows),
        notes.lines(),
        small=True,
        text_columns=frozenset({0, 1, 2}),
        named_once=2,
    )


def number(value: float | None) -> str:
    """Format a number with three significant digits; None is an en dash."""
    return "–" if value is None else f"{value:.3g}".replace("-", "−")
