"""`--rerun`: single cells by name; the old record stays until the new one is complete."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.types import UserError
from runners import again, completion, session
from tests.runners.helpers import cells, compare_here, foreign

GRID = {"methods": ("finetune", "ewc"), "scenarios": ("til",), "benchmarks": ("split-digits",), "seeds": 2}


def records(results: Path) -> dict[str, dict[str, object]]:
    files = results.glob("*/*/*/seed*/cell.json")
    return {file.parent.relative_to(results).as_posix(): json.loads(file.read_text()) for file in files}


def test_only_the_named_cell_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[str] = []
    monkeypatch.setattr(session, "_report", lambda grid, *_: reported.extend(cell.place for cell in grid) or True)
    compare_here(tmp_path, **GRID)
    before = records(tmp_path)
    place = next(name for name in before if "/ewc/seed1-" in name)
    code, said = compare_here(tmp_path, **GRID, rerun=(place,), command="again", report=True)
    after = records(tmp_path)
    assert code == 0 and "1 done" in said
    assert after.keys() == before.keys() and not (tmp_path / again.SCRATCH).exists()
    assert [name for name in after if after[name]["command"] == "again"] == [place]
    assert after[place]["files"]["accuracy.csv"] == before[place]["files"]["accuracy.csv"]  # type: ignore[index]
    assert set(reported) == set(after), "the report is of the whole grid"


def test_a_plan_counts_a_finished_cell_as_one_to_run(tmp_path: Path) -> None:
    compare_here(tmp_path, **GRID)
    _, said = compare_here(tmp_path, **GRID, dry_run=True, verbose=True)
    assert "4 cells, 4 finished, 0 to run" in said
    name = next(line.split(":")[0].strip() for line in said.splitlines() if "/finetune/seed1-" in line)
    _, said = compare_here(tmp_path, **GRID, dry_run=True, rerun=(name,))
    assert "1 cell, 0 finished, 1 to run" in said


def test_the_old_record_stays_while_the_new_one_is_incomplete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {**GRID, "methods": ("finetune",), "seeds": 1}
    compare_here(tmp_path, **options)
    before = records(tmp_path)
    (place,) = before

    def stopped(*_arguments: object) -> None:
        assert records(tmp_path) == before
        raise KeyboardInterrupt

    monkeypatch.setattr(again, "put_in_place", stopped)
    with pytest.raises(KeyboardInterrupt):
        compare_here(tmp_path, **options, rerun=(place,), command="again")
    assert records(tmp_path) == before
    monkeypatch.undo()
    compare_here(tmp_path, **options, rerun=(place,), command="another")
    assert records(tmp_path)[place]["command"] == "again", "the finished new record is put in place, not made again"


def test_a_failure_keeps_the_old_record(tmp_path: Path) -> None:
    options = {**GRID, "methods": (), "foreign": (foreign("Raises"),), "seeds": 1, "check": False}
    code, said = compare_here(tmp_path, **options)
    before = records(tmp_path)
    (place,) = before
    code, said = compare_here(tmp_path, **options, rerun=(place,), command="again")
    assert code == 1 and records(tmp_path) == before and again.SCRATCH in said


def test_a_crash_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    place, old = tmp_path / "b" / "til" / "m" / "seed0-1", again.scratch(tmp_path) / "b" / "til" / "m" / "seed0-1.old"
    for folder in (place.parent, old):
        folder.mkdir(parents=True)
    (old / "cell.json").write_text("old")
    again.recover(tmp_path)
    assert (place / "cell.json").read_text() == "old" and not old.exists()
    old.mkdir()
    again.recover(tmp_path)
    assert (place / "cell.json").read_text() == "old" and not old.exists()


def test_names(tmp_path: Path) -> None:
    grid = cells("finetune", "ewc", seeds=2)
    wanted = next(cell for cell in grid if cell.label == "ewc" and cell.seed == 1)
    for name in (
        wanted.place, wanted.title, "split-digits/til/ewc/seed1", f"results/{wanted.place}/",
        wanted.place.replace("/", " "),
    ):  # fmt: skip
        assert again.chosen(grid, [name]) == [wanted], name
    with pytest.raises(UserError, match=r"no such cell\. Did you mean split-digits/til/ewc/seed1\?"):
        again.chosen(grid, ["split-digits/til/ewc/seed11"])
    with pytest.raises(UserError, match=r"2 cells have this name; write one of split-digits/til/ewc/seed1-"):
        again.chosen([*grid, *cells("ewc", seeds=2, steps=7)], ["split-digits/til/ewc/seed1"])


@pytest.mark.parametrize("seeds", [(1_000_000,), (3, 1_000_001), (-1,), ()])
def test_seeds_that_are_refused(seeds: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="--seeds"):
        session.check(session.Options(suites=("quick",), seeds=seeds))


def test_completion_offers_the_cells_on_record(tmp_path: Path) -> None:
    for seed in (0, 1):
        (tmp_path / "split-digits" / "til" / "ewc" / f"seed{seed}-0123456789ab").mkdir(parents=True)
    ctx: Any = SimpleNamespace(params={"results": tmp_path})
    assert completion.cells(ctx, "split-digits/til/ewc/seed1") == ["split-digits/til/ewc/seed1-0123456789ab"]
    assert len(completion.cells(ctx, "split")) == 2 and completion.cells(ctx, "other") == []
