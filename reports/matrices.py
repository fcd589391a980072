"""Heat maps of matrices over the tasks: accuracy R, overlap of masks.

All maps of a figure share one pair of axes, in inches, because hundreds of small axes would dominate the time of a
report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from reports.distinct_names import pretty
from reports.metrics import Matrix
from reports.names import display
from reports.panels import Drawn, Job
from reports.study import Group, Study
from reports.style import FULL_WIDTH, Look, cut
from reports.words import either

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAPS_IN_A_ROW = 7
TICKS, STEPS = 5, (1, 2, 5, 10, 20, 50, 100)
"""Largest number of labels on an axis, and the admissible steps between them."""
SHAPES_AT_MOST = 1_500
"""Largest number of cells in a figure drawn as shapes; beyond it each map is one picture."""
LEFT, RIGHT, TOP, BOTTOM, ACROSS = 0.5, 0.62, 0.18, 0.34, 0.1
"""Room around and between the maps, in inches."""
SMALL = {"fontsize": 6.5, "color": "#262626"}
Place = tuple[Group, str]


class _Layout(NamedTuple):
    width: float
    height: float
    side: float
    down: float


class MatrixKind(NamedTuple):
    """Content of a figure's maps."""

    stem: str
    of: Callable[[Study, Group, str], dict[int, Matrix]]
    """Matrices (T, T) of fractions by seed."""
    row: str
    column: str
    scale: str
    caption: str


def after_learning(study: Study, group: Group, label: str) -> dict[int, Matrix]:
    """R without its row before training, by seed."""
    done = study.done(group, label)
    return {entry.seed: entry.record.accuracy[1:] for entry in done if entry.record.accuracy is not None}


ACCURACY = MatrixKind(
    "heat",
    after_learning,
    "after task",
    "on task",
    "accuracy (%)",
    "accuracy matrices R. A row is the network after a task, a column the test set of a task; white was not measured.",
)


def heat_maps(study: Study, kind: MatrixKind = ACCURACY) -> Iterator[Job]:
    """Yield the maps of every method, averaged over seeds: one figure per benchmark, or per group for many methods."""
    for benchmark in study.benchmarks:
        here = [group for group in study.groups if group.benchmark == benchmark]
        groups = [group for group in here if any(kind.of(study, group, label) for label in study.rows(group))]
        labels = [label for label in study.labels if any(kind.of(study, group, label) for group in groups)]
        if not groups:
            continue
        if len(labels) == 1:
            stem = f"{kind.stem}-{Group(benchmark, '').stem}"
            cells = [[(group, labels[0]) for group in groups]]
            yield partial(_figure, stem=stem, words=pretty(benchmark), cells=cells, by_scenario=False, kind=kind)
        elif len(labels) <= MAPS_IN_A_ROW:
            cells = [[(group, label) for label in labels] for group in groups]
            stem = f"{kind.stem}-{Group(benchmark, '').stem}"
            yield partial(_figure, stem=stem, words=pretty(benchmark), cells=cells, by_scenario=True, kind=kind)
        else:
            for group in groups:
                rows = [labels[i : i + MAPS_IN_A_ROW] for i in range(0, len(labels), MAPS_IN_A_ROW)]
                cells = [[(group, label) for label in row] for row in rows]
                stem = f"{kind.stem}-{group.stem}"
                yield partial(_figure, stem=stem, words=group.title, cells=cells, by_scenario=False, kind=kind)


def _layout(cells: list[list[Place]], by_scenario: bool) -> _Layout:
    rows, columns = len(cells), max(map(len, cells))
    down = 0.1 if by_scenario else 0.24
    width = min(FULL_WIDTH, LEFT + RIGHT + 1.1 * columns)
    side = (width - LEFT - RIGHT - (columns - 1) * ACROSS) / columns
    below = BOTTOM if columns == len(cells[-1]) else BOTTOM + 0.05
    return _Layout(width, TOP + below + rows * side + (rows - 1) * down, side, down)


