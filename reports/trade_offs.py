"""ACC against BWT, accuracy against cost, the critical-difference diagram, and loss curves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from reports import statistics
from reports.metrics import ACC, BWT
from reports.panels import Drawn, Job, Page, logarithmic, pages, panels
from reports.study import Group, Study
from reports.style import COLUMN_WIDTH, Look, Margins, canvas, cut
from reports.tables import scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS_AT_MOST = 300
"""Points of one loss curve."""


def trade_offs(study: Study) -> Iterator[Job]:
    """Scatter plots of means over seeds, and the ranks where a test over benchmarks is possible."""

    def two(group: Group) -> bool:
        return any(study.values(group, label, BWT) for label in study.rows(group))

    for page in pages(study, two):
        yield partial(_transfer, page=page)
    for page in pages(study, lambda group: any(_seconds(study, group, label) for label in study.rows(group))):
        yield partial(_cost, page=page)
    for scenario in study.scenarios:
        if not isinstance(rank_test(study, scenario), str):
            yield partial(critical_difference, scenario=scenario)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _seconds(study: Study, group: Group, label: str) -> list[float]:
    return [sum(e.record.train_seconds) for e in study.done(group, label) if sum(e.record.train_seconds) > 0]


def _dot(ax: Axes, x: float, y: float, look: Look) -> None:
    ax.plot([x], [y], color=look.colour, marker=look.marker, linestyle="", markersize=4.5, mec="white", mew=0.3)


def _transfer(study: Study, found: dict[str, Look], page: Page) -> Drawn:
    def draw(ax: Axes, group: Group) -> list[str]:
        shown = []
        for label in study.rows(group):
            acc, bwt = study.values(group, label, ACC), study.values(group, label, BWT)
            if acc and bwt:
                _dot(ax, 100 * _mean(list(bwt.values())), 100 * _mean(list(acc.values())), found[label])
                shown.append(label)
        ax.axvline(0, color="#999999", linewidth=0.5)
        ax.margins(0.09)
        return shown

    figure = panels(study, page, found, draw, "ACC (%)", "BWT (percentage points)", share_y=False, left=0.54)
    caption = f"{page.words}: ACC against backward transfer, means over seeds. Better is up and to the right."
    return Drawn(f"acc-bwt{page.stem}", caption, figure)


def _cost(study: Study, found: dict[str, Look], page: Page) -> Drawn:
    def draw(ax: Axes, group: Group) -> list[str]:
        points = []
        for label in study.rows(group):
            acc, seconds = study.values(group, label, ACC), _seconds(study, group, label)
            if acc and seconds:
                points.append((_mean(seconds), 100 * _mean(list(acc.values())), label))
        front = _pareto([point for point in points if point[2] not in study.references])
        ax.plot([x for x, _, _ in front], [y for _, y, _ in front], color="#BBBBBB", linewidth=0.8, zorder=0)
        for x, y, label in points:
            _dot(ax, x, y, found[label])
        if points and max(points)[0] > 3 * min(points)[0]:
            logarithmic(ax.xaxis)
        ax.margins(0.09)
        return [label for _, _, label in points]

    figure = panels(study, page, found, draw, "ACC (%)", "training seconds", share_y=False, left=0.54)
    caption = (
        f"{page.words}: ACC against training time for the whole stream, means over seeds. The grey line joins the "
        "methods that no other beats in both (the upper bound left out)."
    )
    return Drawn(f"cost{page.stem}", caption, figure)


def _pareto(points: list[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Points (cost, score, name) that none beats in both, by cost."""
    front: list[tuple[float, float, str]] = []
    for point in sorted(points, key=lambda p: (p[0], -p[1])):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front


def rank_test(study: Study, scenario: str) -> statistics.RankTest | str:
    """Friedman and Nemenyi of ACC over the benchmarks of one scenario, or why there is none.

    Over the methods that have a value on every benchmark; the upper bound is left out.
    """
    groups = [group for group in study.groups if group.scenario == scenario]
    labels = [label for label in study.labels if label not in study.references]
    table = scores(study, groups, labels, ACC)
    return statistics.friedman(table.loc[:, table.notna().all()])


def critical_difference(study: Study, found: dict[str, Look], scenario: str) -> Drawn:
    """Average ranks with bars that join what Nemenyi's test cannot tell apart. Raises ValueError without a test."""
    test = rank_test(study, scenario)
    if isinstance(test, str):
        raise ValueError(test)
    from scikit_posthocs import critical_difference_diagram

    room = Margins(left=0.95, right=0.95, top=0.3, bottom=0.12)
    figure, axes = canvas(COLUMN_WIDTH, 0.75 + 0.13 * len(test.ranks), 1, 1, room)
    names = {name: f"{i} {cut(str(name), 20)}" for i, name in enumerate(test.ranks.index)}
    critical_difference_diagram(
        test.ranks.rename(names),
        test.pairwise.rename(index=names, columns=names),
        ax=axes[0][0],
        label_fmt_left="{label} ({rank:.1f}) ",
        label_fmt_right=" {label} ({rank:.1f})",
        text_h_margin=0.01,
        color_palette={names[name]: found[str(name)].colour for name in names},
        label_props={"fontsize": 6.5},
        crossbar_props={"color": "black"},
    )
    for text in axes[0][0].texts:  # the numbers kept names apart that are alike once cut
        text.set_text(re.sub(r"^( ?)\d+ (?=.)", r"\1", text.get_text()))
    missing = [label for label in study.labels if label not in study.references and label not in test.ranks.index]
    without = f" Left out for want of a value somewhere: {', '.join(missing)}." if missing else ""
    caption = (
        f"{scenario.upper()}: critical-difference diagram of ACC: average ranks over {test.blocks} benchmarks (1 is "
        f"best); Friedman p = {test.p:.3g}; bars join methods that Nemenyi's test cannot tell apart at 5 %.{without}"
    )
    return Drawn(f"critical-difference-{scenario}", caption, figure)


def loss_curves(study: Study, found: dict[str, Look], page: Page) -> Drawn:
    """Training loss over the whole stream, of the first seed of each method; for the appendix."""

    def draw(ax: Axes, group: Group) -> list[str]:
        shown = []
        for label in study.rows(group):
            entries = study.done(group, label)
            losses = entries[0].record.losses if entries else ()
            if losses:
                x, y = _whole_stream(losses)
                ax.plot(x, y, color=found[label].colour, linestyle=found[label].line, linewidth=0.6)
                shown.append(label)
        if shown:
            logarithmic(ax.yaxis)
        return shown

    figure = panels(study, page, found, draw, "training loss", "step", left=0.56)
    caption = f"{page.words}: training loss over the whole stream, first seed of each method."
    return Drawn(f"loss{page.stem}", caption, figure, appendix=True)


def _whole_stream(losses: tuple[tuple[int, int, float], ...]) -> tuple[np.ndarray, np.ndarray]:
    """Steps counted on from task to task, and losses, thinned; losses of zero or less are not drawn."""
    x, y, before, last = [], [], 0, losses[0][0]
    longest = 0
    for task, step, loss in losses:
        if task != last:
            before, last, longest = before + longest, task, 0
        longest = max(longest, step)
        x.append(before + step)
        y.append(loss if loss > 0 else np.nan)
    every = max(1, len(x) // POINTS_AT_MOST)
    return np.array(x)[::every], np.array(y)[::every]
