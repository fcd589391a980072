"""Heat maps of the accuracy matrices R.

All maps of a figure are drawn into one pair of axes, in inches: hundreds of small axes would take most of the time
that a report needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from reports.metrics import Matrix
from reports.panels import Drawn
from reports.study import Group, Study, pretty
from reports.style import FULL_WIDTH, cut

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAPS_IN_A_ROW = 7
TICKS = 5
RASTER_FROM = 20
"""From so many tasks on the cells of a map are one picture instead of shapes."""
LEFT, RIGHT, TOP, BOTTOM, ACROSS = 0.5, 0.62, 0.18, 0.34, 0.1
"""Room around and between the maps, in inches."""
SMALL = {"fontsize": 6.5, "color": "#262626"}
Place = tuple[Group, str]


class _Layout(NamedTuple):
    width: float
    height: float
    side: float
    down: float


def heat_maps(study: Study) -> Iterator[Drawn]:
    """R of every method, averaged over seeds: a figure a benchmark, or a figure a group where methods are many."""
    for benchmark in study.benchmarks:
        here = [group for group in study.groups if group.benchmark == benchmark]
        groups = [group for group in here if any(study.matrices(group, label) for label in study.rows(group))]
        labels = [label for label in study.labels if any(study.matrices(group, label) for group in groups)]
        if not groups:
            continue
        if len(labels) <= MAPS_IN_A_ROW:
            cells = [[(group, label) for label in labels] for group in groups]
            yield _figure(study, f"heat-{Group(benchmark, '').stem}", pretty(benchmark), cells, by_scenario=True)
            continue
        for group in groups:
            rows = [labels[i : i + MAPS_IN_A_ROW] for i in range(0, len(labels), MAPS_IN_A_ROW)]
            cells = [[(group, label) for label in row] for row in rows]
            yield _figure(study, f"heat-{group.stem}", group.title, cells, by_scenario=False)


def _layout(cells: list[list[Place]], by_scenario: bool) -> _Layout:
    rows, columns = len(cells), max(map(len, cells))
    down = 0.1 if by_scenario else 0.24
    width = min(FULL_WIDTH, LEFT + RIGHT + 1.1 * columns)
    side = (width - LEFT - RIGHT - (columns - 1) * ACROSS) / columns
    below = BOTTOM if columns == len(cells[-1]) else BOTTOM + 0.05
    return _Layout(width, TOP + below + rows * side + (rows - 1) * down, side, down)


def _figure(study: Study, stem: str, words: str, cells: list[list[Place]], by_scenario: bool) -> Drawn:
    import seaborn
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    lay = _layout(cells, by_scenario)
    figure = Figure(figsize=(lay.width, lay.height))
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, lay.width), ylim=(lay.height, 0))
    ax.set_axis_off()
    colours, scale = seaborn.color_palette("viridis", as_cmap=True), Normalize(0, 100)
    for i, line in enumerate(cells):
        y = TOP + i * (lay.side + lay.down)
        for j, (group, label) in enumerate(line):
            x = LEFT + j * (lay.side + ACROSS)
            lowest = i == len(cells) - 1 or j >= len(cells[i + 1])
            tasks = _one_map(ax, study.matrices(group, label), (x, y, lay.side), (colours, scale))
            if i == 0 or not by_scenario:
                ax.text(x + lay.side / 2, y - 0.05, cut(label, 16), ha="center", va="bottom", **SMALL)
            _labels(ax, (x, y, lay.side), tasks, left=j == 0, below=lowest)
        scenario = f"{line[0][0].scenario.upper()}\n" if by_scenario else ""
        middle = y + lay.side / 2
        ax.text(0.22, middle, f"{scenario}after task", rotation=90, ha="center", va="center", **SMALL)
    inner = lay.height - TOP - BOTTOM
    place = (1 - (RIGHT - 0.1) / lay.width, BOTTOM / lay.height, 0.09 / lay.width, inner / lay.height)
    figure.colorbar(ScalarMappable(scale, colours), cax=figure.add_axes(place)).set_label("accuracy (%)")
    caption = (
        f"{words}: accuracy matrices R, mean over seeds. A row is the network after a task, a column the test set of a "
        "task; white was not measured."
    )
    return Drawn(stem, caption, figure)


def _one_map(ax: Axes, matrices: list[Matrix], where: tuple[float, float, float], look: tuple[Any, Any]) -> int:
    """Draw the mean of the matrices without their row 0 as a square; the number of tasks, 0 where there are none."""
    from matplotlib.patches import Rectangle

    x, y, side = where
    if not matrices:
        ax.text(x + side / 2, y + side / 2, "no value", ha="center", va="center", color="#666666", fontsize=6)
        return 0
    mean = 100 * np.mean(np.stack(matrices), axis=0)[1:]
    tasks = mean.shape[1]
    edges = np.linspace(0, side, tasks + 1)
    colours, scale = look
    cells = np.ma.masked_invalid(mean)
    ax.pcolormesh(x + edges, y + edges, cells, cmap=colours, norm=scale, rasterized=tasks >= RASTER_FROM)
    ax.add_patch(Rectangle((x, y), side, side, fill=False, linewidth=0.6, edgecolor="#262626"))
    return tasks


def _labels(ax: Axes, where: tuple[float, float, float], tasks: int, *, left: bool, below: bool) -> None:
    """Task numbers at the edges of a map: few, and none so far right that it would run into the next map."""
    x, y, side = where
    if tasks:
        ticks = np.unique(np.linspace(1, tasks, min(tasks, TICKS)).round().astype(int))
        for tick in ticks:
            at = (tick - 0.5) * side / tasks
            if left:
                ax.text(x - 0.04, y + at, str(tick), ha="right", va="center", **SMALL)
            if below and (tasks < 100 or tick < tasks):
                ax.text(x + at, y + side + 0.03, str(tick), ha="center", va="top", **SMALL)
    if below:
        ax.text(x + side / 2, y + side + 0.16, "on task", ha="center", va="top", **SMALL)
