"""Study made of records: comparable groups, names and metrics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from reports import keeping, metrics, statistics
from reports.deviations import keeps
from reports.distinct_names import config, departures, distinct, file_stem, natural, pretty, setting
from reports.labels import labelled
from reports.metrics import Matrix, Measure, Metric
from reports.record import Record, Records, Status

NOT_CERTIFIED = "the method certifies nothing"
SCENARIOS = {"til": "task-incremental", "dil": "domain-incremental", "cil": "class-incremental"}
FINETUNE, JOINT = "finetune", "joint"
"""Reference points: plain sequential training, and training on all tasks so far; neither is a bound."""
SETS_AT_MOST = 1_000
"""Largest number of sets of methods among which the largest comparable table is sought."""
METRICS: tuple[Metric, ...] = (*metrics.TABLE_METRICS, metrics.STANDING, metrics.CERTIFIED, metrics.INFERENCE)


@dataclass(frozen=True, order=True)
class Group:
    """Comparable cells: one benchmark (with one budget and network) in one scenario."""

    benchmark: str
    scenario: str

    @property
    def title(self) -> str:
        return f"{pretty(self.benchmark)}, {self.scenario.upper()}"

    @property
    def stem(self) -> str:
        """Name for files."""
        return file_stem(f"{self.benchmark}-{self.scenario}")


@dataclass(frozen=True)
class Entry:
    """Record with its names in this report and its metrics by key."""

    record: Record
    group: Group
    label: str
    measures: Mapping[str, Measure] = field(repr=False)

    @property
    def seed(self) -> int:
        return self.record.seed


@dataclass(frozen=True)
class Study:
    """All entries; every list of a study is in the order of the tables."""

    source: Records
    entries: tuple[Entry, ...]

    @cached_property
    def groups(self) -> list[Group]:
        order = list(SCENARIOS)
        found = {entry.group for entry in self.entries}
        return sorted(found, key=lambda g: (order.index(g.scenario) if g.scenario in order else 9, _natural(g)))

    @cached_property
    def scenarios(self) -> list[str]:
        return list(dict.fromkeys(group.scenario for group in self.groups))

    @cached_property
    def benchmarks(self) -> list[str]:
        return sorted({group.benchmark for group in self.groups}, key=natural)

    @cached_property
    def labels(self) -> list[str]:
        """Labels: finetune first, joint last, all others by name."""
        methods = {entry.label: entry.record.method for entry in self.entries}
        place = {FINETUNE: 0, JOINT: 2}
        return sorted(methods, key=lambda label: (place.get(methods[label], 1), natural(label)))

    def label(self, name: str) -> str:
        """Label of that id, with its name for readers; the text itself if the study has none."""
        return next((label for label in self.labels if label == name), name)

    @cached_property
    def methods(self) -> frozenset[str]:
        """Methods behind the labels; a method with two configurations has two labels."""
        return frozenset(entry.record.method for entry in self.entries)

    @cached_property
    def references(self) -> frozenset[str]:
        """Labels of joint, which trains on all tasks so far and is no continual learner."""
        return frozenset(entry.label for entry in self.entries if entry.record.method == JOINT)

    @cached_property
    def unranked(self) -> frozenset[str]:
        """Labels that are neither ranked nor set in bold: joint, and methods that keep training data."""
        return self.references | frozenset(entry.label for entry in self.entries if keeps(entry.record))

    @cached_property
    def _by_row(self) -> dict[tuple[Group, str], list[Entry]]:
        rows: dict[tuple[Group, str], list[Entry]] = defaultdict(list)
        for entry in sorted(self.entries, key=lambda e: e.seed):
            rows[entry.group, entry.label].append(entry)
        return rows

    def rows(self, group: Group) -> list[str]:
        """Labels with any record in the group."""
        return [label for label in self.labels if (group, label) in self._by_row]

    def at(self, group: Group, label: str) -> list[Entry]:
        """Entries of one row, by seed, whatever their status."""
        return self._by_row.get((group, label), [])

    def done(self, group: Group, label: str) -> list[Entry]:
        return [entry for entry in self.at(group, label) if entry.record.done]

    def seeds(self, group: Group) -> list[int]:
        """Seeds of any method in the group."""
        return sorted({e.record.seed for label in self.rows(group) for e in self.at(group, label)})

    def run(self, group: Group) -> frozenset[str]:
        """Labels whose runs in the group have ended, with or without results; excludes joint."""
        ended = {
            label
            for label in self.rows(group)
            if any(e.record.status is not Status.RUNNING for e in self.at(group, label))
        }
        return frozenset(ended) - self.unranked

    def comparable(self, scenario: str) -> tuple[list[Group], list[str]]:
        """Benchmarks and methods of one scenario that may be ranked together.

        Each method was run on each benchmark, with the same number of seeds everywhere: a mean of one seed is no match
        for a mean of ten. It is the largest such table that a test over benchmarks could use (of any size if there is
        none). A benchmark with few methods would favour them in an average rank and exclude all others from a test. A
        method that was run and failed is not missing; only those `in_full` get a rank. Among very many tables of
        benchmarks with different methods the search keeps the SETS_AT_MOST largest.
        """
        if scenario not in self._comparable:
            self._comparable[scenario] = self._largest(scenario)
        groups, labels = self._comparable[scenario]
        return [*groups], [*labels]

    @cached_property
    def _comparable(self) -> dict[str, tuple[list[Group], list[str]]]:
        return {}

    def _largest(self, scenario: str) -> tuple[list[Group], list[str]]:
        run = {group: self.run_in_full(group) for group in self.groups if group.scenario == scenario}
        tables: list[tuple[list[Group], frozenset[str]]] = []
        for n in {len(self.seeds(group)) for group in run}:
            alike = {group: labels for group, labels in run.items() if len(self.seeds(group)) == n}
            tables += [
                ([group for group in alike if labels <= alike[group]], labels) for labels in shared([*alike.values()])
            ]
        sizes = (statistics.MIN_BLOCKS, 2, 1)
        several = [[t for t in tables if len(t[0]) >= size and len(t[1]) > 1] for size in sizes]
        enough = next(filter(None, several), tables)
        groups, labels = max(enough, key=lambda t: (len(t[0]) * len(t[1]), len(t[0]), sorted(t[1])))
        return groups, [label for label in self.labels if label in labels]

    def run_in_full(self, group: Group) -> frozenset[str]:
        """Labels of `run` that ended on every seed of the group."""
        seeds = len(self.seeds(group))
        ended = {
            label: {e.seed for e in self.at(group, label) if e.record.status is not Status.RUNNING}
            for label in self.run(group)
        }
        return frozenset(label for label, found in ended.items() if len(found) == seeds)

    def in_full(self, groups: Iterable[Group], labels: Iterable[str], metric: Metric) -> list[str]:
        """Labels with a value of the metric on every seed of every group.

        The seeds that survive may be the easy ones, so that their mean is no match for a mean of all.
        """
        seeds = {group: len(self.seeds(group)) for group in groups}
        return [x for x in labels if all(len(self.values(group, x, metric)) == n for group, n in seeds.items())]

    def left_out(self, scenario: str) -> list[str]:
        """Benchmarks of a scenario, in words, that are not `comparable`."""
        kept, _ = self.comparable(scenario)
        return [pretty(g.benchmark) for g in self.groups if g.scenario == scenario and g not in kept]

    def not_comparable(self, scenario: str) -> list[str]:
        """Labels with results in a scenario that are not `comparable`."""
        _, kept = self.comparable(scenario)
        ever = frozenset().union(*(self.run(group) for group in self.groups if group.scenario == scenario))
        return [label for label in self.labels if label in ever and label not in kept]

    def values(self, group: Group, label: str, metric: Metric) -> dict[int, float]:
        """Values of the metric by seed, where it is defined."""
        key = (group, label, metric.key)
        if key not in self._values:
            found = {entry.seed: entry.measures[metric.key].value for entry in self.done(group, label)}
            self._values[key] = {seed: value for seed, value in found.items() if value is not None}
        return self._values[key]

    def matrices(self, group: Group, label: str, kind: str = "accuracy") -> list[Matrix]:
        """Matrices R (or `certified`, `inferred`) of the finished seeds that have one."""
        found = (getattr(entry.record, kind) for entry in self.done(group, label))
        return [matrix for matrix in found if matrix is not None]

    @cached_property
    def _values(self) -> dict[tuple[Group, str, str], dict[int, float]]:
        return {}

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Table with one line per cell: names, status, metrics (fractions), costs, and the record's folder."""
        return pd.DataFrame([_line(entry) for entry in self.entries]).sort_values(
            ["benchmark", "scenario", "label", "seed"], ignore_index=True
        )


