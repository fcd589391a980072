"""Figures of accuracy and transfer. Bands are sample standard deviations, never bootstrapped.

A panel in which every line is at 100 shows nothing and is left out.
"""

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
from reports.multiples import families, lines
from reports.names import display
from reports.panels import THIN, Band, Drawn, Job, Page, any_done, bands, pages, panels, task_count, whole_numbers
from reports.study import Group, Study
from reports.style import Look, cut
from reports.trade_offs import loss_curves, trade_offs
from reports.tuning import tuning
from reports.variants import compared
from reports.words import join

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FULL = 0.995
"""Accuracy from which a task counts as full."""
MARKERS_AT_MOST = 12
"""Largest number of markers on one line."""


def plan(study: Study) -> Iterator[Job]:
    """Yield every figure that the data support, in the order of the report; each draws from the `compared` study."""
    yield from curve_figures(study)
    study = compared(study)
    yield from front_figures(study)
    several = pages(study, lambda group: any_done(study, group) and task_count(study, group) > 1)
    moving = pages(study, lambda g: any_done(study, g) and task_count(study, g) > 1 and not _flat(study, g))
    done = pages(study, lambda group: any_done(study, group))
    varied = pages(study, lambda group: any_done(study, group) and not _full(study, group))
    for figure, where in (
        (accuracy_curves, moving),
        (transfer_bars, several),
        (final_accuracy, varied),
        (forgetting_curves, several),
    ):
        yield from (partial(figure, page=page) for page in where)
    yield from trade_offs(study)
    yield from guarantee_figures(study)
    yield from heat_maps(study)
    yield from exhibits(study)
    yield from tuning(study)
    yield from (partial(loss_curves, page=page) for page in done)


def _full(study: Study, group: Group) -> bool:
    """Check whether all methods have every task at 100 % as printed at the end, within half a point."""
    means = [np.mean(runs, axis=0)[-1] for label in study.rows(group) if (runs := study.matrices(group, label))]
    return min(float(np.min(mean)) for mean in means) > FULL


def _flat(study: Study, group: Group) -> bool:
    """Check whether the average accuracy of all methods is 100 % as printed all along, within half a point."""
    curves = [
        np.mean([metrics.accuracy_so_far(r) for r in runs], axis=0)
        for label in study.rows(group)
        if (runs := study.matrices(group, label))
    ]
    return min(float(np.min(curve)) for curve in curves) > FULL


def accuracy_curves(study: Study, found: dict[str, Look], page: Page) -> Drawn:
    """Figure of the average accuracy on the tasks learnt so far against their number."""

    def draw(ax: Axes, group: Group, labels: Sequence[str]) -> list[str]:
        return _curves(ax, study, group, labels, found, metrics.accuracy_so_far, 1)

    figure = lines(study, page, found, draw, "accuracy (%)", "tasks learnt", share_y=False)
    caption = (
        f"{page.words}: average accuracy on the tasks learnt so far, in percent (mean over seeds; band: ± one sample "
        f"standard deviation). Higher is better.{families(study, page)}{_left_out(study, page)}"
    )
    return Drawn(f"accuracy{page.stem}", caption, figure)


def _left_out(study: Study, page: Page) -> str:
    """Sentence on the groups of a page without a panel because nothing could be seen in it, after a space."""
    here = {group.scenario for group in page.groups}
    done = (group for group in study.groups if any_done(study, group) and task_count(study, group) > 1)
    flat = [
        group.title for group in done if _flat(study, group) and (page.stem in ("", "-all") or group.scenario in here)
    ]
    return f" Not drawn, since all methods stay above {100 * FULL:g} %: {join(flat)}." if flat else ""


def forgetting_curves(study: Study, found: dict[str, Look], page: Page) -> Drawn:
    """Figure of forgetting against the number of tasks learnt."""

    def draw(ax: Axes, group: Group, labels: Sequence[str]) -> list[str]:
        return _curves(ax, study, group, labels, found, metrics.forgetting_so_far, 2)

    figure = lines(study, page, found, draw, "forgetting (points)", "tasks learnt", share_y=False)
    caption = (
        f"{page.words}: forgetting of the tasks learnt so far, in percentage points: a task's best accuracy so far "
        "less its present one (mean over seeds; band: ± one sample standard deviation). Lower is better."
        f"{families(study, page)}"
    )
    return Drawn(f"forgetting{page.stem}", caption, figure, appendix=True)


def _curves(
    ax: Axes,
    study: Study,
    group: Group,
    labels: Sequence[str],
    found: dict[str, Look],
    curve: Callable[[Matrix], Matrix],
    first: int,
) -> list[str]:
    shown, spread = [], []
    for label in labels:
        runs = [100 * curve(r) for r in study.matrices(group, label)]
        if not runs:
            continue
        stack = np.stack(runs)
        x, mean = np.arange(first, first + stack.shape[1]), stack.mean(axis=0)
        look = found[label]
        every = max(1, len(x) // MARKERS_AT_MOST)
        ax.plot(x, mean, color=look.colour, linestyle=look.line, marker=look.marker, markevery=every, label=label)
        if len(runs) > 1:
            band = stack.std(axis=0, ddof=1)
            spread.append(Band(x, mean - band, mean + band, look.colour))
        shown.append(label)
    bands(ax, spread, 0.15)
    whole_numbers(ax)
    return shown


def final_accuracy(study: Study, found: dict[str, Look], page: Page) -> Drawn:
    """Figure of the accuracy on each task after the last one."""

    def draw(ax: Axes, group: Group, labels: Sequence[str]) -> list[str]:
        return _per_task(ax, study, group, labels, found)

    figure = lines(study, page, found, draw, "accuracy (%)", "task", share_y=False)
    caption = (
        f"{page.words}: accuracy on each task after the last one, in percent (mean over seeds). Higher is better."
        f"{families(study, page)}"
    )
    return Drawn(f"per-task{page.stem}", caption, figure, appendix=True)


def _per_task(ax: Axes, study: Study, group: Group, labels: Sequence[str], found: dict[str, Look]) -> list[str]:
    rows = [(label, [100 * r[-1] for r in study.matrices(group, label)]) for label in labels]
    rows = [(label, runs) for label, runs in rows if runs]
    tasks = task_count(study, group)
    x, every = np.arange(1, tasks + 1), max(1, tasks // MARKERS_AT_MOST)
    for label, runs in rows:
        look, mean = found[label], np.mean(runs, axis=0)
        ax.plot(x, mean, color=look.colour, linestyle=look.line, marker=look.marker, markevery=every, label=label)
    whole_numbers(ax)
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
    return Drawn(f"bwt{page.stem}", caption, figure, appendix=True)
