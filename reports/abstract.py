"""Abstract of the report: at most 120 words, made of the numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from reports.distinct_names import pretty
from reports.findings import behind
from reports.guarantees import Promise, promises
from reports.leads import Lead, leads
from reports.metrics import ACC
from reports.names import Family, display, family
from reports.study import FINETUNE, JOINT, Group, Study
from reports.words import count, join, percent

WORDS_AT_MOST = 120
"""Largest number of words of the abstract."""
LITTLE = 0.05
"""Gain over finetune, 5 points, below which a method is said to gain little."""


def abstract(study: Study) -> list[str]:
    """Sentences of at most 120 words together, most important first; those that do not fit are left out.

    What failed has its room reserved: its first sentence is never the one that is left out.
    """
    failed = list(_failed(study))
    reserved, found = failed[:1], []
    for sentence in (*_what(study), *_best(study), *_worth(study)):
        if _words([*found, sentence, *reserved]) <= WORDS_AT_MOST:
            found.append(sentence)
    for sentence in failed:
        if _words([*found, sentence]) <= WORDS_AT_MOST:
            found.append(sentence)
    return found


def _words(sentences: Sequence[str]) -> int:
    return len(" ".join(sentences).split())


def _what(study: Study) -> Iterator[str]:
    learners = len(study.methods - {FINETUNE, JOINT})
    names = [count(learners, "continual learner")] if learners else []
    names += [display(FINETUNE).lower()] if FINETUNE in study.methods else []
    names += [display(JOINT)] if not learners and JOINT in study.methods else []
    counts = sorted({len(study.seeds(group)) for group in study.groups})
    seeds = f"{counts[0]} to {counts[-1]} seeds" if len(counts) > 1 else count(counts[0], "seed")
    where = count(len(study.benchmarks), "benchmark")
    yield f"We compare {join(names)} on {where} ({seeds})."


def _best(study: Study) -> Iterator[str]:
    """One sentence a scenario: the method that leads most often, its margin, and how many leads are shown."""
    for scenario in study.scenarios:
        found = [lead for lead in leads(study) if lead.group.scenario == scenario]
        total, found = len(found), [lead for lead in found if not lead.tied]
        if total and not found:
            yield f"In {scenario.upper()}, methods are tied for the highest accuracy everywhere."
        if not found:
            continue
        wins = {lead.best: sum(other.best == lead.best for other in found) for lead in found}
        proved = {lead.best: sum(other.shown for other in found if other.best == lead.best) for lead in found}
        widest = {lead.best: max(other.gap for other in found if other.best == lead.best) for lead in found}
        best = max(wins, key=lambda label: (wins[label], proved[label], widest[label]))
        own = [lead for lead in found if lead.best == best]
        where = pretty(own[0].group.benchmark) if total == 1 else f"{len(own)} of {total} benchmarks"
        number = proved[best]
        certainty = "significant" if number == len(own) else f"significant on {number}" if number else "not significant"
        contrary = sum(bool(behind(study, lead.group, best)) for lead in own)
        few = [lead.few for lead in own if lead.few]
        if few:
            certainty += f", {few[0]}" if len(own) == 1 else f", some seeds missing on {len(few)}"
        if contrary:
            certainty += ", behind on common seeds" + f" on {contrary}" * (total > 1)
        yield (
            f"In {scenario.upper()}, {display(best)} has the highest accuracy on {where}, by {_margin(own)} points "
            f"({certainty})."
        )


def _margin(found: Sequence[Lead]) -> str:
    gaps = sorted(percent(lead.gap) for lead in found)
    low, high = min(gaps, key=float), max(gaps, key=float)
    return low if low == high else f"{low} to {high}"


def _worth(study: Study) -> Iterator[str]:
    """Standing certificates of the methods whose family is intervals, else of all that certify."""
    every = [promise for promise in promises(study) if promise.standing is not None]
    methods = {entry.label: entry.record.method for entry in study.entries}
    boxes = [promise for promise in every if family(methods[promise.label]) is Family.INTERVALS] or every
    if not boxes:
        return
    parts = []
    for label in dict.fromkeys(promise.label for promise in boxes if promise.label == methods[promise.label]):
        own = [promise.standing for promise in boxes if promise.label == label and promise.standing is not None]
        low, high = percent(min(own)), percent(max(own))
        parts.append(f"{display(label)} {low} %" if low == high else f"{display(label)} {low} to {high} %")
    if parts:
        yield f"Of old tasks' test samples, standing certificates cover: {join(parts)}."
    yield _contradicted(every)


def _contradicted(found: Sequence[Promise]) -> str:
    broken = sum(promise.broken for promise in found)
    return (
        f"Certificates were contradicted {count(broken, 'time')} while their claims held."
        if broken
        else "No standing certificate was contradicted."
    )


def _failed(study: Study) -> Iterator[str]:
    """What failed: methods that gain little over finetune in the hardest scenario, and cells without results."""
    scenario = study.scenarios[-1]
    gains: dict[str, list[float]] = {}
    over: set[Group] = set()
    for group in study.groups:
        if group.scenario != scenario or FINETUNE not in study.rows(group):
            continue
        floor = list(study.values(group, FINETUNE, ACC).values())
        for label in study.rows(group):
            values = list(study.values(group, label, ACC).values())
            if values and floor and label not in (*study.unranked, FINETUNE):
                gains.setdefault(label, []).append(fmean(values) - fmean(floor))
                over.add(group)
    total = set(gains)
    little = sum(fmean(found) < LITTLE for found in gains.values())
    if total:
        single = len({entry.record.method for entry in study.entries if entry.label in total}) == len(total)
        what = "methods" if single else "rows of the tables"  # a method may have several
        which = f"{little} of {len(total)} {what} {'gains' if little == 1 else 'gain'} less than"
        if len(total) == 1:
            which = f"{display(*total)} gains {'less than' if little else 'at least'}"
        mean = ", averaged over each one's benchmarks" if len(over) > 1 else ""
        yield f"In {scenario.upper()}, {which} 5 points over fine-tuning{mean}."
    lost = sum(not entry.record.done for entry in study.entries)
    if lost:
        yield f"{lost} of {len(study.entries)} cells have no result."
    if not total and not lost:
        yield "No cell failed."
