"""Figures of the tuning: trials of runners/tune.py, one panel per method and hyperparameter."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, groupby
from pathlib import Path

from benchmarks import paths
from reports import words
from reports.distinct_names import file_stem, pretty
from reports.panels import Drawn, Job
from reports.study import Study
from reports.style import FULL_WIDTH, Look, Margins, canvas, cut

TRIALS = Path("tuning") / "trials.csv"
"""Path below the results folder; one line per trial and hyperparameter."""
GRID = "/grid "
"""Part of the name of a study that is a grid, not a search (`runners.tuning.study`)."""
PANELS_IN_A_ROW = 4
DECADES_FOR_LOG = 10.0
"""Ratio of a hyperparameter's largest to its smallest value from which its axis is logarithmic."""


@dataclass(frozen=True)
class Point:
    """Trial with its value of one hyperparameter; accuracy in percent."""

    state: str
    accuracy: float
    value: str
    chosen: bool
    """Its values are those that the search chose, which need not have the highest accuracy."""


@dataclass(frozen=True)
class Tuned:
    """Trials of a method on a benchmark in a scenario."""

    suite: str
    benchmark: str
    scenario: str
    method: str
    points: dict[str, list[Point]]
    trials: int
    failed: int
    """Trials without an accuracy, which have no points."""
    grid: bool
    """True for a grid, False for a search."""

    @property
    def star(self) -> str:
        """Words on the star of the figure; empty for a table that names no choice, of an earlier version."""
        own = [p.accuracy for points in self.points.values() for p in points if p.chosen]
        return f" Star: the chosen values, {own[0]:.1f} %." if own else ""


def read(root: Path) -> list[Tuned]:
    """Read the searches of runners/tune.py below a results folder; none without a complete table."""
    try:
        text = paths.read_text(root / TRIALS, paths.TABLE_BYTES)
        rows = csv.DictReader(io.StringIO(text, newline=""))
        key = ("suite", "benchmark", "scenario", "method")
        found = []
        # An older table has no column `study`, and one search in each place.
        for (place, name), group in groupby(rows, lambda row: ([row[name] for name in key], row.get("study"))):
            suite, benchmark, scenario, method = place
            trials: dict[str, bool] = {}
            points: dict[str, list[Point]] = {}
            for part in place:
                paths.name(part)
            for row in group:
                trials[row["trial"]] = bool(row["accuracy"])
                if not row["accuracy"]:
                    continue
                chosen = row.get("chosen") == "yes"
                point = Point(row["state"], 100 * float(row["accuracy"]), row["value"], chosen)
                points.setdefault(row["parameter"], []).append(point)
            if any(point.state == "complete" for some in points.values() for point in some):
                failed = list(trials.values()).count(False)
                grid = GRID in (name or "")
                found.append(Tuned(suite, benchmark, scenario, method, points, len(trials), failed, grid))
        return found
    except (OSError, KeyError, ValueError, TypeError, csv.Error):
        return []


def tuning(study: Study) -> Iterator[Job]:
    """Yield one figure per search."""
    stems: set[str] = set()
    for tuned in read(study.source.root):
        place = f"{tuned.benchmark}-{tuned.scenario}-{tuned.method}"
        stem = f"tuning-{file_stem(place)}{'-grid' if tuned.grid else ''}"
        stem = next(name for number in count(1) if (name := f"{stem}-{number}" if number > 1 else stem) not in stems)
        stems.add(stem)
        yield partial(_sensitivity, tuned=tuned, stem=stem)


def _sensitivity(study: Study, found: dict[str, Look], tuned: Tuned, stem: str) -> Drawn:
    names = list(tuned.points)
    columns = min(PANELS_IN_A_ROW, len(names))
    rows = math.ceil(len(names) / columns)
    colour = found[tuned.method].colour if tuned.method in found else "#0072B2"
    room = Margins(left=0.5, bottom=0.4)
    height = room.top + room.bottom + rows * 1.1 + (rows - 1) * room.down
    figure, axes = canvas(FULL_WIDTH, height, rows, columns, room, sharey=True)
    for ax, name in zip(axes.flat, names, strict=False):
        _panel(ax, tuned.points[name], colour)
        ax.set_xlabel(cut(name))
    for ax in axes.flat[len(names) :]:
        ax.set_visible(False)
    for row in axes:
        row[0].set_ylabel("validation accuracy (%)")
    states = [point.state for point in tuned.points[names[0]]]
    failed = f", of which {tuned.failed} failed," if tuned.failed else ""
    diverged = f"; {words.count(n, 'trial')} that diverged" if (n := states.count("diverged")) else ""
    what = f"a grid of {words.join(names)}" if tuned.grid else "a search"
    caption = (
        f"{tuned.method}, {pretty(tuned.benchmark)} {tuned.scenario.upper()}: accuracy on validation data in "
        f"{words.count(tuned.trials, 'trial')}{failed} of {what} by runners/tune.py (suite {tuned.suite}; streams of "
        "seeds that no comparison uses). Crosses: "
        f"{words.count(states.count('pruned'), 'trial')} pruned, with their accuracy then{diverged}.{tuned.star}"
    )
    return Drawn(stem, caption, figure, appendix=True)


def _panel(ax: object, points: Sequence[Point], colour: str) -> None:
    from matplotlib.axes import Axes

    assert isinstance(ax, Axes)
    numbers = [_number(point.value) for point in points]
    if all(number is not None for number in numbers):
        places = [number for number in numbers if number is not None]
        if min(places) > 0 and max(places) / min(places) >= DECADES_FOR_LOG:
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        values = sorted({point.value for point in points})
        places = [float(values.index(point.value)) for point in points]
        ax.set_xticks(range(len(values)), [cut(value) for value in values])
    for place, point in zip(places, points, strict=True):
        marker, size = ("*", 60) if point.chosen else ("o", 14) if point.state == "complete" else ("x", 14)
        ax.scatter([place], [point.accuracy], s=size, marker=marker, color=colour, alpha=1.0 if point.chosen else 0.7)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
