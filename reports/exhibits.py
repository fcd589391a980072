"""Figures of learnt structure and data: intervals of embeddings, overlap of masks, bases and ranges, sample images."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from benchmarks import paths
from reports.distinct_names import pretty
from reports.layer_exhibits import layer_exhibits
from reports.matrices import MatrixKind, heat_maps
from reports.metrics import Matrix
from reports.names import display
from reports.panels import Drawn, Job
from reports.schema import EXHIBITS
from reports.study import Entry, Group, Study
from reports.style import FULL_WIDTH, Look, Margins, canvas, cut, key_at_the_right
from reports.words import either

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DIMENSIONS_AT_MOST, TASKS_AT_MOST, ROWS_AT_MOST = 16, 10, 5
"""Limits of a figure of embeddings."""
VISIBLE = 1 / 40
"""Least share of a panel's height that the median bar of an embedding takes, if bars are drawn at their values."""
SHEETS_IN_A_ROW = 2
SHEET_BYTES = 64 << 20
TILE_AT_MOST = 0.26
"""Side of one sample image, in inches."""


def exhibits(study: Study) -> Iterator[Job]:
    """Yield the jobs of these figures; none if the records hold no such data."""
    sheets = [sheet for benchmark in _benchmarks(study) if (sheet := _sheet(study, benchmark))]
    rows = -(-len(sheets) // SHEETS_IN_A_ROW)
    for i in range(rows):
        part = sheets[i * len(sheets) // rows : (i + 1) * len(sheets) // rows]
        yield partial(_samples, sheets=part, stem=f"samples-{i + 1}" if i else "samples")
    for benchmark in study.benchmarks:
        rows = [(g, label) for g in study.groups if g.benchmark == benchmark for label in study.rows(g)]
        rows = [place for place in rows if _boxes(study, *place)]
        for i in range(0, len(rows), ROWS_AT_MOST):
            stem = f"embeddings-{Group(benchmark, '').stem}" + (f"-{i // ROWS_AT_MOST + 1}" if i else "")
            yield partial(_embeddings, stem=stem, words=pretty(benchmark), rows=rows[i : i + ROWS_AT_MOST])
    yield from layer_exhibits(study)
    yield from heat_maps(study, OVERLAP)


# -- overlap of masks --------------------------------------------------------------------------------


def _overlap(study: Study, group: Group, label: str) -> dict[int, Matrix]:
    """Overlap matrices (T, T) of the finished seeds that have one."""
    found = {}
    for entry in study.done(group, label):
        columns, tasks = entry.record.exhibit("mask-overlap"), entry.record.n_tasks
        if columns.keys() >= set(EXHIBITS["mask-overlap"]):
            matrix = np.full((tasks, tasks), np.nan)
            matrix[columns["task"].astype(int), columns["other"].astype(int)] = columns["overlap"]
            found[entry.seed] = matrix
    return found


OVERLAP = MatrixKind(
    "masks",
    _overlap,
    "task",
    "task",
    "overlap (%)",
    "overlap of the masks of two tasks after the last task: sum of the smaller over sum of the larger entries "
    "(for 0-1 masks: weights open for both over weights open for either).",
)


# -- embeddings with their intervals -----------------------------------------------------------------


def _boxes(study: Study, group: Group, label: str) -> tuple[Entry, dict[str, Matrix]] | None:
    """Embedding table of the first finished seed whose embeddings are intervals."""
    for entry in study.done(group, label):
        columns = entry.record.exhibit("embeddings")
        if columns.keys() >= set(EXHIBITS["embeddings"]):
            return (entry, columns) if (columns["upper"] > columns["lower"]).any() else None
    return None


def _embeddings(study: Study, _: dict[str, Look], *, stem: str, words: str, rows: list[tuple[Group, str]]) -> Drawn:
    room = Margins(left=0.62, right=0.75, top=0.2, bottom=0.36, down=0.44)
    height = room.top + room.bottom + len(rows) * 0.95 + (len(rows) - 1) * room.down
    figure, axes = canvas(FULL_WIDTH, height, len(rows), 1, room)
    sizes, seeds, centred = [], set(), ""
    for (ax,), (group, label) in zip(axes, rows, strict=True):
        found = _boxes(study, group, label)
        assert found
        entry, columns = found
        width = float(np.median(columns["upper"] - columns["lower"]))
        if narrow := width < VISIBLE * float(columns["upper"].max() - columns["lower"].min()):
            columns, centred = (
                _about_centres(columns),
                " Where bars would be too short to be seen, centres are subtracted.",
            )
        sizes.append(_intervals(ax, columns))
        seeds.add(entry.seed)
        ax.set_title(f"{group.scenario.upper()}, {cut(display(label))} (median width {width:.2g})", pad=3, y=1.0)
        ax.set_ylabel("value − centre" if narrow else "value")
    axes[-1][0].set_xlabel("dimension of the embedding (bars: one per task)")
    tasks, dimensions = ({size[i] for size in sizes} for i in range(2))
    most = DIMENSIONS_AT_MOST
    shown = f"the first {most} of {either(dimensions)} dimensions" if max(dimensions) > most else "all dimensions"
    if min(dimensions) <= most < max(dimensions):
        shown = f"at most {shown}"
    every = f", {TASKS_AT_MOST} of the {either(tasks)} tasks" if max(tasks) > TASKS_AT_MOST else ""
    caption = (
        f"{words}: embeddings of the tasks with their intervals after the last task (bar: lower to upper, dot: centre; "
        f"seed {either(seeds)}; {shown}{every}).{centred}"
    )
    return Drawn(stem, caption, figure)


def _about_centres(columns: dict[str, Matrix]) -> dict[str, Matrix]:
    """The boxes moved to a centre of 0."""
    return columns | {name: columns[name] - columns["middle"] for name in ("lower", "middle", "upper")}


def _intervals(ax: Axes, columns: dict[str, Matrix]) -> tuple[int, int]:
    """Draw the boxes of one embedding table; returns its numbers of tasks and dimensions."""
    import seaborn
    from matplotlib.ticker import FixedLocator

    tasks, dimensions = int(columns["task"].max()) + 1, int(columns["dimension"].max()) + 1
    lower, middle, upper = (_grid(columns, name, tasks) for name in ("lower", "middle", "upper"))
    shown = np.unique(np.linspace(0, tasks - 1, min(tasks, TASKS_AT_MOST)).round().astype(int))
    colours = seaborn.color_palette("viridis", len(shown))
    x, step = np.arange(min(dimensions, DIMENSIONS_AT_MOST)), 0.8 / len(shown)
    at = (x + (np.arange(len(shown))[:, None] - (len(shown) - 1) / 2) * step).ravel()
    each = [colour for colour in colours for _ in x]
    boxes, centres = (lower[shown][:, x].ravel(), upper[shown][:, x].ravel()), middle[shown][:, x].ravel()
    ax.vlines(at, *boxes, colors=each, linewidth=1.6)
    ax.scatter(at, centres, s=2.2**2, facecolors="white", edgecolors=each, linewidths=0.6, zorder=2)
    ax.vlines(x[1:] - 0.5, 0, 1, color="#DDDDDD", linewidth=0.4, zorder=0, transform=ax.get_xaxis_transform())
    ax.axhline(0, color="#999999", linewidth=0.4, zorder=0)
    ax.xaxis.set_major_locator(FixedLocator(x.tolist()))
    ax.set_xticklabels([str(i + 1) for i in x])
    ax.set_xlim(-0.5, len(x) - 0.5)
    key_at_the_right(ax, colours, [f"task {task + 1}" for task in shown], linewidth=1.6)
    seaborn.despine(ax=ax)
    return tasks, dimensions


def _grid(columns: dict[str, Matrix], name: str, tasks: int) -> Matrix:
    """Values (task, dimension) of the first dimensions; NaN where the table has none."""
    grid, first = np.full((tasks, DIMENSIONS_AT_MOST), np.nan), columns["dimension"] < DIMENSIONS_AT_MOST
    grid[columns["task"][first].astype(int), columns["dimension"][first].astype(int)] = columns[name][first]
    return grid


# -- sample images -----------------------------------------------------------------------------------


class Sheet(NamedTuple):
    """Sheet of sample images that the runners save with the records of a benchmark."""

    title: str
    pixels: np.ndarray
    tasks: tuple[int, ...]
    names: tuple[str, ...]
    tile: int
    columns: int
    seed: int


def _benchmarks(study: Study) -> list[str]:
    """Benchmark names of the catalogue, each once: network and budget do not change the samples."""
    named = {entry.group.benchmark: entry.record.benchmark for entry in study.entries}
    return list(dict.fromkeys(named[benchmark] for benchmark in study.benchmarks))


def _sheet(study: Study, benchmark: str) -> Sheet | None:
    """Sheet of a benchmark, None if missing or unreadable."""
    return read_sheet(study.source.root / benchmark / "samples.png", pretty(benchmark))


def read_sheet(path: Path, title: str) -> Sheet | None:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(paths.read_bytes(path, SHEET_BYTES))) as image:
            image.load()
            fields, pixels = dict(getattr(image, "text", {})), np.asarray(image)
        tasks = tuple(int(number) for number in fields["tasks"].split())
        names, tile, columns = tuple(fields["names"].splitlines()), int(fields["tile"]), int(fields["columns"])
        sheet = Sheet(title, pixels, tasks, names, tile, columns, int(fields["seed"]))
    except (OSError, KeyError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    whole = (tile * len(tasks), tile * columns)
    return sheet if len(names) == len(tasks) and pixels.shape[:2] == whole else None


def _samples(study: Study, _: dict[str, Look], *, sheets: list[Sheet], stem: str) -> Drawn:
    from matplotlib.figure import Figure

    left, gap, top = 0.8, 0.1, 0.2
    free = FULL_WIDTH - len(sheets) * (left + gap)
    tile = min(TILE_AT_MOST, free / sum(sheet.columns for sheet in sheets))
    width = len(sheets) * (left + gap) + tile * sum(sheet.columns for sheet in sheets)
    height = top + tile * max(len(sheet.tasks) for sheet in sheets) + 0.04
    figure, x = Figure(figsize=(width, height)), 0.0
    for sheet in sheets:
        across, down = tile * sheet.columns, tile * len(sheet.tasks)
        x += left
        ax = figure.add_axes((x / width, 1 - (top + down) / height, across / width, down / height))
        ax.imshow(sheet.pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest", aspect="auto")
        ax.set_title(cut(sheet.title, 30), pad=3)
        ax.set_xticks([])
        ax.set_yticks((np.arange(len(sheet.tasks)) + 0.5) * sheet.tile - 0.5, _task_names(sheet), fontsize=5.5)
        ax.tick_params(length=0, pad=2)
        x += across + gap
    few = f"; at most {TASKS_AT_MOST} tasks" if any(max(s.tasks) >= len(s.tasks) for s in sheets) else ""
    seeds = either(sheet.seed for sheet in sheets)
    caption = f"Sample images: the first training samples of each class, one row per task (seed {seeds}{few})."
    return Drawn(stem, caption, figure)


def _task_names(sheet: Sheet) -> list[str]:
    return [f"{task + 1}: {cut(name, 14)}" for task, name in zip(sheet.tasks, sheet.names, strict=True)]
