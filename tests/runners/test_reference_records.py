"""Reference records: the same numbers after the way through the repository, and no run where they serve."""

import io
import json
import os
import re
import threading
from contextlib import suppress
from dataclasses import replace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from benchmarks.types import Budget, UserError
from runners import reference
from runners.cell.blank import blank_record
from runners.command_line import EXIT_INTERRUPTED
from runners.records import reference_records
from runners.records.folder import CellFolder
from runners.records.record import Status

from .helpers import cells, compare_here, foreign, job, silent, tables


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A results folder with a certifying method and one that is skipped, and the reference made of it."""
    from runners.cell.execution import run_cell

    results, folder = tmp_path_factory.mktemp("results"), tmp_path_factory.mktemp("reference")
    grid = cells("finetune", "intercontinet", steps=30)
    for cell in grid:
        run_cell(job(cell, results), silent)
    reference_records.write(reference_records.collect(results), folder)
    reference_records.copy_sheets(results, folder)
    return results, folder, grid


def test_unpacked_records_are_those_that_were_collected(recorded, tmp_path):
    results, folder, grid = recorded
    assert reference_records.unpack(tmp_path, folder) == len(grid)
    sheet = "split-digits/samples.png"
    assert (tmp_path / sheet).read_bytes() == (results / sheet).read_bytes()
    known, restored = tables(results), tables(tmp_path)
    assert known.keys() == restored.keys()
    for name in known:
        if not name.endswith("steps.csv"):
            assert restored[name] == known[name]
    for cell in grid:
        before, after = CellFolder(cell.folder(results)).read(), CellFolder(cell.folder(tmp_path)).read()
        assert after.environment == before.environment
        assert after.seconds == before.seconds
        assert after.key == before.key


def test_the_last_loss_of_every_task_survives_thinning():
    rows = [f"{task},{step},{1 / (step + task + 1)}" for task in range(2) for step in range(1, 104)]
    thin = reference_records._thinned("\n".join(["task,step,loss", *rows]) + "\n").splitlines()
    assert len(thin) <= 1 + 2 * reference_records.CURVE_POINTS
    assert [line.split(",")[:2] for line in thin if line.split(",")[1] == "103"] == [["0", "103"], ["1", "103"]]


def test_writing_twice_gives_the_same_bytes_in_any_order(recorded, tmp_path):
    _, folder, _ = recorded
    found = list(reference_records.read(folder).values())
    reference_records.write(reversed(found), tmp_path)
    for file in folder.glob("*.json*"):
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()


def test_records_that_are_no_longer_wanted_go_with_their_file(recorded, tmp_path):
    _, folder, _ = recorded
    known = list(reference_records.read(folder).values())
    reference_records.write(known, tmp_path)
    moved = [replace(cell, record=replace(cell.record, benchmark="another")) for cell in known]
    reference_records.write(moved, tmp_path)
    assert [file.name for file in tmp_path.glob("*.jsonl")] == ["another-til.jsonl"]
    assert {cell.record.benchmark for cell in reference_records.read(tmp_path).values()} == {"another"}


@pytest.mark.parametrize("cut", range(4))
def test_wherever_a_write_is_cut_off_the_folder_stays_readable(recorded, tmp_path, monkeypatch, cut):
    """Three files are put in place: all environments, the records, the environments that are left."""
    _, folder, _ = recorded
    for file in folder.glob("*.json*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    known = list(reference_records.read(folder).values())
    moved = [replace(cell, record=replace(cell.record, environment={"device_name": "another"})) for cell in known]
    put, written = os.replace, []

    def interrupted(source, target):
        if len(written) == cut:
            raise KeyboardInterrupt
        written.append(target)
        put(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with suppress(KeyboardInterrupt):
        reference_records.write(moved, tmp_path)
    assert reference_records.read(tmp_path).keys() == {cell.record.key for cell in known} and len(written) == cut
    if cut == 3:
        (left,) = json.loads((tmp_path / reference_records.ENVIRONMENTS).read_text()).values()
        assert left == {"device_name": "another"}


def test_a_cell_run_anew_with_other_code_replaces_the_old_one(recorded):
    from dataclasses import replace

    _, folder, grid = recorded
    known = list(reference_records.read(folder).values())
    newer = replace(known[0], record=replace(known[0].record, key="0" * 64, source="other"))
    other = replace(known[0], record=replace(known[0].record, key="1" * 64, config={"lr": 7.0}))
    merged = reference_records.merged(known, [newer, other])
    assert len(merged) == len(grid) + 1
    assert known[0].record.key not in {cell.record.key for cell in merged}


def test_two_commands_on_one_folder_lose_no_record(recorded, tmp_path, monkeypatch):
    """The second begins while the first is between reading and writing."""
    _, folder, _ = recorded
    known = next(iter(reference_records.read(folder).values()))
    for digit in "ab":
        place = CellFolder(tmp_path / digit / "split-digits" / "til" / "finetune" / f"seed0-{digit * 12}")
        place.path.mkdir(parents=True)
        config, here = {"lr": digit}, {"device_name": digit}
        place.write_files(replace(known.record, key=digit * 64, config=config, environment=here), known.tables)

    def add(digit):
        reference._add([tmp_path / digit], tmp_path / "out", False, Console(file=io.StringIO()))

    second, write = threading.Thread(target=add, args="b"), reference_records.write

    def slow(cells, out):
        if not second.ident:
            second.start()
            second.join(0.5)
        write(cells, out)

    monkeypatch.setattr(reference_records, "write", slow)
    add("a")
    second.join()
    assert reference_records.read(tmp_path / "out").keys() == {"a" * 64, "b" * 64}


def test_a_folder_that_another_command_changes_is_named(recorded, tmp_path, monkeypatch):
    results, folder, _ = recorded
    monkeypatch.setattr(reference_records, "SECONDS_TO_WAIT", 0.0)
    with reference_records.changing(tmp_path):
        assert refused(results, "--out", tmp_path).startswith("another command changes the records in")
    reference_records.write(reference_records.read(folder).values(), tmp_path)
    assert (
        refused(results, "--same-numbers", results, "--out", tmp_path / "absent") and not (tmp_path / "absent").exists()
    )


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_of_equal_cells_that_of_the_folder_named_last_is_kept(recorded, tmp_path, order):
    _, folder, _ = recorded
    known = next(iter(reference_records.read(folder).values()))
    for digit in order:
        place = CellFolder(tmp_path / digit / "split-digits" / "til" / "finetune" / f"seed0-{digit * 12}")
        place.path.mkdir(parents=True)
        place.write_files(replace(known.record, key=digit * 64, source=digit), known.tables)
    given = [*(str(tmp_path / name) for name in order), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(reference.app, given, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert [*reference_records.read(tmp_path / "out")] == [order[-1] * 64]


@pytest.mark.parametrize(
    "changes",
    [
        {"budget": Budget(64, steps=31)},
        {"budget": Budget(64, epochs=30)},
        {"network": "mlp-9"},
        {"n_tasks": 4},
        {"classes_per_task": 3},
        {"seed": 7},
        {"label": "a variant"},
    ],
    ids=str,
)
def test_a_cell_that_differs_in_more_than_the_code_replaces_none(recorded, changes):
    _, folder, _ = recorded
    known = list(reference_records.read(folder).values())
    other = replace(known[0], record=replace(known[0].record, key="2" * 64, **changes))
    assert reference_records.merged(known, [other]) == [*known, other]


def test_a_row_with_other_values_takes_the_place_of_all_its_seeds(recorded):
    _, folder, _ = recorded
    known = list(reference_records.read(folder).values())
    first = known[0].record
    more = [replace(known[0], record=replace(first, key=str(seed) * 64, seed=seed)) for seed in (1, 2)]
    new = replace(known[0], record=replace(first, key="9" * 64, config={**first.config, "lr": 7.0}))
    another = replace(new, record=replace(new.record, label="a variant"))
    assert reference_records.without_rows_of([*known, *more], [new]) == known[1:]
    assert reference_records.without_rows_of([*known, *more], [another, more[0]]) == [*known, *more]


def test_a_cell_that_has_begun_is_taken_and_one_that_has_ended_is_not(recorded, tmp_path):
    _, folder, grid = recorded
    place = CellFolder(grid[0].folder(tmp_path))
    place.path.mkdir(parents=True)
    place.write(blank_record(job(grid[0], tmp_path), Status.RUNNING))
    assert reference_records.take(grid[:1], tmp_path, pytest.fail, folder) == 1
    assert place.read() == reference_records.read(folder)[grid[0].key].record
    assert reference_records.take(grid[:1], tmp_path, pytest.fail, folder) == 0


def test_a_taken_record_has_the_rows_label_and_the_suites_words_on_how_its_values_were_chosen(recorded, tmp_path):
    _, folder, grid = recorded
    cell = replace(grid[0], chosen={"lr": "chosen anew"}, label="a row", suite="a suite")
    assert reference_records.take([cell], tmp_path, pytest.fail, folder) == 1
    record = CellFolder(cell.folder(tmp_path)).read()
    assert (record.label, record.suite, record.chosen) == ("a row", "a suite", {"lr": "chosen anew"})


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[:-30],
        lambda line: line.replace('"seed": 0', '"seed": 1'),
        lambda line: line.replace("after,task0", "after,task1"),
    ],
    ids=["cut short", "altered record", "altered table"],
)
def test_damage_is_named_and_nothing_is_taken(recorded, tmp_path, damage):
    _, folder, grid = recorded
    for file in folder.glob("*.json*"):
        (tmp_path / file.name).write_text(file.read_text())
    file = tmp_path / "split-digits-til.jsonl"
    first, rest = file.read_text().split("\n", 1)
    assert damage(first) != first
    file.write_text(damage(first) + "\n" + rest)
    with pytest.raises(UserError, match=r"split-digits-til\.jsonl, line 1"):
        reference_records.take(grid, tmp_path / "results", pytest.fail, tmp_path)
    assert not (tmp_path / "results").exists()


def test_only_the_new_methods_cells_run(recorded, tmp_path, monkeypatch):
    _, folder, _ = recorded
    monkeypatch.setattr(reference_records, "FOLDER", folder)
    options = {"methods": ("finetune",), "scenarios": ("til",), "seeds": 1, "budget_scale": 0.1}
    code, said = compare_here(tmp_path, foreign=(foreign("Good"),), **options)
    assert code == 0
    assert "1 cell taken from the reference records" in said
    found = {
        path.parts[-4] + path.parts[-3]: json.loads(path.read_text()) for path in tmp_path.glob("*/*/*/*/cell.json")
    }
    commands = {body["method"]: body["command"] for body in found.values()}
    assert commands["finetune"] == "test"


def test_a_taken_cell_sets_an_unusable_record_aside(recorded, tmp_path):
    _, folder, grid = recorded
    place = CellFolder(grid[0].folder(tmp_path))
    place.path.mkdir(parents=True)
    (place.path / "cell.json").write_text('{"schema": 2}')
    said: list[str] = []
    assert reference_records.take(grid[:1], tmp_path, said.append, folder) == 1 and place.read() is not None
    assert len(said) == 1 and said[0].startswith(f"{grid[0].place}: unusable record (schema 2")
    assert (place.path / "aside-0" / "cell.json.old").read_text() == '{"schema": 2}'


def test_a_plain_run_trains_everything_itself(recorded, tmp_path, monkeypatch):
    _, folder, _ = recorded
    monkeypatch.setattr(reference_records, "FOLDER", folder)
    code, said = compare_here(tmp_path, methods=("finetune",), scenarios=("til",), seeds=1, budget_scale=0.1)
    assert code == 0
    assert "taken" not in said


@pytest.mark.parametrize(
    ("wanted", "said_of_them", "left"), [(True, "will be taken", "0 to run"), (False, "could be taken", "1 to run")]
)
def test_a_dry_run_counts_them(recorded, tmp_path, monkeypatch, wanted, said_of_them, left):
    _, folder, _ = recorded
    monkeypatch.setattr(reference_records, "FOLDER", folder)
    options = {"methods": ("finetune",), "scenarios": ("til",), "seeds": 1, "budget_scale": 0.1}
    _, said = compare_here(tmp_path, reference=wanted, dry_run=True, **options)
    assert f"1 cell {said_of_them}" in said and left in said


def test_no_reference_at_all(tmp_path):
    assert reference_records.read(tmp_path / "absent") == {}
    with pytest.raises(UserError, match="no reference records"):
        reference_records.unpack(tmp_path / "results", tmp_path / "absent")


def refused(*arguments):
    said = CliRunner().invoke(reference.app, list(map(str, arguments)))
    assert said.exit_code == 1 and isinstance(said.exception, UserError) and not said.output, said.output
    return str(said.exception)


def test_what_cannot_be_added_or_compared_is_a_sentence(recorded, tmp_path):
    results, _, _ = recorded
    empty, file, absent = tmp_path / "empty", tmp_path / "file", tmp_path / "absent"
    empty.mkdir()
    file.touch()
    assert f"the folder {file} cannot be written" in refused(results, "--out", file)
    assert "cannot be written" in refused(results, "--out", file / "below")
    for out in (absent, empty, file):
        assert refused(results, "--check", "--out", out) == f"{out} holds no reference records"
    for options in ([], ["--check"]):
        out = tmp_path / "out" if not options else reference_records.FOLDER
        assert refused(results, empty, *options, "--out", out).startswith(f"{empty} holds no finished cell")
    assert not absent.exists() and not (tmp_path / "out").exists() and not list(empty.iterdir())


def test_an_interrupt_ends_the_command_with_a_sentence(recorded, tmp_path, monkeypatch, capsys):
    results, _, _ = recorded

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(reference_records, "share", interrupted)
    said = CliRunner().invoke(reference.app, [str(results), "--out", str(tmp_path)])
    assert said.exit_code == EXIT_INTERRUPTED and "run the same command again" in said.stderr


def test_no_machine_paths_ship():
    found = reference_records.read().values()
    assert not [cell.record.command for cell in found if re.search(r"[ =]/", cell.record.command)]
    for before, after in (
        ("compare.py --results /home/me/r1 --seeds 2", "compare.py --results r1 --seeds 2"),
        ("compare.py --data=/data/sets --results results", "compare.py --data=sets --results results"),
        ("compare.py --method /home/me/mine.py:Mine --seeds 2", "compare.py --method mine.py:Mine --seeds 2"),
        ("compare.py --results out/r1 --benchmarks a,b", "compare.py --results out/r1 --benchmarks a,b"),
    ):
        record = replace(next(iter(found)).record, command=before)
        assert reference_records._compact(record, {}).record.command == after


def test_the_shipped_files_stay_small():
    for file in reference_records.FOLDER.iterdir():
        assert file.stat().st_size < 2 << 20, file.name
