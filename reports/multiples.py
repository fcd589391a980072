"""Small multiples by family: one column of panels for each family of methods, one row for each benchmark."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from reports.names import Family, display, family
from reports.panels import Page
from reports.study import Group, Study, pretty
from reports.style import FULL_WIDTH, Look, Margins, canvas, cut

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METHODS_AT_MOST = 12
"""Largest number of methods in one panel; with more, families get panels of their own."""
PANEL_HEIGHT, LINE_OF_KEY = 0.62, 0.1
"""Heights in inches: of a panel, and of a method's name in the key of its family."""
Draw = Callable[["Axes", Group, Sequence[str]], Any]
"""Function that draws some labels of a group."""


def crowded(study: Study, page: Page) -> bool:
    """Check whether the page has more methods than one panel should show."""
    return len(_labels(study, page)) > METHODS_AT_MOST


def _labels(study: Study, page: Page) -> list[str]:
    return [label for label in study.labels if any(study.done(group, label) for group in page.groups)]


def by_family(study: Study, page: Page, found: dict[str, Look], draw: Draw, y_label: str, x_label: str) -> Figure:
    """Draw every group once for each family, with the references in every panel; rows share their y axis."""
    import seaborn

    methods = {entry.label: entry.record.method for entry in study.entries}
    labels = _labels(study, page)
    members = {name: [label for label in labels if family(methods[label]) is name] for name in Family}
    references = members.pop(Family.REFERENCES)
    columns = [name for name, own in members.items() if own]
    key = max(len(members[name]) for name in columns)
    groups = page.groups
    several = len({group.scenario for group in groups}) > 1
    room = Margins(left=0.72, top=0.24 + LINE_OF_KEY * (key + 1), bottom=0.34, across=0.12, down=0.22)
    height = room.top + room.bottom + len(groups) * PANEL_HEIGHT + (len(groups) - 1) * room.down
    figure, axes = canvas(FULL_WIDTH, height, len(groups), len(columns), room, sharex="row", sharey="row")
    for row, group in zip(axes, groups, strict=True):
        first = True
        for ax, name in zip(row, columns, strict=True):
            if any(study.done(group, label) for label in members[name]):
                draw(ax, group, [*references, *members[name]])
                ax.tick_params(labelbottom=True, labelleft=first, labelsize=5, pad=1.5)
                first = False
            else:
                ax.set_axis_off()
        title = f"{group.scenario.upper()}, {pretty(group.benchmark)}" if several else pretty(group.benchmark)
        words = "\n".join(textwrap.wrap(title, 17))
        row[0].text(-0.24, 0.5, words, transform=row[0].transAxes, fontsize=6, rotation=90, va="center", ha="right")
    for ax, name in zip(axes[0], columns, strict=True):
        _key(ax, name, members[name], found)
    figure.text(0.008, 0.995, f"{y_label} against {x_label}", fontsize=6, va="top")
    seaborn.despine(figure)
    return figure


def _key(ax: Axes, name: Family, labels: Sequence[str], found: dict[str, Look]) -> None:
    """Draw the key of a family above its column."""
    from matplotlib.lines import Line2D

    looks = [found[label] for label in labels]
    handles = [Line2D([], [], color=look.colour, linestyle=look.line, marker=look.marker) for look in looks]
    box = ax.legend(
        handles,
        ["m"] * len(labels),
        title=str(name),
        title_fontsize=6.5,
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
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
