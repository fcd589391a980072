"""Heat maps of the accuracy matrices R."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from reports.metrics import Matrix
from reports.panels import Drawn
from reports.study import Group, Study, pretty
from reports.style import FULL_WIDTH, Margins, canvas, cut

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAPS_IN_A_ROW = 7
TICKS = 5
RASTER_FROM = 20
"""From so many tasks on the cells of a map are one picture instead of shapes."""
Place = tuple[Group, str]


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


def _figure(study: Study, stem: str, words: str, cells: list[list[Place]], by_scenario: bool) -> Drawn:
    import seaborn
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    rows, columns = len(cells), max(map(len, cells))
    room = Margins(left=0.5, right=0.62, top=0.18, bottom=0.34, across=0.1, down=0.1 if by_scenario else 0.24)
    width = min(FULL_WIDTH, room.left + room.right + 1.1 * columns)
    side = (width - room.left - room.right - (columns - 1) * room.across) / columns
    height = rows * side + (rows - 1) * room.down + room.top + room.bottom
    figure, axes = canvas(width, height, rows, columns, room)
    colours, scale = seaborn.color_palette("viridis", as_cmap=True), Normalize(0, 100)
    for i, line in enumerate(cells):
        for ax in axes[i][len(line) :]:
            ax.set_axis_off()
        for j, (ax, (group, label)) in enumerate(zip(axes[i], line, strict=False)):
            lowest = i == rows - 1 or j >= len(cells[i + 1])
            drawn = one_map(ax, study.matrices(group, label), colours, scale)
            if i == 0 or not by_scenario:
                ax.set_title(cut(label, 16), fontsize=6.5, pad=3)
            if drawn:
                ax.tick_params(labelleft=j == 0, labelbottom=lowest)
            if j == 0:
                ax.set_ylabel(f"{group.scenario.upper()}\nafter task" if by_scenario else "after task")
            if lowest:
                ax.set_xlabel("on task")
    inner = height - room.top - room.bottom
    place = (1 - (room.right - 0.1) / width, room.bottom / height, 0.09 / width, inner / height)
    bar = figure.colorbar(ScalarMappable(scale, colours), cax=figure.add_axes(place))
    bar.set_label("accuracy (%)")
    caption = (
        f"{words}: accuracy matrices R, mean over seeds. A row is the network after a task, a column the test set of a "
        "task; white was not measured."
    )
    return Drawn(stem, caption, figure)


def one_map(ax: Axes, matrices: Sequence[Matrix], colours: Any, scale: Any) -> bool:
    """Draw the mean of the matrices without their row 0; says so and returns False where there are none."""
    if not matrices:
        ax.text(0.5, 0.5, "no value", ha="center", va="center", color="#666666", fontsize=6, transform=ax.transAxes)
        ax.set(xticks=[], yticks=[], frame_on=False, aspect="equal")
        return False
    mean = 100 * np.mean(np.stack(matrices), axis=0)[1:]
    tasks = mean.shape[1]
    edges = np.arange(tasks + 1) + 0.5
    ax.pcolormesh(edges, edges, np.ma.masked_invalid(mean), cmap=colours, norm=scale, rasterized=tasks >= RASTER_FROM)
    ax.invert_yaxis()
    ax.set_aspect("equal")
    ticks = np.unique(np.linspace(1, tasks, min(tasks, TICKS)).round().astype(int))
    ax.set_xticks(ticks)
    ax.set_yticks(ticks)
    return True
