"""A study: hyperparameters of one method, their ranges, and the values that are tried before any is drawn."""

from __future__ import annotations

import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from benchmarks import catalogue
from benchmarks.types import UserError, derived_seed
from methods.search import OneOf, Range, distinct, space
from runners.grid import hyperparameters
from runners.grid.cells import TUNING_SEEDS, Cell
from runners.tuning.published import published

PROTOCOL = 3
"""Version of the rules by which trials are drawn and pruned. Studies of another are begun anew, under another name."""
GRID = "/grid "
"""Part of the name of a study that is a grid, not a search; the report looks for it."""


@dataclass(frozen=True)
class Study:
    """Hyperparameters of one method on one benchmark in one scenario."""

    cell: Cell
    """The comparison's cell of seed 0, with the values that the suite has now."""
    ranges: dict[str, Range]
    seeds: int
    """Streams of every trial."""
    first: tuple[dict[str, Any], ...]
    """Values of the first trials: the suite's own, then the published ones if they differ, or those of a grid."""
    grid: bool = False
    """True if only the values of `first` are tried, all to the end."""
    apart: bool = False
    """True if the name tells the ranges, because an earlier study without them in its name had others."""

    @property
    def name(self) -> str:
        """Name of the study; it changes with the method's code, the budget, the suite's values and what is tried."""
        cell = self.cell
        parts = [cell.suite, cell.benchmark, cell.scenario, cell.label, f"{self.seeds} seeds", cell.key[:12]]
        parts.append(" ".join(self.ranges))
        if self.apart:
            parts.append(f"ranges {derived_seed(*map(_described, self.ranges.values())):x}")
        grid = f"{GRID}{derived_seed(str(self.first)):x}" if self.grid else ""
        return f"{'/'.join(parts)}{grid}/protocol {PROTOCOL}"

    @property
    def known(self) -> tuple[dict[str, Any], ...]:
        """Values that were there before the search: the suite's own, then the published ones if they differ."""
        return self.first[:1] if self.grid else self.first

    @property
    def answers(self) -> int:
        """Validation answers that the accuracy of a trial counts, of all tasks and streams."""
        return catalogue.find(self.cell.benchmark_reference).validation * self.cell.n_tasks * self.seeds

    def cells(self, values: dict[str, Any]) -> list[Cell]:
        """The cells of a trial, one for each stream. Raises UserError for values that the method refuses."""
        from methods import registry

        cls: Any = registry.load(self.cell.reference)
        config = hyperparameters.configure(self.cell.method, cls.Config, {**self.cell.config, **values}, "trial")
        label = f"{self.cell.label} ({listed(values)})"
        plain = hyperparameters.recorded(self.cell.method, config, "trial")
        changed = replace(self.cell, label=label, config=plain, judged_on="validation", chosen={})
        return [replace(changed, seed=TUNING_SEEDS + k) for k in range(self.seeds)]


def _described(wanted: Range) -> str:
    if isinstance(wanted, OneOf):
        return f"one of {', '.join(map(repr, wanted.values))}"
    return f"{type(wanted).__name__} {float(wanted.low)} {float(wanted.high)}"


def listed(values: Mapping[str, Any]) -> str:
    """Values in words: `lr = 0.001, strength = 100`."""
    short = {key: f"{value:.3g}" if isinstance(value, float) else str(value) for key, value in values.items()}
    return ", ".join(f"{key} = {text}" for key, text in short.items())


class Fixed(UserError):
    """Nothing to search in a variant, because its own values are what makes it another row."""


def study_of(cell: Cell, seeds: int, fixed: Collection[str] = ()) -> Study:
    """Study for a cell of a comparison. fixed: hyperparameters that keep their values, because they define a variant.

    Raises UserError where its method has nothing to search, and Fixed where nothing else is left.
    """
    from methods import registry

    cls: Any = registry.load(cell.reference)
    ranges, benchmark = space(cell.label, cls.Config), catalogue.find(cell.benchmark_reference)
    own = {name: cell.config[name] for name in ranges}
    if cell.scenario in benchmark.undefined:
        return Study(cell, ranges, seeds, (own,))
    config = hyperparameters.configure(cell.method, cls.Config, cell.config)
    ranges = dict(cls.searched(benchmark.spec(cell.scenario, cell.network), config, ranges))
    searched, ranges = ranges, {name: found for name, found in ranges.items() if name not in fixed}
    if searched and not ranges:
        raise Fixed(f"{cell.label} is not tuned: its `values` in the suite fix {', '.join(searched)}, all there is")
    _check_types(cell.label, cls.Config, ranges)
    own = {name: cell.config[name] for name in ranges}
    others = published(cell, own)
    return Study(cell, ranges, seeds, (own,) if others == own else (own, others))


def _check_types(label: str, config_class: type, ranges: Mapping[str, Range]) -> None:
    """Raises UserError for a range with values that its field refuses: their trials would all fail."""
    hints = typing.get_type_hints(config_class)
    for name, wanted in ranges.items():
        for value in wanted.values if isinstance(wanted, OneOf) else (float(wanted.low), float(wanted.high)):
            try:
                hyperparameters.convert(hints[name], value)
            except (ValueError, TypeError) as error:
                permitted = hyperparameters.describe(hints[name])
                raise UserError(
                    f"{label}: search has {name} = {_described(wanted)}, where permitted is {permitted}; write OneOf "
                    "with such values"
                ) from error


def grid_of(cell: Cell, given: Mapping[str, Sequence[str]], seeds: int, fixed: Collection[str] = ()) -> Study:
    """Grid study of all combinations of the values `given` for each hyperparameter, preceded by the suite's own.

    Raises UserError for a hyperparameter or value that the method does not have, and Fixed for one of `fixed`.
    """
    from methods import registry

    for name in given:
        if name in fixed:
            raise Fixed(f"--grid {name}: the `values` of {cell.label} in the suite fix it; name another hyperparameter")
    cls: Any = registry.load(cell.reference)

    def value_of(name: str, value: object) -> Any:
        config = hyperparameters.configure(cell.method, cls.Config, {**cell.config, name: value}, "--grid")
        hyperparameters.recorded(cell.method, config, "--grid")
        return getattr(config, name)

    # `configure` refuses an unknown name, whatever its value.
    own = {name: value_of(name, cell.config.get(name, "")) for name in given}
    values = {name: distinct([value_of(name, text) for text in texts]) for name, texts in given.items()}
    combined = [dict(zip(values, each, strict=True)) for each in product(*values.values())]
    points = [own, *(point for point in combined if point != own)]
    ranges: dict[str, Range] = {}
    for name in given:
        among = tuple(distinct([point[name] for point in points]))
        if len(among) < 2:
            raise UserError(f"--grid {name}: {cell.label} has {own[name]} anyway; name another value")
        ranges[name] = OneOf(among)
    return Study(cell, ranges, seeds, tuple(points), grid=True)
