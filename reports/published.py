"""Published values next to ours, and apart from them values from logs, quotations and figures: same method, benchmark
and scenario, with the differences in protocol."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from math import log10, sqrt
from statistics import fmean

from reports import statistics
from reports.metrics import ACC, BWT, CERTIFIED, LA, Metric
from reports.record import Record
from reports.study import Group, Study
from reports.tables import MISSING, Cell, Sources, Table, method_cell
from reports.words import percent

TRUSTED = {
    "read-in-source": "",
    "read-from-table-image": "",
    "authors-development-log": "from the authors' development log, not a published table",
    "secondary-quote": "quoted by another text, not read in the source",
    "digitised-figure": "read off a figure of the authors; the last column has the error",
}
"""Levels of trust that may be shown, and the mark of each."""
READ = frozenset(key for key, words in TRUSTED.items() if not words)
"""Levels that may stand under "published"; the others are for orientation."""
two = partial(percent, digits=2)
"""Percent with two decimals, as most papers print."""
FINE, COARSE = 0.01, 1.0
"""Distance of the last printed digits, in points, of most values, and the least one that gets no interval."""
SPREAD_WORDS = {"std": "", "sem": " (SEM)", "std0": " (n)"}
"""Kinds of spread: sample standard deviation, standard error, and standard deviation divided by n."""
CAP = Metric("cap", "CAP", "capacity", False, "1/N abs(union.big_(j=1)^T m_j) + 0.22 / 32 T", "Kang et al. 2022")
"""Share of the N shared weights in any mask m_j, plus the masks' size in the authors' estimate of their code."""
METRICS = {"acc": ACC, "bwt": BWT, "la": LA, "certified": CERTIFIED, "cap": CAP}


@dataclass(frozen=True)
class Published:
    """Published number in percent (points for BWT), with its protocol as far as known."""

    method: str
    benchmark: str
    scenario: str
    metric: str
    value: float
    deviation: float | None
    """Sample standard deviation over runs; other kinds of spread are converted where n is known."""
    spread_text: str
    resolution: float
    """Distance of the last printed digit, in points: 1, 0.1 or 0.01."""
    n: int | None
    trust: str
    source: str
    where: str
    network: str
    steps: int | None
    epochs: int | None
    batch_size: int | None
    other: str

    @property
    def text(self) -> str:
        """Value and spread as printed: no more digits than the source has."""
        return self.rounded(self.value / 100, METRICS[self.metric] is BWT) + self.spread_text

    def rounded(self, share: float, signed: bool = False) -> str:
        """Fraction in percent, with the digits of the value."""
        return percent(share, signed, _digits(self.resolution))


Match = tuple[Published, Group, str, Record]
"""Value, with the group, the label and a record of ours."""


@cache
def published() -> tuple[Published, ...]:
    """All rows of reports/published.csv that may be shown."""
    text = resources.files("reports").joinpath("published.csv").read_text(encoding="utf-8")
    return tuple(_row(row) for row in csv.DictReader(text.splitlines()) if row["trust"] in TRUSTED)


def _row(row: dict[str, str]) -> Published:
    spread = float(row["spread"]) if row["spread"] else None
    kind, n = row["spread_kind"], _whole(row["n"])
    resolution = float(row["resolution"] or FINE)
    return Published(
        method=row["method"],
        benchmark=row["benchmark"],
        scenario=row["scenario"],
        metric=row["metric"],
        value=float(row["value"]),
        deviation=None if spread is None else _deviation(spread, kind, n),
        spread_text="" if spread is None else f" ± {spread:.{_digits(resolution)}f}{SPREAD_WORDS[kind]}",
        resolution=resolution,
        n=n,
        trust=row["trust"],
        source=row["source"],
        where=row["where"],
        network=row["network"],
        steps=_whole(row["steps"]),
        epochs=_whole(row["epochs"]),
        batch_size=_whole(row["batch_size"]),
        other=row["other"],
    )


def _deviation(spread: float, kind: str, n: int | None) -> float | None:
    """Sample standard deviation of a spread of one of the kinds; None if that needs an unknown n."""
    if kind == "std":
        return spread
    if n is None or n < 2:
        return None
    return spread * sqrt(n) if kind == "sem" else spread * sqrt(n / (n - 1))


def _digits(resolution: float) -> int:
    return max(0, round(-log10(resolution)))


def _whole(text: str) -> int | None:
    return int(text) if text else None


def published_table(study: Study) -> Table | None:
    """Table of the values read in their source with a counterpart of ours; None without any."""
    return _table(
        [match for match in _matches(study) if match[0].trust in READ],
        study,
        "published",
        f"Published values against ours ({_UNITS}): {_SPREADS}) and number of runs; published less ours in points, "
        f"with {_INTERVAL}. {_PRINTED} {_READING} Few values are free of differences, so read these first.",
    )


def orientation_table(study: Study) -> Table | None:
    """Table of the values from logs, quotations and figures with a counterpart of ours; None without any."""
    return _table(
        [match for match in _matches(study) if match[0].trust not in READ],
        study,
        "orientation",
        f"For orientation: values from logs, quotations and figures ({_UNITS}): {_SPREADS}; n: divided by n "
        "instead of n − 1, which the interval allows for) and number of runs; theirs less ours in points, with "
        f"{_INTERVAL}. {_PRINTED} {_READING}",
    )


_UNITS = "percent; BWT in points"
_SPREADS = "mean ± standard deviation (SEM: standard error"
_INTERVAL = (
    "the 95 % t interval of the difference of two independent means (Welch), where both have a spread and at least "
    f"{statistics.MIN_FOR_INTERVAL} runs"
)
_PRINTED = (
    "Theirs and the difference have the digits of the source; where those are whole points there is no interval, since "
    "the value and its spread are rounded."
)
_READING = (
    "S1, S2, ...: sources, listed under the table. The last column names every known difference in protocol, and what "
    "is not noted of it."
)


def _table(found: Sequence[Match], study: Study, stem: str, caption: str) -> Table | None:
    if not found:
        return None
    sources = Sources()
    rows = [_line(study, *match, sources) for match in found]
    trusts = sorted({one.trust for one, *_ in found} - READ)
    notes = tuple(f"({_MARKS[trust]}) {TRUSTED[trust]}" for trust in trusts)
    theirs = "published" if stem == "published" else "theirs"
    return Table(
        stem,
        caption,
        (
            "benchmark",
            "method",
            "metric",
            theirs,
            "n",
            "ours",
            "n",
            f"{theirs} − ours",
            "95 % interval",
            "source",
            "their protocol",
        ),
        tuple(rows),
        (*notes, *sources.lines()),
        small=True,
        named_once=2,
        text_columns=frozenset({0, 1, 2, 9, 10}),
    )


_MARKS = {"authors-development-log": "l", "secondary-quote": "q", "digitised-figure": "d"}


def metric_values(study: Study, group: Group, label: str, metric: Metric) -> list[float]:
    """Values of the finished seeds, as fractions; CAP is that of the method's table `capacity` after the last task."""
    if metric is not CAP:
        return list(study.values(group, label, metric).values())
    tables = (entry.record.exhibit("capacity") for entry in study.done(group, label))
    return [float(table["published"][-1]) for table in tables if "published" in table]


