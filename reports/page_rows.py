"""Rows and columns of the page: one row a method in a benchmark and scenario, with all that the page shows of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from reports import keeping, machines, metrics, statistics
from reports.costs import duration, empty_processes, environment_of, thousands
from reports.distinct_names import pretty
from reports.guarantees import Promise, number, promises
from reports.hyperparameters import settings_text
from reports.leads import means
from reports.metrics import ACC, BWT, CERTIFIED, FORGETTING, INFERENCE, STANDING
from reports.names import display
from reports.study import METRICS, Entry, Group, Study
from reports.tables import MISSING, Notes, column
from reports.words import count, join, percent

DIGITS = 4
SHOWN = (ACC, STANDING, CERTIFIED, BWT, FORGETTING, INFERENCE)
"""Metrics shown at first, in this order; the others follow and can be shown."""
ORDER = (*SHOWN, *(metric for metric in METRICS if metric not in SHOWN))
TEXTS = {"benchmark": "benchmark", "scenario": "scenario", "method": "method"}
CLAIMS = ("claims", "old claims", "claims about old tasks that hold after the last task, of all, over seeds")
STATUS = "how the cells of the row ended"


class Cost(NamedTuple):
    """Meaning of a cost, its text for readers, and for the download a unit that is `size` of the record's."""

    words: str
    show: Callable[[float], str]
    unit: str
    size: float = 1


COSTS: Mapping[str, Cost] = {
    "train": Cost("training time of the whole stream", duration, "s"),
    "evaluate": Cost("evaluation time of the whole stream", duration, "s"),
    "memory": Cost(
        "peak memory above that of the leanest cell of the same environment", lambda v: f"{v / 1e6:.0f} MB", "MB", 1e6
    ),
    "stored": Cost(
        "stored between tasks to predict and to learn further ones, in numbers of 32 bits", thousands, "numbers"
    ),
}
MEASURED_ON = ("train", "evaluate", "memory")
"""Costs that depend on the machine."""
Json = dict[str, Any]


def columns(study: Study) -> list[Json]:
    """Columns that have values: key, title, meaning, unit, machines; whether texts, measured, and shown at first."""
    found = [_column(key, title, title, text=True) for key, title in TEXTS.items()]
    for metric in ORDER:
        if any(study.values(group, label, metric) for group in study.groups for label in study.rows(group)):
            words = f"{metric.title}; {'higher' if metric.higher_is_better else 'lower'} is better"
            found.append(_column(metric.key, metric.short, words, "%", measured=True, shown=metric in SHOWN))
        if metric is STANDING and any(promise.claims for promise in promises(study)):
            found.append(_column(*CLAIMS))
    found.append(_column("n", "n", "number of finished seeds"))
    found.append(_column("status", "status", STATUS, text=True, shown=not all(e.record.done for e in study.entries)))
    found.append(
        _column(keeping.COLUMN, keeping.COLUMN, "what is kept of earlier tasks besides the network", text=True)
    )
    names = _machines(study)
    for key, cost in COSTS.items():
        some = names if key in MEASURED_ON else {}
        words = f"{cost.words}; of {machines.in_words(some)}" if some else cost.words
        each = [machines.in_words({name: letter}) for name, letter in some.items()]
        found.append(_column(key, key, words, cost.unit, shown=False) | {"machines": each})
    return found


def _column(key: str, title: str, words: str, unit="", *, text=False, measured=False, shown=True) -> Json:
    kind = {"text": text, "measured": measured, "shown": shown}
    return {"key": key, "title": title, "words": words, "unit": unit, "machines": [], **kind}


def _machines(study: Study) -> Mapping[str, str]:
    """Machine -> letter, also of machines without a time; empty if all times of the study are of one machine."""
    names = machines.letters(study)
    of_all = machines.by_machine(entry for entry in study.entries if entry.record.done)
    return names and {**names, **{name: MISSING for name in of_all if name not in names}}


