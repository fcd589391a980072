"""Names at the ends of lines."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.figures import accuracy_curves, plan
from reports.line_labels import spread
from reports.load import load
from reports.panels import any_done, pages
from reports.study import study
from reports.style import drawing, looks
from tests.reports.synthetic import Synthetic

FEW = ("ewc", "finetune", "hnet", "joint", "lwf", "si")


@given(st.lists(st.floats(0, 1), max_size=9))
def test_names_stay_apart_in_order_and_in_the_panel(wanted: list[float]) -> None:
    places = spread(sorted(wanted), 0.1)
    assert all(later - earlier >= 0.1 - 1e-9 for earlier, later in pairwise(places))
    assert all(-0.1 - 1e-9 <= place <= 1 + 1e-9 for place in places)


def test_names_with_room_stay_at_their_lines() -> None:
    assert spread([0.1, 0.5, 0.9], 0.1) == pytest.approx([0.1, 0.5, 0.9])
    assert spread([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])


def test_lines_of_many_methods_have_their_names_at_their_ends(tmp_path: Path) -> None:
    for method in FEW:
        Synthetic(method).write(tmp_path)
    found = study(load(tmp_path))
    (page,) = pages(found, lambda group: any_done(found, group))
    with drawing():
        figure = accuracy_curves(found, looks(found), page).figure
        figure.draw_without_rendering()
    (ax,) = figure.axes
    boxes = {text.get_text(): text.get_window_extent() for text in ax.texts}
    assert boxes.keys() == {"EWC", "Fine-tuning", "HNET", "Joint", "LwF", "SI"} and not figure.legends
    colours = {text.get_text(): text.get_color() for text in ax.texts}
    assert colours["EWC"] == looks(found)["ewc"].colour
    apart = list(boxes.values())
    assert all(not one.overlaps(other) for i, one in enumerate(apart) for other in apart[:i])
    assert all(box.x1 <= figure.bbox.x1 for box in apart)


def test_a_panel_with_all_lines_at_the_top_is_left_out_and_said(tmp_path: Path) -> None:
    for scenario, value in (("til", 0.999), ("cil", 0.6)):
        for method in ("ewc", "hnet"):
            Synthetic(method, scenario=scenario, accuracy=np.full((6, 5), value)).write(tmp_path)
    found = study(load(tmp_path))
    with drawing():
        drawn = [job(found, looks(found)) for job in plan(found) if getattr(job, "func", None) is accuracy_curves]
    (one,) = drawn
    assert [ax.get_title() for ax in one.figure.axes] == ["CIL"]
    assert "Not drawn, since all methods stay above 99.5 %: Split Digits, TIL." in one.caption
