"""Figures of accuracy and transfer. Bands are sample standard deviations, never bootstrapped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from reports import metrics
from reports.curve_figures import curve_figures
from reports.exhibits import exhibits
from reports.front_figures import front_figures
from reports.guarantee_figures import guarantee_figures
from reports.matrices import heat_maps
from reports.metrics import BWT, Matrix
from reports.names import display
from reports.panels import THIN, Band, Drawn, Job, Page, any_done, bands, pages, panels, task_count, whole_numbers
from reports.study import Group, Study
from reports.style import Look, cut
from reports.trade_offs import loss_curves, trade_offs
from reports.tuning import tuning
from reports.variants import compared

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BARS_AT_MOST = 180
"""Largest number of bars across a figure; beyond it lines are drawn."""
MARKERS_AT_MOST = 12
"""Largest number of markers on one line."""


def plan(study: Study) -> Iterator[Job]:
    """Yield every figure that the data support, in the order of the report; each draws from the `compared` study."""
    yield from curve_figures(study)
    study = compared(study)
    yield from front_figures(study)
    several = pages(study, lambda group: any_done(study, group) and task_count(study, group) > 1)
    done = pages(study, lambda group: any_done(study, group))
    for figure, where in (
        (accuracy_curves, several),
        (transfer_bars, several),
        (final_accuracy, done),
        (forgetting_curves, several),
    ):
        yield from (partial(figure, page=page) for page in where)
    yield from trade_offs(study)
    yield from guarantee_figures(study)
    yield from heat_maps(study)
    yield from exhibits(study)
    yield from tuning(study)
    yield from (partial(loss_curves, page=page) for page in done)


def accuracy_curves(study: Study, found: dict[str, Look], page: Page) -> Drawn:
    """Figure of the average accuracy on the tasks learnt so far against their number."""
    figure = panels(
        study,
        page,
        found,
        lambda ax, group: _curves(ax, study, group, found, metrics.accuracy_so_far, 1),
        "accuracy (%)",
        "tasks learnt",
    )
    caption = (
        f"{page.words}: average accuracy on the tasks learnt so far (mean over seeds; band: ± one sample standard "
        "deviation)."
    )
    return Drawn(f"accuracy{page.stem}", caption, figure)


def forgetting_curves(study: Study, found: dict[str, Look], page: Page) -> Drawn:
    """Figure of forgetting against the number of tasks learnt."""
    figure = panels(
        study,
        page,
        found,
        lambda ax, group: _curves(ax, study, group, found, metrics.forgetting_so_far, 2),
        "forgetting (points)",
        "tasks learnt",
    )
    caption = (
        f"{page.words}: forgetting of the tasks learnt so far, in percentage points (mean over seeds; band: ± one "
        "sample standard deviation)."
    )
    return Drawn(f"forgetting{page.stem}", caption, figure)


def _curves(
    ax: Axes, study: Study, group: Group, found: dict[str, Look], curve: Callable[[Matrix], Matrix], first: int
) -> list[str]:
    shown, spread = [], []
    for label in study.rows(group):
        runs = [100 * curve(r) for r in study.matrices(group, label)]
        if not runs:
            continue
        stack = np.stack(runs)
        x, mean = np.arange(first, first + stack.shape[1]), stack.mean(axis=0)
        look = found[label]
        every = max(1, len(x) // MARKERS_AT_MOST)
        ax.plot(x, mean, color=look.colour, linestyle=look.line, marker=look.marker, markevery=every)
        if len(runs) > 1:
            band = stack.std(axis=0, ddof=1)
            spread.append(Band(x, mean - band, mean + band, look.colour))
        shown.append(label)
    bands(ax, spread, 0.15)
    whole_numbers(ax)
    return shown


def final_accuracy(study: Study, found: dict[str, Look], page: Page) -> Drawn:
    """Figure of the accuracy on each task after the last one."""
    bars = all(_bars(study, group, len(page.rows[0])) for group in page.groups)
    figure = panels(
        study,
        page,
        found,
        lambda ax, group: _per_task(ax, study, group, found, bars),
        "accuracy (%)",
        "task",
        bars=bars,
    )
    whiskers = "; whiskers: ± one sample standard deviation" if bars else ""
    caption = f"{page.words}: accuracy on each task after the last one (mean over seeds{whiskers})."
    return Drawn(f"per-task{page.stem}", caption, figure)


def _bars(study: Study, group: Group, panels_in_row: int) -> bool:
    bars = task_count(study, group) * sum(bool(study.done(group, row)) for row in study.rows(group))
    return bars * panels_in_row <= BARS_AT_MOST


def _per_task(ax: Axes, study: Study, group: Group, found: dict[str, Look], bars: bool) -> list[str]:
    rows = [(label, [100 * r[-1] for r in study.matrices(group, label)]) for label in study.rows(group)]
    rows = [(label, runs) for label, runs in rows if runs]
    tasks = task_count(study, group)
    x, width = np.arange(1, tasks + 1), 0.84 / max(1, len(rows))
    means, every = [np.mean(runs, axis=0) for _, runs in rows], max(1, tasks // MARKERS_AT_MOST)
    if bars:
        at = np.concatenate([x + (i - (len(rows) - 1) / 2) * width for i in range(len(rows))])
        each = [found[label] for label, _ in rows for _ in x]
        heights, colours, hatches = np.concatenate(means), [look.colour for look in each], [look.hatch for look in each]
        ax.bar(at, heights, width, color=colours, hatch=hatches, edgecolor="white", linewidth=0)
        spread = [_spread([run[task] for run in runs]) for _, runs in rows for task in range(tasks)]
        ax.errorbar(at, heights, yerr=spread, fmt="none", **THIN)
    else:
        for mean, (label, _) in zip(means, rows, strict=True):
            look = found[label]
            ax.plot(x, mean, color=look.colour, linestyle=look.line, marker=look.marker, markevery=every, linewidth=0.9)
    whole_numbers(ax)
    ax.set_ylim(0, 102)
    return [label for label, _ in rows]


def _spread(values: Sequence[float]) -> float:
    """Sample standard deviation; NaN, which draws no whisker, for a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else np.nan


