"""Tables as data: every cell holds its number, its spread and its n, or the reason why it is empty."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import TYPE_CHECKING

from reports import keeping, statistics
from reports.deviations import deviations
from reports.distinct_names import pretty
from reports.marks import MARKED, marked, marks_words
from reports.metrics import ACC, BWT, INFERENCE, TABLE_METRICS, Metric
from reports.names import citation, display
from reports.study import Group, Study
from reports.words import count, join, percent

if TYPE_CHECKING:
    import pandas as pd

MISSING = "–"
ROWS_AT_MOST = 36
"""Largest number of rows before a table is split: two such parts fill a page, with room for one's notes."""
COLUMNS_AT_MOST = 7
"""Largest number of columns before a table is split."""


@dataclass(frozen=True)
class Cell:
    """Cell of a table. A measured one has value, spread (sample standard deviation) and n; others only text."""

    text: str = ""
    value: float | None = None
    spread: float | None = None
    n: int | None = None
    best: bool = False
    level: bool = False
    """True if not shown to be worse than the best (only where that could be shown of every method)."""
    mark: str = ""
    """Letter of a note under the table."""
    key: str = ""
    """Text of the CSV, where readers see another: the id of a method."""
    cite: str = ""
    """Key of the bibliography; the PDF shows its number."""


@dataclass(frozen=True)
class Table:
    """Columns, rows and notes; `stem` names its files."""

    stem: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    wide: bool = True
    """True if it needs both columns of the page."""
    small: bool = False
    text_columns: frozenset[int] = frozenset({0})
    """Columns aligned left."""
    named_once: int = 0
    """Number of leading columns whose text is not repeated if the row above has the same (except in the CSV)."""


def method_cell(label: str, mark: str = "", *, cited: bool = False) -> Cell:
    """Cell of a row's method: its display name; the label in the CSV."""
    return Cell(display(label), mark=mark, key=label, cite=citation(label) if cited else "")


def text_cells(texts: Iterable[str], *methods: int) -> tuple[Cell, ...]:
    """Cells of a row of texts; those in the columns `methods` are labels of methods."""
    return tuple(method_cell(text) if i in methods else Cell(text) for i, text in enumerate(texts))


@dataclass
class Notes:
    """Notes under a table: one letter per reason, each reason once."""

    reasons: list[str] = field(default_factory=list)

    def mark(self, reason: str) -> str:
        if reason not in self.reasons:
            self.reasons.append(reason)
        return letter(self.reasons.index(reason))

    def lines(self) -> tuple[str, ...]:
        return tuple(f"({letter(i)}) {reason}" for i, reason in enumerate(self.reasons))


@dataclass
class Sources:
    """Numbered sources under a table: each once, so that a row names it in two characters."""

    texts: list[str] = field(default_factory=list)

    def cell(self, text: str) -> Cell:
        """Cell with the number of a source; the CSV has the source itself."""
        if text not in self.texts:
            self.texts.append(text)
        return Cell(f"S{self.texts.index(text) + 1}", key=text)

    def lines(self) -> tuple[str, ...]:
        return tuple(f"S{i + 1}: {text}" for i, text in enumerate(self.texts))


def letter(index: int) -> str:
    """Letter of a note: a, b, ..., z, aa, ab, ..."""
    head, tail = divmod(index, 26)
    return (letter(head - 1) if head else "") + chr(ord("a") + tail)


def detail(study: Study, group: Group) -> Table:
    """Table of all metrics of one group; a metric that no method defines is a note, not a column."""
    notes = Notes()
    labels = study.rows(group)
    metrics = [m for m in TABLE_METRICS if m.key != "intransigence" or study.references]
    if any(study.values(group, label, INFERENCE) for label in labels):
        metrics.insert(metrics.index(ACC) + 1, INFERENCE)
    kept = [m for m in metrics if any(study.values(group, label, m) for label in labels)] or metrics[:1]
    columns = [column(study, group, metric, labels, notes) for metric in kept]
    kept_samples = map(Cell, keeping.of_rows(study, labels, [group]))
    rows = [
        (method_cell(label), *cells)
        for label, cells in zip(labels, zip(*columns, kept_samples, strict=True), strict=True)
    ]
    why = (_why_undefined(study, group, metric) for metric in metrics if metric not in kept)
    return Table(
        f"table-{group.stem}",
        f"{group.title}: all metrics in percent, {spread_words(study, [group])}.{marks_words(study, columns)}"
        f"{keeping.caption()}",
        ("method", *(f"{m.short} {'↑' if m.higher_is_better else '↓'}" for m in kept), keeping.COLUMN),
        tuple(rows),
        (*notes.lines(), *dict.fromkeys(reason for reason in why if reason)),
        text_columns=frozenset({0, len(kept) + 1}),
    )


def _why_undefined(study: Study, group: Group, metric: Metric) -> str:
    reasons = [e.measures[metric.key].reason for label in study.rows(group) for e in study.done(group, label)]
    reason = next(iter(reasons), "")
    return reason if not reason or metric.short in reason else f"{metric.short}: {reason}"


