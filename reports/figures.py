"""The figures: each takes a study and gives matplotlib figures with captions. Bands are computed here, never bootstrapped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from reports import metrics
from reports.metrics import ACC, BWT, Matrix
from reports.study import Group, Study, pretty
from reports.style import FULL_WIDTH, Look, canvas, cut, legend, legend_height

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS_IN_A_ROW = 4
PANEL_HEIGHT = 1.45
BARS_AT_MOST = 64
"""More bars than this in one panel become lines."""


@dataclass(frozen=True)
class Drawn:
    """A figure to be saved as `stem`, with its caption."""

    stem: str
    caption: str
    figure: Figure
    wide: bool = True
    appendix: bool = False


@dataclass(frozen=True)
class Page:
    """Groups shown side by side in one figure."""

    stem: str
    words: str
    groups: tuple[Group, ...]
    titles: tuple[str, ...]


def pages(study: Study, usable: Callable[[Group], bool]) -> list[Page]:
    """One page a scenario with a panel a benchmark; for a single benchmark, one page with a panel a scenario."""
    groups = [group for group in study.groups if usable(group)]
    if not groups:
        return []
    benchmarks = {group.benchmark for group in groups}
    if len(benchmarks) == 1:
        words = pretty(groups[0].benchmark)
        return [Page("", words, tuple(groups), tuple(group.scenario.upper() for group in groups))]
    found = []
    for scenario in study.scenarios:
        here = tuple(group for group in groups if group.scenario == scenario)
        if here:
            found.append(Page(f"-{scenario}", scenario.upper(), here, tuple(pretty(g.benchmark) for g in here)))
    return found


def all_figures(study: Study, found: dict[str, Look]) -> Iterator[Drawn]:
    """Every figure that the data carry, in the order of the report."""

    def any_done(group: Group) -> bool:
        return any(study.done(group, label) for label in study.rows(group))

    def any_two(group: Group) -> bool:
        return any_done(group) and _tasks(study, group) > 1

    for page in pages(study, any_two):
        yield accuracy_curves(study, page, found)
    for page in pages(study, any_two):
        yield transfer_bars(study, page, found)
    for page in pages(study, any_done):
        yield final_accuracy(study, page, found)
    for page in pages(study, any_two):
        yield forgetting_curves(study, page, found)
    yield from heat_maps(study)


def accuracy_curves(study: Study, page: Page, found: dict[str, Look]) -> Drawn:
    """Average accuracy on the tasks learnt so far against their number."""
    figure = _panels(study, page, found, lambda ax, group: _curves(ax, study, group, found, metrics.accuracy_so_far, 1))
    caption = (
        f"{page.words}: average accuracy on the tasks learnt so far (mean over seeds; band: ± one sample standard "
        "deviation)."
    )
    return Drawn(f"accuracy{page.stem}", caption, figure)


def forgetting_curves(study: Study, page: Page, found: dict[str, Look]) -> Drawn:
    """Forgetting against the number of tasks learnt."""
    figure = _panels(
        study,
        page,
        found,
        lambda ax, group: _curves(ax, study, group, found, metrics.forgetting_so_far, 2),
        "forgetting (%)",
    )
    caption = (
        f"{page.words}: forgetting of the tasks learnt so far (mean over seeds; band: ± one sample standard deviation)."
    )
    return Drawn(f"forgetting{page.stem}", caption, figure)


def _curves(
    ax: Axes, study: Study, group: Group, found: dict[str, Look], curve: Callable[[Matrix], Matrix], first: int
) -> list[str]:
    from matplotlib.ticker import MaxNLocator

    shown = []
    for label in study.rows(group):
        runs = [100 * curve(r) for r in study.matrices(group, label)]
        if not runs:
            continue
        stack = np.stack(runs)
        x, mean = np.arange(first, first + stack.shape[1]), stack.mean(axis=0)
        look = found[label]
        every = max(1, len(x) // 12)
        ax.plot(x, mean, color=look.colour, linestyle=look.line, marker=look.marker, markevery=every)
        if len(runs) > 1:
            band = stack.std(axis=0, ddof=1)
            ax.fill_between(x, mean - band, mean + band, color=look.colour, alpha=0.15, linewidth=0)
        shown.append(label)
    ax.set_xlabel("tasks learnt")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return shown


def final_accuracy(study: Study, page: Page, found: dict[str, Look]) -> Drawn:
    """Accuracy on each task after the last one."""
    figure = _panels(study, page, found, lambda ax, group: _per_task(ax, study, group, found))
    caption = f"{page.words}: accuracy on each task after the last one (mean over seeds; whiskers: ± one sample standard deviation)."
    return Drawn(f"per-task{page.stem}", caption, figure)


def _per_task(ax: Axes, study: Study, group: Group, found: dict[str, Look]) -> list[str]:
    from matplotlib.ticker import MaxNLocator

    rows = [(label, [100 * r[-1] for r in study.matrices(group, label)]) for label in study.rows(group)]
    rows = [(label, runs) for label, runs in rows if runs]
    tasks = _tasks(study, group)
    bars = len(rows) * tasks <= BARS_AT_MOST
    x, width = np.arange(1, tasks + 1), 0.84 / max(1, len(rows))
    for i, (label, runs) in enumerate(rows):
        stack, look = np.stack(runs), found[label]
        mean = stack.mean(axis=0)
        spread = stack.std(axis=0, ddof=1) if len(runs) > 1 else None
        if bars:
            ax.bar(x + (i - (len(rows) - 1) / 2) * width, mean, width, color=look.colour, yerr=spread, error_kw=THIN)
        else:
            every = max(1, tasks // 12)
            ax.plot(x, mean, color=look.colour, linestyle=look.line, marker=look.marker, markevery=every, linewidth=0.9)
    ax.set_xlabel("task")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set_ylim(0, 102)
    return [label for label, _ in rows]


THIN = {"elinewidth": 0.5, "ecolor": "#333333"}


def transfer_bars(study: Study, page: Page, found: dict[str, Look]) -> Drawn:
    """Backward transfer of every method."""
    shown = [label for label in study.labels if any(study.values(g, label, BWT) for g in page.groups)]
    columns = min(PANELS_IN_A_ROW, len(page.groups))
    rows = -(-len(page.groups) // columns)
    height = rows * (0.55 + 0.14 * max(3, len(shown)))
    figure, axes = canvas(FULL_WIDTH, height, rows, columns, sharey=True)
    for ax, group, title in _over(axes, page):
        for i, label in enumerate(shown):
            values = [100 * value for value in study.values(group, label, BWT).values()]
            if values:
                spread = np.std(values, ddof=1) if len(values) > 1 else None
                ax.barh(i, np.mean(values), 0.72, color=found[label].colour, xerr=spread, error_kw=THIN)
            else:
                ax.text(0, i, " no value", va="center", ha="left", fontsize=5.5, color="#666666")
        ax.axvline(0, color="#333333", linewidth=0.6)
        ax.set_title(title)
        ax.set_xlabel("BWT (percentage points)")
        ax.set_yticks(range(len(shown)), [cut(label, 22) for label in shown])
        ax.set_ylim(len(shown) - 0.4, -0.6)
    _finish(figure, axes, page)
    caption = f"{page.words}: backward transfer (mean over seeds; whiskers: ± one sample standard deviation). Zero is no forgetting."
    return Drawn(f"bwt{page.stem}", caption, figure, wide=True)


def heat_maps(study: Study) -> Iterator[Drawn]:
    """R of every method, averaged over seeds: a figure a benchmark, or a figure a group where methods are many."""
    from itertools import groupby

    in_a_row = 7
    for benchmark, members in groupby(
        sorted(study.groups, key=lambda g: study.benchmarks.index(g.benchmark)), lambda g: g.benchmark
    ):
        groups = [group for group in members if any(study.matrices(group, label) for label in study.rows(group))]
        labels = [label for label in study.labels if any(study.matrices(group, label) for group in groups)]
        if not groups:
            continue
        if len(labels) <= in_a_row:
            cells = [[(group, label) for label in labels] for group in groups]
            yield _heat_map(study, f"heat-{_stem(groups[0].benchmark)}", pretty(benchmark), cells)
            continue
        for group in groups:
            rows = [labels[i : i + in_a_row] for i in range(0, len(labels), in_a_row)]
            cells = [[(group, label) for label in row] for row in rows]
            yield _heat_map(study, f"heat-{group.stem}", group.title, cells)


def _stem(benchmark: str) -> str:
    return Group(benchmark, "").stem


def _heat_map(study: Study, stem: str, words: str, cells: list[list[tuple[Group, str]]]) -> Drawn:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    rows, columns = len(cells), max(map(len, cells))
    width = min(FULL_WIDTH, 1.2 + 1.15 * columns)
    figure, axes = canvas(width, 0.35 + rows * (width - 0.7) / max(columns, 3.4) * 1.06, rows, columns)
    colours, scale = _colour_map(), Normalize(0, 100)
    for i, line in enumerate(cells):
        for ax in axes[i][len(line) :]:
            ax.set_axis_off()
        for ax, (group, label) in zip(axes[i], line, strict=False):
            first = ax is axes[i][0]
            _one_map(ax, study.matrices(group, label), colours, scale)
            ax.set_title(cut(label, 16), fontsize=6.5, pad=2)
            same = len({g for g, _ in line}) == 1 and len({row[0][0] for row in cells}) > 1
            prefix = f"{group.scenario.upper()}\n" if same else ""
            ax.set_ylabel(f"{prefix}after task" if first else "")
            ax.set_xlabel("accuracy on task" if i == rows - 1 or len(cells[i + 1]) < len(line) else "")
    figure.colorbar(ScalarMappable(scale, colours), ax=axes, label="accuracy (%)", fraction=0.025, pad=0.01, aspect=30)
    caption = f"{words}: accuracy matrices R, mean over seeds. A row is the network after a task, a column the test set of a task; white is not measured."
    return Drawn(stem, caption, figure)


def _colour_map() -> Any:
    import seaborn

    return seaborn.color_palette("viridis", as_cmap=True)


def _one_map(ax: Axes, matrices: Sequence[Matrix], colours: Any, scale: Any) -> None:
    if not matrices:
        ax.text(0.5, 0.5, "none", ha="center", va="center", color="#666666", fontsize=6)
        ax.set(xticks=[], yticks=[])
        return
    mean = 100 * np.mean(np.stack(matrices), axis=0)[1:]
    tasks = mean.shape[1]
    edges = np.arange(tasks + 1) + 0.5
    ax.pcolormesh(edges, edges, np.ma.masked_invalid(mean), cmap=colours, norm=scale, rasterized=tasks > 20)
    ax.invert_yaxis()
    ax.set_aspect("equal")
    ticks = np.unique(np.linspace(1, tasks, min(tasks, 5)).round().astype(int))
    ax.set_xticks(ticks)
    ax.set_yticks(ticks)


def _panels(
    study: Study,
    page: Page,
    found: dict[str, Look],
    draw: Callable[[Axes, Group], list[str]],
    label: str = "accuracy (%)",
) -> Figure:
    columns = min(PANELS_IN_A_ROW, len(page.groups))
    rows = -(-len(page.groups) // columns)
    expected = [name for name in study.labels if any(study.done(g, name) for g in page.groups)]
    width = FULL_WIDTH if columns > 1 else FULL_WIDTH / 2
    height = rows * PANEL_HEIGHT + legend_height(expected, width)
    figure, axes = canvas(width, height, rows, columns, sharey=True)
    shown: set[str] = set()
    for ax, group, title in _over(axes, page):
        shown.update(draw(ax, group))
        ax.set_title(title)
    for row in axes:
        row[0].set_ylabel(label)
    _finish(figure, axes, page)
    legend(figure, [name for name in expected if name in shown], found, width)
    return figure


def _over(axes: Any, page: Page) -> Iterator[tuple[Axes, Group, str]]:
    yield from zip(axes.flat, page.groups, page.titles, strict=False)


def _finish(figure: Figure, axes: Any, page: Page) -> None:
    import seaborn

    for ax in axes.flat[len(page.groups) :]:
        ax.set_axis_off()
    seaborn.despine(figure)


def _tasks(study: Study, group: Group) -> int:
    return max(entry.record.n_tasks for label in study.rows(group) for entry in study.at(group, label))


__all__ = ["ACC", "Drawn", "Page", "all_figures", "pages"]