def rows(study: Study, used: Sequence[Json], files: Collection[str]) -> list[Json]:
    """Rows in the order of the tables. files: tables of the report to which facts may point."""
    kept = {promise.group.title + promise.label: promise for promise in promises(study)}
    names = _machines(study)
    empty, keys, found = empty_processes(study), {one["key"] for one in used}, []
    for group in study.groups:
        labels, notes = study.rows(group), Notes()
        cells = {m.key: column(study, group, m, labels, notes) for m in METRICS if m.key in keys}
        tests = _tests(study, group)
        for i, label in enumerate(labels):
            entries, promise = study.at(group, label), kept.get(group.title + label)
            row = _row(study, group, label)
            row["values"] = {key: _measured(some[i], entries, key) for key, some in cells.items()}
            row["values"] |= {"n": _plain(len(study.done(group, label)), str), "claims": _claims(promise)}
            row["values"] |= _costs(study.done(group, label), empty, names)
            facts = [*_promised(promise), *tests.get(label, ()), *_unmeasured(study.done(group, label), keys)]
            facts += [_spent(row["values"], names), _settings(entries[0])]
            row["facts"] = [{**fact, "file": fact["file"] if fact["file"] in files else ""} for fact in facts]
            found.append(row)
    return found


def _row(study: Study, group: Group, label: str) -> Json:
    entries = study.at(group, label)
    texts = {"benchmark": pretty(group.benchmark), "scenario": group.scenario.upper(), "method": display(label)}
    texts[keeping.COLUMN] = keeping.in_words(entry.record for entry in entries)
    return {
        "id": label,
        "texts": {**texts, "status": _ended(entries)},
        "accuracy": _mean(study.matrices(group, label)),
        "certified": _mean(study.matrices(group, label, "certified")),
        "cells": [
            {
                "seed": entry.seed,
                "status": str(entry.record.status),
                "reason": entry.record.reason,
                "acc": entry.measures[metrics.ACC.key].value,
                "folder": entry.record.folder.as_posix(),
            }
            for entry in entries
        ],
    }


def _ended(entries: Sequence[Entry]) -> str:
    """Status of a row's cells: `failed`, or `2 done, 1 failed` if they differ."""
    numbers = Counter(str(entry.record.status) for entry in entries)
    return next(iter(numbers)) if len(numbers) == 1 else ", ".join(f"{n} {name}" for name, n in numbers.most_common())


def _measured(cell: Any, entries: Sequence[Entry], key: str) -> Json:
    """Value of a measured column: text, mean and spread in percent, n, marks, and the reasons of an absence."""
    if cell.value is None:
        some = [entry for entry in entries if entry.record.done] or entries
        reasons = dict.fromkeys(entry.measures[key].reason for entry in some)
        return {"text": cell.text, "mean": None, "reason": "; ".join(filter(None, reasons))}
    spread = None if cell.spread is None else float(f"{100 * cell.spread:.6g}")
    shown: Json = {"text": cell.text, "mean": float(f"{100 * cell.value:.6g}"), "spread": spread, "n": cell.n}
    return shown | {name: True for name in ("best", "level") if getattr(cell, name)}


def _plain(value: float | None, show: Callable[[Any], str], size: float = 1) -> Json:
    if value is None:
        return {"text": MISSING, "mean": None}
    return {"text": show(value), "mean": value, "exact": value / size}


def _claims(promise: Promise | None) -> Json:
    if promise is None or not promise.claims:
        return _plain(None, str)
    return {"text": f"{promise.holding}/{promise.claims}", "mean": promise.holding / promise.claims}


def _costs(done: Sequence[Entry], empty: Mapping[str, float], names: Mapping[str, str]) -> Json:
    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return fmean(known) if known else None

    def of(some: Sequence[Entry]) -> dict[str, float | None]:
        records = [entry.record for entry in some]
        above = [None if (p := e.record.peak_rss) is None else p - empty[environment_of(e)] for e in some]
        return {
            "train": mean([sum(r.train_seconds) if r.train_seconds else None for r in records]),
            "evaluate": mean([sum(r.evaluate_seconds) if r.evaluate_seconds else None for r in records]),
            "memory": mean(above),
            "stored": mean([r.parameters_stored for r in records]),
        }

    found = {key: _plain(value, COSTS[key].show, COSTS[key].size) for key, value in of(done).items()}
    run_on = machines.by_machine(done)
    parts = [(letter, of(run_on.get(name, ()))) for name, letter in names.items()]
    for key in MEASURED_ON:
        known = [(letter, value) for letter, some in parts if (value := some[key]) is not None]
        if known:
            found[key] = {
                "text": ", ".join(f"{COSTS[key].show(value)} ({letter})" for letter, value in known),
                # A mean over machines says nothing, so a row of several is sorted by the first.
                "mean": known[0][1],
                "exact": [None if (value := some[key]) is None else value / COSTS[key].size for _, some in parts],
            }
    return found


