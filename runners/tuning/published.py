"""Published values of searched hyperparameters, which are tried in addition to the suite's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import catalogue
from benchmarks.types import UserError
from methods.shared.strengths import Published, per_weight
from runners.grid import hyperparameters
from runners.grid.cells import Cell


def published(cell: Cell, own: Mapping[str, Any]) -> dict[str, Any]:
    """Published values of the hyperparameters that `own` names, as JSON values; `own` where there are none.

    Where the method declares strengths for this benchmark (`published`), they replace those of `own`; on another
    network than the paper's they stay the paper's, or are converted if `strength_per` is "weight". Else the published
    values are the defaults of the method's Config.
    """
    from methods import registry

    cls: Any = registry.load(cell.reference)
    papers: Sequence[Published] = [p for p in getattr(cls, "published", ()) if cell.scenario in p.scenarios]
    here = [paper for paper in papers if paper.benchmark == cell.benchmark]
    try:
        if here:
            paper = next((paper for paper in here if paper.network == cell.network), here[0])
            return {**own, **_strengths(cls, cell, paper, own)}
        config = hyperparameters.as_json(hyperparameters.configure(cell.method, cls.Config, {}))
        found = {name: config[name] for name in own}
        if cell.config.get("strength_per") == "weight":
            # The defaults are the strengths of one of the papers' benchmarks, in the form of a sum over its network.
            paper = next((p for p in papers if all(config[name] == value for name, value in p.values.items())), None)
            options = {option for paper in getattr(cls, "published", ()) for option in paper.values}
            found |= {name: own[name] for name in own if name in options}
            found |= _strengths(cls, cell, paper, own) if paper else {}
    except UserError:  # a Config without defaults, or a published network that cannot be built here
        return dict(own)
    return found


def _strengths(cls: Any, cell: Cell, paper: Published, own: Mapping[str, Any]) -> dict[str, float]:
    """Strengths of a paper in the form that the cell's configuration has."""
    values = {name: float(value) for name, value in paper.values.items() if name in own}
    if cell.config.get("strength_per") != "weight":
        return values
    config = hyperparameters.configure(cell.method, cls.Config, cell.config)
    held = paper.held(cls, catalogue.find(paper.benchmark).spec(cell.scenario), config)
    return {name: per_weight(value, held[name]) for name, value in values.items()}
