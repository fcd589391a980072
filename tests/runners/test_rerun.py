"""`--rerun`: single cells by name; the old record stays until the new one is complete."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.types import UserError
from runners import again, completion, session
from runners.engines.engine import InlineEngine
from runners.engines.scheduler import Outcome, run_grid
from runners.grid.cells import Conditions
from runners.records.folder import CellFolder, hold
from tests.runners.helpers import Watching, cells, compare_here, foreign

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


def test_remarks_on_the_suite_are_told_of_one_cell_too(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    block = '[[settings]]\nmethod = "si"\nvalues = { strength = 1.0 }\n'
    mine.write_text('description = "d"\nmethods = ["ewc"]\n[[benchmarks]]\nname = "split-digits"\n' + block)
    for some in ({}, {"rerun": ("split-digits/til/ewc/seed1",)}):
        _, said = compare_here(tmp_path, suites=(str(mine),), scenarios=("til",), dry_run=True, **some)
        assert "settings[0] (si) meets no row of this suite" in said, some


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


def remade(results: Path) -> tuple[Path, list[Outcome]]:
    """A record, and the outcome of the same cell's new one, which waits in the scratch folder."""
    [cell] = cells("finetune", steps=3)
    for folder in (results, again.scratch(results)):
        outcomes = run_grid([cell], folder, Conditions(), InlineEngine(1), Watching())
    return cell.folder(results), outcomes


def started(place: Path) -> str:
    record = CellFolder(place).read()
    return record.started if record else ""


def test_a_crash_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    place, outcomes = remade(tmp_path)
    before, old = started(place), place.with_name(f".{place.name}.old")
    os.replace(place, old)
    again.recover(tmp_path)
    assert started(place) == before and not old.exists()
    shutil.copytree(place, old)
    again.recover(tmp_path)
    assert started(place) == before and not old.exists()
    os.replace(place, old)
    with CellFolder(place).lock():  # a command that began the cell makes its folder
        pass
    assert again.put_in_place(outcomes, tmp_path, pytest.fail) and started(place) > before
    assert [entry.name for entry in place.parent.iterdir()] == [place.name]


def test_of_two_commands_that_make_one_record_again_both_end_well(tmp_path: Path) -> None:
    place, outcomes = remade(tmp_path)
    before = started(place)
    (first,) = again.put_in_place(outcomes, tmp_path, pytest.fail)
    after = started(place)
    assert after > before and again.put_in_place(outcomes, tmp_path, pytest.fail) == [first] and started(place) == after


def test_another_command_recovers_nothing_while_records_are_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, outcomes = remade(tmp_path)
    before, put, seen = started(place), os.replace, []

    def replaced(source: Path, target: Path) -> None:
        put(source, target)
        if str(target).endswith(".old"):
            again.recover(tmp_path)
            seen.append(place.exists())

    monkeypatch.setattr(os, "replace", replaced)
    again.put_in_place(outcomes, tmp_path, pytest.fail)
    assert seen == [False] and started(place) > before
    monkeypatch.setattr(again, "SECONDS_TO_WAIT", 0.0)
    with hold(tmp_path / again.LOCK), pytest.raises(UserError, match="another command puts its records in place"):
        again.put_in_place(outcomes, tmp_path, pytest.fail)


def test_a_record_on_another_file_system_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, outcomes = remade(tmp_path)
    before, put, stat = started(place), os.replace, Path.stat

    def elsewhere(path: object) -> bool:
        return again.SCRATCH in Path(str(path)).parts

    def replaced(source: Path, target: Path) -> None:
        if elsewhere(source) != elsewhere(target):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        put(source, target)

    def at(path: Path, **options: bool) -> Any:
        found = stat(path, **options)
        return SimpleNamespace(st_dev=-1, st_mode=found.st_mode) if path == outcomes[0].folder else found

    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(Path, "stat", at)
    again.put_in_place(outcomes, tmp_path, pytest.fail)
    assert started(place) > before and not again.scratch(tmp_path).exists()
    assert [entry.name for entry in place.parent.iterdir()] == [place.name]


def test_what_was_set_aside_stays(tmp_path: Path) -> None:
    place, outcomes = remade(tmp_path)
    CellFolder(place).set_aside()
    (place / "cell.json").write_text('{"schema": 2}')
    said: list[str] = []
    again.put_in_place(outcomes, tmp_path, said.append)
    assert len(said) == 1 and said[0].endswith("moved to aside-1")
    assert (place / "aside-1" / "cell.json.old").read_text() == '{"schema": 2}' and started(place)
    assert (place / "aside-0" / "accuracy.csv.old").exists()


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
