"""What was compared and how: benchmarks, hyperparameters, costs, environment, commands, single seeds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from reports.metrics import ACC, BWT, Metric
from reports.record import Record
from reports.study import Entry, Group, Study, pretty
from reports.tables import Cell, Notes, Table, percent, shorten

COLUMNS_AT_MOST = 12
"""Of a table of single seeds."""
SEEDS_OPTION = re.compile(r"(?<= --seeds)[ =](\d+)(?= |$)")


def setting_table(study: Study) -> Table:
    """One line a benchmark: scenarios, tasks, network, budget, seeds."""
    rows = []
    for benchmark in study.benchmarks:
        groups = [group for group in study.groups if group.benchmark == benchmark]
        entries = [entry for entry in study.entries if entry.group.benchmark == benchmark]
        record = entries[0].record
        seeds = sorted({entry.seed for entry in entries})
        cells = (
            pretty(benchmark),
            ", ".join(group.scenario.upper() for group in groups),
            f"{record.n_tasks} × {record.classes_per_task}",
            " / ".join(dict.fromkeys(entry.record.network for entry in entries)),
            " / ".join(dict.fromkeys(_budget(entry.record.budget) for entry in entries)),
            " / ".join(dict.fromkeys(_held_out(entry.record) for entry in entries)),
            _numbers(seeds),
            str(len({entry.label for entry in entries})),
        )
        rows.append(tuple(map(Cell, cells)))
    columns = ("benchmark", "scenarios", "tasks", "network", "budget", "validation", "seeds", "methods")
    held_out = any(entry.record.definition for entry in study.entries)  # records of before do not say
    kept = [i for i, name in enumerate(columns) if name != "validation" or held_out]
    return Table(
        "setting",
        "What was compared: tasks × classes in each, target network, training budget per task (the same for all "
        f"methods), {'validation samples held out of each task, ' if held_out else ''}seeds, number of methods.",
        tuple(columns[i] for i in kept),
        tuple(tuple(row[i] for i in kept) for row in rows),
        text_columns=frozenset(range(len(kept))),
    )


def _held_out(record: Record) -> str:
    held = record.definition.get("validation")
    return "not recorded" if held is None else str(held)


def _budget(budget: Mapping[str, Any]) -> str:
    length = next((f"{budget[key]} {key}" for key in ("steps", "epochs") if budget.get(key)), "length not recorded")
    return f"{length}, batch {budget.get('batch_size', '?')}"


def _numbers(values: list[int]) -> str:
    if len(values) > 2 and values == list(range(values[0], values[-1] + 1)):
        return f"{values[0]}–{values[-1]}"
    return ", ".join(map(str, values))


def hyperparameters(study: Study) -> Table:
    """Every method's configuration and where it comes from: what is the same everywhere, then what differs."""
    rows = []
    for label in study.labels:
        records: dict[Group, Record] = {}
        for entry in study.entries:
            if entry.label == label:
                records.setdefault(entry.group, entry.record)
        keys = list(dict.fromkeys(key for record in records.values() for key in record.config))
        varies = [key for key in keys if len({_with_source(record, key) for record in records.values()}) > 1]
        common, first = [key for key in keys if key not in varies], next(iter(records.values()))
        where = "everywhere" if len(records) > 1 else next(iter(records)).title
        rows.append((label, where, *_settings(first, common)))
        by_settings: dict[tuple[str, str], list[str]] = {}
        for group in study.groups:
            if group in records and varies:
                by_settings.setdefault(_settings(records[group], varies), []).append(group.title)
        rows += [("", "; ".join(groups), *texts) for texts, groups in by_settings.items()]
    return Table(
        "hyperparameters",
        "Hyperparameters of every method, as recorded with each cell, and how those were chosen that are not the "
        "method's defaults.",
        ("method", "where", "settings", "how chosen"),
        tuple(tuple(map(Cell, row)) for row in rows),
        text_columns=frozenset(range(4)),
    )


def _with_source(record: Record, key: str) -> tuple[str, str]:
    return repr(record.config.get(key)), record.chosen.get(key, "")


def _settings(record: Record, keys: Sequence[str]) -> tuple[str, str]:
    """The values of `keys`, and where those come from that are not defaults."""
    sources: dict[str, list[str]] = {}
    for key in keys:
        if key in record.chosen:
            sources.setdefault(record.chosen[key], []).append(key)
    known = [key for key in keys if key in record.config]
    default = "" if len(known) == sum(map(len, sources.values())) else "others: defaults" if sources else "defaults"
    parts = [f"{', '.join(names)}: {source}" for source, names in sources.items()]
    return settings_text({key: record.config[key] for key in known}), "; ".join([*parts, *([default] * bool(default))])