def overview(study: Study, scenario: str, metric: Metric) -> list[Table]:
    """Table of methods x benchmarks for one metric in one scenario, with the average rank; split if too wide."""
    groups = [group for group in study.groups if group.scenario == scenario]
    labels = [label for label in study.labels if any(study.at(group, label) for group in groups)]
    ranks = _ranks(study, scenario, metric)
    parts = _chunks(groups, COLUMNS_AT_MOST)
    return [_overview(study, scenario, metric, part, labels, ranks, (i, len(parts))) for i, part in enumerate(parts)]


def _overview(
    study: Study,
    scenario: str,
    metric: Metric,
    groups: Sequence[Group],
    labels: Sequence[str],
    ranks: dict[str, str],
    part: tuple[int, int],
) -> Table:
    notes = Notes()
    columns = [column(study, group, metric, labels, notes) for group in groups]
    kept = map(Cell, keeping.of_rows(study, labels, groups))
    rows = [
        (method_cell(label, cited=True), *cells)
        for label, cells in zip(labels, zip(*columns, kept, strict=True), strict=True)
    ]
    header, last = ["method", *_headings(study, groups), keeping.COLUMN], part[0] == part[1] - 1
    if last and ranks:
        header.append("rank")
        rows = [(*row, Cell(ranks.get(row[0].key, MISSING))) for row in rows]
    ranked = _rank_words(study, scenario) if ranks and last else ""
    number = f" Part {part[0] + 1} of {part[1]}." if part[1] > 1 else ""
    return Table(
        f"overview-{metric.key}-{scenario}" + (f"-{part[0] + 1}" if part[1] > 1 else ""),
        f"{scenario.upper()}: {metric.title} ({metric.short}) in percent, {spread_words(study, groups)}."
        f"{marks_words(study, columns)}{keeping.caption()}{ranked}{number}",
        tuple(header),
        tuple(rows),
        notes.lines(),
        text_columns=frozenset({0, len(groups) + 1}),
    )


def _headings(study: Study, groups: Sequence[Group]) -> list[str]:
    """Names of the benchmarks, with their numbers of seeds where these differ."""
    counts = [len(study.seeds(group)) for group in groups]
    alike = len(set(counts)) == 1
    return [pretty(g.benchmark) + ("" if alike else f" (n={n})") for g, n in zip(groups, counts, strict=True)]


def _ranks(study: Study, scenario: str, metric: Metric) -> dict[str, str]:
    """Average rank by label over the `Study.comparable` benchmarks, of the methods with a value on every seed of them.

    Empty for a single benchmark or method, and if best is no merit.
    """
    groups, labels = study.comparable(scenario)
    labels = study.in_full(groups, labels, metric)
    if len(groups) < 2 or len(labels) < 2 or metric not in MARKED:
        return {}
    ranks: dict[str, float] = statistics.mean_ranks(scores(study, groups, labels, metric)).to_dict()
    return {name: f"{rank:.1f}" for name, rank in ranks.items()}


def _rank_words(study: Study, scenario: str) -> str:
    groups, _ = study.comparable(scenario)
    over = f"{len(groups)} benchmarks with {count(len(study.seeds(groups[0])), 'seed')}"
    words = f" Rank: average over the {over}, of the methods with a value on each of them (1 is best)"
    return f"{words}{rank_notes(study, scenario)}."


def rank_notes(study: Study, scenario: str) -> str:
    """Clauses on the benchmarks and methods without a rank, each after a semicolon."""
    absent = {
        "where other methods were run or with other numbers of seeds": study.left_out(scenario),
        "not run on all of these with all seeds": [display(label) for label in study.not_comparable(scenario)],
    }
    return _left_out(absent) + lost(study, scenario, study.comparable(scenario)[0])


def lost(study: Study, scenario: str, groups: Sequence[Group]) -> str:
    """Clauses on the methods run on all groups, but without a place in ranks or scores, each after a semicolon."""
    _, labels = study.comparable(scenario)
    full = study.in_full(groups, labels, ACC)
    keeping_data = study.unranked - study.references
    methods = {
        "without a value on every seed": [label for label in labels if label not in full],
        "keeping training data of earlier tasks": [
            label for label in study.labels if label in keeping_data and any(study.done(g, label) for g in groups)
        ],
    }
    return _left_out({why: [display(label) for label in found] for why, found in methods.items()})


def _left_out(absent: Mapping[str, Sequence[str]]) -> str:
    return "".join(f"; left out: {join(names)} ({why})" for why, names in absent.items() if names)


def scores(study: Study, groups: Sequence[Group], labels: Sequence[str], metric: Metric) -> pd.DataFrame:
    """Means over seeds: groups in rows, labels in columns, NaN without a value."""
    import pandas as pd

    def mean(group: Group, label: str) -> float:
        values = study.values(group, label, metric)
        return fmean(values.values()) if values else float("nan")

    data = {label: [mean(group, label) for group in groups] for label in labels}
    return pd.DataFrame(data, index=[group.title for group in groups], dtype=float)


