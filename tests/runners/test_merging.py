"""Several results folders as one: nothing chosen silently, nothing lost."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from benchmarks.types import UserError
from reports import build
from runners import merge, report
from runners.records import merging
from runners.records.folder import CHECKPOINT, LOCK, CellFolder
from runners.records.record import Record, Status, digest
from tests.runners.helpers import compare_here, tables

ACCURACY = "accuracy.csv"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("run") / "a"
    compare_here(results, methods=("finetune",), benchmarks=("split-digits",), scenarios=("til",), seeds=2)
    return results


@pytest.fixture
def two(run: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Folders A with both seeds and B with a copy of seed 1."""
    a, b = tmp_path / "a", tmp_path / "b"
    shutil.copytree(run, a)
    shutil.copytree(a, b)
    shutil.rmtree(cell(b, 0))
    return a, b


def cell(results: Path, seed: int) -> Path:
    (found,) = results.glob(f"*/*/*/seed{seed}-*")
    return found


def rewritten(folder: Path, accuracy: float | None = None, **changes: object) -> Record:
    """Another record in this folder, whole: with an accuracy, another machine, or other fields."""
    record = CellFolder(folder).read()
    assert record is not None
    texts = {name: (folder / name).read_text() for name in record.files}
    if accuracy is not None:
        header, *rows = texts[ACCURACY].splitlines()
        texts[ACCURACY] = "\n".join([header, *rows[:-1], rows[-1].rpartition(",")[0] + f",{accuracy}"]) + "\n"
    record = replace(record, files={name: digest(text) for name, text in texts.items()}, **changes)  # type: ignore[arg-type]
    CellFolder(folder).write_files(record, texts)
    return record


