"""Figures of what methods measure of themselves, for each task and layer: GPM's bases, InTAct's ranges."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from reports.distinct_names import pretty
from reports.metrics import Matrix
from reports.names import display
from reports.panels import Drawn, Job, logarithmic, whole_numbers
from reports.schema import EXHIBITS
from reports.study import Entry, Group, Study
from reports.style import COLOURS, FULL_WIDTH, LINES, Look, Margins, canvas, cut, key_at_the_right
from reports.words import join

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS_AT_MOST = 8
"""Largest number of rows of such a figure."""
PANEL_HEIGHT = 0.72
"""Height of a panel, in inches."""
Columns = dict[str, Matrix]


class Series(NamedTuple):
    """Panel: its title, and one or two measures of a table; the second is dashed. Zero has no place on a log axis."""

    title: str
    measures: tuple[Callable[[Columns], Matrix], ...]
    log: bool = False


@dataclass(frozen=True)
class Kind:
    """Table of a method with a row for each task and layer, and how it is drawn."""

    name: str
    """Name of the exhibit."""
    stem: str
    panels: tuple[Series, ...]
    caption: str
    largest: tuple[tuple[str, str], ...]
    """Words and columns of which the caption has the largest value."""


KINDS = (
    Kind(
        "bases",
        "bases",
        (
            Series("basis size (% of inputs)", (lambda c: 100 * c["columns"] / c["inputs"],)),
            Series("captured energy (%)", (lambda c: 100 * c["captured"],)),
            Series("drift, leak (dashed)", (lambda c: c["drift"], lambda c: c["leak"]), log=True),
        ),
        "bases of old inputs after each task, by layer. Basis size: directions kept, as a share of a layer's inputs. "
        "Captured energy: share of the squared norm of a task's inputs that lies in the basis. The promise covers that "
        "span: leak is the largest change of the weights along it, 0 if the promise were kept exactly. Drift is the "
        "relative change of a layer's answers to the inputs of all earlier tasks in one task, which the promise does "
        "not bound.",
        (("leak", "leak"), ("drift", "drift")),
    ),
    Kind(
        "drift",
        "ranges",
        (
            Series("drift down, up (dashed)", (lambda c: c["lower"], lambda c: c["upper"]), log=True),
            Series("samples inside (%)", (lambda c: 100 * c["inside"],)),
            Series("width of the ranges", (lambda c: c["width"],)),
        ),
        "ranges of activations after each task, by layer. Drift is the largest bound on how far an answer of the next "
        "layer has moved down and up over the ranges of old tasks in one task; the penalty asks for 0, and nothing is "
        "certified. Samples inside: share of the task's training samples with every activation inside the ranges up to "
        "that layer. Width: median over units.",
        (("drift down", "lower"), ("drift up", "upper")),
    ),
)
Place = tuple[Group, str, Entry, Columns]


def layer_exhibits(study: Study) -> Iterator[Job]:
    """Yield the jobs of these figures; none if the records hold no such tables."""
    for kind in KINDS:
        rows = [
            found
            for group in study.groups
            for label in study.rows(group)
            if (found := _first(study, group, label, kind))
        ]
        for i in range(0, len(rows), ROWS_AT_MOST):
            stem = kind.stem + (f"-{i // ROWS_AT_MOST + 1}" if i else "")
            yield partial(_figure, kind=kind, stem=stem, rows=rows[i : i + ROWS_AT_MOST])


def _first(study: Study, group: Group, label: str, kind: Kind) -> Place | None:
    """The table of the first finished seed that has it."""
    for entry in study.done(group, label):
        columns = entry.record.exhibit(kind.name)
        if columns.keys() >= set(EXHIBITS[kind.name]):
            return group, label, entry, columns
    return None


def _figure(_: Study, __: dict[str, Look], *, kind: Kind, stem: str, rows: Sequence[Place]) -> Drawn:
    import seaborn

    room = Margins(left=0.9, right=0.62, across=0.5, down=0.24)
    height = room.top + room.bottom + len(rows) * PANEL_HEIGHT + (len(rows) - 1) * room.down
    figure, axes = canvas(FULL_WIDTH, height, len(rows), len(kind.panels), room, sharex="row")
    for line, (group, label, _entry, columns) in zip(axes, rows, strict=True):
        for ax, series in zip(line, kind.panels, strict=True):
            _panel(ax, series, columns)
        words = f"{cut(pretty(group.benchmark), 26)}\n{group.scenario.upper()}, {cut(display(label), 16)}"
        line[0].text(-0.3, 0.5, words, transform=line[0].transAxes, fontsize=6, rotation=90, va="center", ha="center")
        _key(line[-1], columns)
    for ax, series in zip(axes[0], kind.panels, strict=True):
        ax.set_title(series.title, pad=3, y=1.0)
    for ax in axes[-1]:
        ax.set_xlabel("task")
    seaborn.despine(figure)
    names = join(list(dict.fromkeys(display(label) for _, label, _, _ in rows)))
    seeds = sorted({entry.seed for _, _, entry, _ in rows})
    most = "; ".join(
        f"largest {words}: {max(float(np.max(columns[name])) for _, _, _, columns in rows):.2g}"
        for words, name in kind.largest
    )
    zero = " 0 is not drawn on a log scale." if any(_has_zero(kind, columns) for _, _, _, columns in rows) else ""
    caption = f"{names}: {kind.caption}{zero} Seed {join([*map(str, seeds)])}; {most}."
    return Drawn(stem, caption, figure, appendix=True)


def _has_zero(kind: Kind, columns: Columns) -> bool:
    measures = [measure for series in kind.panels if series.log for measure in series.measures]
    return any(bool((measure(columns) <= 0).any()) for measure in measures)


def _layers(columns: Columns) -> list[int]:
    return sorted({int(layer) for layer in columns["layer"]})


def _panel(ax: Axes, series: Series, columns: Columns) -> None:
    """Draw a line for each layer and measure."""
    for i, layer in enumerate(_layers(columns)):
        own = columns["layer"] == layer
        for measure, style in zip(series.measures, ("-", "--"), strict=False):
            values = measure(columns)[own].astype(float)
            shown = np.where(values > 0, values, np.nan) if series.log else values
            colour = COLOURS[i % len(COLOURS)]
            line = LINES[i // len(COLOURS) % len(LINES)] if len(series.measures) == 1 else style
            ax.plot(columns["task"][own] + 1, shown, color=colour, linestyle=line, marker="o", markersize=2)
    if series.log and any(np.isfinite(np.asarray(line.get_ydata(), dtype=float)).any() for line in ax.lines):
        logarithmic(ax.yaxis)
    whole_numbers(ax)


def _key(ax: Axes, columns: Columns) -> None:
    names = [f"layer {layer}" for layer in _layers(columns)]
    key_at_the_right(ax, [COLOURS[i % len(COLOURS)] for i in range(len(names))], names)