def _matches(study: Study) -> Iterator[Match]:
    for group in study.groups:
        for label in study.rows(group):
            entries = study.done(group, label)
            if not entries:
                continue
            record = entries[0].record
            for one in published():
                same = (one.benchmark, one.scenario) == (record.benchmark, record.scenario)
                if same and one.method == record.label and metric_values(study, group, label, METRICS[one.metric]):
                    yield one, group, label, record


def _line(study: Study, one: Published, group: Group, label: str, record: Record, sources: Sources) -> tuple[Cell, ...]:
    metric = METRICS[one.metric]
    values = metric_values(study, group, label, metric)
    mean, deviation = fmean(values), statistics.spread(values)
    signed = metric is BWT
    ours = two(mean, signed) + ("" if deviation is None else f" ± {two(deviation)}")
    return (
        Cell(group.title),
        method_cell(label),
        Cell(metric.short),
        Cell(one.text, mark=_MARKS.get(one.trust, "")),
        Cell("?" if one.n is None else str(one.n)),
        Cell(ours),
        Cell(str(len(values))),
        Cell(one.rounded(one.value / 100 - mean, signed=True)),
        Cell(interval(one, values)),
        sources.cell(f"{one.source}, {one.where}"),
        Cell("; ".join(differences(one, record)) or "same as far as known"),
    )


def interval(one: Published, values: Sequence[float]) -> str:
    """95 % interval of published less ours, in points; a dash where one side has too few runs or no spread, or where
    theirs is rounded to points."""
    ours = statistics.spread(values)
    if one.deviation is None or one.n is None or ours is None or one.resolution >= COARSE:
        return MISSING
    theirs = statistics.Moments(one.value / 100, one.deviation / 100, one.n)
    found = statistics.difference_interval(theirs, statistics.Moments(fmean(values), ours, len(values)))
    return f"{two(found[0], signed=True)} to {two(found[1], signed=True)}" if found else MISSING


def differences(one: Published, record: Record) -> list[str]:
    """Known or unstated differences between the published run and ours; an empty list claims no sameness."""
    return [*protocol_differences(one, record), *([one.other] if one.other else [])]


def protocol_differences(one: Published, record: Record) -> list[str]:
    """Differences in network, training length and batch size, or what is not noted of them."""
    found = []
    budget = record.budget
    if one.network != record.network:
        found.append(f"network {one.network}" if one.network else "network not noted")
    length = next((f"{value} {key}" for key in ("steps", "epochs") if (value := getattr(one, key))), "")
    ours = next((f"{budget[key]} {key}" for key in ("steps", "epochs") if budget.get(key)), "")
    if length != ours:
        found.append(length or "budget not noted")
    if one.batch_size != budget.get("batch_size") and length:
        found.append(f"batch {one.batch_size or 'not noted'}")
    return found
