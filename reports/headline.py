"""Headline of a comparison: one table of all methods, ACC and standing certified accuracy in every scenario."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from statistics import fmean

from reports import keeping, statistics
from reports.distinct_names import pretty
from reports.glossary import glossed
from reports.marks import marked, marks_words
from reports.metrics import ACC, STANDING, Metric
from reports.names import Family, family
from reports.render import to_markdown
from reports.resolution import images_of, tie
from reports.study import Group, Study
from reports.tables import MISSING, Cell, Table, method_cell
from reports.words import count, join, percent


def shared_groups(study: Study, scenario: str) -> list[Group]:
    """Groups of one scenario that every row of the headline is averaged over.

    They are those with the most methods run in full, then the most seeds, then the most groups: a mean over other
    benchmarks or other numbers of seeds is no match.
    """
    run = {g: (study.run_in_full(g), len(study.seeds(g))) for g in study.groups if g.scenario == scenario}
    choices = [
        [group for group, (labels, seeds) in run.items() if labels >= wanted and seeds == n]
        for wanted, n in run.values()
    ]
    return max(choices, key=lambda groups: (len(run[groups[0]][0]), run[groups[0]][1], len(groups)))


def of_seeds(study: Study, groups: list[Group], label: str, metric: Metric) -> list[float]:
    """Mean over the groups of each seed that has a value in all of them."""
    values = [study.values(group, label, metric) for group in groups]
    seeds = sorted(set.intersection(*(set(found) for found in values)))
    return [fmean(found[seed] for found in values) for seed in seeds]


def headline_table(study: Study) -> Table:
    """Table of methods, family by family, with two columns for each scenario; standing only where any method has it."""
    labels = sorted(study.labels, key=lambda label: (list(Family).index(_family(study, label)), _place(study, label)))
    columns: list[list[Cell]] = []
    names: list[str] = []
    where: dict[str, list[str]] = {}
    for scenario in study.scenarios:
        groups = shared_groups(study, scenario)
        columns.append(_accuracies(study, groups, labels))
        names.append(f"{scenario.upper()} ACC ↑")
        where.setdefault(_where(study, groups), []).append(scenario.upper())
        standing = [of_seeds(study, groups, label, STANDING) for label in labels]
        if any(standing):
            n = len(study.seeds(groups[0]))
            columns.append([_cell(found, n, interval=False) for found in standing])
            names.append("stands ↑")
    kept = map(Cell, keeping.of_rows(study, labels, study.groups))
    rows = [(method_cell(label, cited=True), *cells) for label, *cells in zip(labels, *columns, kept, strict=True)]
    stands = (
        " Stands: share of old tasks' test samples that were certified when learnt by a claim that still holds after "
        "the last task; a dash where nothing is certified."
        if "stands ↑" in names
        else ""
    )
    spread = any("±" in cell.text for column in columns for cell in column)
    half = f" ± half of its 95 % t interval over seeds (from {statistics.MIN_FOR_INTERVAL} on)" if spread else ""
    over = "; ".join(f"{join(scenarios)}: {words}" for words, scenarios in where.items())
    return Table(
        "headline",
        f"Headline: mean accuracy after the last task (ACC) in percent{half}. {over}.{stands}"
        f"{marks_words(study, columns)}{keeping.caption()}",
        ("method", *names, keeping.COLUMN),
        tuple(row for row in rows if any(cell.value is not None for cell in row)),
        small=True,
        text_columns=frozenset({0, len(names) + 1}),
    )


def _family(study: Study, label: str) -> Family:
    return family(next(entry.record.method for entry in study.entries if entry.label == label))


def _place(study: Study, label: str) -> int:
    return study.labels.index(label)


def _where(study: Study, groups: list[Group]) -> str:
    mean = "mean over " if len(groups) > 1 else ""
    names = join([pretty(group.benchmark) for group in groups])
    return f"{mean}{names}, {count(len(study.seeds(groups[0])), 'seed')}"


def _accuracies(study: Study, groups: list[Group], labels: list[str]) -> list[Cell]:
    n = len(study.seeds(groups[0]))
    cells = {label: _cell(of_seeds(study, groups, label, ACC), n, interval=True) for label in labels}
    if len(groups) == 1:
        return marked(study, groups[0], ACC, cells)
    ranked = {label: c.value for label, c in cells.items() if c.value is not None and label not in study.unranked}
    images = [found for group in groups if (found := images_of(study, group)) is not None]
    # One image of the benchmark with the fewest moves the mean by this share.
    one = len(groups) * min(images) if len(images) == len(groups) else None
    top = max(ranked.values(), default=0.0)
    best = {label for label, value in ranked.items() if tie(value, top, one)}
    return [replace(c, best=label in best and (c.n or 0) > 1) for label, c in cells.items()]


def _cell(values: list[float], of: int, *, interval: bool) -> Cell:
    """Cell with the mean of values; with their number where they are fewer than the `of` seeds of the caption."""
    if not values:
        return Cell(MISSING)
    mean, ends = fmean(values), statistics.mean_interval(values)
    half = f" ± {percent(ends[1] - mean)}" if interval and ends else ""
    few = f" (n={len(values)})" if len(values) < of else ""
    return Cell(percent(mean) + half + few, mean, statistics.spread(values), len(values))


def headline_markdown(study: Study) -> str:
    """Table in Markdown, its caption under it."""
    table = glossed(headline_table(study))
    words = table.caption.removeprefix("Headline: ")
    below = "\n".join(textwrap.wrap(words[:1].upper() + words[1:], 118))
    return f"{to_markdown(replace(table, caption='')).strip()}\n\n{below}\n"
