"""Names at the ends of lines, in the lines' colours, none over another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from reports.names import display
from reports.style import Look, cut

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

SIZE = 5.4
"""Font size of a name, in points."""
ROOM = 0.86
"""Room for names at the right of a panel, in inches."""
LETTERS_AT_MOST = 18
LINE_HEIGHT = 1.12
"""Distance of two names, as a share of the font size."""


def label_ends(axes: Iterable[Axes], found: Mapping[str, Look]) -> None:
    """Name each line whose matplotlib label is a key of `found`, after everything else has been drawn."""
    from matplotlib.lines import Line2D

    for ax in axes:
        figure = ax.get_figure(root=True)
        assert figure is not None
        ends = sorted(_ends(ax, found), key=lambda end: end[2])
        height = ax.get_position().height * figure.get_size_inches()[1]
        places = spread([y for _, _, y in ends], SIZE * LINE_HEIGHT / 72 / height)
        for (label, x, y), place in zip(ends, places, strict=True):
            colour = found[label].colour
            leader = Line2D([x, 1.03], [y, place], color=colour, linewidth=0.4, transform=ax.transAxes, clip_on=False)
            ax.add_artist(leader)
            name = cut(display(label), LETTERS_AT_MOST)
            ax.text(1.04, place, name, transform=ax.transAxes, color=colour, fontsize=SIZE, va="center")


def _ends(ax: Axes, found: Mapping[str, Look]) -> list[tuple[str, float, float]]:
    """Labels and ends of the lines, as shares of the panel."""
    ax.get_ylim()  # settles the limits
    ends = []
    labels = {str(label): label for label in found}
    for line in ax.lines:
        label, end = labels.get(str(line.get_label())), _last(line)
        if label is not None and end is not None:
            x, y = (ax.transScale + ax.transLimits).transform(end)
            ends.append((label, float(x), float(y)))
    return ends


def _last(line: Line2D) -> tuple[float, float] | None:
    x, y = (np.asarray(values, dtype=float) for values in line.get_data())
    there = np.flatnonzero(np.isfinite(y))
    return (float(x[there[-1]]), float(y[there[-1]])) if len(there) else None


def spread(wanted: Sequence[float], step: float, low: float = -0.1, high: float = 1.0) -> list[float]:
    """Places at least `step` apart, in the order of `wanted` (ascending), with the least squared distance from it.

    The places less their multiples of `step` must not fall: isotonic regression, by pooling adjacent violators. None is
    above `high`, and none below `low` where there is room.
    """
    pools: list[tuple[float, int]] = []  # mean and size
    for i, value in enumerate(wanted):
        mean, size = value - i * step, 1
        while pools and pools[-1][0] > mean:
            before, n = pools.pop()
            mean, size = (mean * size + before * n) / (size + n), size + n
        pools.append((mean, size))
    flat = [mean for mean, size in pools for _ in range(size)]
    top = high - (len(flat) - 1) * step
    return [min(max(value, low), top) + i * step for i, value in enumerate(flat)]