def column(study: Study, group: Group, metric: Metric, labels: Sequence[str], notes: Notes) -> list[Cell]:
    """Column of one metric of one group, with its best cells marked."""
    cells = [measured(study, group, label, metric, notes) for label in labels]
    return marked(study, group, metric, dict(zip(labels, cells, strict=True)))


def measured(study: Study, group: Group, label: str, metric: Metric, notes: Notes) -> Cell:
    """Mean, spread and n of one metric, or the reason for their absence; use beyond the budget is marked."""
    values = list(study.values(group, label, metric).values())
    if not values:
        return _absent(study, group, label, metric, notes)
    expected = len(study.seeds(group))
    mean, deviation = fmean(values), statistics.spread(values)
    text = percent(mean, signed=metric in _SIGNED)
    if deviation is not None:
        text += f" ± {percent(deviation)}"
    marked = list(dict.fromkeys(text for entry in study.done(group, label) for text in deviations(entry.record)))
    if label in study.unranked - study.references:
        marked.append("keeps training data of earlier tasks")
    if len(values) < expected:
        text += f" (n={len(values)})"
        marked.append(_why_fewer(study, group, label, metric))
    mark = notes.mark("; ".join(marked)) if marked else ""
    return Cell(text, mean, deviation, len(values), mark=mark)


_SIGNED = tuple(m for m in TABLE_METRICS if m.key in {"bwt", "fwt"})


def _absent(study: Study, group: Group, label: str, metric: Metric, notes: Notes) -> Cell:
    entries = study.at(group, label)
    if not entries:
        return Cell(MISSING, mark=notes.mark("not run"))
    done = [entry for entry in entries if entry.record.done]
    reasons = dict.fromkeys(entry.measures[metric.key].reason for entry in done or entries)
    text = shorten("; ".join(reason for reason in reasons if reason))
    if done:
        return Cell(MISSING, mark=notes.mark(text))
    word = "/".join(sorted({str(entry.record.status) for entry in entries}))
    if len(entries) < len(study.seeds(group)):
        return Cell(word, mark=notes.mark(_why_fewer(study, group, label, metric)))
    return Cell(word, mark=notes.mark(text.removeprefix(f"{word}: ")) if text != word else "")


def _why_fewer(study: Study, group: Group, label: str, metric: Metric) -> str:
    present = {entry.seed: entry for entry in study.at(group, label)}
    parts: dict[str, list[str]] = {}
    for seed in study.seeds(group):
        entry = present.get(seed)
        reason = "not run" if entry is None else entry.measures[metric.key].reason
        if reason:
            parts.setdefault(reason, []).append(str(seed))
    which = {reason: f"{'seeds' if len(seeds) > 1 else 'seed'} {', '.join(seeds)}" for reason, seeds in parts.items()}
    return shorten("; ".join(f"{seeds} {reason}" for reason, seeds in which.items()))


def shorten(text: str, limit: int = 220) -> str:
    """Shorten a text to one line of at most `limit` characters."""
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def spread_words(study: Study, groups: Iterable[Group]) -> str:
    """Words on the meaning of `±` and the number of seeds."""
    counts = sorted({len(study.seeds(group)) for group in groups})
    if counts == [1]:
        return "one seed, so no spread"
    seeds = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"mean ± sample standard deviation over {seeds} seeds"


def _chunks(items: Sequence[Group], size: int) -> list[list[Group]]:
    """Split into even parts of at most `size`."""
    count = max(1, -(-len(items) // size))
    length = -(-len(items) // count)
    return [list(items[i : i + length]) for i in range(0, len(items), length)]


def main_tables(study: Study) -> list[Table]:
    """Overviews of the scenarios with several benchmarks, then every group in full."""
    tables: list[Table] = []
    for scenario in study.scenarios:
        if sum(group.scenario == scenario for group in study.groups) > 1:
            for metric in (ACC, BWT):
                tables += overview(study, scenario, metric)
    return tables + [detail(study, group) for group in study.groups]


def split(table: Table, rows_at_most: int = ROWS_AT_MOST) -> list[Table]:
    """Split into parts of even length that fit on a page each; the notes go under the last."""
    pieces = max(1, -(-len(table.rows) // rows_at_most))
    if pieces == 1:
        return [table]
    length = -(-len(table.rows) // pieces)
    parts = []
    for i in range(pieces):
        caption = table.caption if i == 0 else f"{table.caption.split(':')[0].rstrip('.')}, continued."
        rows = table.rows[i * length : (i + 1) * length]
        parts.append(replace(table, caption=caption, rows=rows, notes=table.notes if i == pieces - 1 else ()))
    return parts


def without_repeats(table: Table) -> tuple[tuple[Cell, ...], ...]:
    """Rows for readers: text of the `named_once` columns is left out if the row above has the same."""
    found = []
    for above, row in zip((None, *table.rows), table.rows, strict=False):
        same = 0
        while above and same < table.named_once and row[same].text == above[same].text:
            same += 1
        found.append((*(replace(cell, text="", mark="") for cell in row[:same]), *row[same:]))
    return tuple(found)


def longest(table: Table, column: int) -> int:
    """Length of the longest text in a column, its heading included."""
    return max([len(table.columns[column]), *(len(row[column].text) for row in table.rows)])
