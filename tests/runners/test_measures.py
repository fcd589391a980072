"""The record of a real cell says what training took and what the method holds."""

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.catalogue import find
from benchmarks.stream import Stream, open_stream
from benchmarks.types import CIL, Budget
from reports import record as reported
from reports.deviations import deviations, networks
from reports.load import load
from runners.cell import independence, network_used
from runners.cell.execution import run_cell
from runners.cell.kept_images import images_kept
from runners.grid.cells import Conditions, Job
from runners.records.record import Record
from tests.methods.helpers import CASES, in_turn
from tests.runners.helpers import ROOT, cells

CHEATS = ROOT / "tests" / "runners" / "cheats.py"
ANSWERING = ("finetune", "ewc", "hnet", "hypermask", "hyperinterval", "intercontinet", "joint", "lwf")
"""Methods that differ in how they answer."""


@pytest.mark.parametrize(("method", "rehearses"), [("finetune", False), ("hyperinterval", False), ("joint", True)])
def test_a_cell_counts_its_steps_and_samples(tmp_path: Path, method: str, rehearses: bool) -> None:
    [cell] = cells(method, steps=3)
    run_cell(Job(cell, cell.folder(tmp_path), Conditions()), lambda _: None)
    record = Record.from_json((cell.folder(tmp_path) / "cell.json").read_text())
    tasks, held = record.fairness["tasks"], record.fairness["held"]
    assert len(tasks) == record.n_tasks
    for task in tasks:
        assert (task["steps"], task["steps_allowed"], task["aside"], task["validation"]) == (3, 3, 0, 0)
        assert task["samples"] == task["samples_allowed"] == 3 * record.budget.batch_size
    assert held["rehearses"] is rehearses and (held["declared"], held["found"]) == (0, 0)


def ran(results: Path, method: str, scenario: str, steps: int = 60) -> reported.Record:
    """The record of a real cell, as a report reads it."""
    cell = cells(method, scenarios=(scenario,), steps=steps)[-1]
    run_cell(Job(cell, cell.folder(results), Conditions()), lambda _: None)
    [record] = load(results, [cell.folder(results)]).records
    return record


@pytest.mark.parametrize(
    ("cheat", "scenario", "words"),
    [
        ("BatchStatistics", "til", "answers"),
        ("BatchStatistics", "cil", "when they are asked alone or in other batches"),
        ("SmallMajority", "cil", "when they are asked alone or in other batches"),
        ("FrozenTeacher", "til", "times the parameters of the benchmark's network"),
        ("PlainTensors", "cil", "times the parameters of the benchmark's network"),
    ],
)
def test_how_a_cell_answers_is_measured_and_marked(tmp_path: Path, cheat: str, scenario: str, words: str) -> None:
    record = ran(tmp_path, f"{CHEATS}:{cheat}", scenario)
    assert any(words in clause for clause in deviations(record)), record


@pytest.mark.parametrize(("method", "scenario"), in_turn(case for case in CASES if case[0] in ANSWERING))
def test_nothing_is_marked_in_how_shipped_methods_answer(tmp_path: Path, method: str, scenario: str) -> None:
    record = ran(tmp_path, method, scenario, steps=20)
    assert record.done and not deviations(record)
    assert 0.9 < networks(record) < 1.1, record.fairness["held"]
    again = record.fairness["held"]["independence"]
    assert again["asked"] > 100 and again["differ"] == 0


def test_networks_count_wherever_the_method_holds_them(tmp_path: Path) -> None:
    held = ran(tmp_path, f"{CHEATS}:FrozenTeacher", "til", steps=3).fairness["held"]
    assert held["module_parameters"] > held["network_parameters"] + 64 * 1000 + 1000


def test_each_number_that_meets_a_sample_counts_once() -> None:
    x, weight = torch.randn(2, 8), torch.randn(5, 8, 8)
    assert network_used.numbers_met(lambda x: (x @ weight[0]) @ (weight[1] * 2), x) == 64 + 64
    assert network_used.numbers_met(lambda x: x.relu() + (weight.sum() * 0), x) == 1
    buffer = torch.zeros(2, 8)
    assert network_used.numbers_met(lambda x: buffer.copy_(x) @ weight[0], x) == 16 + 64


def test_asking_again_leaves_the_generators_as_they_were() -> None:
    class Drawing:
        device, spec = torch.device("cpu"), stream().spec

        def predict(self, x: torch.Tensor, _: int | None) -> torch.Tensor:
            return torch.rand(len(x), 4)

    method: Any = Drawing()
    answers, before = {0: torch.rand(30, 4)}, torch.get_rng_state()
    found = independence.measure(method, stream(), answers)
    assert torch.equal(before, torch.get_rng_state())
    assert "error" in found or found["differ"]


def stream() -> Stream:
    return open_stream(find("split-digits"), CIL, 0, budget=Budget(32, steps=10))


def test_averages_of_many_images_are_no_images() -> None:
    x, y = (torch.cat([getattr(stream().task(j).train, name) for j in range(5)]) for name in ("x", "labels"))
    means = torch.stack([x[y == label].flatten(1).mean(0) for label in y.unique()])
    assert images_kept([means], stream()) == 0
    assert images_kept([means.double() - 0.1, x[:40]], stream()) == 40
    noise = 0.05 * torch.randn(10, 64, generator=torch.Generator().manual_seed(0))
    assert images_kept({"few": x[:10].flatten(1) + noise}, stream()) == 10


def test_level_answers_are_not_different_ones() -> None:
    before = torch.tensor([[1.0, 0.99999], [2.0, 1.0]])
    assert independence._differing(before, before.flip(1)) == 1


def test_level_in_either_of_the_two_is_not_different() -> None:
    apart, level = torch.tensor([[1.0, 0.5]]), torch.tensor([[0.99999, 1.0]])
    assert independence._differing(apart, level) == independence._differing(level, apart) == 0


def test_what_is_level_depends_on_the_size_of_the_sample_and_not_on_that_of_others() -> None:
    before, after = torch.tensor([[1e4, 0.0], [1.0, 0.5]]), torch.tensor([[1e4, 0.0], [0.5, 1.0]])
    assert independence._differing(before, after) == 1


def test_tasks_take_turns_in_the_mixed_batch() -> None:
    """Of tasks with 3 and 2 samples, each from the last to the first."""
    assert independence._mixed([3, 2]).tolist() == [2, 4, 1, 3, 0]
