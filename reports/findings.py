"""Main findings in plain words; each sentence is derived from the data, or left out if they do not support it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from reports import statistics
from reports.guarantees import Promise, promises
from reports.metrics import ACC, BWT, FORGETTING, INFERENCE
from reports.record import Status
from reports.study import LOWER_BOUND, Group, Study, pretty
from reports.tables import percent
from reports.words import count, join

MOST_GUARANTEES = 3
"""Largest number of methods whose guarantee gets its own sentence."""


def findings(study: Study) -> list[str]:
    """Sentences of the summary, most important first."""
    return [
        *_what(study),
        *_winners(study),
        *_significance(study),
        *_bounds(study),
        *_inference(study),
        *_guarantees(study),
        *_failures(study),
    ]


def _what(study: Study) -> Iterator[str]:
    seeds = sorted({len(study.seeds(group)) for group in study.groups})
    often = count(seeds[0], "seed") if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    done = sum(entry.record.done for entry in study.entries)
    names = join([pretty(benchmark) for benchmark in study.benchmarks])
    scenarios = join([scenario.upper() for scenario in study.scenarios])
    yield (
        f"{methods(study)} on {names} in {scenarios}, {often} each: {done} of "
        f"{count(len(study.entries), 'cell')} ended with results."
    )


def methods(study: Study) -> str:
    """Number of methods in words, and of table rows if some methods have several."""
    number, rows = len(study.methods), len(study.labels)
    return count(number, "method") + (
        f" ({rows} rows: some with several hyperparameter settings)" if rows > number else ""
    )


def means(study: Study, group: Group) -> list[tuple[str, float]]:
    """Labels and their mean ACC, best first, without the upper bound and methods that keep training data."""
    found = []
    for label in study.rows(group):
        values = study.values(group, label, ACC)
        if values and label not in study.unranked:
            found.append((label, sum(values.values()) / len(values)))
    return sorted(found, key=lambda pair: -pair[1])


def _winners(study: Study) -> Iterator[str]:
    for scenario in study.scenarios:
        first: dict[tuple[str, ...], list[_Lead]] = {}
        for group in study.groups:
            ranked = means(study, group)
            if group.scenario == scenario and len(ranked) > 1:
                top = ranked[0][1]
                level = tuple(label for label, mean in ranked if percent(mean) == percent(top))
                second, gap = "", 0.0
                if len(level) < len(ranked):
                    second, gap = ranked[len(level)][0], top - ranked[len(level)][1]
                first.setdefault(level, []).append(_Lead(group, top, gap, second, _of_few(study, group)))
        if first:
            parts = [
                f"{join(level)} {'is best' if len(level) == 1 else 'are tied for best'} on {_leads(leads)}"
                for level, leads in first.items()
            ]
            yield f"In {scenario.upper()}, {'; '.join(parts)}."


class _Lead(NamedTuple):
    group: Group
    top: float
    gap: float
    """Gap to the first mean that is lower as printed."""
    second: str
    """Method with that mean; empty if all are tied."""
    of_few: str
    """Note that only some methods were run there, which makes the lead worth less."""


def _of_few(study: Study, group: Group) -> str:
    """Note for a group that lacks a method run on half of the scenario's benchmarks or more; else empty."""

    def run(place: Group) -> set[str]:
        return {entry.record.method for label in study.run(place) for entry in study.at(place, label)}

    places = [other for other in study.groups if other.scenario == group.scenario]
    often = Counter(method for place in places for method in run(place))
    here = run(group)
    missing = any(2 * times >= len(places) for method, times in often.items() if method not in here)
    return f"of the {len(here)} methods run there" if missing else ""


def _leads(leads: Sequence[_Lead]) -> str:
    if len(leads) <= 2:
        return join(
            [
                f"{pretty(lead.group.benchmark)} "
                f"({', '.join(filter(None, (f'{percent(lead.top)} %', _before(lead), lead.of_few)))})"
                for lead in leads
            ]
        )
    gaps = [100 * lead.gap for lead in leads if lead.second]
    seconds = dict.fromkeys(lead.second for lead in leads if lead.second)
    few = sum(bool(lead.of_few) for lead in leads)
    named = [pretty(lead.group.benchmark) + f" ({lead.of_few})" * bool(lead.of_few) for lead in leads]
    names = (
        join(named)
        if len(leads) <= 4
        else f"{len(leads)} benchmarks" + f" ({few} of them with some methods only)" * bool(few)
    )
    return f"{names} (by {min(gaps):.2f} to {max(gaps):.2f} points ahead of {' or '.join(seconds)})" if gaps else names


def _before(lead: _Lead) -> str:
    return f"{100 * lead.gap:.2f} points ahead of {lead.second}" if lead.second else ""


