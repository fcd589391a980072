from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.types import Budget, Scenario, ValidatedBudget
from reports.schema import CertificateRow, checksum
from runners.records.folder import CHECKPOINT, CellFolder, StorageError, hold, probe, write_atomically
from runners.records.record import BrokenRecord, ClaimRow, Measurements, Record, Status, matrix_csv
from tests.runners.helpers import ROOT


def a_record(status: Status = Status.DONE) -> Record:
    return Record(
        key="0123456789ab" * 5,
        status=status,
        benchmark="split-digits",
        scenario=Scenario.TIL,
        method="finetune",
        label="finetune",
        seed=0,
        config={"lr": 0.001, "widths": [1, 2], "name": None},
        budget=Budget(32, steps=10),
        network="mlp-100-100",
        n_tasks=2,
        classes_per_task=2,
        source="00",
        suite="test",
        command="python runners/compare.py",
        environment={"torch": "2"},
        started="2026-01-01T00:00:00",
    )


def measurements() -> Measurements:
    measured = Measurements.empty(2)
    measured.accuracy = [[0.5, 0.25], [1.0, 1 / 3], [0.9, 1.0]]
    measured.claims = [ClaimRow(1, 0, True, 0, 0.0, 0.1, float("nan"), False, "")]
    measured.certificates = [
        CertificateRow(0, 90, 1 / 255, "affine", None, 0.25),
        CertificateRow(1, 80, 0.0, "interval", 1 / 3, 0.125),
    ]
    measured.steps = [(0, 50, 0.7), (1, 50, 0.6)]
    measured.stored_per_task, measured.train_seconds, measured.evaluate_seconds = [5, 7], [1.0, 2.0], [0.1, 0.2]
    return measured


def written(path: Path) -> CellFolder:
    folder, measured = CellFolder(path), measurements()
    with folder.lock() as held:
        assert held
        folder.write(a_record().with_measurements(measured), measured)
    return folder


def test_a_record_survives_the_disk(tmp_path):
    measured = measurements()
    assert written(tmp_path).read() == a_record().with_measurements(measured)
    assert (
        tmp_path / "accuracy.csv"
    ).read_text() == "after,task0,task1\n0,0.5,0.25\n1,1.0,0.3333333333333333\n2,0.9,1.0\n"
    assert (tmp_path / "claims.csv").read_text().splitlines()[1] == "1,0,true,0,0.0,0.1,,false,,"


def test_measurements_survive_a_checkpoint_also_of_a_version_without_certificates():
    measured = measurements()
    assert Measurements.from_json(measured.to_json()).certificates == measured.certificates
    older = {key: value for key, value in json.loads(measured.to_json()).items() if key != "certificates"}
    restored = Measurements.from_json(json.dumps(older))
    assert restored.certificates == [] and restored.accuracy == measured.accuracy


def test_a_record_from_before_certificates_is_read():
    body = json.loads(a_record().to_json())
    del body["certificates"], body["checksum"]
    assert Record.from_json(json.dumps({**body, "checksum": checksum(body)})) == a_record()


def test_a_budget_by_validation_survives_and_a_plain_one_has_no_new_field():
    record = replace(a_record(), budget=ValidatedBudget(64, epochs=50, patience=3, lowest_rate=1e-5))
    assert Record.from_json(record.to_json()) == record
    assert json.loads(a_record().to_json())["budget"] == {"batch_size": 32, "steps": 10, "epochs": None}


def test_tables_without_content_are_not_written(tmp_path):
    written(tmp_path)
    assert not (tmp_path / "certified.csv").exists() and not (tmp_path / "inferred.csv").exists()


def test_what_is_not_measured_is_empty():
    assert matrix_csv([[None, float("nan")]]) == "after,task0,task1\n0,,\n"


def test_measurements_survive_a_checkpoint():
    measured = measurements()
    assert Measurements.from_json(measured.to_json()).to_json() == measured.to_json()


def test_no_truncation_of_a_record_is_accepted():
    text = a_record().to_json()
    for length in range(len(text)):
        with pytest.raises(BrokenRecord):
            Record.from_json(text[:length])


@pytest.mark.parametrize("old, new", [('"seed": 0', '"seed": 1'), ('"done"', '"skipped"'), ("0.001", "0.002")])
def test_an_altered_record_is_refused(old, new):
    text = a_record().to_json()
    assert old in text
    with pytest.raises(BrokenRecord, match="altered"):
        Record.from_json(text.replace(old, new, 1))


@pytest.mark.parametrize("schema", [0, 2, None, "1"])
def test_another_schema_is_refused(schema):
    body = json.loads(a_record().to_json())
    body["schema"] = schema
    with pytest.raises(BrokenRecord, match="schema"):
        Record.from_json(json.dumps(body))


