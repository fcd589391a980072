"""Loading: whole records are read, everything else is named and left out, nothing is merged."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.types import Budget, Scenario, UserError
from reports.findings import methods
from reports.load import load
from reports.record import Records
from reports.study import study
from runners.records.folder import CellFolder
from runners.records.record import ClaimRow, Measurements, Record, Status, empty_matrix
from tests.reports.synthetic import Synthetic


def only_problem(results: Path) -> str:
    """The reason for the one folder that was left out; a second, whole record keeps the report possible."""
    Synthetic(seed=99).write(results)
    records = load(results)
    assert [record.seed for record in records.records] == [99]
    (problem,) = records.problems
    return problem.reason


def test_a_record_comes_back_as_written(tmp_path: Path) -> None:
    cell = Synthetic("hyperinterval", seed=4, certifies=True)
    folder = cell.write(tmp_path)
    (record,) = load(tmp_path).records
    assert record.folder == folder.relative_to(tmp_path)
    assert (record.method, record.seed, record.n_tasks) == ("hyperinterval", 4, 5)
    assert record.accuracy is not None
    np.testing.assert_allclose(record.accuracy, cell.matrix(), rtol=1e-5)
    assert record.certified is not None and np.isnan(record.certified[0]).all()
    assert len(record.claims) == 15
    last = [claim for claim in record.claims if claim.after == 5]
    assert [claim.contained for claim in last] == [False, True, True, True, True]
    assert record.losses[0] == (0, 50, pytest.approx(0.05 + 0.9 * np.exp(-50 / 60), abs=1e-5))


def test_the_runners_own_records_are_read(tmp_path: Path) -> None:
    measured = Measurements.empty(2)
    measured.accuracy = [[0.5, 0.4], [0.9, 0.6], [0.8, 0.95]]
    measured.certified = empty_matrix(2)
    measured.certified[2] = [0.7, 0.9]
    measured.claims = [ClaimRow(2, 0, False, 3, 0.1, 0.02, float("nan"), True, "drifted")]
    measured.steps = [(0, 50, 0.25)]
    measured.train_seconds, measured.evaluate_seconds = [1.0, 2.0], [0.5, 0.5]
    key = hashlib.sha256(b"x").hexdigest()
    record = Record(
        key=key,
        status=Status.DONE,
        benchmark="split-digits",
        scenario=Scenario.TIL,
        method="ewc",
        label="ewc",
        seed=3,
        config={"lr": 0.1},
        budget=Budget(32, steps=10),
        network="mlp",
        n_tasks=2,
        classes_per_task=2,
        source="s",
        suite="quick",
        command="c",
        environment={},
        started="2026",
        carried="computed by source r",
    ).with_measurements(measured)
    folder = tmp_path / "split-digits/til/ewc" / f"seed3-{key[:12]}"
    folder.mkdir(parents=True)
    CellFolder(folder).write(record, measured)
    (found,) = load(tmp_path).records
    np.testing.assert_array_equal(found.accuracy, measured.accuracy)
    assert found.carried == "computed by source r"
    assert found.certified is not None and found.certified[2].tolist() == [0.7, 0.9]
    (claim,) = found.claims
    assert (claim.contained, claim.outside, claim.violation, claim.reason) == (False, 3, True, "drifted")
    assert np.isnan(claim.median_logit_width)
    assert found.train_seconds == (1.0, 2.0)
    accuracy = folder / "accuracy.csv"
    accuracy.write_text(accuracy.read_text().replace("0.95", "0.99"))
    assert "altered" in only_problem(tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("cell.json", '{"schema": 1, "key"', "cannot be read"),
        ("cell.json", '{"schema": 7}', "layout 7"),
        ("cell.json", '{"schema": 1}', "not of this layout"),
        ("cell.json", "[1, 2]", "layout 'list'"),
        ("accuracy.csv", "after,task0,task1\n0,0.1,0.2\n1,0.9", "not a matrix"),
        ("accuracy.csv", "after,task0\n0,0.1\n1,0.9\n", "truncated"),
        ("accuracy.csv", "", "truncated"),
    ],
)
def test_a_broken_record_is_left_out_with_its_reason(tmp_path: Path, file: str, text: str, reason: str) -> None:
    (Synthetic().write(tmp_path) / file).write_text(text)
    assert reason in only_problem(tmp_path)


def test_values_outside_zero_to_one_are_refused(tmp_path: Path) -> None:
    Synthetic(accuracy=np.full((6, 5), 97.0)).write(tmp_path)
    assert "outside 0..1" in only_problem(tmp_path)


def test_done_without_numbers_is_no_result(tmp_path: Path) -> None:
    (Synthetic().write(tmp_path) / "accuracy.csv").unlink()
    assert "no accuracy.csv" in only_problem(tmp_path)


def test_a_copied_or_foreign_folder_is_no_second_record(tmp_path: Path) -> None:
    folder = Synthetic(seed=99).write(tmp_path)
    shutil.copytree(folder, folder.with_name(folder.name + " (copy)"))
    (folder.parent / "seed-notes").mkdir()
    records = load(tmp_path)
    assert len(records.records) == 1
    reasons = {problem.folder.rsplit("/", 1)[1]: problem.reason for problem in records.problems}
    assert "does not fit" in reasons[folder.name + " (copy)"]
    assert reasons["seed-notes"] == "no cell.json"


@pytest.mark.parametrize("there", [True, False])
def test_no_record_at_all_is_a_clear_error(tmp_path: Path, there: bool) -> None:
    with pytest.raises(UserError, match="holds no readable record" if there else "no results folder"):
        load(tmp_path if there else tmp_path / "nowhere")


def test_only_the_named_cells_are_read(tmp_path: Path) -> None:
    folders = [Synthetic(seed=seed).write(tmp_path) for seed in range(3)]
    assert [record.seed for record in load(tmp_path, folders[:2]).records] == [0, 1]


def test_of_two_sources_the_newer_counts_and_the_older_is_mentioned(tmp_path: Path) -> None:
    Synthetic(source="old", finished="2026-01-01T00:00:00+00:00").write(tmp_path)
    Synthetic(source="new", finished="2026-02-01T00:00:00+00:00").write(tmp_path)
    records = load(tmp_path)
    assert [record.source for record in records.records] == ["new"]
    assert [record.source for record in records.superseded] == ["old"]


JANUARY, FEBRUARY = "2026-01-01T00:00:00+00:00", "2026-02-01T00:00:00+00:00"


def labels(records: Records) -> dict[tuple[str, str], list[int]]:
    """Seeds of every row: benchmark and label as a report names them."""
    rows: dict[tuple[str, str], list[int]] = {}
    for entry in study(records).entries:
        rows.setdefault((entry.group.benchmark, entry.label), []).append(entry.seed)
    return {row: sorted(seeds) for row, seeds in rows.items()}


@pytest.mark.parametrize(
    ("key", "named"), [("files", "data {}"), ("source", "data of code {}"), ("validation", "validation={}")]
)
def test_seeds_on_other_data_are_another_row(tmp_path: Path, key: str, named: str) -> None:
    """Seeds 0 to 2, a change of the data, seed 0 again; the code is the same."""
    old, new = ("10", "20") if key == "validation" else ("a" * 64, "b" * 64)
    for seed in range(3):
        Synthetic(seed=seed, definition={key: old}, finished=JANUARY).write(tmp_path)
    Synthetic(seed=0, definition={key: new}, finished=FEBRUARY).write(tmp_path)
    records = load(tmp_path)
    names = [f"split-digits ({named.format(value[:6])})" for value in (old, new)]
    assert labels(records) == {(names[0], "finetune"): [0, 1, 2], (names[1], "finetune"): [0]}
    assert not records.superseded


@pytest.mark.parametrize(
    ("old", "new"),
    [({"source": "old"}, {"source": "new"}), ({"parts": {"network": "old"}}, {"parts": {"network": "new"}})],
    ids=["method", "network"],
)
def test_no_row_joins_seeds_of_two_states_of_the_code(tmp_path: Path, old: dict, new: dict) -> None:
    for seed in range(3):
        Synthetic(seed=seed, finished=JANUARY, **old).write(tmp_path)
    Synthetic(seed=0, finished=FEBRUARY, **new).write(tmp_path)
    other = [Synthetic(method="ewc", seed=seed, finished=JANUARY, **old).write(tmp_path) for seed in range(3)]
    records = load(tmp_path)
    assert labels(records) == {("split-digits", "finetune"): [0], ("split-digits", "ewc"): [0, 1, 2]}
    assert sorted(record.seed for record in records.superseded) == [0, 1, 2] and len(other) == 3


def test_records_that_do_not_tell_their_networks_code_stay_in_their_row(tmp_path: Path) -> None:
    Synthetic(seed=0, finished=JANUARY).write(tmp_path)
    Synthetic(seed=1, finished=FEBRUARY, parts={"network": "a"}).write(tmp_path)
    assert labels(load(tmp_path)) == {("split-digits", "finetune"): [0, 1]}


def test_a_cell_still_running_does_not_hide_its_finished_predecessor(tmp_path: Path) -> None:
    Synthetic(source="old", finished="2026-01-01T00:00:00+00:00").write(tmp_path)
    Synthetic(source="new", status="running", finished="").write(tmp_path)
    assert [record.source for record in load(tmp_path).records] == ["old"]


def test_configurations_of_one_method_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    for strength in (10, 1000):
        Synthetic("ewc", config={"lr": 0.001, "lambda": strength}).write(tmp_path)
    Synthetic("finetune").write(tmp_path)
    assert study(load(tmp_path)).labels == ["finetune", "ewc (lambda=10)", "ewc (lambda=1000)"]


def test_tuning_by_benchmark_does_not_split_a_method(tmp_path: Path) -> None:
    for benchmark, strength in (("split-mnist", 10), ("split-digits", 1000)):
        Synthetic("ewc", benchmark, config={"lambda": strength}).write(tmp_path)
    assert study(load(tmp_path)).labels == ["ewc"]


def test_rows_of_one_method_are_not_counted_as_methods(tmp_path: Path) -> None:
    for label, strength in (("ewc", 1.0), ("ewc-strong", 10.0)):
        Synthetic("ewc", label=label, config={"strength": strength}).write(tmp_path)
    Synthetic("joint").write(tmp_path)
    found = study(load(tmp_path))
    assert methods(found) == "2 methods (3 rows: some with several hyperparameter settings)"


def test_budgets_are_never_averaged_together(tmp_path: Path) -> None:
    for steps in (200, 2000):
        Synthetic("ewc", budget={"batch_size": 32, "steps": steps, "epochs": None}).write(tmp_path)
    found = study(load(tmp_path))
    assert [group.title for group in found.groups] == [
        "Split Digits (200 steps), TIL",
        "Split Digits (2000 steps), TIL",
    ]
    assert found.labels == ["ewc"]


def test_a_benchmark_with_another_network_or_length_than_its_own_says_so_in_its_name(tmp_path: Path) -> None:
    Synthetic("ewc", "permuted-mnist-10", network="mlp-100-100").write(tmp_path)
    Synthetic("ewc", "split-cifar-100", budget={"batch_size": 32, "steps": None, "epochs": 10}).write(tmp_path)
    Synthetic("ewc", "split-digits-shuffled", network="mlp-40-40").write(tmp_path)
    Synthetic("ewc", "split-mnist").write(tmp_path)
    Synthetic("ewc", "of-a-stranger", network="mlp-7").write(tmp_path)
    assert study(load(tmp_path)).benchmarks == [
        "of-a-stranger",
        "permuted-mnist-10 (mlp-100-100)",
        "split-cifar-100 (10 epochs)",
        "split-digits-shuffled (mlp-40-40)",
        "split-mnist",
    ]


def test_a_changed_cell_file_is_refused(tmp_path: Path) -> None:
    path = Synthetic().write(tmp_path) / "cell.json"
    raw = json.loads(path.read_text())
    path.write_text(json.dumps({**raw, "checksum": "0" * 64}))
    assert "altered" in only_problem(tmp_path)


def test_a_setting_that_older_code_did_not_have_is_no_other_configuration(tmp_path: Path) -> None:
    Synthetic("ewc", config={"lambda": 10}, source="old", finished="2026-01-01").write(tmp_path)
    Synthetic("ewc", config={"lambda": 10, "mode": "online"}, source="new", finished="2026-02-01").write(tmp_path)
    records = load(tmp_path)
    assert [dict(record.config) for record in records.records] == [{"lambda": 10, "mode": "online"}]
    assert len(records.superseded) == 1


def test_a_budget_does_not_split_a_method_of_changed_code(tmp_path: Path) -> None:
    Synthetic("ewc", config={"lambda": 10}, source="old").write(tmp_path)
    budget = {"batch_size": 32, "steps": 7, "epochs": None}
    Synthetic("ewc", config={"lambda": 5}, source="new", budget=budget).write(tmp_path)
    assert study(load(tmp_path)).labels == ["ewc"]


def test_a_record_of_tuning_is_no_result(tmp_path: Path) -> None:
    """Judged on validation data, it would be a number among those of test data."""
    folder = Synthetic().write(tmp_path)
    cell = json.loads((folder / "cell.json").read_text(encoding="utf-8"))
    assert load(tmp_path).problems == ()
    (folder / "cell.json").write_text(json.dumps({**cell, "judged_on": "validation"}), encoding="utf-8")
    assert only_problem(tmp_path) == "a record of tuning, judged on validation data"
    (folder / "cell.json").write_text(json.dumps({**cell, "judged_on": "test"}), encoding="utf-8")
    assert load(tmp_path).problems == ()


@pytest.mark.parametrize(
    "sizes, words",
    [
        (None, "5 × 2"),
        ([2, 4, 3], "5: 2, 4, 3"),
        ([2, 9] * 4, "5 × 2–9"),
        (["two"], "5 × 2"),
        (7, "5 × 2"),
    ],
)
def test_tasks_with_unequal_classes_are_told_apart_from_equal_ones(tmp_path: Path, sizes: object, words: str) -> None:
    Synthetic(definition={"validation": 100} if sizes is None else {"sizes": sizes}).write(tmp_path)
    (record,) = load(tmp_path).records
    assert record.cut == words
