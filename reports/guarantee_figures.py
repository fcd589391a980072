"""Figures of certified against measured accuracy per task, and of the widths of the intervals over the tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from reports.guarantees import logit_widths, old_claims
from reports.multiples import families, lines
from reports.panels import Band, Drawn, Job, Page, bands, logarithmic_with_zeros, pages, whole_numbers
from reports.record import Record
from reports.study import Entry, Group, Study
from reports.style import Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WITH_ZEROS = " Scales are logarithmic, but linear from 0 to the next tick where they show 0."


def guarantee_figures(study: Study) -> Iterator[Job]:
    """Yield the jobs of these figures; none if no method certifies."""
    for page in pages(study, lambda group: any(_certified(study, group, label) for label in study.rows(group))):
        yield partial(_accuracies, page=page)
    for page in pages(study, lambda group: _claims_at_all(study, group)):
        yield partial(_widths, page=page)


def _certified(study: Study, group: Group, label: str) -> list[Entry]:
    return [entry for entry in study.done(group, label) if entry.record.certified is not None]


def _claimed(study: Study, group: Group, label: str) -> list[Entry]:
    return [entry for entry in study.done(group, label) if entry.record.claims]


def _claims_at_all(study: Study, group: Group) -> bool:
    """Check whether any method has claims; stops at the first, because reading claims is slow."""
    return any(entry.record.claims for label in study.rows(group) for entry in study.done(group, label))


def _accuracies(study: Study, found: dict[str, Look], page: Page) -> Drawn:
    def shown(group: Group, label: str) -> bool:
        return bool(_certified(study, group, label))

    def draw(ax: Axes, group: Group, labels: Sequence[str]) -> None:
        gaps = []
        for label in labels:
            entries, look = _certified(study, group, label), found[label]
            measured = _mean([entry.record.accuracy[-1] for entry in entries if entry.record.accuracy is not None])
            certified = _mean([e.record.certified[-1] for e in entries if e.record.certified is not None])
            standing = _mean([_standing(entry) for entry in entries])
            x = np.arange(1, len(measured) + 1)
            style: dict[str, Any] = {"color": look.colour, "marker": look.marker, "markevery": max(1, len(x) // 12)}
            ax.plot(x, measured, linestyle="-", label=label, **style)
            ax.plot(x[:-1], standing, linestyle="--", mfc="white", **style)
            ax.plot(x, certified, color=look.colour, linestyle=":", linewidth=0.9)
            gaps.append(Band(x[:-1], standing, measured[:-1], look.colour))
        bands(ax, gaps, 0.1)
        whole_numbers(ax)
        ax.set_ylim(0, 102)

    caption = (
        f"{page.words}: measured accuracy on each task after the last one (full line), accuracy certified when the "
        "task was learnt, 0 where the claim no longer holds (dashed, old tasks only), and accuracy certified anew "
        f"after the last task (dotted). Mean over seeds.{families(study, page, shown)}"
    )
    figure = lines(study, page, found, draw, "accuracy (%)", "task", shown=shown)
    return Drawn(f"certified{page.stem}", caption, figure)


def _standing(entry: Entry) -> np.ndarray:
    """Standing certified accuracy (T-1,) of each old task; NaN where nothing is claimed."""
    assert entry.record.certified is not None
    if not entry.record.claims:
        return np.full(entry.record.n_tasks - 1, np.nan)
    holding = {claim.task for claim in old_claims(entry.record) if claim.holds}
    learnt = np.diagonal(entry.record.certified[1:])[:-1]
    return np.where([task in holding for task in range(len(learnt))], learnt, 0.0)


def _widths(study: Study, found: dict[str, Look], page: Page) -> Drawn:
    def shown(group: Group, label: str) -> bool:
        return bool(_claimed(study, group, label))

    def draw(ax: Axes, group: Group, labels: Sequence[str]) -> None:
        for label in labels:
            entries, look = _claimed(study, group, label), found[label]
            style: dict[str, Any] = {"color": look.colour, "marker": look.marker}
            if widths := _by_task(entries, _weight_widths):
                ax.plot(list(widths), list(widths.values()), linestyle="-", label=label, **style)
            if widths := _by_task(entries, logit_widths):
                ax.plot(list(widths), list(widths.values()), linestyle="--", **style)
        whole_numbers(ax)

    options: dict[str, Any] = {"scale": logarithmic_with_zeros, "share_y": False, "across": 0.44}
    figure = lines(study, page, found, draw, "interval width", "task", shown=shown, **options)
    zeros = any(ax.get_yscale() == "symlog" for ax in figure.axes)
    caption = (
        f"{page.words}: median width of the weight intervals (full line) and of the logit intervals (dashed; not where "
        f"the task is inferred) of each task after the last one; mean over seeds.{WITH_ZEROS if zeros else ''}"
        f"{families(study, page, shown)}"
    )
    return Drawn(f"widths{page.stem}", caption, figure)


def _weight_widths(record: Record) -> dict[int, float]:
    return {claim.task: claim.median_width for claim in record.claims if claim.after == record.n_tasks}


def _by_task(entries: list[Entry], of: Callable[[Record], dict[int, float]]) -> dict[int, float]:
    """Map a task (1-based) to the mean over the entries, where finite."""
    values: dict[int, list[float]] = {}
    for entry in entries:
        for task, value in of(entry.record).items():
            if np.isfinite(value):
                values.setdefault(task + 1, []).append(value)
    return {task: float(np.mean(found)) for task, found in sorted(values.items())}


def _mean(rows: list[np.ndarray]) -> np.ndarray:
    return 100 * np.mean(np.stack(rows), axis=0)
