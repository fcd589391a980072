"""Remarks on the hyperparameters of cells before these run: sentences that refuse nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache

from benchmarks import catalogue
from methods import registry
from runners.grid import hyperparameters
from runners.grid.cells import Cell

FOUND_HERE = "on validation data"
"""In the source of a hyperparameter: its value was chosen or tuned here, and is no paper's."""


def of_cells(cells: Iterable[Cell]) -> list[str]:
    """The sentences of the methods (`Method.remarks`), each once, with the cells that it is about, and on equal rows.

    Before them those of a grid (`build.Grid`) on what meets no cell. Raises UserError for settings that a method
    refuses as a whole.
    """
    unmet = getattr(cells, "unmet", ())
    cells = list(cells)
    loaded = cache(registry.load)
    asked: set[tuple[str, ...]] = set()
    found: dict[tuple[str, str, str], list[str]] = {}
    for cell in cells:
        tuned = sorted(name for name, source in cell.chosen.items() if FOUND_HERE in source)
        settings = (cell.reference, cell.benchmark, cell.scenario, cell.network, json.dumps([cell.config, tuned]))
        if settings in asked:
            continue
        asked.add(settings)
        benchmark = catalogue.find(cell.benchmark_reference)
        if cell.scenario in benchmark.undefined:
            continue
        cls = loaded(cell.reference)
        config = hyperparameters.configure(cell.method, cls.Config, cell.config)
        sentences = cls.remarks(benchmark.spec(cell.scenario, cell.network), config, tuned)
        for sentence in sentences:
            scenarios = found.setdefault((cell.benchmark, cell.network, sentence), [])
            scenarios += [cell.scenario] if cell.scenario not in scenarios else []
    for cell in cells:
        for twin in cell.twins:
            sentence = f"{twin} has the hyperparameters of {cell.label}, so that only the row {cell.label} is shown"
            scenarios = found.setdefault((cell.benchmark, cell.network, sentence), [])
            scenarios += [cell.scenario] if cell.scenario not in scenarios else []
    return [
        *unmet,
        *(
            f"{name} ({', '.join(scenarios)}) with {network}: {sentence}"
            for (name, network, sentence), scenarios in found.items()
        ),
    ]
