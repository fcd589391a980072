"""How figures look: sizes of a two-column paper, and one colour, line and marker for a method everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reports.study import LOWER_BOUND, UPPER_BOUND, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FULL_WIDTH = 7.0
"""Inches across both columns."""
COLUMN_WIDTH = 3.35
"""Inches of one column."""
# Okabe & Ito (2008), safe for the colour blind, without its yellow, which is lost on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#7F3C00")
LINES = ("-", "--", "-.", ":", (0, (5, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "<", ">", "h")


@dataclass(frozen=True)
class Look:
    """How a method is drawn; line and marker tell it apart in grey."""

    colour: str
    line: Any
    marker: str


def looks(study: Study) -> dict[str, Look]:
    """A look for each label; the two reference points are grey and black."""
    methods = {entry.label: entry.record.method for entry in study.entries}
    found: dict[str, Look] = {}
    others = [label for label in study.labels if methods[label] not in (LOWER_BOUND, UPPER_BOUND)]
    for i, label in enumerate(others):
        line = LINES[(i // len(COLOURS)) % len(LINES)]
        found[label] = Look(COLOURS[i % len(COLOURS)], line, MARKERS[i % len(MARKERS)])
    for method, colour in ((LOWER_BOUND, "#8C8C8C"), (UPPER_BOUND, "#000000")):
        for i, label in enumerate(label for label in study.labels if methods[label] == method):
            found[label] = Look(colour, LINES[(3 + i) % len(LINES)], MARKERS[(9 + i) % len(MARKERS)])
    return found


@contextmanager
def drawing() -> Iterator[None]:
    """Matplotlib's settings for the report: small serif-free text, no mathematics in labels, stable output."""
    import matplotlib
    import seaborn

    settings = {
        **seaborn.axes_style("ticks"),
        "font.size": 7,
        "axes.titlesize": 7.5,
        "axes.labelsize": 7,
        "xtick.labelsize": 6.5,
        "ytick.labelsize": 6.5,
        "legend.fontsize": 7,
        "lines.linewidth": 1.1,
        "lines.markersize": 3,
        "axes.linewidth": 0.6,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        "axes.grid": False,
        "font.family": ["DejaVu Sans"],
        "text.parse_math": False,
        "pdf.fonttype": 42,
        "svg.hashsalt": "report",
        "axes.unicode_minus": True,
    }
    with matplotlib.rc_context(settings):
        yield


def canvas(width: float, height: float, rows: int, columns: int, **options: Any) -> tuple[Figure, Any]:
    """A figure without pyplot's global state, and its axes (rows, columns)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, axes


def legend(figure: Figure, shown: Sequence[str], found: dict[str, Look], width: float) -> None:
    """One legend above all panels. Names are set afterwards: matplotlib drops those that begin with `_`."""
    from matplotlib.lines import Line2D

    if not shown:
        return
    handles = [
        Line2D([], [], color=found[name].colour, linestyle=found[name].line, marker=found[name].marker)
        for name in shown
    ]
    box = figure.legend(
        handles,
        ["m"] * len(shown),
        loc="outside upper center",
        ncols=_columns(shown, width),
        frameon=False,
        handlelength=2.2,
        columnspacing=1.2,
    )
    for text, name in zip(box.get_texts(), shown, strict=True):
        text.set_text(cut(name))


def cut(name: str, limit: int = 28) -> str:
    """A name short enough for a legend or an axis, on one line."""
    name = " ".join(name.split())
    return name if len(name) <= limit else name[: limit - 1] + "…"


def legend_height(shown: Sequence[str], width: float) -> float:
    """Inches that `legend` takes."""
    return 0.1 + 0.15 * -(-len(shown) // _columns(shown, width)) if shown else 0.0


def _columns(shown: Sequence[str], width: float) -> int:
    longest = max(len(cut(name)) for name in shown)
    return max(1, min(len(shown), int(width / (0.45 + 0.058 * longest))))
