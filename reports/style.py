"""Style of figures: sizes of a two-column paper, and one colour, line and marker per method everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reports.study import FINETUNE, JOINT, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FULL_WIDTH = 7.0
"""Width of both columns, in inches."""
COLUMN_WIDTH = 3.35
"""Width of one column, in inches."""
# Okabe & Ito (2008), safe for colour-blind readers, without its yellow, which is invisible on white.
# Dark and light alternate, so that neighbours differ in grey too.
COLOURS = ("#0072B2", "#E69F00", "#7F3C00", "#56B4E9", "#D55E00", "#CC79A7", "#009E73")
LINES = ("-", "--", "-.", ":", (0, (5, 1)))
HATCHES = ("", "/////", ".....", "xxxxx", "-----")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "<", ">", "h")


@dataclass(frozen=True)
class Look:
    """Style of a method; line and marker distinguish it in grey too."""

    colour: str
    line: Any
    marker: str
    hatch: str = ""
    """Hatch of bars, where colours repeat."""


def looks(study: Study) -> dict[str, Look]:
    """Assign a look to each label; the two reference points are grey and black."""
    methods = {entry.label: entry.record.method for entry in study.entries}
    found: dict[str, Look] = {}
    others = [label for label in study.labels if methods[label] not in (FINETUNE, JOINT)]
    for i, label in enumerate(others):
        again = i // len(COLOURS)
        line, hatch = LINES[again % len(LINES)], HATCHES[again % len(HATCHES)]
        found[label] = Look(COLOURS[i % len(COLOURS)], line, MARKERS[i % len(MARKERS)], hatch)
    for method, colour in ((FINETUNE, "#8C8C8C"), (JOINT, "#000000")):
        for i, label in enumerate(label for label in study.labels if methods[label] == method):
            found[label] = Look(colour, LINES[(3 + i) % len(LINES)], MARKERS[(9 + i) % len(MARKERS)])
    return found


@contextmanager
def drawing() -> Iterator[None]:
    """Apply matplotlib's settings for the report: small sans-serif text, no mathtext in labels, reproducible output."""
    import matplotlib
    import seaborn

    settings: dict[Any, Any] = {
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
        "hatch.linewidth": 0.5,
        "axes.unicode_minus": True,
    }
    with matplotlib.rc_context(settings):
        yield


@dataclass(frozen=True)
class Margins:
    """Room around and between panels, in inches. Fixed, because automatic layout takes half of the drawing time."""

    left: float = 0.44
    right: float = 0.06
    top: float = 0.2
    bottom: float = 0.36
    across: float = 0.14
    """Room between columns."""
    down: float = 0.52
    """Room between rows."""


def canvas(width: float, height: float, rows: int, columns: int, room: Margins, **options: Any) -> tuple[Figure, Any]:
    """Make a figure of `width` x `height` inches and its axes (rows, columns), without pyplot's global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    inner_width = (width - room.left - room.right - (columns - 1) * room.across) / columns
    inner_height = (height - room.top - room.bottom - (rows - 1) * room.down) / rows
    figure.subplots_adjust(
        left=room.left / width,
        right=1 - room.right / width,
        top=1 - room.top / height,
        bottom=room.bottom / height,
        wspace=room.across / inner_width,
        hspace=room.down / inner_height,
    )
    return figure, axes


def legend(figure: Figure, shown: Sequence[str], found: dict[str, Look], width: float, *, bars: bool = False) -> None:
    """Draw one legend above all panels. Names are set afterwards: matplotlib drops those that begin with `_`."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if not shown:
        return
    wanted = [found[name] for name in shown]
    handles = [
        Patch(facecolor=look.colour, hatch=look.hatch, edgecolor="white", linewidth=0)
        if bars
        else Line2D([], [], color=look.colour, linestyle=look.line, marker=look.marker)
        for look in wanted
    ]
    box = figure.legend(
        handles,
        ["m"] * len(shown),
        loc="upper center",
        bbox_to_anchor=(0.5, 1.0),
        borderaxespad=0.2,
        ncols=_columns(shown, width),
        frameon=False,
        handlelength=1.0 if bars else 2.2,
        columnspacing=1.2,
    )
    for text, name in zip(box.get_texts(), shown, strict=True):
        text.set_text(cut(name))


def cut(name: str, limit: int = 28) -> str:
    """Shorten a name for a legend or an axis, on one line."""
    name = " ".join(name.split())
    return name if len(name) <= limit else name[: limit - 1] + "…"


def legend_height(shown: Sequence[str], width: float) -> float:
    """Height of `legend`, in inches."""
    return 0.06 + 0.145 * -(-len(shown) // _columns(shown, width)) if shown else 0.0


def _columns(shown: Sequence[str], width: float) -> int:
    lengths = [0.42 + 0.053 * len(cut(name)) for name in shown]
    if sum(lengths) < width:
        return len(shown)
    return max(1, int(width / max(lengths)))
