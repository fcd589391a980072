"""Costs: times with a unit that shows something, memory above what a process holds anyway."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from reports import machines, page_rows
from reports.costs import cost_table, duration
from reports.load import load
from reports.study import study
from tests.reports.synthetic import Synthetic


@dataclass(frozen=True)
class Costly(Synthetic):
    """With this peak memory, on this machine, and this evaluation time in total."""

    peak: int = 0
    machine: str = "one"
    evaluation: float = 1.0

    def cell(self) -> dict[str, Any]:
        found = super().cell()
        return {
            **found,
            "memory_bytes": {"peak_rss": self.peak, "peak_device": None},
            "environment": {**found["environment"], "processor": self.machine},
            "seconds": {"train": [100.0, 23.4], "evaluate": [self.evaluation]},
        }


def costs(results: Path) -> dict[str, dict[str, str]]:
    table = cost_table(study(load(results)))
    assert table
    return {row[1].key: dict(zip(table.columns, (cell.text for cell in row), strict=True)) for row in table.rows}


def test_memory_is_that_above_the_leanest_cell_of_the_same_environment(tmp_path: Path) -> None:
    """Libraries take 850 MB on one machine and 500 on the other; neither is a cost of a method."""
    Costly("finetune", peak=850_000_000).write(tmp_path)
    Costly("hnet", peak=910_000_000).write(tmp_path)
    Costly("ewc", peak=540_000_000, machine="two").write(tmp_path)
    Costly("ewc", seed=1, peak=520_000_000, machine="two").write(tmp_path)
    Costly("joint", peak=500_000_000, machine="two").write(tmp_path)
    assert {name: row["memory MB"] for name, row in costs(tmp_path).items()} == {
        "finetune": "0",
        "hnet": "60",
        "ewc": "30",
        "joint": "0",
    }
    table = cost_table(study(load(tmp_path)))
    assert table and "(500 to 850 MB, by environment)" in table.caption


def test_a_short_time_is_no_zero(tmp_path: Path) -> None:
    Costly("ewc", evaluation=0.0123).write(tmp_path)
    assert (costs(tmp_path)["ewc"]["evaluate"], costs(tmp_path)["ewc"]["train"]) == ("12 ms", "123 s")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0004, "0.4 ms"), (0.0123, "12 ms"), (1.0, "1.0 s"), (3.42, "3.4 s"), (600, "600 s")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_clocks_of_two_machines_have_rows_of_their_own(tmp_path: Path) -> None:
    """A method that ran on both has two rows; with one machine there is no such column."""
    Costly("ewc", machine="one").write(tmp_path)
    only = cost_table(study(load(tmp_path)))
    assert only and "machine" not in only.columns and "do not compare" not in only.caption
    Costly("ewc", seed=1, evaluation=2.0, machine="two").write(tmp_path)
    Costly("finetune", machine="two").write(tmp_path)
    found = study(load(tmp_path))
    table = cost_table(found)
    assert table and "(A: one, 1 thread; B: two, 1 thread)" in table.caption
    rows = [(row[1].key, row[2].text, row[2].key, row[4].text) for row in table.rows]
    assert sorted(rows) == [
        ("ewc", "A", "one, 1 thread", "1.0 s"),
        ("ewc", "B", "two, 1 thread", "2.0 s"),
        ("finetune", "B", "two, 1 thread", "1.0 s"),
    ]
    shown = {
        row["id"]: row["values"]["evaluate"]["text"] for row in page_rows.rows(found, page_rows.columns(found), set())
    }
    assert shown == {"finetune": "1.0 s (B)", "ewc": "1.0 s (A), 2.0 s (B)"}
    words = {column["key"]: column["words"] for column in page_rows.columns(found)}
    assert "A: one, 1 thread" in words["train"] and "A: one" not in words["stored"]
    assert "only those of one machine compare" in machines.caution(found.entries)
    assert machines.caution([entry for entry in found.entries if entry.label == "finetune"]) == ""


@pytest.mark.parametrize(
    ("begun", "name"),
    [
        (None, "one, 1 thread"),
        ([{"tasks_done": 2, "commit": "abc"}], "one, 1 thread"),
        ([{"tasks_done": 2, "commit": "a"}, {"tasks_done": 3, "torch": "2.1"}], "one, 1 thread, begun elsewhere"),
    ],
)
def test_seconds_of_a_cell_that_was_begun_elsewhere_are_of_no_shared_machine(
    tmp_path: Path, begun: list[dict[str, Any]] | None, name: str
) -> None:
    Costly("ewc", machine="one").write(tmp_path)
    [record] = load(tmp_path).records
    assert machines.machine(replace(record, environment={**record.environment, "resumed_from": begun})) == name