def test_a_record_with_other_fields_is_refused():
    body = json.loads(a_record().to_json())
    with pytest.raises(BrokenRecord):
        Record.from_json(json.dumps({**body, "surprise": 1}))


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_a_damaged_table_is_noticed(tmp_path, damage):
    folder = written(tmp_path)
    table = tmp_path / "accuracy.csv"
    content = table.read_bytes()
    if damage == "remove":
        table.unlink()
    else:
        table.write_bytes(content[:-4] if damage == "truncate" else bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(BrokenRecord, match=r"accuracy\.csv"):
        folder.read()


def test_an_unusable_record_is_set_aside_and_its_checkpoint_kept(tmp_path):
    folder = written(tmp_path)
    folder.write_checkpoint(b"payload")
    first, second = folder.set_aside(), folder.set_aside()
    assert folder.read() is None and first != second
    assert (first / "cell.json.old").exists() and not list(tmp_path.rglob("cell.json"))
    assert folder.read_checkpoint() == b"payload"


def test_only_an_unusable_record_makes_room_for_another(tmp_path):
    folder = written(tmp_path)
    said: list[str] = []
    assert folder.usable(a_record().key, said.append) == folder.read() and folder.read() is not None
    assert CellFolder(tmp_path / "absent").usable("k", said.append) is None and not said
    assert folder.usable("f" * 60, said.append) is None
    assert said == [f"{'/'.join(tmp_path.parts[-4:])}: unusable record (it belongs to another cell); moved to aside-0"]
    (tmp_path / "cell.json").write_text('{"schema": 2}')
    assert folder.usable(a_record().key, said.append) is None and said[1].endswith("schema 1); moved to aside-1")
    assert (tmp_path / "aside-1" / "cell.json.old").read_text() == '{"schema": 2}'


def test_a_damaged_checkpoint_is_not_read(tmp_path):
    folder = CellFolder(tmp_path)
    folder.write_checkpoint(bytes(range(256)) * 10)
    content = (tmp_path / CHECKPOINT).read_bytes()
    for position in (0, 64, 70, len(content) - 1):
        (tmp_path / CHECKPOINT).write_bytes(
            content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :]
        )
        assert folder.read_checkpoint() is None
    (tmp_path / CHECKPOINT).write_bytes(content[:-1])
    assert folder.read_checkpoint() is None and folder.has_checkpoint()


def test_a_finished_record_removes_the_checkpoint_and_a_failed_one_keeps_it(tmp_path):
    folder = CellFolder(tmp_path)
    folder.write_checkpoint(b"x")
    folder.write(replace(a_record(Status.FAILED), reason="why"))
    assert folder.has_checkpoint()
    folder.write(a_record())
    assert not folder.has_checkpoint()


def test_the_next_lock_removes_what_a_killed_write_left(tmp_path):
    """Not what is of another origin, and nothing while another process may be writing."""
    folder = CellFolder(tmp_path)
    killed = "import os, pathlib, sys; from runners.records import folder; os.replace = lambda *_: os._exit(9)\n"
    killed += "folder.write_atomically(pathlib.Path(sys.argv[1]), b'x' * 1000, durable=False)"
    for name in (CHECKPOINT, "cell.json", "exhibit-a.b.csv"):
        subprocess.run([sys.executable, "-c", killed, tmp_path / name], cwd=ROOT, check=False)
    kept = {".lock", "cell.json", ".mine.txt.backup", ".accuracy.csv", "aside-0"}
    for name in kept - {".lock", "aside-0"}:
        (tmp_path / name).touch()
    (tmp_path / "aside-0").mkdir()
    assert len(list(tmp_path.iterdir())) == 3 + 4
    with hold(tmp_path / ".lock"), folder.lock() as held:
        assert not held and len(list(tmp_path.iterdir())) == 3 + 5
    with folder.lock():
        assert {entry.name for entry in tmp_path.iterdir()} == kept


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    target = tmp_path / "file"
    write_atomically(target, b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]
    with pytest.raises(StorageError, match="No space left on device"):
        CellFolder(tmp_path).write(a_record())
    with pytest.raises(StorageError, match="give another folder"):
        probe(tmp_path)


def test_a_results_folder_under_a_file_is_a_clear_mistake(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        probe(tmp_path / "file" / "results")


def test_statuses_that_stand():
    assert {status for status in Status if status.finished} == {Status.DONE, Status.SKIPPED, Status.DIVERGED}


# -- several processes ---------------------------------------------------------------------------

WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from runners.records.folder import CellFolder
from tests.runners.test_records import a_record, measurements
folder, number = CellFolder(Path(sys.argv[1])), 0
print("ready", flush=True)
while True:
    number += 1
    measured = measurements()
    measured.steps = [(0, step, 0.5) for step in range(number % 300)]
    folder.write(replace(a_record(), seed=number).with_measurements(measured))
"""
HOLDER = """
import sys, time
from pathlib import Path
from runners.records.folder import CellFolder
with CellFolder(Path(sys.argv[1])).lock() as held:
    print(held, flush=True)
    time.sleep(60)
"""


def start(code: str, path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None and process.stdout.readline()
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_readers_never_see_half_a_record_while_writers_are_killed(tmp_path):
    writers = [start(WRITER, tmp_path) for _ in range(2)]
    seen, deadline = set(), time.monotonic() + 300
    try:
        while len(seen) < 300 and time.monotonic() < deadline:
            text = (tmp_path / "cell.json").read_text()
            seen.add(Record.from_json(text).seed)
    finally:
        for writer in writers:
            end(writer)
    assert len(seen) == 300
    assert Record.from_json((tmp_path / "cell.json").read_text()).seed > 0


def test_one_process_holds_a_cell_until_it_ends_even_by_a_kill(tmp_path):
    holder = start(HOLDER, tmp_path)
    try:
        with CellFolder(tmp_path).lock() as held:
            assert not held
    finally:
        end(holder)
    with CellFolder(tmp_path).lock() as held:
        assert held
