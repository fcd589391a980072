"""The two figures of the front: guarantees by family of methods, and scores over benchmarks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from reports.distinct_names import pretty
from reports.guarantees import Promise, promises
from reports.metrics import ACC
from reports.names import Family, display, family
from reports.panels import Drawn, Job
from reports.scores import (
    RESAMPLES,
    Scores,
    interquartile_mean,
    iqm_interval,
    probability_of_improvement,
    profile,
    scores_of,
)
from reports.statistics import MIN_FOR_INTERVAL
from reports.study import Study
from reports.style import FULL_WIDTH, Look, Margins, canvas, cut
from reports.tables import lost
from reports.words import join

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PROMISE_ROW, SCORE_ROW = 0.085, 0.09
"""Heights of a row of the two dot plots, in inches: both figures and the headline table fill one page."""

LOWEST_SCORE = -0.5
"""Least τ of a performance profile: a single low score would take the room of all others."""


def front_figures(study: Study) -> Iterator[Job]:
    """Yield the figures that the records support."""
    if any(promise.when_learnt is not None for promise in promises(study)):
        yield guarantees_by_family
    if any(scores_of(study, scenario) for scenario in study.scenarios):
        yield partial(score_figure)


def guarantees_by_family(study: Study, found: dict[str, Look]) -> Drawn:
    """Dot plot of certificate when learnt, standing certificate and accuracy, one panel for each family."""
    rows: dict[Family, dict[tuple[str, str], list[Promise]]] = {}
    methods = {entry.label: entry.record.method for entry in study.entries}
    for promise in promises(study):
        method = methods[promise.label]
        variant = promise.label != method and method in study.labels  # such as another value of a hyperparameter
        if promise.when_learnt is not None and not variant:
            of_family = rows.setdefault(family(method), {})
            of_family.setdefault((promise.label, promise.group.scenario), []).append(promise)
    most = max(map(len, rows.values()))
    order = [name for name in Family if name in rows]
    room = Margins(left=1.4, top=0.34, bottom=0.32, across=1.4)
    height = room.top + room.bottom + most * PROMISE_ROW
    figure, axes = canvas(FULL_WIDTH, height, 1, len(order), room)
    for ax, name in zip(axes[0], order, strict=True):
        _dumbbells(ax, study, rows[name], found)
        ax.set_title(str(name), pad=3, y=1.0)
    _key(figure)
    caption = (
        "Guarantees by family of methods, percent of test samples, means over seeds, then over the benchmarks on "
        "which the method was run. Triangle: certified when an old task was learnt. Dot: the same, but 0 for each task "
        "whose claim is void after the last task (weights outside of the certified region, or a region that has "
        "drifted). Open circle: accuracy after the last task. A long line from triangle to dot is a promise that broke."
    )
    return Drawn("front-guarantees", caption, figure)


def _dumbbells(ax: Axes, study: Study, rows: dict[tuple[str, str], list[Promise]], found: dict[str, Look]) -> None:
    import seaborn

    labels = [label for label in study.labels if any(label == key for key, _ in rows)]
    places = [(label, scenario) for label in labels for scenario in study.scenarios if (label, scenario) in rows]
    ticks, names = [], []
    for y, (label, scenario) in enumerate(places):
        here, colour = rows[label, scenario], found[label].colour
        learnt = 100 * fmean(p.when_learnt for p in here if p.when_learnt is not None)
        stands = 100 * fmean(p.standing or 0.0 for p in here)
        of_groups = [fmean(of_one.values()) for p in here if (of_one := study.values(p.group, label, ACC))]
        ax.plot([stands, learnt], [y, y], color=colour, linewidth=0.8)
        ax.plot([learnt], [y], marker="^", color=colour, linestyle="", markersize=3.6)
        ax.plot([stands], [y], marker="o", color=colour, linestyle="", markersize=3.2)
        ax.plot(
            [100 * fmean(of_groups)], [y], marker="o", mfc="none", mec="#333333", mew=0.6, linestyle="", markersize=4
        )
        ticks.append(y)
        first = places.index((label, scenario)) == 0 or places[y - 1][0] != label
        names.append(f"{cut(display(label), 24)}  {scenario.upper()}" if first else scenario.upper())
        if first and y:
            ax.axhline(y - 0.5, color="#DDDDDD", linewidth=0.4)
    ax.set_yticks(ticks, names, fontsize=5.8)
    ax.set_ylim(len(places) - 0.4, -0.6)
    ax.set_xlim(-3, 103)
    ax.set_xlabel("test samples (%)")
    seaborn.despine(ax=ax)


def _key(figure: Figure) -> None:
    from matplotlib.lines import Line2D

    style: dict[str, Any] = {"linestyle": "", "color": "#444444"}
    handles = [
        Line2D([], [], marker="^", markersize=3.6, **style),
        Line2D([], [], marker="o", markersize=3.2, **style),
        Line2D([], [], marker="o", markersize=4, mfc="none", **style),
    ]
    names = ["certified when learnt", "still stands at the end", "accuracy"]
    figure.legend(handles, names, loc="upper center", ncols=3, frameon=False, borderaxespad=0.1)


def score_figure(study: Study, found: dict[str, Look]) -> Drawn:
    """Performance profiles above, interquartile means with the probability of improvement below; one column each."""
    import seaborn

    every = [of_one for scenario in study.scenarios if (of_one := scores_of(study, scenario))]
    most = max(len(scores.values) for scores in every)
    room = Margins(left=0.95, right=0.36, top=0.2, bottom=0.32, across=1.3, down=0.42)
    tall = max(0.8, SCORE_ROW * most)
    figure, axes = canvas(
        FULL_WIDTH, room.top + room.bottom + room.down + tall + 0.8, 2, len(every), room, height_ratios=[0.8, tall]
    )
    for above, below, scores in zip(*axes, every, strict=True):
        ranked = sorted(scores.values, key=lambda label: -interquartile_mean(scores.values[label]))
        _profiles(above, scores, found)
        _means(below, scores, ranked, found)
        above.set_title(f"{scores.scenario.upper()}", pad=3, y=1.0)
    axes[0][0].set_ylabel("share of runs above")
    seaborn.despine(figure)
    seeds = sorted({len(next(iter(scores.values.values()))) for scores in every})
    over = "; ".join(
        f"{s.scenario.upper()}: {join([pretty(g.benchmark) for g in s.groups])}{lost(study, s.scenario, s.groups)}"
        for s in every
    )
    cut_off = f" (from −{-LOWEST_SCORE:g})" if any(_lowest(scores) < LOWEST_SCORE for scores in every) else ""
    caption = (
        "Scores (measures of rliable): (ACC − finetune) / (joint − finetune) of a run, with the references' mean "
        "ACC; 0 is sequential training, 1 joint training. Above: performance profile, the share "
        f"of runs (seeds × benchmarks) above τ{cut_off}, coloured as the names below. "
        f"Below: interquartile mean (IQM), its 95 % t interval (from {MIN_FOR_INTERVAL} seeds on) with the standard "
        f"error of {RESAMPLES:,} bootstrap samples of seeds, and P, the probability that a run of the "
        "best IQM beats one of this method (Mann–Whitney, mean over benchmarks; 50 % is no difference). "
        f"{over}; {' or '.join(map(str, seeds))} seeds. Benchmarks with joint and finetune less than 2 points apart, "
        "or with other methods or numbers of seeds, are left out, and so are methods not run on all of those named."
    )
    return Drawn("front-scores", caption, figure)


def _lowest(scores: Scores) -> float:
    return min(float(values.min()) for values in scores.values.values())


def _profiles(ax: Axes, scores: Scores, found: dict[str, Look]) -> None:
    at = np.linspace(max(LOWEST_SCORE, _lowest(scores) - 0.02), 1.2, 120)
    for label, values in scores.values.items():
        look = found[label]
        ax.plot(at, profile(values, at), color=look.colour, linestyle=look.line, linewidth=0.9)
    ax.set_ylim(-0.02, 1.02)
    ax.set_xlabel("score τ")


def _means(ax: Axes, scores: Scores, ranked: list[str], found: dict[str, Look]) -> None:
    best = scores.values[ranked[0]]
    for y, label in enumerate(ranked):
        values, look = scores.values[label], found[label]
        interval = iqm_interval(values)
        if interval:
            ax.plot(interval, [y, y], color=look.colour, linewidth=1)
        ax.plot([interquartile_mean(values)], [y], marker=look.marker, color=look.colour, linestyle="")
        if y:
            chance = f"P {100 * probability_of_improvement(best, values):.0f} %"
            ax.text(1.02, y, chance, transform=ax.get_yaxis_transform(), va="center", fontsize=5)
    ax.axvline(0, color="#999999", linewidth=0.4)
    ax.axvline(1, color="#999999", linewidth=0.4)
    ax.set_yticks(range(len(ranked)), [cut(display(label), 18) for label in ranked], fontsize=5.6)
    for name, label in zip(ax.get_yticklabels(), ranked, strict=True):
        name.set_color(found[label].colour)  # the key of the profiles above
    ax.set_ylim(len(ranked) - 0.4, -0.6)
    ax.set_xlabel("IQM of the score")
