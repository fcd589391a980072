"""Figures of many panels, one per benchmark and scenario: layout, titles and labels."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from reports.distinct_names import pretty
from reports.line_labels import ROOM, label_ends
from reports.study import Group, Study
from reports.style import COLUMN_WIDTH, FULL_WIDTH, Look, Margins, canvas, legend, legend_height

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS_IN_A_ROW = 4
PANEL_HEIGHT = 0.95
"""Height of a panel, in inches."""
TITLE_AT_MOST = 22
"""Largest number of characters of a panel's title on one line, with four panels in a row."""
TICKS_OF_A_DECADE = ((5.0, (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)), (30.0, (1.0, 2.0, 5.0)))
"""Ticks per decade of a log axis whose ends differ by less than a factor. Below two ticks matplotlib adds many."""
DECADES_AT_MOST, SHARE_TO_ZERO = 4, 0.15
"""Of a log axis that shows 0: number of its other ticks, and how far above 0 they begin, as a share of its decades."""
THIN = {"elinewidth": 0.5, "ecolor": "#333333"}
"""Style of whiskers."""
Draw = Callable[["Axes", Group], list[str]]
"""Function that draws one group and returns the labels drawn."""


@dataclass(frozen=True)
class Drawn:
    """Figure to save as `stem`, with its caption."""

    stem: str
    caption: str
    figure: Figure
    appendix: bool = False


Job = Callable[[Study, dict[str, Look]], Drawn]
"""Function that draws one figure."""


@dataclass(frozen=True)
class Page:
    """Groups of one figure, in rows; None leaves a panel empty."""

    stem: str
    words: str
    rows: tuple[tuple[Group | None, ...], ...]
    by_scenario: bool
    """True if rows are scenarios and columns benchmarks; else every panel has its own title."""

    @property
    def groups(self) -> list[Group]:
        return [group for row in self.rows for group in row if group]

    def title(self, row: int, group: Group) -> str:
        if not self.by_scenario:
            return group.scenario.upper() if self.stem == "" else pretty(group.benchmark)
        return pretty(group.benchmark) if row == self._first(group.benchmark) else ""

    def _first(self, benchmark: str) -> int:
        return next(i for i, row in enumerate(self.rows) for g in row if g and g.benchmark == benchmark)


def pages(study: Study, usable: Callable[[Group], bool]) -> list[Page]:
    """Distribute panels over figures.

    Scenarios x benchmarks in one figure if they fit; the scenarios of a single benchmark in a row; else one figure per
    scenario.
    """
    groups = [group for group in study.groups if usable(group)]
    benchmarks = [name for name in study.benchmarks if any(group.benchmark == name for group in groups)]
    scenarios = list(dict.fromkeys(group.scenario for group in groups))
    if not groups:
        return []
    if len(benchmarks) == 1:
        return [Page("", pretty(benchmarks[0]), (tuple(groups),), by_scenario=False)]
    if len(scenarios) > 1 and len(benchmarks) <= PANELS_IN_A_ROW:
        known = set(groups)
        grid = tuple(
            tuple(Group(name, scenario) if Group(name, scenario) in known else None for name in benchmarks)
            for scenario in scenarios
        )
        return [Page("-all", "All benchmarks and scenarios", grid, by_scenario=True)]
    return [_scenario_page(scenario, [g for g in groups if g.scenario == scenario]) for scenario in scenarios]


