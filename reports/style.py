"""Style of figures: sizes of a two-column paper, and one colour, line and marker per method everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from zlib import crc32

from reports.names import Family, display, family, place
from reports.study import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FULL_WIDTH = 7.0
"""Width of both columns, in inches."""
COLUMN_WIDTH = 3.35
"""Width of one column, in inches."""
# One hue for each family, from Okabe & Ito (2008), in shades that alternate between dark and light, so that neighbours
# differ in grey too.
HUES: Mapping[Family, tuple[str, ...]] = MappingProxyType(
    {
        Family.REGULARISATION: ("#0072B2", "#56B4E9", "#003A5D", "#8FB8DE", "#2C5AA0", "#6FD3E3", "#1F8A9E"),
        Family.HYPERNETWORKS: ("#D55E00", "#E69F00", "#8C2D04", "#F4A582"),
        Family.INTERVALS: ("#009E73", "#7BC96F", "#00543D", "#A6A600"),
        Family.CONSTRUCTION: ("#6A3D9A", "#B58AD6", "#3F1D63", "#8E5FBF", "#C77CB5", "#5E4B8B"),
        Family.CLOSED_FORM: ("#7F3C00", "#B98B5E"),
        Family.REFERENCES: ("#8C8C8C", "#000000"),
        Family.OWN: ("#CC3377", "#F08AB4", "#7A0F45"),
    }
)
COLOURS = ("#0072B2", "#E69F00", "#7F3C00", "#56B4E9", "#D55E00", "#CC79A7", "#009E73")
"""Colours of curves that are no methods."""
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
    """Assign a look to each label, the same in every report: it depends on the label and its method alone.

    Only if two labels would look alike does the later one, by name, take the next free look.
    """
    methods = {entry.label: entry.record.method for entry in study.entries}
    found: dict[str, Look] = {}
    for label in sorted(methods, key=lambda label: (label != methods[label], label)):
        start = _number(label, methods[label])
        found[label] = next(
            look for step in count() if (look := _look(methods[label], start, step)) not in found.values()
        )
    return found


def _number(label: str, method: str) -> int:
    """Number of a look: the place of a shipped method in its family; of variants and own methods a hash of the name."""
    own = place(method)
    return own if own is not None and label == method else crc32(label.encode())


def _look(method: str, start: int, step: int) -> Look:
    """Look of a number, `step` places on; variants of a shipped method keep its colour."""
    hues, own, number = HUES[family(method)], place(method), start + step
    colour = hues[(number if own is None else own) % len(hues)]
    again = (number if own is None else 0) // len(hues) + number
    first = list(Family).index(family(method))
    return Look(
        colour,
        LINES[(again + step // len(MARKERS)) % len(LINES)],
        MARKERS[(number + 2 * first) % len(MARKERS)],
        HATCHES[again % len(HATCHES)],
    )


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
        text.set_text(cut(display(name)))


def key_at_the_right(ax: Axes, colours: Iterable[Any], names: Sequence[str], **line: Any) -> None:
    """Name the colours of a panel's lines at its right. line: what else matplotlib's `Line2D` takes."""
    from matplotlib.lines import Line2D

    ax.legend(
        [Line2D([], [], color=colour, **line) for colour in colours],
        names,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        frameon=False,
        handlelength=0.8,
        fontsize=6,
        labelspacing=0.2,
    )


def cut(name: str, limit: int = 28) -> str:
    """Shorten a name for a legend or an axis, on one line."""
    name = " ".join(name.split())
    return name if len(name) <= limit else name[: limit - 1] + "…"


def legend_height(shown: Sequence[str], width: float) -> float:
    """Height of `legend`, in inches."""
    return 0.06 + 0.145 * -(-len(shown) // _columns(shown, width)) if shown else 0.0


def _columns(shown: Sequence[str], width: float) -> int:
    lengths = [0.42 + 0.053 * len(cut(display(name))) for name in shown]
    if sum(lengths) < width:
        return len(shown)
    return max(1, int(width / max(lengths)))
