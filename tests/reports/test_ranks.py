"""What may be ranked together: benchmarks on which only some methods were run neither flatter these nor cut others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reports.findings import findings
from reports.load import load
from reports.metrics import ACC
from reports.panels import pages
from reports.ranks import critical_difference, not_drawn, ranked
from reports.statistics import untestable
from reports.study import SETS_AT_MOST, Study, shared, study
from reports.style import looks
from reports.tables import overview
from reports.trade_offs import loss_curves, trade_offs
from tests.reports.synthetic import Synthetic

FULL = {"finetune": 0.5, "ewc": 0.6, "hnet": 0.8, "hypermask": 0.7, "joint": 0.9}


def written(
    results: Path, benchmarks: Mapping[str, Sequence[str]], status: Mapping[tuple[str, str], str] | None = None
) -> Study:
    """One seed of every method on its benchmarks; `status` of those cells that are not done."""
    for benchmark, methods in benchmarks.items():
        for method in methods:
            r = np.full((3, 2), FULL[method])
            state = (status or {}).get((benchmark, method), "done")
            Synthetic(method, benchmark, n_tasks=2, accuracy=r, status=state).write(results)
    return study(load(results))


def rank_column(found: Study) -> dict[str, str]:
    (table,) = overview(found, "til", ACC)
    return {row[0].key: row[-1].text for row in table.rows}


def test_a_benchmark_with_some_methods_only_is_left_out_of_the_ranks(tmp_path: Path) -> None:
    found = written(tmp_path, {**dict.fromkeys(("a", "b", "c"), FULL), "few": ["finetune", "joint"]})
    groups, labels = found.comparable("til")
    assert [group.benchmark for group in groups] == ["a", "b", "c"]
    assert set(labels) == set(FULL) - {"joint"}
    assert rank_column(found) == {"finetune": "4.0", "ewc": "3.0", "hypermask": "2.0", "hnet": "1.0", "joint": "–"}
    (table,) = overview(found, "til", ACC)
    assert "3 benchmarks with 1 seed" in table.caption and "left out: Few (where other methods" in table.caption
    drawn = critical_difference(found, looks(found), ["til"])
    assert "3 benchmarks" in drawn.caption and "left out: Few (where other methods were run" in drawn.caption


def test_methods_are_cut_where_otherwise_too_few_benchmarks_were_left(tmp_path: Path) -> None:
    found = written(tmp_path, {"a": FULL, "b": FULL, "few": ["finetune", "ewc", "hnet"]})
    assert list(ranked(found, "til").columns) == ["finetune", "ewc", "hnet"]
    assert len(ranked(found, "til")) == 3
    assert "left out: HyperMask (not run on all of these" in critical_difference(found, looks(found), ["til"]).caption


def test_a_method_that_failed_does_not_take_its_benchmark_out(tmp_path: Path) -> None:
    found = written(tmp_path, dict.fromkeys(("a", "b", "c", "d"), FULL), {("d", "hypermask"): "failed"})
    assert len(found.comparable("til")[0]) == 4
    assert list(ranked(found, "til").columns) == ["finetune", "ewc", "hnet"]
    assert rank_column(found) == {"finetune": "3.0", "ewc": "2.0", "hypermask": "–", "hnet": "1.0", "joint": "–"}
    caption = critical_difference(found, looks(found), ["til"]).caption
    assert "left out: HyperMask (without a value on every seed)" in caption


def test_a_mean_of_the_seeds_that_survived_has_no_rank(tmp_path: Path) -> None:
    """HyperMask diverged on one of two seeds; the other is above all."""
    for benchmark in ("a", "b", "c"):
        for method, value in FULL.items():
            for seed in range(2):
                lost = method == "hypermask" and seed == 1
                r = np.full((3, 2), 0.99 if method == "hypermask" else value)
                cell = Synthetic(method, benchmark, seed=seed, n_tasks=2, accuracy=r)
                replace(cell, status="diverged" if lost else "done", reason="nan" if lost else None).write(tmp_path)
    found = study(load(tmp_path))
    assert list(ranked(found, "til").columns) == ["finetune", "ewc", "hnet"]
    assert rank_column(found) == {"finetune": "3.0", "ewc": "2.0", "hypermask": "–", "hnet": "1.0", "joint": "–"}
    (table,) = overview(found, "til", ACC)
    words = "left out: HyperMask (without a value on every seed)"
    assert words in table.caption and words in critical_difference(found, looks(found), ["til"]).caption


def test_methods_that_keep_data_are_named_where_they_have_no_rank(tmp_path: Path) -> None:
    written(tmp_path, dict.fromkeys(("a", "b", "c"), FULL))
    for benchmark in ("a", "b", "c"):
        held = {"held": {"rehearses": True, "declared": 9, "found": 9}}
        Synthetic("replay", benchmark, n_tasks=2, accuracy=np.full((3, 2), 0.9), fairness=held).write(tmp_path)
    found = study(load(tmp_path))
    caption = critical_difference(found, looks(found), ["til"]).caption
    assert "left out: replay (keeping training data of earlier tasks)" in caption


@pytest.mark.parametrize("k", [4, 24])
def test_the_largest_table_is_found_among_very_many(k: int) -> None:
    """Each of k benchmarks lacks another of k methods: half of each are the most cells; all tables are 2 to the k."""
    methods = frozenset(f"m{i}" for i in range(k))
    sets = [methods - {f"m{i}"} for i in range(k)]
    found = shared(sets)
    assert len(found) <= SETS_AT_MOST + 1
    assert max(sum(labels <= other for other in sets) * len(labels) for labels in found) == (k // 2) ** 2


def test_the_search_for_a_table_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = written(tmp_path, dict.fromkeys(("a", "b"), FULL))
    groups, labels = found.comparable("til")
    monkeypatch.setattr(Study, "_largest", None)
    groups.clear()
    assert found.comparable("til")[1] == labels and len(found.comparable("til")[0]) == 2


def test_a_cell_still_running_is_not_run_yet(tmp_path: Path) -> None:
    found = written(tmp_path, dict.fromkeys(("a", "b", "c", "d", "e"), FULL), {("e", "hypermask"): "running"})
    groups, labels = found.comparable("til")
    assert [group.benchmark for group in groups] == ["a", "b", "c", "d"]
    assert "hypermask" in labels and not untestable(ranked(found, "til"))


@pytest.mark.parametrize("complete", [False, True])
def test_the_summary_says_where_the_best_is_the_best_of_a_few(tmp_path: Path, complete: bool) -> None:
    found = written(tmp_path, {"a": FULL, "few": FULL if complete else ["finetune", "ewc", "joint"]})
    words = " ".join(findings(found))
    assert (
        "Few (60.0 %, 10.0 points ahead of Fine-tuning, of the 2 ranked methods run there)" in words
    ) is not complete
    assert "A (80.0 %, 10.0 points ahead of HyperMask)" in words


def test_a_method_that_was_run_on_one_benchmark_only_makes_the_others_no_few(tmp_path: Path) -> None:
    found = written(tmp_path, {"a": FULL, "b": [m for m in FULL if m != "hnet"], "c": [m for m in FULL if m != "hnet"]})
    assert "run there" not in " ".join(findings(found))


def test_methods_that_share_no_benchmark_are_not_ranked(tmp_path: Path) -> None:
    found = written(tmp_path, {"a": ["ewc"], "b": ["hnet"]})
    assert len(found.comparable("til")[0]) == 1
    (table,) = overview(found, "til", ACC)
    assert "rank" not in table.columns


def test_a_mean_of_one_seed_is_not_ranked_with_means_of_several(tmp_path: Path) -> None:
    """Three benchmarks with two seeds, three with one: only the first are blocks of one test."""
    written(tmp_path, dict.fromkeys(("a", "b", "c", "x", "y", "z"), FULL))
    for benchmark in ("x", "y", "z"):
        for method, value in FULL.items():
            r = np.full((3, 2), value)
            Synthetic(method, benchmark, n_tasks=2, seed=1, accuracy=r).write(tmp_path)
    found = study(load(tmp_path))
    groups, _ = found.comparable("til")
    assert len(groups) == 3 and len({len(found.seeds(group)) for group in groups}) == 1


def test_a_method_with_fewer_seeds_than_the_others_has_no_rank_there(tmp_path: Path) -> None:
    written(tmp_path, dict.fromkeys(("a", "b", "c"), FULL))
    for benchmark in ("a", "b", "c"):
        for method in set(FULL) - {"ewc"}:
            Synthetic(method, benchmark, n_tasks=2, seed=1, accuracy=np.full((3, 2), FULL[method])).write(tmp_path)
    found = study(load(tmp_path))
    assert set(found.comparable("til")[1]) == {"finetune", "hnet", "hypermask"}
    assert "left out: EWC (not run on all of these with all seeds)" in overview(found, "til", ACC)[0].caption


def test_the_line_of_best_costs_leaves_out_what_its_caption_says(tmp_path: Path) -> None:
    """Finetune is a reference, but may be on it."""
    for method, value in (("ewc", 0.6), ("joint", 0.8), ("finetune", 0.9)):  # by cost
        Synthetic(method, n_tasks=2, accuracy=np.full((3, 2), value)).write(tmp_path)
    found = study(load(tmp_path))
    (job,) = [job for job in trade_offs(found) if job.func.__name__ == "_cost"]
    drawn = job(found, looks(found))
    (line,) = [line for line in drawn.figure.axes[0].lines if line.get_linestyle() == "-"]
    assert list(line.get_ydata()) == pytest.approx([60, 90])
    assert "joint, methods that keep training data and methods without a value on every seed left out" in drawn.caption
    assert "Hollow" not in drawn.caption


@pytest.mark.parametrize("name", ["_cost", "_transfer"])
def test_means_of_some_seeds_are_hollow_and_off_the_line(tmp_path: Path, name: str) -> None:
    """SI, the cheapest and best, diverged on one of two seeds; EWC and MAS cost and answer alike."""
    for method, value in (("si", 0.9), ("ewc", 0.6), ("mas", 0.6), ("hnet", 0.7)):
        for seed in range(2):
            status = "diverged" if seed and method == "si" else "done"
            r = np.full((3, 2), value)
            Synthetic(method, n_tasks=2, seed=seed, accuracy=r, status=status, reason="nan").write(tmp_path)
    found = study(load(tmp_path))
    (job,) = [job for job in trade_offs(found) if job.func.__name__ == name]
    drawn = job(found, looks(found))
    dots = [line for line in drawn.figure.axes[0].lines if line.get_linestyle() == "None"]
    assert {round(dot.get_ydata()[0]): dot.get_markerfacecolor() == "none" for dot in dots} == {
        90: True,
        60: False,
        70: False,
    }
    assert "Hollow: mean over some of the seeds only." in drawn.caption
    if name == "_cost":
        (line,) = [line for line in drawn.figure.axes[0].lines if line.get_linestyle() == "-"]
        assert list(line.get_ydata()) == pytest.approx([60, 60, 70]), "EWC and MAS are equal, and both are on it"


@pytest.mark.parametrize("least", ["0", "0.1"])
def test_losses_of_zero_are_said_not_to_be_drawn(tmp_path: Path, least: str) -> None:
    folder = Synthetic("ewc", n_tasks=1).write(tmp_path)
    (folder / "steps.csv").write_text(f"task,step,loss\n0,50,0.5\n0,100,{least}\n")
    found = study(load(tmp_path))
    (page,) = pages(found, lambda group: True)
    assert ("not drawn" in loss_curves(found, looks(found), page).caption) is (least == "0")


def test_there_is_no_bar_without_a_significant_test(tmp_path: Path) -> None:
    """Two orders that cancel out: Friedman's test shows nothing, so that Nemenyi's may not group the methods."""
    clear = written(tmp_path / "clear", dict.fromkeys(("a", "b", "c"), FULL))
    assert not_drawn(clear, "til") is None
    assert [job.func for job in trade_offs(clear)].count(critical_difference) == 1
    values = list(FULL.values())[:4]
    for i, benchmark in enumerate(("a", "b", "c", "d")):
        for method, value in zip(FULL, [*values[i:], *values[:i]], strict=False):
            Synthetic(method, benchmark, n_tasks=2, accuracy=np.full((3, 2), value)).write(tmp_path / "level")
    level = study(load(tmp_path / "level"))
    assert not untestable(ranked(level, "til"))
    assert "Friedman's test shows no difference (p = " in str(not_drawn(level, "til"))
    assert critical_difference not in [job.func for job in trade_offs(level)]


def test_joint_is_a_reference_that_others_may_beat(tmp_path: Path) -> None:
    for method, value in {"ewc": 0.8, "hnet": 0.9, "joint": 0.85}.items():
        for benchmark in ("a", "b"):
            above = value - (benchmark == "b") * (method == "hnet") * 0.2
            r = np.full((3, 2), above)
            Synthetic(method, benchmark, n_tasks=2, accuracy=r).write(tmp_path)
    words = " ".join(findings(study(load(tmp_path))))
    assert "a reference and no bound: another method has a higher mean ACC in 1 of 2" in words and "(A, TIL)" in words
    assert "upper bound" not in words