def study(records: Records) -> Study:
    """Name, group and measure the records."""
    benchmark = distinct(
        records.records, lambda r: (r.benchmark, r.scenario), lambda r: r.benchmark, setting, departures
    )
    label = distinct(
        records.records, lambda r: (benchmark[r.folder], r.scenario), lambda r: r.label, config, lambda _: ()
    )
    label = labelled(records.records, label)
    named = [
        (record, Group(benchmark[record.folder], record.scenario), label[record.folder]) for record in records.records
    ]
    joint = {(group, r.seed): r.accuracy for r, group, _ in named if r.method == JOINT and r.done}
    entries = [Entry(r, group, name, _measures(r, joint.get((group, r.seed)))) for r, group, name in named]
    return Study(records, tuple(entries))


def shared(sets: Sequence[frozenset[str]]) -> set[frozenset[str]]:
    """Intersections of any of the sets; of too many, those that make the largest tables."""
    common: set[frozenset[str]] = set()
    for labels in sets:
        common |= {labels, *(labels & others for others in common)}
        if len(common) > SETS_AT_MOST:
            common = set(sorted(common, key=lambda some: _size(some, sets), reverse=True)[:SETS_AT_MOST])
    return common | {frozenset.intersection(*sets)}


def _size(labels: frozenset[str], sets: Sequence[frozenset[str]]) -> tuple[int, int, int, list[str]]:
    """Order of `Study.comparable`: rows up to those that a test needs, cells, rows, and names to break ties."""
    rows = sum(labels <= other for other in sets)
    usable = min(rows, statistics.MIN_BLOCKS) if len(labels) > 1 else 0
    return usable, rows * len(labels), rows, sorted(labels)


