"""Main findings in plain words; each sentence is derived from the data, or left out if they do not support it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import NamedTuple

from reports import statistics
from reports.distinct_names import pretty
from reports.guarantees import Promise, promises
from reports.leads import means, seeds_with, significance
from reports.metrics import ACC, BWT, FORGETTING, INFERENCE
from reports.names import display
from reports.record import Status
from reports.resolution import images_of, tie
from reports.study import FINETUNE, Group, Study
from reports.words import count, join, percent

MOST_GUARANTEES = 3
"""Largest number of methods whose guarantee gets its own sentence."""


def findings(study: Study) -> list[str]:
    """Sentences of the summary, most important first."""
    return [
        *_what(study),
        *(sentence for scenario in study.scenarios for sentence in winners(study, scenario)),
        *significance(study),
        *_references(study),
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


def winners(study: Study, scenario: str) -> Iterator[str]:
    """Sentence on the best methods of one scenario."""
    first: dict[tuple[str, ...], list[_Lead]] = {}
    for group in study.groups:
        ranked = means(study, group)
        if group.scenario == scenario and len(ranked) > 1:
            top, images = ranked[0][1], images_of(study, group)
            level = tuple(label for label, mean in ranked if tie(mean, top, images))
            second, gap = "", 0.0
            if len(level) < len(ranked):
                second, gap = ranked[len(level)][0], top - ranked[len(level)][1]
            less = _of_few(study, group, level, second)
            first.setdefault(level, []).append(_Lead(group, top, gap, second, less))
    if first:
        parts = [
            f"{join([*map(display, level)])} {'is best' if len(level) == 1 else 'are tied for best'} on {_leads(leads)}"
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
    """Note on what makes the lead worth less: methods not run there, seeds without a result, or common seeds."""


def behind(study: Study, group: Group, label: str) -> dict[str, tuple[float, int]]:
    """Ranked methods with a lower mean ACC, but a higher one on the seeds that both have: by how much, and how many."""
    own, found = study.values(group, label, ACC), {}
    ranked = [name for name, _ in means(study, group)]
    for other in ranked[ranked.index(label) + 1 :]:
        values = study.values(group, other, ACC)
        difference = statistics.common_difference(values, own)
        if difference is not None and not tie(difference, 0.0, images_of(study, group)) and difference > 0:
            found[other] = difference, len(own.keys() & values.keys())
    return found


def _of_few(study: Study, group: Group, level: Sequence[str], second: str) -> str:
    """Note for a group that lacks a method run on half of the scenario's benchmarks or more, or seeds of the first two.

    It also names the methods that are ahead of those of `level` on the seeds that both have.
    """

    def run(place: Group) -> set[str]:
        return {entry.record.method for label in study.run(place) for entry in study.at(place, label)}

    places = [other for other in study.groups if other.scenario == group.scenario]
    often = Counter(method for place in places for method in run(place))
    here = run(group)
    missing = any(2 * times >= len(places) for method, times in often.items() if method not in here)
    parts = [f"of the {count(len(here), 'ranked method')} run there"] if missing else []
    for label in (*level, *([second] if second else [])):
        if few := seeds_with(study, group, label):
            parts.append(f"{display(label)} {few}")
    for label in level:
        for other, (lead, common) in behind(study, group, label).items():
            if other not in level:
                whom = f"{display(label)} is " if len(level) > 1 else ""
                seeds = count(common, "seed")
                parts.append(f"but {whom}{100 * lead:.1f} points behind {display(other)} on the {seeds} of both")
    return ", ".join(parts)


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
        else f"{len(leads)} benchmarks" + f" ({few} of them with some methods or seeds only)" * bool(few)
    )
    return (
        f"{names} (by {min(gaps):.1f} to {max(gaps):.1f} points ahead of {' or '.join(map(display, seconds))})"
        if gaps
        else names
    )


def _before(lead: _Lead) -> str:
    return f"{100 * lead.gap:.1f} points ahead of {display(lead.second)}" if lead.second else ""


def _references(study: Study) -> Iterator[str]:
    """Sentence on how often joint, which trains on all tasks so far, is beaten."""
    beaten, groups = [], 0
    for group in study.groups:
        joint = [fmean(v.values()) for label in study.references if (v := study.values(group, label, ACC))]
        ranked = means(study, group)
        if joint and ranked:
            groups += 1
            if ranked[0][1] > max(joint) and not tie(ranked[0][1], max(joint), images_of(study, group)):
                beaten.append(group.title)
    if beaten:
        where = f" ({join(beaten)})" if len(beaten) <= 4 else ""
        yield (
            f"Joint, which trains on all tasks so far, is a reference and no bound: another method has a higher "
            f"mean ACC in {len(beaten)} of {groups} combinations of benchmark and scenario{where}."
        )


def _bounds(study: Study) -> Iterator[str]:
    lost = []
    for group in study.groups:
        for label in study.rows(group):
            if any(entry.record.method == FINETUNE for entry in study.at(group, label)):
                values = study.values(group, label, FORGETTING)
                if values:
                    lost.append((fmean(values.values()), group))
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
        (group, label, fmean(v.values()))
        for group in study.groups
        for label in study.rows(group)
        if label not in study.unranked and (v := study.values(group, label, BWT))
    ]
    if kept:
        group, label, worst = min(kept, key=lambda t: t[2])
        near = sum(value >= -0.01 for _, _, value in kept)
        yield (
            f"Backward transfer is at least −1 point in {near} of {count(len(kept), 'row')} of the tables"
            f"{_but_for(study)}; the lowest is {percent(worst, signed=True)} points ({display(label)}, {group.title})."
        )


def _but_for(study: Study) -> str:
    """Words for the rows that the count leaves out."""
    names = [display(label) for label in sorted(study.unranked) if any(label in study.rows(g) for g in study.groups)]
    return f" without {join(names)}" if names else ""


def _inference(study: Study) -> Iterator[str]:
    shares: dict[str, list[float]] = {}
    for group in study.groups:
        for label in study.rows(group):
            values = study.values(group, label, INFERENCE)
            if values:
                shares.setdefault(label, []).append(fmean(values.values()))
    if shares:
        parts = [f"{display(label)} for {_range(found)} of the test samples" for label, found in shares.items()]
        yield f"In CIL the right task is inferred by {join(parts)}."


def _range(shares: Sequence[float]) -> str:
    low, high = percent(min(shares)), percent(max(shares))
    return f"{low} %" if low == high else f"{low} to {high} %"


def _guarantees(study: Study) -> Iterator[str]:
    by_label: dict[str, list[Promise]] = {}
    for promise in promises(study):
        by_label.setdefault(promise.label, []).append(promise)
    for label, found in list(by_label.items())[:MOST_GUARANTEES]:
        answers = [promise for promise in found if not promise.about_numbers]
        numbers = [promise for promise in found if promise.about_numbers]
        if answers:
            yield f"How much of {display(label)}'s guarantee still stands: {'; '.join(_worth(answers))}."
        if numbers:
            where, kept = _scenarios(numbers), _kept(numbers)
            yield f"{display(label)} certifies no answer in {where}: claims about its numbers that hold: {kept}."
    if len(by_label) > MOST_GUARANTEES:
        rest = list(by_label)[MOST_GUARANTEES:]
        more = {entry.record.method for entry in study.entries if entry.label in rest}
        said = {entry.record.method for entry in study.entries if entry.label in by_label and entry.label not in rest}
        words = count(len(more - said), "more method") if more - said else count(len(rest), "more row")
        yield f"The table of guarantees also covers {words}."


def _worth(found: Sequence[Promise]) -> Iterator[str]:
    """Clauses on one method's guarantee; the standing certificate comes first."""
    standing = [p.standing for p in found if p.standing is not None]
    if standing:
        yield f"{_range(standing)} of old tasks' test samples were certified when learnt by claims that still hold"
    claims, holding = sum(p.claims for p in found), sum(p.holding for p in found)
    if claims:
        yield f"{holding} of {count(claims, 'claim')} about old tasks hold after the last one"
    certified = [p.certified for p in found if p.certified is not None]
    if certified:
        yield f"certified anew at the end are {_range(certified)}"
    violations, broken = sum(p.violations for p in found), sum(p.broken for p in found)
    fell = f"certificates were contradicted {count(violations, 'time')}, {broken or 'never'} while the claim held"
    yield fell if violations else "no certificate was contradicted"


def _scenarios(promises: Sequence[Promise]) -> str:
    return join(list(dict.fromkeys(promise.group.scenario.upper() for promise in promises)))


def _kept(promises: Sequence[Promise]) -> str:
    return f"{sum(p.holding for p in promises)} of {sum(p.claims for p in promises)}"


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