def test_each_cell_once_and_the_folders_stay(two: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = two
    rewritten(
        cell(b, 1), environment={"device_name": "another machine"}, seconds={"train": [9.0] * 5, "evaluate": [1.0]}
    )
    before = tables(a), tables(b)
    said = CliRunner().invoke(merge.app, [str(b), str(a), "--into", str(tmp_path / "c")])
    assert said.exit_code == 0, said.output
    assert "2 cells (2 done)" in said.output and "1 further record with the same numbers; 2 copied" in said.output
    assert tables(tmp_path / "c") == tables(a) and (tables(a), tables(b)) == before
    kept = json.loads((cell(tmp_path / "c", 1) / "cell.json").read_text())
    assert kept["environment"] == {"device_name": "another machine"}, "the record of the folder that was named first"
    assert (tmp_path / "c" / "split-digits" / "samples.png").is_file()


def test_different_numbers_are_named_and_nothing_is_copied(two: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = two
    rewritten(cell(b, 1), accuracy=0.123, environment={"device_name": "another machine"})
    with pytest.raises(UserError) as caught:
        merging.merged([a, b])
    assert str(caught.value).startswith("1 cell with different numbers in two folders; nothing was merged.")
    assert "split-digits til finetune seed 1: " in str(caught.value) and "differ in accuracy.csv (" in str(caught.value)
    assert "seed 0" not in str(caught.value)
    with pytest.raises(UserError, match="different numbers"):  # what is in C already is no less a record
        CliRunner().invoke(merge.app, [str(b), "--into", str(a)], catch_exceptions=False)
    rewritten(cell(b, 1), status=Status.DIVERGED)
    with pytest.raises(UserError, match="are done and diverged"):
        merging.merged([a, b])


def test_one_key_under_two_labels_is_one_cell(two: tuple[Path, Path]) -> None:
    a, b = two
    rewritten(cell(b, 1), label="plain finetuning")
    assert merging.merged([a, b]).same == 1
    rewritten(cell(b, 1), accuracy=0.123)
    with pytest.raises(UserError, match=r"^1 cell with different numbers"):
        merging.merged([a, b])


def test_other_code_with_other_numbers_is_a_conflict_unless_one_folder_has_both(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    a, b = two
    old = cell(b, 1)
    later = rewritten(old, accuracy=0.5, key="f" * 64, source="later", finished="2999-01-01T00:00:00+00:00")
    new = old.with_name("seed1-" + "f" * 12)
    old.rename(new)
    with pytest.raises(UserError, match=r"differ in accuracy.csv \(other code\)"):
        merging.merged([a, b])
    shutil.copytree(new, a / new.relative_to(b))
    found = merging.merged([a, b])
    assert len(found.cells) == 3 and found.same == 1 and later.key in {source.record.key for source in found.cells}


def test_of_several_codes_in_a_folder_the_newest_is_compared(two: tuple[Path, Path]) -> None:
    """Numbers of the latest code of A are those of B; its earlier record, which the later ones replace, has others."""
    a, b = two
    for folder, digit in ((a, "f"), (b, "e")):
        old, new = cell(folder, 1), cell(folder, 1).with_name("seed1-" + digit * 12)
        shutil.copytree(old, new)
        rewritten(new, accuracy=0.5, key=digit * 64, source=digit, finished="2999-01-01T00:00:00+00:00")
        if folder is b:
            shutil.rmtree(old)
    assert {source.record.source for source in merging.merged([a, b]).cells} > {"e", "f"}
    rewritten(new, accuracy=0.25)
    with pytest.raises(UserError, match=r"differ in accuracy.csv \(other code\)"):
        merging.merged([a, b])


def test_another_definition_of_the_benchmark_makes_another_cell(two: tuple[Path, Path]) -> None:
    """With more validation samples there are fewer to train on; a field that says nothing makes no difference."""
    a, b = two
    new = cell(b, 1).with_name("seed1-" + "f" * 12)
    cell(b, 1).rename(new)
    known = CellFolder(new).read() or pytest.fail()
    changed = {**known.definition, "validation": known.definition["validation"] + 1}
    rewritten(new, accuracy=0.5, key="f" * 64, source="later", definition=changed)
    assert len(merging.merged([a, b]).cells) == 3
    rewritten(new, definition={**known.definition, "new": None})
    with pytest.raises(UserError, match=r"differ in accuracy.csv \(other code\)"):
        merging.merged([a, b])


def test_of_files_that_cells_share_the_first_is_kept(two: tuple[Path, Path], tmp_path: Path) -> None:
    place = Path("tuning") / "tuned.toml"
    for root in (*two, tmp_path / "c"):
        (root / place.parent).mkdir(parents=True)
        (root / place).write_text(root.name)
    found = merging.merged(two)
    for into, text in (("c", "c"), ("d", "a")):
        merging.write(found, tmp_path / into, pytest.fail)
        assert (tmp_path / into / place).read_text() == text
    assert "tuning/tuned.toml: the folders have different ones; the first is kept" in merging.notes(found)


def test_a_merge_that_was_stopped_is_completed(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = two
    copied = merging._copy
    monkeypatch.setattr(
        merging, "_copy", lambda source, target: copied(source, target) if "seed0" in source.place else 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        merging.write(merging.merged([a, b]), tmp_path / "c", pytest.fail)
    assert set(tables(tmp_path / "c")) < set(tables(a))
    monkeypatch.undo()
    assert merging.write(merging.merged([tmp_path / "c", a, b]), tmp_path / "c", pytest.fail) == 1
    assert tables(tmp_path / "c") == tables(a)


def test_unfinished_cells_come_with_their_checkpoints_and_give_way_to_finished_ones(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    a, b = two
    for seed, folder in ((0, cell(a, 0)), (1, cell(b, 1))):
        rewritten(folder, status=Status.RUNNING)
        CellFolder(folder).write_checkpoint(f"of seed {seed}".encode())
    merging.write(merging.merged([b, a]), tmp_path / "c", pytest.fail)
    assert CellFolder(cell(tmp_path / "c", 0)).read_checkpoint() == b"of seed 0"
    finished = CellFolder(cell(tmp_path / "c", 1))
    assert not (finished.path / CHECKPOINT).exists() and (finished.read() or pytest.fail()).status is Status.DONE
    with FileLock(cell(a, 0) / LOCK):
        found = merging.merged([a, b])
    assert [reason.split(";")[0] for _, reason in found.left_out] == ["is running"]
    (cell(b, 1) / "cell.json").write_text("{")
    assert any("left out" in line and "seed1" in line for line in merging.notes(merging.merged([a, b])))


def test_an_unusable_record_of_the_folder_written_to_is_set_aside(two: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = two
    (cell(b, 1) / "cell.json").write_text('{"schema": 2}')
    said = CliRunner().invoke(merge.app, [str(a), "--into", str(b)], catch_exceptions=False)
    assert "2 copied" in said.output and f"{cell(b, 1).relative_to(b)}: unusable record (schema 2" in said.output
    assert tables(a) == tables(b)
    assert (cell(b, 1) / "aside-0" / "cell.json.old").read_text() == '{"schema": 2}'


def test_a_report_of_two_folders(two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = two
    seen: list[str] = []

    def built(folder: Path, out: Path, compare: Path | None) -> build.Report:
        seen.extend([*(str(record.folder) for record in build.load(folder).records), str(out), str(compare)])
        return build.Report(out, out, out, out, out, out, (), (), ())

    monkeypatch.setattr(build, "build_report", built)
    monkeypatch.chdir(tmp_path)
    said = CliRunner().invoke(report.app, [str(b), str(a)], catch_exceptions=False)
    places = [cell(a, seed).relative_to(a).as_posix() for seed in (0, 1)]
    assert seen == [*places, "merged-report", "None"] and "2 cells (2 done)" in said.output


def test_a_merge_that_was_stopped_at_its_first_cell_is_completed(two: tuple[Path, Path], tmp_path: Path) -> None:
    a, _ = two
    lock = tmp_path / "c" / cell(a, 0).relative_to(a) / LOCK
    lock.parent.mkdir(parents=True)
    lock.touch()
    said = CliRunner().invoke(merge.app, [str(a), "--into", str(tmp_path / "c")], catch_exceptions=False)
    assert said.exit_code == 0 and tables(tmp_path / "c") == tables(a)


def test_where_nothing_can_be_taken_the_reasons_are_named(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "a")
    for file in (tmp_path / "a").rglob("cell.json"):
        file.write_text("{")
    with pytest.raises(
        UserError, match=r"(?s)a hold no record that could be taken.*left out .*seed0.*left out .*seed1"
    ):
        merging.merged([tmp_path / "a"])


def test_folders_that_cannot_be_merged(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments in ([str(tmp_path / "empty")], [str(run), str(tmp_path / "empty")]):
        said = CliRunner().invoke(merge.app, [*arguments, "--into", str(tmp_path / "into")])
        assert str(said.exception).startswith(f"{tmp_path / 'empty'} holds no record") and not said.output
    assert not (tmp_path / "into").exists()
    (tmp_path / "into").mkdir()
    assert CliRunner().invoke(merge.app, [str(run), "--into", str(tmp_path / "into")]).exit_code == 0
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("")
    for folder, sentence in (
        (tmp_path / "none", "there is no results folder"),
        (tmp_path / "other", "holds no record"),
    ):
        with pytest.raises(UserError, match=sentence):
            merging.merged([folder])
