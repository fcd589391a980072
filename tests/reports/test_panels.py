"""Figures of many panels."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports.figures import accuracy_curves, final_accuracy, transfer_bars
from reports.load import load
from reports.panels import any_done, pages, panels
from reports.study import study
from reports.style import drawing, looks
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
    for draw, expected in ((accuracy_curves, [True, True, True]), (transfer_bars, [True, False, True])):
        axes = draw(found, looks(found), page).figure.axes
        shown = [any(label.get_visible() for label in ax.get_yticklabels()) for ax in axes if ax.axison]
        assert shown == expected, draw.__name__


def test_long_titles_are_broken_and_do_not_run_into_each_other(tmp_path: Path) -> None:
    for benchmark, network in (("permuted-mnist-10", "mlp-100-100"), ("split-cifar-100", "resnet-8")):
        budget = {"batch_size": 32, "steps": None, "epochs": 10}
        for scenario in ("til", "dil", "cil"):
            Synthetic("ewc", benchmark, scenario, network=network, budget=budget).write(tmp_path)
    for benchmark in ("split-digits", "split-mnist"):
        Synthetic("ewc", benchmark).write(tmp_path)
    found = study(load(tmp_path))
    for page in pages(found, lambda group: any_done(found, group)):
        with drawing():
            figure = panels(found, page, looks(found), lambda ax, group: [], "y", "x")
            figure.draw_without_rendering()
        boxes = [ax.title.get_window_extent() for ax in figure.axes if ax.get_title()]
        assert any("\n(" in ax.get_title() for ax in figure.axes)
        assert all(not one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
        assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 for box in boxes)


@pytest.mark.parametrize("tasks", [1, 2, 9])
def test_tasks_are_counted_by_whole_numbers(tmp_path: Path, tasks: int) -> None:
    Synthetic("ewc", n_tasks=tasks).write(tmp_path)
    found = study(load(tmp_path))
    (page,) = pages(found, lambda group: any_done(found, group))
    (ax,) = final_accuracy(found, looks(found), page).figure.axes
    ticks = [tick for tick in ax.get_xticks() if ax.get_xlim()[0] <= tick <= ax.get_xlim()[1]]
    assert ticks and all(tick == round(tick) for tick in ticks)


def test_the_name_of_the_axis_has_room_beside_long_numbers(tmp_path: Path) -> None:
    Synthetic("ewc").write(tmp_path)
    found = study(load(tmp_path))
    (page,) = pages(found, lambda group: any_done(found, group))
    with drawing():
        figure = panels(found, page, looks(found), lambda *_: [], "accuracy (%)", "x")
        (ax,) = figure.axes
        ax.set_yticks([99.25, 100.0])
        assert ax.get_yticklabels()[-1].get_text() == "100.00" and ax.yaxis.get_tightbbox().x0 >= 0
