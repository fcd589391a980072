"""Average ranks over benchmarks: Friedman's and Nemenyi's tests, and the critical-difference diagram."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from reports import statistics
from reports.metrics import ACC
from reports.names import display
from reports.panels import Drawn
from reports.study import Study
from reports.style import COLUMN_WIDTH, FULL_WIDTH, Look, Margins, canvas, cut
from reports.tables import rank_notes, scores

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def ranked(study: Study, scenario: str) -> pd.DataFrame:
    """ACC on the rankable benchmarks (rows) of one scenario, of the methods (columns) with all values.

    A method without a value on every seed of them is left out: its mean of the seeds that survived is no match for
    means of all. Excludes joint and methods that keep training data.
    """
    groups, labels = study.comparable(scenario)
    return scores(study, groups, study.in_full(groups, labels, ACC), ACC)


def not_drawn(study: Study, scenario: str) -> str | None:
    """Reason why the ranks of a scenario have no diagram, or None; bars need a significant test of all methods."""
    table = ranked(study, scenario)
    reason = statistics.untestable(table)
    if reason:
        return f"are not tested: {reason}"
    p = statistics.friedman(table).p
    return None if p <= statistics.ALPHA else f"are not drawn: Friedman's test shows no difference (p = {p:.2g})"


def critical_difference(study: Study, found: dict[str, Look], scenarios: list[str]) -> Drawn:
    """Draw average ranks, one diagram per scenario; bars join methods that Nemenyi's test cannot distinguish.

    Every scenario must have a significant test, see `not_drawn`.
    """
    tests = {scenario: statistics.friedman(ranked(study, scenario)) for scenario in scenarios}
    columns = min(2, len(tests))
    rows = -(-len(tests) // columns)
    room = Margins(left=0.95, right=0.95, top=0.42, bottom=0.12, across=1.9, down=0.5)
    height = 0.3 + 0.13 * max(len(test.ranks) for test in tests.values())
    whole = room.top + room.bottom + rows * height + (rows - 1) * room.down
    figure, axes = canvas(FULL_WIDTH if columns > 1 else COLUMN_WIDTH, whole, rows, columns, room)
    places = [ax for line in axes for ax in line]
    for ax in places[len(tests) :]:
        ax.set_axis_off()
    for ax, (scenario, test) in zip(places, tests.items(), strict=False):
        _diagram(ax, test, found)
        ax.set_title(scenario.upper(), pad=9)
    about = ". ".join(_words(study, scenario, test) for scenario, test in tests.items())
    caption = (
        "Critical-difference diagrams of ACC: average ranks over benchmarks (1 is best); bars join methods that "
        f"Nemenyi's test cannot distinguish at 5 %. {about}."
    )
    return Drawn("critical-difference", caption, figure)


def _diagram(ax: Axes, test: statistics.RankTest, found: dict[str, Look]) -> None:
    from scikit_posthocs import critical_difference_diagram

    labels = {str(label): label for label in found}  # an index keeps texts only, without their names for readers
    names = {name: f"{i} {cut(display(labels[str(name)]), 20)}" for i, name in enumerate(test.ranks.index)}
    critical_difference_diagram(
        test.ranks.rename(names),
        test.pairwise.rename(index=names, columns=names),
        ax=ax,
        label_fmt_left="{label} ({rank:.1f}) ",
        label_fmt_right=" {label} ({rank:.1f})",
        text_h_margin=0.01,
        color_palette={names[name]: found[str(name)].colour for name in names},
        label_props={"fontsize": 6.5},
        crossbar_props={"color": "black"},
    )
    for text in ax.texts:  # drop the numbers that kept truncated names unique
        text.set_text(re.sub(r"^( ?)\d+ (?=.)", r"\1", text.get_text()))


def _words(study: Study, scenario: str, test: statistics.RankTest) -> str:
    over = f"{scenario.upper()}: {test.blocks} benchmarks, Friedman p = {test.p:.3g}"
    return f"{over}{rank_notes(study, scenario)}"
