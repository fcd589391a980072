"""Figures of ACC against BWT, accuracy against cost, and loss curves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from reports import machines
from reports.metrics import ACC, BWT
from reports.multiples import families, lines
from reports.panels import Drawn, Job, Page, logarithmic, pages, panels
from reports.ranks import critical_difference, not_drawn
from reports.study import Entry, Group, Study
from reports.style import Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS_AT_MOST = 300
"""Largest number of points of one loss curve."""


def trade_offs(study: Study) -> Iterator[Job]:
    """Yield scatter plots of means over seeds, and the ranks if a test over benchmarks is possible."""

    def two(group: Group) -> bool:
        return any(study.values(group, label, BWT) for label in study.rows(group))

    for page in pages(study, two):
        yield partial(_transfer, page=page)
    for page in pages(study, lambda group: any(_seconds(study, group, label) for label in study.rows(group))):
        yield partial(_cost, page=page)
    tested = [scenario for scenario in study.scenarios if not not_drawn(study, scenario)]
    if tested:
        yield partial(critical_difference, scenarios=tested)


def _seconds(study: Study, group: Group, label: str) -> list[float]:
    return [sum(e.record.train_seconds) for e in study.done(group, label) if sum(e.record.train_seconds) > 0]


def _timed(study: Study, group: Group) -> list[Entry]:
    return [entry for label in study.rows(group) for entry in study.done(group, label) if entry.record.train_seconds]


def _dot(ax: Axes, x: float, y: float, look: Look, *, hollow: bool) -> None:
    face, edge, width = ("none", look.colour, 0.8) if hollow else (look.colour, "white", 0.3)
    ax.plot([x], [y], marker=look.marker, linestyle="", markersize=4.5, mfc=face, mec=edge, mew=width)


def _few(study: Study, group: Group, label: str) -> bool:
    """Check whether the row has an ACC on some of the group's seeds only, those that it survived perhaps."""
    return 0 < len(study.values(group, label, ACC)) < len(study.seeds(group))


def _hollow(study: Study, page: Page) -> str:
    few = any(_few(study, group, label) for group in page.groups for label in study.rows(group))
    return " Hollow: mean over some of the seeds only." if few else ""


def _transfer(study: Study, found: dict[str, Look], page: Page) -> Drawn:
    def draw(ax: Axes, group: Group) -> list[str]:
        shown = []
        for label in study.rows(group):
            acc, bwt = study.values(group, label, ACC), study.values(group, label, BWT)
            if acc and bwt:
                x, y = 100 * fmean(bwt.values()), 100 * fmean(acc.values())
                _dot(ax, x, y, found[label], hollow=_few(study, group, label))
                shown.append(label)
        ax.axvline(0, color="#999999", linewidth=0.5)
        ax.margins(0.09)
        return shown

    figure = panels(study, page, found, draw, "ACC (%)", "BWT (percentage points)", share_y=False, left=0.54)
    caption = f"{page.words}: ACC against backward transfer, means over seeds. Better is up and to the right."
    caption += _hollow(study, page)
    return Drawn(f"acc-bwt{page.stem}", caption, figure)


def _cost(study: Study, found: dict[str, Look], page: Page) -> Drawn:
    def draw(ax: Axes, group: Group) -> list[str]:
        points = []
        for label in study.rows(group):
            acc, seconds = study.values(group, label, ACC), _seconds(study, group, label)
            if acc and seconds:
                points.append((fmean(seconds), 100 * fmean(acc.values()), label))
        ranked = [p for p in points if p[2] not in study.unranked and not _few(study, group, p[2])]
        front = [] if machines.caution(_timed(study, group)) else _pareto(ranked)
        ax.plot([x for x, _, _ in front], [y for _, y, _ in front], color="#BBBBBB", linewidth=0.8, zorder=0)
        for x, y, label in points:
            _dot(ax, x, y, found[label], hollow=_few(study, group, label))
        if points and max(points)[0] > 3 * min(points)[0]:
            logarithmic(ax.xaxis)
        ax.margins(0.09)
        return [label for _, _, label in points]

    figure = panels(study, page, found, draw, "ACC (%)", "training seconds", share_y=False, left=0.54)
    caption = (
        f"{page.words}: ACC against training time for the whole stream, means over seeds. The grey line joins the "
        "Pareto-optimal methods (joint, methods that keep training data and methods without a value on every seed left "
        f"out).{_hollow(study, page)}"
    )
    if several := machines.caution(entry for group in page.groups for entry in _timed(study, group)):
        caption += f"{several} There is no line where they meet in a panel."
    return Drawn(f"cost{page.stem}", caption, figure)


def _pareto(points: list[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Pareto-optimal points (cost, score, name), by cost."""
    front: list[tuple[float, float, str]] = []
    for point in sorted(points, key=lambda p: (p[0], -p[1])):
        if not front or point[1] > front[-1][1] or point[:2] == front[-1][:2]:
            front.append(point)
    return front


def loss_curves(study: Study, found: dict[str, Look], page: Page) -> Drawn:
    """Figure of the training loss over the whole stream, first seed of each method; for the appendix."""

    def shown(group: Group, label: str) -> bool:
        entries = study.done(group, label)
        return bool(entries and entries[0].record.losses)

    def draw(ax: Axes, group: Group, labels: Sequence[str]) -> None:
        for label in labels:
            x, y = _whole_stream(study.done(group, label)[0].record.losses)
            look = found[label]
            ax.plot(x, y, color=look.colour, linestyle=look.line, linewidth=0.6, label=label)
        if labels:
            logarithmic(ax.yaxis)

    figure = lines(study, page, found, draw, "training loss", "step", shown=shown, left=0.56)
    entries = [
        study.done(group, label)[0] for group in page.groups for label in study.rows(group) if shown(group, label)
    ]
    zero = any(loss <= 0 for entry in entries for _, _, loss in entry.record.losses)
    caption = (
        f"{page.words}: training loss over the whole stream, first seed of each method."
        f"{' Losses of zero or less are not drawn.' if zero else ''}{families(study, page, shown)}"
    )
    return Drawn(f"loss{page.stem}", caption, figure, appendix=True)


def _whole_stream(losses: tuple[tuple[int, int, float], ...]) -> tuple[np.ndarray, np.ndarray]:
    """Steps counted across tasks, and losses, thinned; losses of zero or less are not drawn."""
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
