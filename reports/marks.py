"""Marks of the best values: bold for the highest and its ties, underlined for what is not shown to be worse."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from reports import statistics
from reports.metrics import ACC, AIA, Metric
from reports.names import display
from reports.resolution import images_of, tie
from reports.study import Group, Study
from reports.words import join

if TYPE_CHECKING:
    from reports.tables import Cell

MARKED = (ACC, AIA)
"""Metrics whose best value is set in bold: a method that learns nothing has the best transfer and forgetting."""


def marked(study: Study, group: Group, metric: Metric, cells: Mapping[str, Cell]) -> list[Cell]:
    """Cells by label, of ACC and AIA with the best marked, and those level with it.

    The best and its ties are not marked where they have one seed, or where all methods are tied.
    """
    ranked = {label: c.value for label, c in cells.items() if c.value is not None and label not in study.unranked}
    if metric not in MARKED or not ranked:
        return list(cells.values())
    top, images = max(ranked, key=lambda label: ranked[label]), images_of(study, group)
    best = {label for label, value in ranked.items() if tie(value, ranked[top], images)}
    if len(best) == len(ranked):
        return list(cells.values())
    level = _level(study, group, metric, list(ranked), top) - best
    return [
        replace(cell, best=label in best and (cell.n or 0) > 1, level=label in level) for label, cell in cells.items()
    ]


def _level(study: Study, group: Group, metric: Metric, labels: Sequence[str], best: str) -> set[str]:
    """Labels not shown to be worse than the best among all pairs; empty if that could not be shown of each of them."""
    rivals = [label for label in labels if label != best]
    top = study.values(group, best, metric)
    paired = [len(top.keys() & study.values(group, label, metric).keys()) for label in rivals]
    if statistics.smallest_p(min(paired)) > statistics.ALPHA:
        return set()
    values = {label: study.values(group, label, metric) for label in labels}
    p = statistics.all_pairs(values)
    return {rival for rival in rivals if not statistics.shown(top, values[rival], float(p.at[best, rival]))}


def marks_words(study: Study, columns: Iterable[Sequence[Cell]]) -> str:
    """Sentences on the marks that the columns have, each after a space."""
    cells = [cell for some in columns for cell in some]
    if not any(cell.best or cell.level for cell in cells):
        return ""
    words = f" Bold: the highest, and all less than one test image below it or equal as printed{_unranked(study)}."
    if any(cell.level for cell in cells):
        words += " Underlined: not shown to be worse than the highest (sign flips over seeds, all pairs, 5 %)."
    return words


def _unranked(study: Study) -> str:
    keeping, references = _names(study.unranked - study.references), _names(study.references)
    parts = [f"{join(references)}, trained on all tasks so far,"] if references else []
    if keeping:
        keep = "keep" if len(keeping) > 1 else "keeps"
        parts.append(f"{join(keeping)}, which {keep} training data of earlier tasks,")
    if not parts:
        return ""
    return f"; {' and '.join(parts)} {'is' if len(keeping) + len(references) == 1 else 'are'} not ranked"


def _names(labels: Iterable[str]) -> list[str]:
    return [display(label) for label in sorted(labels)]
