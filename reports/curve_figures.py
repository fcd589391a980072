"""Figures of published accuracies on every task next to ours, one panel for each scenario and hyperparameter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from reports.distinct_names import pretty
from reports.names import display
from reports.panels import Band, Drawn, Job, bands, whole_numbers
from reports.published_curves import TITLE, Pair, curves, pairs, steps_words
from reports.study import Group, Study
from reports.style import COLOURS, COLUMN_WIDTH, FULL_WIDTH, MARKERS, Look, Margins, canvas, cut

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS_IN_A_ROW = 2
KEY_WIDTH = 0.85
"""Room for the key of a panel, in inches."""
LETTERS_OF_A_KEY = 14


def curve_figures(study: Study) -> Iterator[Job]:
    """Yield one figure for each benchmark (with its network and length) that has a counterpart of a published curve."""
    found = pairs(study)
    for benchmark in dict.fromkeys(pair.group.benchmark for pair in found):
        here = [pair for pair in found if pair.group.benchmark == benchmark]
        yield partial(_figure, whole=study, shown=here, benchmark=benchmark)


def _figure(_: Study, __: dict[str, Look], *, whole: Study, shown: Sequence[Pair], benchmark: str) -> Drawn:
    """Draw the figure. whole: study with the rows of `shown`, which the compared methods need not include."""
    places = list(dict.fromkeys((pair.group.scenario, pair.curve.parameter) for pair in shown))
    columns = min(PANELS_IN_A_ROW, len(places))
    rows = -(-len(places) // columns)
    room = Margins(right=KEY_WIDTH, across=KEY_WIDTH + 0.45, down=0.5)
    height = room.top + room.bottom + rows * 1.4 + (rows - 1) * room.down
    figure, axes = canvas(FULL_WIDTH if columns > 1 else COLUMN_WIDTH, height, rows, columns, room)
    flat = [ax for line in axes for ax in line]
    for ax in flat[len(places) :]:
        ax.set_axis_off()
    for ax, (scenario, parameter) in zip(flat, places, strict=False):
        _panel(ax, whole, [p for p in shown if (p.group.scenario, p.curve.parameter) == (scenario, parameter)])
        ax.set_title(f"{scenario.upper()}, by {parameter}", pad=3, y=1.0)
        ax.set_xlabel("task")
        ax.set_ylabel("accuracy (%)")
        ax.spines[["top", "right"]].set_visible(False)
    caption = (
        f"{TITLE}, {pretty(benchmark)}: accuracy on each task after the last one. Dashed: the authors, one run, "
        "digitised from their figures (open markers alone: only these tasks could be read). Solid: ours, same network, "
        f"mean over seeds (band: ± one sample standard deviation). {steps_words(whole, benchmark)}"
    )
    return Drawn(f"authors-{Group(benchmark, '').stem}", caption, figure)


def _panel(ax: Axes, study: Study, shown: Sequence[Pair]) -> None:
    """Draw one colour per published value, one marker per row of ours."""
    from matplotlib.lines import Line2D

    spread, keys = [], []
    for place, pair in enumerate(shown):
        same = [other for other in shown if other.curve is pair.curve]
        colour = _colour(pair)
        marker = MARKERS[place % len(MARKERS)]
        stack = np.stack([100 * r[-1] for r in study.matrices(pair.group, pair.label)])
        if pair is same[0]:
            _theirs(ax, pair, colour, stack.shape[1])
        x, mean = np.arange(1, stack.shape[1] + 1), stack.mean(axis=0)
        ax.plot(x, mean, color=colour, linestyle="-", marker=marker)
        if len(stack) > 1:
            band = stack.std(axis=0, ddof=1)
            spread.append(Band(x, mean - band, mean + band, colour))
        name = f"{pair.curve.parameter} {pair.curve.value}" if len(same) == 1 else display(pair.label)
        keys.append((Line2D([], [], color=colour, marker=marker), cut(name, LETTERS_OF_A_KEY)))
    bands(ax, spread, 0.15)
    whole_numbers(ax)
    lines, names = zip(*keys, strict=True)
    ax.legend(lines, names, loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=6, handlelength=1.6)


def _colour(pair: Pair) -> str:
    """Colour of the value by its place among all published ones, so that it is the same in every scenario."""
    values = list(dict.fromkeys(curve.value for curve in curves() if curve.parameter == pair.curve.parameter))
    return COLOURS[values.index(pair.curve.value) % len(COLOURS)]


def _theirs(ax: Axes, pair: Pair, colour: str, n_tasks: int) -> None:
    tasks = pair.curve.tasks
    line, marker = ("--", None) if len(tasks) == n_tasks else ("none", "o")
    ax.plot(list(tasks), list(tasks.values()), color=colour, linestyle=line, marker=marker, markerfacecolor="white")
