"""Figures of many panels."""

from __future__ import annotations

from pathlib import Path

from reports.figures import accuracy_curves, transfer_bars
from reports.load import load
from reports.panels import any_done, pages
from reports.study import study
from reports.style import looks
from tests.reports.synthetic import Synthetic


def test_the_first_panel_of_every_row_is_labelled(tmp_path: Path) -> None:
    """Also where the first column is empty, as for a benchmark that was run in one scenario only."""
    for benchmark, scenarios in (("split-cifar-100", ["til"]), ("split-mnist", ["til", "dil"])):
        for scenario in scenarios:
            for method in ("ewc", "finetune"):
                Synthetic(method, benchmark=benchmark, scenario=scenario).write(tmp_path)
    found = study(load(tmp_path))
    (page,) = pages(found, lambda group: any_done(found, group))
    assert [[group is not None for group in row] for row in page.rows] == [[True, True], [False, True]]
    for draw in (accuracy_curves, transfer_bars):
        axes = draw(found, looks(found), page).figure.axes
        shown = [any(label.get_visible() for label in ax.get_yticklabels()) for ax in axes if ax.axison]
        assert shown == [True, False, True], draw.__name__