def _scenario_page(scenario: str, groups: list[Group]) -> Page:
    rows = -(-len(groups) // PANELS_IN_A_ROW)
    columns = -(-len(groups) // rows)
    padded: list[Group | None] = [*groups, *[None] * (rows * columns - len(groups))]
    grid = tuple(tuple(padded[i * columns : (i + 1) * columns]) for i in range(rows))
    return Page(f"-{scenario}", scenario.upper(), grid, by_scenario=False)


def any_done(study: Study, group: Group) -> bool:
    """Check whether any cell of the group has results."""
    return any(study.done(group, label) for label in study.rows(group))


def task_count(study: Study, group: Group) -> int:
    return max(entry.record.n_tasks for label in study.rows(group) for entry in study.at(group, label))


def panels(
    study: Study,
    page: Page,
    found: dict[str, Look],
    draw: Draw,
    y_label: str,
    x_label: str,
    *,
    share_y: bool = True,
    bars: bool = False,
    keyed: bool = True,
    direct: bool = False,
    likely: Callable[[Group, str], bool] | None = None,
    height: float = PANEL_HEIGHT,
    left: float = 0.6,
    across: float | None = None,
) -> Figure:
    """Draw the figure of one page: `draw` in every panel, labels at the edges, a legend of the drawn labels if `keyed`.

    direct: names at the ends of the lines instead of a legend. share_y: within a row. likely: labels that will be
    drawn, to size the legend (default: those with results). height (of one panel), left (margin) and across (between
    panels) in inches.
    """
    rows, columns = len(page.rows), len(page.rows[0])
    width = FULL_WIDTH if columns > 1 else COLUMN_WIDTH
    drawn = likely or (lambda group, name: bool(study.done(group, name)))
    expected = [name for name in study.labels if any(drawn(g, name) for g in page.groups)]
    keys = expected if keyed and not direct else []
    titles = {(i, j): _broken(page.title(i, group)) for i, j, group in _places(page)}
    more_lines = 0.13 * max((title.count("\n") for title in titles.values()), default=0)
    room = Margins(
        left=left + (0.13 if page.by_scenario else 0),
        right=ROOM if direct else 0.06,
        top=0.2 + more_lines + legend_height(keys, width),
        across=(across or (0.14 if share_y else 0.36)) + (ROOM - 0.06 if direct else 0),
        down=(0.28 if page.by_scenario else 0.44) + more_lines,
    )
    whole = rows * height + (rows - 1) * room.down + room.top + room.bottom
    figure, axes = canvas(width, whole, rows, columns, room, sharey="row" if share_y else False)
    shown: set[str] = set()
    for i, j, group in _places(page):
        ax = axes[i][j]
        shown.update(draw(ax, group))
        ax.set_title(titles[i, j], pad=3, y=1.0)
        if i == rows - 1 or page.rows[i + 1][j] is None:
            ax.set_xlabel(x_label)
        if j == 0 or page.rows[i][j - 1] is None:
            ax.set_ylabel(f"{group.scenario.upper()}\n{y_label}".rstrip() if page.by_scenario else y_label)
            ax.tick_params(labelleft=True)  # matplotlib labels only the first column, which may be empty here
    _finish(figure, axes, page)
    if direct:
        label_ends([axes[i][j] for i, j, _ in _places(page)], found)
    legend(figure, [name for name in keys if name in shown], found, width, bars=bars)
    return figure


def _broken(title: str) -> str:
    """Break a long title: its part in brackets moves to further lines."""
    name, bracket, rest = title.partition(" (")
    if len(title) <= TITLE_AT_MOST or not bracket:
        return title
    return "\n".join([name, *textwrap.wrap("(" + rest, TITLE_AT_MOST, break_long_words=False)])


def _places(page: Page) -> Iterator[tuple[int, int, Group]]:
    for i, row in enumerate(page.rows):
        for j, group in enumerate(row):
            if group:
                yield i, j, group


def _finish(figure: Figure, axes: Any, page: Page) -> None:
    import seaborn

    for line, row in zip(axes, page.rows, strict=True):
        for ax, group in zip(line, row, strict=True):
            if group is None:
                ax.set_axis_off()
    seaborn.despine(figure)


class Band(NamedTuple):
    """Coloured area between two lines over x; three arrays (n,)."""

    x: np.ndarray
    low: np.ndarray
    high: np.ndarray
    colour: str


def bands(ax: Axes, found: Sequence[Band], alpha: float) -> None:
    """Draw all bands of a panel as one shape, which is many times faster; non-finite points are left out."""
    from matplotlib.collections import PolyCollection

    shapes = []
    for band in found:
        there = np.isfinite(band.low) & np.isfinite(band.high)
        x, low, high = band.x[there], band.low[there], band.high[there]
        shapes.append(np.column_stack([np.concatenate([x, x[::-1]]), np.concatenate([low, high[::-1]])]))
    ax.add_collection(PolyCollection(shapes, facecolors=[band.colour for band in found], alpha=alpha, linewidths=0))
    ax.autoscale_view()


def whole_numbers(ax: Axes) -> None:
    """Set at most six ticks on x, at whole numbers."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))


def logarithmic(axis: Any) -> None:
    """Set a log scale with plain numbers at few ticks.

    Matplotlib's own labels need mathtext, and its minor ticks take half of the drawing time.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    (axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale)("log")
    low, high = axis.get_view_interval()
    ratio = high / low if low > 0 else 1.0
    subs = next((steps for most, steps in TICKS_OF_A_DECADE if ratio < most), (1.0,))
    axis.set_major_locator(LogLocator(subs=subs, numticks=6))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
    axis.set_minor_locator(NullLocator())


def logarithmic_with_zeros(axes: Sequence[Axes]) -> None:
    """Set one log scale of y for panels that share it, linear below its lowest decade where a line has a zero."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for ax in axes for line in ax.lines] or [[]])
    positive, ax = values[values > 0], axes[0]
    if len(positive) == len(values):
        if len(values):
            logarithmic(ax.yaxis)
        return
    ticks = [0.0]
    if len(positive):
        low, high = np.log10(positive.min()), np.log10(positive.max())
        first, last = int(np.floor(low)), int(np.floor(high))
        ticks += [10.0**i for i in range(first, last + 1, -(-(last + 1 - first) // DECADES_AT_MOST))]
        ax.set_yscale("symlog", linthresh=10.0**first, linscale=SHARE_TO_ZERO * max(1.0, high - first))
    ax.yaxis.set_major_locator(FixedLocator(ticks))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
    ax.yaxis.set_minor_locator(NullLocator())


def _plain(value: float) -> str:
    """Format a number as `0.01` or `200`, or as `1e-6` to avoid many zeros."""
    if not value:
        return "0"
    return re.sub(r"e([+-])0+", r"e\1", f"{value:g}" if 1e-3 <= abs(value) < 1e5 else f"{value:.0e}").replace("e+", "e")