def _significance(study: Study) -> Iterator[str]:
    tested: list[tuple[Group, str, str, statistics.Comparison]] = []
    for group in study.groups:
        ranked = means(study, group)
        if len(ranked) < 2:
            continue
        best, second = ranked[0][0], ranked[1][0]
        a, b = study.values(group, best, ACC), study.values(group, second, ACC)
        seeds = sorted(a.keys() & b.keys())
        if seeds:
            comparison = statistics.sign_flip([a[s] for s in seeds], [b[s] for s in seeds])
            tested.append((group, best, second, comparison))
    if not tested:
        return
    able = [test for test in tested if statistics.smallest_p(test[3].n) <= statistics.ALPHA]
    if not able:
        most = max(test[3].n for test in tested)
        yield (
            f"With {count(most, 'paired seed')} no difference can be significant: an exact two-sided sign-flip test "
            f"gives p = {statistics.smallest_p(most):.3g} at best, and 6 seeds are needed for p < 0.05."
        )
        return
    most, needed = max(test[3].n for test in able), statistics.ALPHA / len(able)
    if statistics.smallest_p(most) > needed:
        yield (
            f"No lead of the best over the second can be significant: {count(len(able), 'comparison')} need "
            f"p < {needed:.2g} (Holm), and {count(most, 'paired seed')} give {statistics.smallest_p(most):.2g} at best."
        )
        return
    adjusted = statistics.holm([test[3].p for test in able])
    clear = [test for test, p in zip(able, adjusted, strict=True) if p <= statistics.ALPHA]
    yield (
        f"The lead of the best over the second is significant in {len(clear)} of {count(len(able), 'comparison')} "
        "(exact sign-flip test paired over seeds, Holm-adjusted, 5 %)"
        + (f": {join([_clear(*test) for test in clear[:6]])}." if 0 < len(clear) < len(able) else ".")
    )


def _clear(group: Group, best: str, second: str, comparison: statistics.Comparison) -> str:
    return f"{best} over {second} on {group.title} (p = {comparison.p:.3g}, d = {comparison.effect:.1f})"


def _bounds(study: Study) -> Iterator[str]:
    lost = []
    for group in study.groups:
        for label in study.rows(group):
            if any(entry.record.method == LOWER_BOUND for entry in study.at(group, label)):
                values = study.values(group, label, FORGETTING)
                if values:
                    lost.append((sum(values.values()) / len(values), group))
    if not lost:
        return
    low, high = min(lost, key=lambda p: p[0]), max(lost, key=lambda p: p[0])
    if low[1] == high[1]:
        yield f"Plain fine-tuning forgets {100 * high[0]:.1f} points ({high[1].title})."
    else:
        yield (
            f"Plain fine-tuning forgets between {100 * low[0]:.1f} points ({low[1].title}) and {100 * high[0]:.1f} "
            f"points ({high[1].title})."
        )
    kept = [
        (group, label, sum(v.values()) / len(v))
        for group in study.groups
        for label in study.rows(group)
        if label not in study.unranked and (v := study.values(group, label, BWT))
    ]
    if kept:
        group, label, worst = min(kept, key=lambda t: t[2])
        near = sum(value >= -0.01 for _, _, value in kept)
        yield (
            f"Backward transfer is at least −1 point in {near} of {len(kept)} combinations of "
            f"method, benchmark and scenario; the lowest is {percent(worst, signed=True)} points ({label}, "
            f"{group.title})."
        )


def _inference(study: Study) -> Iterator[str]:
    shares: dict[str, list[float]] = {}
    for group in study.groups:
        for label in study.rows(group):
            values = study.values(group, label, INFERENCE)
            if values:
                shares.setdefault(label, []).append(sum(values.values()) / len(values))
    if shares:
        parts = [f"{label} for {_range(found)} of the test samples" for label, found in shares.items()]
        yield f"In CIL the right task is inferred by {join(parts)}."


def _range(shares: Sequence[float]) -> str:
    low, high = percent(min(shares)), percent(max(shares))
    return f"{low} %" if low == high else f"{low} to {high} %"


def _guarantees(study: Study) -> Iterator[str]:
    by_label: dict[str, list[Promise]] = {}
    for promise in promises(study):
        by_label.setdefault(promise.label, []).append(promise)
    for label, found in list(by_label.items())[:MOST_GUARANTEES]:
        numbers = [p for p in found if p.about_numbers]
        answers = [p for p in found if p not in numbers]
        parts = []
        if any(p.claims for p in answers):
            parts.append(f"{_kept(answers)} about a task still hold after the last task")
        if numbers:
            parts.append(f"{_kept(numbers)} about its numbers hold where no answer is certified")
        certified = [p.certified for p in answers if p.certified is not None]
        if certified:
            parts.append(f"certified accuracy is {_range(certified)}")
        violations, broken = sum(p.violations for p in answers), sum(p.broken for p in answers)
        fell = (
            f"its certificates were contradicted {count(violations, 'time')}, {broken or 'never'} while the claim held"
        )
        if answers:
            parts.append(fell if violations else "no certificate was broken")
        yield f"How well {label}'s guarantee held: {join(parts)}."
    if len(by_label) > MOST_GUARANTEES:
        more = count(len(by_label) - MOST_GUARANTEES, "more method")
        yield f"The table of guarantees also covers {more}."


def _kept(promises: Sequence[Promise]) -> str:
    return f"{sum(p.holding for p in promises)} of {count(sum(p.claims for p in promises), 'claim')}"


def _failures(study: Study) -> Iterator[str]:
    statuses = Counter(entry.record.status for entry in study.entries)
    words = {
        Status.SKIPPED: "skipped",
        Status.DIVERGED: "diverged",
        Status.FAILED: "failed",
        Status.OOM: "out of memory",
        Status.RUNNING: "unfinished",
    }
    parts = [f"{statuses[status]} {word}" for status, word in words.items() if statuses[status]]
    if parts:
        yield f"Cells without results: {join(parts)}; the tables name each with its reason."
    if study.source.superseded:
        yield f"Superseded by newer records of the same cell: {count(len(study.source.superseded), 'record')}."
    if carried := sum(bool(entry.record.carried) for entry in study.entries):
        words = "of earlier code that was shown to give the same numbers (see the table of the environment)."
        yield f"{count(carried, 'record')} {words}"
    if study.source.problems:
        yield f"{count(len(study.source.problems), 'folder')} could not be read and were left out (see the appendix)."
