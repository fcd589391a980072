"""The suites of WSN's tables: every value has a source, trends are smaller parts, HyperMask masks its head."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from benchmarks import catalogue
from benchmarks.types import TIL
from methods import registry
from runners.grid import build, remarks, suite
from runners.grid.cells import Cell
from runners.grid.hyperparameters import configure
from tests.runners.helpers import call

FULL = ("wsn-permuted", "wsn-cifar100", "wsn-superclass", "wsn-tiny")
TREND = tuple(f"{name}-trend" for name in FULL[1:])


def cells(name: str) -> dict[str, Cell]:
    """Cells of the first seed by label."""
    return {cell.label: cell for cell in build.build(suite.find([name]), build.Choices(seeds=1))}


@pytest.mark.parametrize("name", FULL + TREND)
def test_every_value_has_a_source_of_its_own(name: str) -> None:
    """A block without a source would give the suite's name."""
    for label, cell in cells(name).items():
        assert cell.chosen.keys() <= cell.config.keys()
        assert cell.chosen and f"suite {name}" not in cell.chosen.values(), label


def test_rows_that_the_paper_does_not_have_say_how_they_were_tuned() -> None:
    found = cells("wsn-permuted")
    for label in ("hnet", "hypermask", "hyperinterval"):
        assert all("not tuned here" in source for source in found[label].chosen.values())
    assert "on validation data: learning rates" in found["intercontinet"].chosen["lr"]
    paper = {label for label, cell in found.items() if not any("tuned" in s for s in cell.chosen.values())}
    assert paper == {"finetune", "ewc", "gpm", "packnet", "supsup", "separate"} | {
        "wsn", "wsn-0.03", "wsn-0.05", "wsn-0.1", "wsn-0.3"
    }  # fmt: skip


@pytest.mark.parametrize("name", TREND)
def test_a_trend_is_a_smaller_part_of_its_suite_with_the_same_settings(name: str) -> None:
    found, whole = cells(name), cells(name.removesuffix("-trend"))
    assert found.keys() <= whole.keys() and "wsn" in found
    for label, cell in found.items():
        full = whole[label]
        assert cell.benchmark == full.benchmark and cell.budget.batch_size == full.budget.batch_size
        assert cell.budget.epochs is not None and full.budget.epochs is not None
        assert 0 < cell.budget.epochs < full.budget.epochs
        if label != "gpm" or cell.network == full.network:  # samples of a basis count by layer
            assert cell.config == full.config, label
    assert suite.find([name])[0].seeds == 1


def test_hypermask_masks_its_head_on_the_network_without_biases() -> None:
    """By default all but the last tensor has a mask: here that is the head's matrix, which would be shared unmasked."""
    cell = cells("wsn-permuted")["hypermask"]
    cls = registry.load("hypermask")
    config = configure("hypermask", cls.Config, cell.config)
    spec = catalogue.find(cell.benchmark).spec(TIL)
    head = 10 * 100

    def open_entries(unmasked: str) -> int:
        method = cls(spec, dataclasses.replace(config, hidden=(2,), unmasked=unmasked), "cpu", 0)
        method.build()
        return int((method.masked_weights(torch.zeros_like(method.weights)) != 0).sum())

    assert config.unmasked == "nothing"
    assert (open_entries("nothing"), open_entries("bias"), open_entries("layer")) == (0, head, head)


@pytest.mark.parametrize("name", FULL + TREND)
def test_no_method_remarks_on_its_values(name: str) -> None:
    assert remarks.of_cells(cells(name).values()) == []


@pytest.mark.slow
def test_the_whole_table_is_planned_without_a_note(tmp_path: Path) -> None:
    said = call("--suite", "wsn-permuted", "--dry-run", "--results", tmp_path)
    assert said.returncode == 0 and not said.stderr
    lines = said.stdout.splitlines()
    assert not [line for line in lines if line.startswith("note")]
    assert any(line.startswith("75 cells, 0 finished, 75 to run") for line in lines)  # 11 methods and 4 variants