def settings_text(config: Mapping[str, Any]) -> str:
    """`lr=0.001, beta=0.01`."""
    shown = (f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in config.items())
    return ", ".join(shown) or "none"


COSTS = ("train s", "evaluate s", "peak RSS MB", "peak device MB", "trained", "stored", "per task")


def cost_table(study: Study) -> Table | None:
    """Training and evaluation seconds, memory, parameters; None where nothing finished."""
    rows = []
    for group in study.groups:
        for label in study.rows(group):
            entries = study.done(group, label)
            if entries:
                rows.append((Cell(group.title), Cell(label), *map(Cell, _costs(entries))))
    if not rows:
        return None
    columns = ("benchmark", "method", *COSTS)
    kept = [i for i in range(len(columns)) if i < 2 or any(row[i].text != "–" for row in rows)]
    return Table(
        "cost",
        "Cost, mean over seeds: seconds on the training and on the evaluation clock for the whole stream, peak memory "
        "of the process and of the device, parameters trained, parameters stored to answer and go on learning, and "
        "their growth per task.",
        tuple(columns[i] for i in kept),
        tuple(tuple(row[i] for i in kept) for row in rows),
        text_columns=frozenset({0, 1}),
        named_once=1,
    )


def _costs(entries: list[Entry]) -> list[str]:
    records = [entry.record for entry in entries]

    def mean(values: list[float | None], show: Callable[[float], str]) -> str:
        known = [value for value in values if value is not None]
        return show(sum(known) / len(known)) if known else "–"

    growth = [_growth(record.stored_per_task) for record in records]
    return [
        mean([sum(r.train_seconds) if r.train_seconds else None for r in records], lambda v: f"{v:.1f}"),
        mean([sum(r.evaluate_seconds) if r.evaluate_seconds else None for r in records], lambda v: f"{v:.1f}"),
        mean([r.peak_rss for r in records], lambda v: f"{v / 1e6:.0f}"),
        mean([r.peak_device for r in records], lambda v: f"{v / 1e6:.0f}"),
        mean([r.parameters_trained for r in records], thousands),
        mean([r.parameters_stored for r in records], thousands),
        mean(growth, lambda v: "0" if v == 0 else f"+{thousands(v)}"),
    ]


def _growth(stored: tuple[int, ...]) -> float | None:
    return float(np.mean(np.diff(stored))) if len(stored) > 1 else None