def _natural(group: Group) -> list[tuple[int, float, str]]:
    return natural(group.benchmark)


def _measures(record: Record, joint: Matrix | None) -> dict[str, Measure]:
    r = record.accuracy
    if not record.done or r is None:
        return {metric.key: Measure(None, f"{record.status}: {record.reason}".rstrip(": ")) for metric in METRICS}
    return {
        "acc": metrics.acc(r),
        "bwt": metrics.bwt(r),
        "forgetting": metrics.forgetting(r),
        "fwt": metrics.fwt(r, record.scenario),
        "la": metrics.learning_accuracy(r),
        "aia": metrics.average_incremental_accuracy(r),
        "intransigence": metrics.intransigence(r, joint),
        "standing": _standing(record),
        "certified": _last(record.certified, NOT_CERTIFIED),
        "inference": _last(record.inferred, "the method infers no task"),
    }


def _standing(record: Record) -> Measure:
    if record.certified is None:
        return Measure(None, NOT_CERTIFIED)
    final = [claim for claim in record.claims if claim.after == record.n_tasks]
    if not final:
        return Measure(None, "the method claims nothing about old tasks")
    return metrics.standing(record.certified, {claim.task for claim in final if claim.holds})


def _last(matrix: Matrix | None, reason: str) -> Measure:
    return Measure(None, reason) if matrix is None else metrics.acc(matrix)


def _line(entry: Entry) -> dict[str, Any]:
    record = entry.record
    values = {metric.key: entry.measures[metric.key].value for metric in METRICS}
    return {
        "benchmark": entry.group.benchmark,
        "scenario": entry.group.scenario,
        "method": record.method,
        "label": entry.label,
        "seed": record.seed,
        "status": str(record.status),
        "reason": record.reason,
        **{key: np.nan if value is None else value for key, value in values.items()},
        "train_seconds": sum(record.train_seconds) if record.train_seconds else np.nan,
        "evaluate_seconds": sum(record.evaluate_seconds) if record.evaluate_seconds else np.nan,
        "peak_rss": record.peak_rss,
        "peak_device": record.peak_device,
        "parameters_trained": record.parameters_trained,
        "parameters_stored": record.parameters_stored,
        "keeps": keeping.in_words([record]),
        "memory_samples": (record.fairness.get("held") or {}).get("declared"),
        "samples_found": (record.fairness.get("held") or {}).get("found"),
        "folder": record.folder.as_posix(),
        "machine": str(record.environment.get("device_name") or record.environment.get("processor") or ""),
        "commit": str(record.environment.get("commit", "")),
        "command": record.command,
    }


def unfinished(entries: Iterable[Entry]) -> list[Entry]:
    """Entries without results."""
    return [entry for entry in entries if entry.record.status is not Status.DONE]