def _fact(term: str, text: str, file: str = "") -> Json:
    return {"term": term, "text": text, "file": file}


def _promised(promise: Promise | None) -> list[Json]:
    """Sentences on certificates and claims."""
    if promise is None:
        return []

    def share(value: float | None) -> str:
        return MISSING if value is None else f"{percent(value)} %"

    found = []
    if promise.standing is not None or promise.when_learnt is not None:
        text = (
            f"standing {share(promise.standing)}; when learnt {share(promise.when_learnt)} (old tasks; on training "
            f"data {share(promise.on_training)}); after the last task, over all tasks, {share(promise.certified)}"
        )
        found.append(_fact("certified accuracy", text, "tables/guarantees.csv"))
    if promise.claims:
        void = f"; void: {'; '.join(promise.reasons)}" if promise.reasons else ""
        text = (
            f"{promise.holding} of {promise.claims} about old tasks hold after the last task; largest drift "
            f"{number(promise.drift)}; violations {promise.violations}, {promise.broken} of them while the claim "
            f"held{void}"
        )
        found.append(_fact("claims", text, "tables/guarantees.csv"))
    return found


def _tests(study: Study, group: Group) -> dict[str, list[Json]]:
    """Sentence by label on the test against the best method of the group."""
    ranked = means(study, group)
    if len(ranked) < 2:
        return {}
    best = ranked[0][0]
    values = {label: study.values(group, label, ACC) for label, _ in ranked}
    adjusted = statistics.all_pairs(values)
    found = {best: [_fact("test", "highest mean ACC of the methods ranked here", "tables/comparisons.csv")]}
    for label, _ in ranked[1:]:
        seeds = sorted(values[best].keys() & values[label].keys())
        if seeds:
            differences = [values[best][seed] - values[label][seed] for seed in seeds]
            interval = statistics.mean_interval(differences)
            span = f" (95 % t interval {' to '.join(percent(v, signed=True) for v in interval)})" if interval else ""
            text = (
                f"{display(best)} less {display(label)}: {percent(fmean(differences), signed=True)} points{span} over "
                f"{count(len(seeds), 'paired seed')}; p = {float(adjusted.at[best, label]):.3g}, adjusted for all "
                "pairs of methods"
            )
            found[label] = [_fact("test", text, "tables/comparisons.csv")]
    return found


def _unmeasured(done: Sequence[Entry], keys: Collection[str]) -> list[Json]:
    """Sentence on the metrics that finished seeds lack, each reason once."""
    lacking: dict[str, list[str]] = {}
    for metric in ORDER:
        seeds: dict[str, list[int]] = {}
        for entry in done:
            if metric.key in keys and entry.measures[metric.key].value is None:
                seeds.setdefault(entry.measures[metric.key].reason, []).append(entry.seed)
        for reason, some in seeds.items():
            which = f" ({'seed' if len(some) == 1 else 'seeds'} {join([*map(str, some)])})"
            lacking.setdefault(reason, []).append(metric.short + (which if len(some) < len(done) else ""))
    text = "; ".join(f"{join(names)}: {reason}" for reason, names in lacking.items())
    return [_fact("not measured", text)] if text else []


def _spent(values: Json, names: Mapping[str, str]) -> Json:
    parts = [f"{cost.words} {values[key]['text']}" for key, cost in COSTS.items()]
    where = f" ({machines.in_words(names)})" if names else ""
    return _fact("cost", "; ".join(parts) + where, "tables/cost.csv")


def _settings(entry: Entry) -> Json:
    return _fact("hyperparameters", settings_text(entry.record.config), "tables/hyperparameters.csv")


def _mean(matrices: Sequence[metrics.Matrix]) -> list[list[float | None]] | None:
    """Mean of the matrices, row 0 included; None where not measured."""
    if not matrices:
        return None
    mean = np.mean(np.stack(matrices), axis=0)
    return [[None if np.isnan(value) else round(float(value), DIGITS) for value in row] for row in mean]
