"""Figures of lines: one panel for each benchmark, or of many methods small multiples by family.

Small multiples have one column of panels for each family of methods, and one row for each benchmark.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from reports.distinct_names import pretty
from reports.names import Family, display, family
from reports.panels import Page, panels
from reports.study import Group, Study
from reports.style import FULL_WIDTH, Look, cut

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METHODS_AT_MOST = 12
"""Largest number of methods in one panel; with more, families get panels of their own."""
PANEL_HEIGHT, LINE_OF_KEY = 0.62, 0.1
"""Heights in inches: of a panel, and of a method's name in the key of its family."""
LEFT, RIGHT, BOTTOM, ACROSS, DOWN = 0.72, 0.06, 0.34, 0.12, 0.22
"""Room around and between the panels of small multiples, in inches."""
LINES_AT_LEAST = 5
"""Least number of methods whose lines have their names at their ends instead of in a legend."""
NAMED_IN_A_ROW = 3
"""Largest number of panels in a row with room for names between them."""
Draw = Callable[["Axes", Group, Sequence[str]], Any]
"""Function that draws some labels of a group; the matplotlib label of a line is that of its method."""
Shown = Callable[[Group, str], bool]
"""Check whether a label has something to draw in a group."""
Scale = Callable[[Sequence["Axes"]], Any]
"""Function that sets the scale of panels that share their axes, after their lines are drawn."""


def lines(
    study: Study,
    page: Page,
    found: dict[str, Look],
    draw: Draw,
    y_label: str,
    x_label: str,
    *,
    shown: Shown | None = None,
    scale: Scale | None = None,
    **options: Any,
) -> Figure:
    """Draw the lines of a page, their names at their ends where they are many, by family where they are too many.

    shown: what is drawn (default: labels with results). scale: only without `share_y`. options: those of `panels`.
    """
    there = shown or _done(study)
    labels = _labels(study, page, there)
    if len(labels) > METHODS_AT_MOST:
        return by_family(study, page, found, draw, y_label, x_label, there, scale)

    def of_group(ax: Axes, group: Group) -> list[str]:
        own = [label for label in study.rows(group) if there(group, label)]
        draw(ax, group, own)
        if scale:
            scale([ax])
        return own

    direct = len(labels) >= LINES_AT_LEAST and len(page.rows[0]) <= NAMED_IN_A_ROW
    return panels(study, page, found, of_group, y_label, x_label, likely=there, direct=direct, **options)


def families(study: Study, page: Page, shown: Shown | None = None) -> str:
    """Sentence of the caption on small multiples, after a space; empty without."""
    labels = _labels(study, page, shown or _done(study))
    if len(labels) <= METHODS_AT_MOST:
        return ""
    methods = {entry.label: entry.record.method for entry in study.entries}
    there = any(family(methods[label]) is Family.REFERENCES for label in labels)
    references = "; grey and black: the references finetune and joint" if there else ""
    return f" One column for each family of methods{references}."


def _done(study: Study) -> Shown:
    return lambda group, label: bool(study.done(group, label))


def _labels(study: Study, page: Page, shown: Shown) -> list[str]:
    return [label for label in study.labels if any(shown(group, label) for group in page.groups)]


def by_family(
    study: Study,
    page: Page,
    found: dict[str, Look],
    draw: Draw,
    y_label: str,
    x_label: str,
    shown: Shown,
    scale: Scale | None = None,
) -> Figure:
    """Draw every group once for each family, with the references in every panel; rows share their axes.

    Only panels with something in them are made: an axis takes longer than its lines.
    """
    import seaborn
    from matplotlib.figure import Figure

    methods = {entry.label: entry.record.method for entry in study.entries}
    labels = _labels(study, page, shown)
    members = {name: [label for label in labels if family(methods[label]) is name] for name in Family}
    references = members.pop(Family.REFERENCES)
    columns = [name for name, own in members.items() if own]
    groups = page.groups
    several = len({group.scenario for group in groups}) > 1
    top = 0.24 + LINE_OF_KEY * (max(len(members[name]) for name in columns) + 1)
    width = (FULL_WIDTH - LEFT - RIGHT - (len(columns) - 1) * ACROSS) / len(columns)
    height = top + BOTTOM + len(groups) * PANEL_HEIGHT + (len(groups) - 1) * DOWN
    figure = Figure(figsize=(FULL_WIDTH, height))
    for i, group in enumerate(groups):
        row: list[Axes] = []
        y = height - top - PANEL_HEIGHT - i * (PANEL_HEIGHT + DOWN)
        for j, name in enumerate(columns):
            own = [label for label in members[name] if shown(group, label)]
            if own:
                x = LEFT + j * (width + ACROSS)
                place = (x / FULL_WIDTH, y / height, width / FULL_WIDTH, PANEL_HEIGHT / height)
                first = row[0] if row else None
                ax = figure.add_axes(place, sharex=first, sharey=first)
                draw(ax, group, [*(label for label in references if shown(group, label)), *own])
                ax.tick_params(labelleft=first is None, labelsize=5, pad=1.5)
                row.append(ax)
        if scale and row:
            scale(row)
        title = f"{group.scenario.upper()}, {pretty(group.benchmark)}" if several else pretty(group.benchmark)
        words, middle = "\n".join(textwrap.wrap(title, 17)), (y + PANEL_HEIGHT / 2) / height
        figure.text(0.4 / FULL_WIDTH, middle, words, fontsize=6, rotation=90, va="center", ha="right")
    for j, name in enumerate(columns):
        place = ((LEFT + j * (width + ACROSS)) / FULL_WIDTH, 1 - top / height)
        _key(figure, place, name, members[name], found)
    figure.text(0.008, 0.995, f"{y_label} against {x_label}", fontsize=6, va="top")
    seaborn.despine(figure)
    return figure


def _key(
    figure: Figure, place: tuple[float, float], name: Family, labels: Sequence[str], found: dict[str, Look]
) -> None:
    """Draw the key of a family above its column; place: lower left corner, as shares of the figure."""
    from matplotlib.lines import Line2D

    looks = [found[label] for label in labels]
    handles = [Line2D([], [], color=look.colour, linestyle=look.line, marker=look.marker) for look in looks]
    box = figure.legend(
        handles,
        ["m"] * len(labels),
        title=str(name),
        title_fontsize=6.5,
        loc="lower left",
        bbox_to_anchor=place,
        frameon=False,
        fontsize=5.8,
        borderaxespad=0.2,
        borderpad=0,
        labelspacing=0.15,
        handlelength=2.2,
        alignment="left",
    )
    for text, label in zip(box.get_texts(), labels, strict=True):
        text.set_text(cut(display(label), 20))