def thousands(value: float) -> str:
    """1234567 -> 1.23 M."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def seed_tables(study: Study, benchmark: str) -> list[Table]:
    """ACC and BWT of every seed: methods in rows, the seeds of one scenario after another in columns."""
    groups = [group for group in study.groups if group.benchmark == benchmark]
    columns = [(group, seed) for group in groups for seed in study.seeds(group)]
    labels = [label for label in study.labels if any(study.at(group, label) for group in groups)]
    tables = []
    for metric in (ACC, BWT):
        for i, part in enumerate(_parts(columns)):
            rows = tuple((Cell(label), *(_single(study, g, label, metric, s) for g, s in part)) for label in labels)
            stem = f"seeds-{metric.key}-{Group(benchmark, '').stem}" + (f"-{i + 1}" if i else "")
            names = ("method", *(f"{group.scenario.upper()} {seed}" for group, seed in part))
            caption = f"{pretty(benchmark)}: {metric.short} of every seed in percent (column: scenario and seed)."
            tables.append(Table(stem, caption, names, rows))
    return [table for table in tables if any(cell.value is not None for row in table.rows for cell in row)]


def _parts(columns: Sequence[tuple[Group, int]]) -> list[list[tuple[Group, int]]]:
    """Columns in tables of at most COLUMNS_AT_MOST, whole scenarios together where they fit."""
    parts: list[list[tuple[Group, int]]] = []
    for group in dict.fromkeys(group for group, _ in columns):
        own = [column for column in columns if column[0] == group]
        if parts and len(parts[-1]) + len(own) <= COLUMNS_AT_MOST:
            parts[-1] += own
        else:
            parts += [own[i : i + COLUMNS_AT_MOST] for i in range(0, len(own), COLUMNS_AT_MOST)]
    return parts


def _single(study: Study, group: Group, label: str, metric: Metric, seed: int) -> Cell:
    for entry in study.at(group, label):
        if entry.seed == seed:
            value = entry.measures[metric.key].value
            if value is None:
                return Cell("–" if entry.record.done else str(entry.record.status))
            return Cell(percent(value, signed=metric is BWT), value, None, 1)
    return Cell("–")


def environment(study: Study) -> Table:
    """The machines and versions: each property, its values and how many cells had them."""
    flat = [dict(_flat(entry.record.environment)) for entry in study.entries]
    rows = []
    for key in dict.fromkeys(key for one in flat for key in one):
        values = Counter(one.get(key, "not recorded") for one in flat)
        shown = [f"{value} ({n} cells)" if len(values) > 1 else value for value, n in values.most_common(6)]
        rows.append((Cell(key), Cell(shorten("; ".join(shown), 400))))
    sources: dict[str, set[str]] = {}
    for entry in study.entries:
        sources.setdefault(entry.record.method, set()).add(entry.record.source[:12])
    text = ", ".join(f"{method} {'/'.join(sorted(hashes))}" for method, hashes in sorted(sources.items()))
    rows.append((Cell("source of methods"), Cell(text)))
    carried = Counter((entry.record.method, entry.record.carried) for entry in study.entries if entry.record.carried)
    for (method, words), n in sorted(carried.items()):
        rows.append((Cell(f"earlier code of {method}"), Cell(f"{n} {'cell' if n == 1 else 'cells'}: {words}")))
    return Table(
        "environment",
        "Environment of the cells.",
        ("property", "value"),
        tuple(rows),
        text_columns=frozenset({0, 1}),
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key} ")
        else:
            yield f"{prefix}{key}", "none" if value in (None, "") else str(value)


def commands(study: Study) -> list[tuple[str, str]]:
    """The command lines that gave the records, and what each gave: number of cells, benchmarks, scenarios.

    `--seeds N` stands for the seeds 0 to N-1: of lines that differ in N only, the one with the most gives all.
    """
    alike: dict[str, dict[str, list[Entry]]] = {}
    for entry in study.entries:
        if entry.record.command:
            apart = SEEDS_OPTION.sub(" N", entry.record.command)
            alike.setdefault(apart, {}).setdefault(entry.record.command, []).append(entry)
    lines = [(max(runs, key=_seeds_asked), [e for run in runs.values() for e in run]) for runs in alike.values()]
    found = []
    for command, entries in sorted(lines, key=lambda pair: -len(pair[1])):
        groups = [group for group in study.groups if any(entry.group == group for entry in entries)]
        scenarios: dict[str, list[str]] = {}
        for group in groups:
            scenarios.setdefault(pretty(group.benchmark), []).append(group.scenario.upper())
        where = "; ".join(f"{name} in {', '.join(some)}" for name, some in scenarios.items())
        found.append((command, f"{len(entries)} {'cell' if len(entries) == 1 else 'cells'}: {shorten(where, 400)}"))
    return found


def _seeds_asked(command: str) -> int:
    option = SEEDS_OPTION.search(command)
    return int(option[1]) if option else 0


def left_out(study: Study) -> Table | None:
    """Folders that could not be read and records that newer ones replaced."""
    notes = Notes()
    rows = [(Cell(problem.folder), Cell(shorten(problem.reason))) for problem in study.source.problems]
    rows += [
        (Cell(r.folder.as_posix()), Cell(f"superseded by a newer record (source {r.source[:12] or 'unknown'})"))
        for r in study.source.superseded
    ]
    if not rows:
        return None
    return Table(
        "left-out",
        "Folders that are in no number above, and why.",
        ("folder", "reason"),
        tuple(rows),
        notes.lines(),
        text_columns=frozenset({0, 1}),
    )


def unfinished_table(study: Study) -> Table | None:
    """Every cell without results, with its reason; equal reasons are put together."""
    cells: dict[tuple[str, str, str, str], list[str]] = {}
    for entry in study.entries:
        record = entry.record
        if not record.done:
            key = (entry.group.title, entry.label, str(record.status), shorten(record.reason, 300))
            cells.setdefault(key, []).append(str(entry.seed))
    if not cells:
        return None
    rows = [
        tuple(map(Cell, (where, label, ", ".join(seeds), status, reason)))
        for (where, label, status, reason), seeds in cells.items()
    ]
    return Table(
        "without-results",
        "Cells without results, and why.",
        ("benchmark", "method", "seeds", "status", "reason"),
        tuple(rows),
        text_columns=frozenset(range(5)),
    )
