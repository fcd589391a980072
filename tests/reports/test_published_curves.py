"""Published accuracies on every task: next to ours of the same network and value only, with the right differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

from benchmarks.catalogue import BENCHMARKS
from benchmarks.types import Scenario
from methods import registry
from reports.curve_figures import curve_figures
from reports.load import load
from reports.panels import Drawn
from reports.published_curves import RELEASED, curve_table, curves
from reports.study import Study, study
from reports.style import drawing
from tests.reports.synthetic import Synthetic

NETWORK = "mlp-1000-1000"
OURS = [0.90, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99]


def write(
    results: Path,
    scenario: str = "dil",
    label: str = "hyperinterval",
    final: Sequence[float] = OURS,
    steps: int = 1000,
    seed: int = 0,
    other: Mapping[str, Any] | None = None,
    **changed: Any,
) -> None:
    """Write a record of HyperInterval at the released settings; `changed` hyperparameters, `other` fields."""
    config = {"lr": 0.001, **RELEASED.get(scenario, RELEASED["dil"]), "strength_per": "network", **changed}
    r = np.full((11, 10), 0.5)
    r[-1] = final
    fields: dict[str, Any] = {"method": "hyperinterval", "benchmark": "permuted-mnist-10", "network": NETWORK}
    fields |= {"budget": {"batch_size": 128, "steps": steps, "epochs": None}, **(other or {})}
    Synthetic(
        scenario=scenario, seed=seed, n_tasks=10, classes_per_task=10, label=label, config=config, accuracy=r, **fields
    ).write(results)


def read(results: Path) -> Study:
    return study(load(results))


def figures(found: Study) -> list[Drawn]:
    with drawing():
        return [job(found, {}) for job in curve_figures(found)]


def rows(found: Study) -> dict[str, dict[str, str]]:
    """Texts of the table by row and hyperparameter."""
    table = curve_table(found)
    assert table
    names = ("benchmark", "hyperparameter", "row", "authors", "ours", "n", "difference")
    texts = [
        dict(zip(names, (cell.text + f"[{cell.mark}]" * bool(cell.mark) for cell in row), strict=True))
        for row in table.rows
    ]
    return {f"{one['benchmark'][-3:]} {one['hyperparameter']} {one['row']}": one for one in texts}


def test_the_file_holds_curves_of_things_we_have_and_their_means() -> None:
    """A wrong digit in a task or in a mean would part the two; each has its own rounding."""
    assert len({(c.scenario, c.parameter, c.value) for c in curves()}) == len(curves()) == 22
    for curve in curves():
        assert curve.method in registry.available() and curve.scenario in set(Scenario)
        tasks = BENCHMARKS[curve.benchmark].n_tasks
        assert all(1 <= task <= tasks and 0 < value < 100 for task, value in curve.tasks.items())
        assert curve.source and 0 < curve.error < 1
        rounding = 0.01 if curve.scenario == "til" else 0.1
        if curve.note:
            assert len(curve.tasks) < tasks and (curve.scenario, curve.parameter) == ("til", "eps")
        else:
            assert curve.mean == pytest.approx(fmean(curve.tasks.values()), abs=rounding) and len(curve.tasks) == tasks


def test_one_panel_for_each_scenario_and_hyperparameter_with_the_lines_of_our_values(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, label="hyperinterval-beta-0.1", beta=0.1, final=OURS[::-1])
    write(tmp_path, "til", label="hyperinterval-beta-1", beta=1)
    (drawn,) = figures(read(tmp_path))
    panels = {ax.get_title(): ax for ax in drawn.figure.axes if ax.axison}
    assert list(panels) == ["TIL, by beta", "DIL, by beta", "DIL, by eps"]
    expected = {"TIL, by beta": ("1", OURS), "DIL, by beta": ("0.1", OURS[::-1]), "DIL, by eps": ("5", OURS)}
    for title, (value, ours) in expected.items():
        scenario, parameter = title[:3].lower(), title.split()[-1]
        (curve,) = [c for c in curves() if (c.scenario, c.parameter, c.value) == (scenario, parameter, value)]
        dashed, solid = panels[title].lines
        assert (dashed.get_linestyle(), solid.get_linestyle()) == ("--", "-")
        assert to_hex(dashed.get_color()) == to_hex(solid.get_color())
        assert list(dashed.get_ydata()) == [curve.tasks[task] for task in range(1, 11)]
        assert list(solid.get_ydata()) == pytest.approx([100 * value for value in ours])
        assert list(dashed.get_xdata()) == list(solid.get_xdata()) == list(range(1, 11))
        assert [text.get_text() for text in panels[title].get_legend().get_texts()] == [f"{parameter} {value}"]


def test_values_of_one_panel_differ_in_colour_and_seeds_are_averaged(tmp_path: Path) -> None:
    write(tmp_path, label="a", eps=10.0)
    write(tmp_path, label="b", eps=25.0)
    write(tmp_path, label="b", eps=25.0, seed=1, final=[value - 0.1 for value in OURS])
    (drawn,) = figures(read(tmp_path))
    (panel,) = drawn.figure.axes
    solid = [line for line in panel.lines if line.get_linestyle() == "-"]
    assert len({to_hex(line.get_color()) for line in panel.lines}) == len(solid) == len(panel.lines) / 2 == 2
    assert list(solid[1].get_ydata()) == pytest.approx([100 * value - 5 for value in OURS])
    assert rows(read(tmp_path))["DIL eps 25 b"]["ours"] == "89.50 ± 7.07"


def test_the_table_has_their_mean_ours_and_the_difference(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, label="low", beta=0.001)
    write(tmp_path, "til", label="wide", eps=10.0)
    found, low_row = rows(read(tmp_path)), "beta 0.001 HyperInterval (beta = 0.001)"
    assert list(found) == ["TIL eps 10 wide", f"DIL {low_row}", "DIL eps 5 HyperInterval"]
    low, wide = found[f"DIL {low_row}"], found["TIL eps 10 wide"]
    assert (low["authors"], low["ours"], low["difference"]) == ("45.3 ± 0.5", "94.50", "−49.2")
    assert found["DIL eps 5 HyperInterval"]["difference"] == "−9.2"
    assert (wide["authors"], wide["difference"]) == ("95.2 ± 0.7[a]", "+0.7")


def test_a_curve_read_in_part_is_drawn_as_its_tasks_alone(tmp_path: Path) -> None:
    write(tmp_path, "til", label="wide", eps=10.0)
    write(tmp_path, "til", label="wider", eps=15.0)  # of which the mean alone was read
    (drawn,) = figures(read(tmp_path))
    (panel,) = drawn.figure.axes
    assert [line.get_linestyle() for line in panel.lines] == ["None", "-", "None", "-"]
    assert list(panel.lines[0].get_xdata()) == [2, 5] and list(panel.lines[2].get_xdata()) == []


@pytest.mark.parametrize(
    ("scenario", "other", "changed"),
    [
        ("dil", {"network": "mlp-100-100"}, {}),
        ("dil", {"benchmark": "permuted-mnist-100"}, {}),
        ("dil", {"method": "hnet"}, {}),
        ("cil", {}, {}),
        ("dil", {}, {"beta": 0.02}),
        ("dil", {}, {"beta": 0.1, "eps": 10.0}),
        ("til", {}, {"beta": 0.1, "eps": 5.0}),
        ("dil", {}, {"strength_per": "weight"}),
        ("dil", {}, {"regulariser_norm": "sum"}),
        ("dil", {}, {"embedding": 2}),
        ("dil", {}, {"hidden": [5]}),
        ("dil", {}, {"lr": 0.1}),
        ("dil", {"budget": {"batch_size": 7, "steps": 5000, "epochs": None}}, {}),
    ],
)
def test_other_runs_are_never_next_to_theirs(
    tmp_path: Path, scenario: str, other: dict[str, Any], changed: dict[str, Any]
) -> None:
    """Another network, benchmark, method or scenario; a value without a curve; both hyperparameters changed; other
    forms of the regulariser; another hypernetwork, learning rate or batch size."""
    write(tmp_path, scenario, label="odd", other=other, **changed)
    assert figures(read(tmp_path)) == [] and curve_table(read(tmp_path)) is None
    write(tmp_path, "dil", label="even")
    assert list(rows(read(tmp_path))) == ["DIL eps 5 even"]
    (drawn,) = figures(read(tmp_path))
    assert [len(ax.lines) for ax in drawn.figure.axes] == [2]


def test_another_selection_or_answer_than_theirs_is_named(tmp_path: Path) -> None:
    write(tmp_path, label="alike", embedding=24, hidden=[100, 100], select="official", universal="official")
    write(tmp_path, label="ours", eps=10.0, select="val", universal="point")
    table = curve_table(read(tmp_path))
    assert table
    assert {row[2].key: row[2].mark for row in table.rows} == {"alike": "", "ours": "a"}
    assert table.notes == (
        "(a) ours: select val, the authors' program: official; ours: universal point, the authors' program: official",
    )


def test_lengths_are_stated_and_have_a_figure_each(tmp_path: Path) -> None:
    write(tmp_path, steps=1000)
    write(tmp_path, steps=5000, final=OURS[::-1])
    short, full = figures(read(tmp_path))
    assert short.stem != full.stem and all(len(one.figure.axes[0].lines) == 2 for one in (short, full))
    assert "Ours: 1000 steps a task; the authors' released settings: 5000 steps" in short.caption
    assert "Ours: 5000 steps a task" in full.caption
    table = curve_table(read(tmp_path))
    assert table and "Ours: 1000 steps or 5000 steps a task" in table.caption and len(table.rows) == 2
