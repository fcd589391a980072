"""A cell: everything that decides the numbers of one run, its key and its place in the results."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from benchmarks.types import Budget, Scenario
from reports.schema import folder_name

TUNING_SEEDS = 1_000_000
"""First seed of tuning: hyperparameters were chosen on its streams. Comparisons count from 0."""
_NAMES = ("reference", "label", "suite", "chosen", "benchmark_file", "twins")
"""Fields of a cell that decide no number."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One run of (method, configuration, benchmark, scenario, seed, budget, network)."""

    method: str
    """Registered name."""
    reference: str
    """Argument of methods.registry.load: the name, or `/path/file.py:Class`. Not part of the key."""
    label: str
    """Name in tables. Not part of the key."""
    config: dict[str, Any]
    """Every hyperparameter, defaults included, as JSON values."""
    benchmark: str
    definition: dict[str, Any]
    """Of the benchmark: n_tasks, classes_per_task, input_shape, validation."""
    scenario: Scenario
    seed: int
    budget: Budget
    network: str
    source: str
    """Hash of the method's code; see runners.grid.fingerprint."""
    parts: dict[str, str] = field(default_factory=dict)
    """Hashes of the code that this cell uses and others need not: its network's, its augmentation's."""
    suite: str = ""
    """The suites that ask for the cell. Not part of the key."""
    chosen: dict[str, str] = field(default_factory=dict)
    """Hyperparameter -> where its value comes from, if it is not the method's default. Not part of the key."""
    judged_on: Literal["test", "validation"] = "test"
    """The samples that accuracies are measured on; `validation` is for tuning, whose stream holds no test data."""
    benchmark_file: str = ""
    """`/path/file.py:NAME` of a benchmark in a user's file; empty for one that its name finds. Not part of the key."""
    twins: tuple[str, ...] = ()
    """Labels of other rows with the same hyperparameters, which have no cell of their own here. Not part of the key."""

    @cached_property
    def key(self) -> str:
        """SHA-256 of everything that decides the numbers."""
        decides = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in _NAMES}
        decides["budget"] = vars(self.budget)
        if self.judged_on == "test":  # the default; left out, so that the keys of earlier records stay valid
            del decides["judged_on"]
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def folder(self, results: Path) -> Path:
        """results/<benchmark>/<scenario>/<method>/seed<k>-<first 12 digits of the key>, `:` written `-`."""
        return (
            results / self.benchmark / self.scenario / self.method.replace(":", "-") / folder_name(self.seed, self.key)
        )

    @property
    def place(self) -> str:
        """Folder of the cell in any results folder, for example as an argument of `--rerun`."""
        return self.folder(Path()).as_posix()

    @property
    def title(self) -> str:
        return f"{self.benchmark} {self.scenario} {self.label} seed {self.seed}"

    @property
    def benchmark_reference(self) -> str:
        """Argument of `benchmarks.catalogue.find`."""
        return self.benchmark_file or self.benchmark

    @property
    def n_tasks(self) -> int:
        return int(self.definition["n_tasks"])

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> Cell:
        budget, scenario = Budget.of(data["budget"]), Scenario(data["scenario"])
        return Cell(**{**data, "budget": budget, "scenario": scenario, "twins": tuple(data["twins"])})


def unique(cells: list[Cell]) -> list[Cell]:
    """The cells without repeats, in order; a repeated cell names all its suites and rows."""
    found: dict[str, Cell] = {}
    for cell in cells:
        known = found.setdefault(cell.key, cell)
        if cell.suite not in known.suite.split(", "):
            found[cell.key] = known = replace(known, suite=f"{known.suite}, {cell.suite}")
        if cell.label not in (known.label, *known.twins):
            found[cell.key] = replace(known, twins=(*known.twins, cell.label))
    return list(found.values())


@dataclass(frozen=True)
class Conditions:
    """Conditions under which cells run; none of them affects a number on the CPU."""

    device: str = "cpu"
    data_dir: str | None = None
    threads: int = 1
    evaluation_batch: int = 2000
    stop_after: int | None = None
    """Pause the cell after this many tasks, with a checkpoint from which it can be resumed."""
    step_by_step: str = ""
    """Reason not to capture training steps as a CUDA graph; empty where they may be captured."""
    command: str = ""
    conformance: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Verdicts of the conformance suite on foreign methods, by name; see runners.conformance.verdicts."""
    environment: dict[str, Any] | None = None
    """Environment of the driver (commit, ...); the worker adds its own."""


@dataclass(frozen=True)
class Job:
    """A cell with the folder it is recorded in."""

    cell: Cell
    folder: Path
    conditions: Conditions

    def uncaptured(self, why: str) -> Job:
        """The same job with its training steps uncaptured."""
        return replace(self, conditions=replace(self.conditions, step_by_step=f"a capture failed ({why})"))

    def to_json(self) -> dict[str, Any]:
        return {
            "cell": self.cell.to_json(),
            "folder": str(self.folder),
            "conditions": asdict(self.conditions),
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> Job:
        return Job(Cell.from_json(data["cell"]), Path(data["folder"]), Conditions(**data["conditions"]))