def _figure(
    study: Study,
    _: dict[str, Look],
    *,
    stem: str,
    words: str,
    cells: list[list[Place]],
    by_scenario: bool,
    kind: MatrixKind,
) -> Drawn:
    import seaborn
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    lay = _layout(cells, by_scenario)
    figure = Figure(figsize=(lay.width, lay.height))
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, lay.width), ylim=(lay.height, 0))
    ax.set_axis_off()
    colours, scale = seaborn.color_palette("viridis", as_cmap=True), Normalize(0, 100)
    found = {place: kind.of(study, *place) for line in cells for place in line}
    means = {place: _mean(list(matrices.values())) for place, matrices in found.items()}
    mixed = not by_scenario and len({group for line in cells for group, _ in line}) > 1
    raster = sum(mean.size for mean in means.values() if mean is not None) > SHAPES_AT_MOST
    for i, line in enumerate(cells):
        y = TOP + i * (lay.side + lay.down)
        for j, (group, label) in enumerate(line):
            x = LEFT + j * (lay.side + ACROSS)
            lowest = i == len(cells) - 1 or j >= len(cells[i + 1])
            mean = means[group, label]
            tasks = _one_map(ax, mean, (x, y, lay.side), _Paint(colours, scale, raster))
            if i == 0 or not by_scenario:
                title = f"{cut(display(label), 14)}, {group.scenario.upper()}" if mixed else cut(display(label), 16)
                ax.text(x + lay.side / 2, y - 0.05, title, ha="center", va="bottom", **SMALL)
            _labels(ax, (x, y, lay.side), tasks, kind.column if lowest else None, left=j == 0)
        scenario = f"{line[0][0].scenario.upper()}\n" if by_scenario else ""
        middle = y + lay.side / 2
        ax.text(0.22, middle, f"{scenario}{kind.row}", rotation=90, ha="center", va="center", **SMALL)
    inner = lay.height - TOP - BOTTOM
    place = (1 - (RIGHT - 0.1) / lay.width, BOTTOM / lay.height, 0.09 / lay.width, inner / lay.height)
    figure.colorbar(ScalarMappable(scale, colours), cax=figure.add_axes(place)).set_label(kind.scale)
    return Drawn(stem, f"{words}: {kind.caption} {_over([set(matrices) for matrices in found.values()])}", figure)


def _over(seeds: Sequence[set[int]]) -> str:
    """Sentence on the seeds of each map."""
    numbers = sorted({len(own) for own in seeds if own})
    every = sorted(set().union(*seeds))
    if numbers == [1]:
        return f"Seed {every[0]}." if len(every) == 1 else "One seed each."
    return f"Mean over {either(numbers)} seeds."


class _Paint(NamedTuple):
    colours: Any
    scale: Any
    raster: bool


def _mean(matrices: list[Matrix]) -> Matrix | None:
    return 100 * np.mean(np.stack(matrices), axis=0) if matrices else None


def _one_map(ax: Axes, mean: Matrix | None, where: tuple[float, float, float], paint: _Paint) -> int:
    """Draw a matrix (T, T) in percent as a square; returns the number of tasks, 0 without a matrix."""
    from matplotlib.patches import Rectangle

    x, y, side = where
    if mean is None:
        ax.text(x + side / 2, y + side / 2, "no value", ha="center", va="center", color="#666666", fontsize=6)
        return 0
    tasks = mean.shape[1]
    edges = np.linspace(0, side, tasks + 1)
    cells = np.ma.masked_invalid(mean)
    ax.pcolormesh(x + edges, y + edges, cells, cmap=paint.colours, norm=paint.scale, rasterized=paint.raster)
    ax.add_patch(Rectangle((x, y), side, side, fill=False, linewidth=0.6, edgecolor="#262626"))
    return tasks


def _labels(ax: Axes, where: tuple[float, float, float], tasks: int, below: str | None, *, left: bool) -> None:
    """Draw few task numbers at the edges of a map, none so far right that it would overlap the next map.

    below: name of the columns, at the lower edge of the lowest maps.
    """
    x, y, side = where
    if tasks:
        step = next((step for step in STEPS if tasks <= step * TICKS), STEPS[-1])
        for tick in range(step, tasks + 1, step):
            at = (tick - 0.5) * side / tasks
            if left:
                ax.text(x - 0.04, y + at, str(tick), ha="right", va="center", **SMALL)
            if below and (tasks < 100 or tick < tasks):
                ax.text(x + at, y + side + 0.03, str(tick), ha="center", va="top", **SMALL)
    if below:
        ax.text(x + side / 2, y + side + 0.16, below, ha="center", va="top", **SMALL)