def transfer_bars(study: Study, found: dict[str, Look], page: Page) -> Drawn:
    """Figure of the backward transfer of every method."""
    shown = [label for label in study.labels if any(study.values(g, label, BWT) for g in page.groups)]
    names = [cut(display(label), 22) for label in shown]

    def draw(ax: Axes, group: Group) -> list[str]:
        values = [[100 * value for value in study.values(group, label, BWT).values()] for label in shown]
        there, empty = [i for i, runs in enumerate(values) if runs], [i for i, runs in enumerate(values) if not runs]
        means = [float(np.mean(values[i])) for i in there]
        ax.barh(there, means, 0.72, color=[found[shown[i]].colour for i in there], linewidth=0)
        ax.errorbar(means, there, xerr=[_spread(values[i]) for i in there], fmt="none", **THIN)
        for i in empty:
            ax.text(0, i, "no value ", va="center", ha="right", fontsize=5.5, color="#666666")
        ax.axvline(0, color="#333333", linewidth=0.6)
        ax.set_yticks(range(len(shown)), names)
        ax.set_ylim(len(shown) - 0.4, -0.6)
        return []

    figure = panels(
        study,
        page,
        found,
        draw,
        "",
        "BWT (percentage points)",
        keyed=False,
        height=0.115 * max(4, len(shown)),
        left=0.12 + 0.056 * max([4, *map(len, names)]),
    )
    caption = (
        f"{page.words}: backward transfer (mean over seeds; whiskers: ± one sample standard deviation). Zero is no "
        "forgetting."
    )
    return Drawn(f"bwt{page.stem}", caption, figure)
