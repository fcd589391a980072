"""Contents of the report in order: a front of two pages, results by scenario, and the appendix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reports.appendix import appendix
from reports.blocks import Blocks
from reports.contents import Contents, contents
from reports.findings import winners
from reports.prose import GUARANTEE_WORDS, setting_words, subtitle
from reports.references import settle, span
from reports.study import SCENARIOS
from reports.tables import Table

TITLE = "Continual learning, compared"
FRONT, RESULTS = ("front-",), ("accuracy", "critical-difference")
"""First letters of the stems of figures in the front and in the results; the others are in the appendix."""
Figure = dict[str, Any]


@dataclass(frozen=True)
class Paper:
    """Data for the template, and its tables (each is also written as CSV, Markdown and LaTeX)."""

    data: dict[str, Any]
    tables: tuple[Table, ...]


def paper(content: Contents, figures: Sequence[Figure]) -> Paper:
    """Arrange the report. figures: data of each figure (stem, path, caption, width, appendix)."""
    body = Blocks()
    _front(content, body, [f for f in figures if f["stem"].startswith(FRONT)])
    front, body.single = len(body.items), True
    shown = [f for f in figures if f["stem"].startswith(RESULTS) and not f["appendix"]]
    _results(content, body, shown)
    rest = [f for f in figures if f not in shown and not f["stem"].startswith(FRONT)]
    further = appendix(content, rest, body.tables)
    settle(body.items + further.items)
    data = {
        "title": TITLE,
        "subtitle": subtitle(content.study),
        "abstract": content.abstract,
        "summary": content.findings,
        "front": front,
        "body": body.items,
        "appendix": further.items,
    }
    return Paper(data, (*body.tables, *further.tables))


def _front(content: Contents, body: Blocks, figures: Sequence[Figure]) -> None:
    """Add methods, protocol, headline, guarantees, scores and limitations."""
    drawn = {figure["stem"]: figure for figure in figures}
    body.heading("Methods and protocol")
    body.table(content.methods)
    body.table(content.protocol)
    body.paragraph(
        f"{setting_words(content)[0]} @[tab:methods] has the methods, @[tab:protocol] the protocol; the appendix has "
        "the source of each hyperparameter and what each method took of its budget."
    )
    if content.headline.rows:
        _headline(content, body, drawn)
    if content.guarantee:
        body.heading("Guarantees")
        figure = drawn.get("front-guarantees")
        where = "@[fig:front-guarantees] shows it by family, @[tab:guarantees]" if figure else "@[tab:guarantees]"
        body.paragraph(f"{GUARANTEE_WORDS} {where} has the numbers of each benchmark.")
        body.figures([figure] if figure else [])
    body.heading("Limitations")
    body.paragraph(" ".join(content.limitations))


def _headline(content: Contents, body: Blocks, drawn: dict[str, Figure]) -> None:
    """Add the headline and the scores."""
    body.heading("Headline")
    whole = len(content.headline.rows) == len(content.comparison.labels)
    which = "all methods" if whole else "the methods with results"
    words = f"@[tab:headline] has {which} in one table, on the benchmarks that most of them were run on."
    body.table(content.headline)
    scores = drawn.get("front-scores")
    if scores:
        words += " @[fig:front-scores] compares normalised scores @[cite:agarwal2021] on the benchmarks they share."
    body.figures([scores] if scores else [])
    body.paragraph(f"{words} The appendix says how the metrics and the marks are to be read.")


def _results(content: Contents, body: Blocks, figures: Sequence[Figure]) -> None:
    """Add the results of one scenario after the other, then what covers all of them."""
    study = content.comparison
    if content.before:
        body.heading("Before and after")
        body.paragraph(f"@[tab:{content.before.stem}] compares these results with those of another folder.")
        body.table(content.before)
    body.heading("Results by scenario")
    if not any(entry.record.done for entry in content.study.entries):
        body.paragraph("There are no figures of results, because no cell has a result.")
    for scenario in study.scenarios:
        own = [figure for figure in figures if figure["stem"] == f"accuracy-{scenario}"]
        tables = _tables(content, scenario)
        body.heading(SCENARIOS.get(scenario, scenario).capitalize(), level=2)
        text = [*winners(study, scenario), f"The numbers are in {span('tab', [table.stem for table in tables])}."]
        if own:
            text.append(f"@[fig:{own[0]['stem']}] shows the accuracy while tasks are learnt.")
        body.paragraph(" ".join(text))
        for table in tables:
            body.table(table)
        body.figures(own)
    across = [figure for figure in figures if figure["stem"] in ("accuracy", "accuracy-all", "critical-difference")]
    if across or content.untested:
        body.heading("All scenarios", level=2)
    if across:
        body.paragraph(f"{span('fig', [figure['stem'] for figure in across])}: all scenarios at once.")
        body.figures(across)
    for sentence in content.untested:
        body.paragraph(sentence)


def _tables(content: Contents, scenario: str) -> list[Table]:
    """Tables of one scenario in the body: the overview of ACC, or the only benchmark in full."""
    overviews = [table for table in content.main if table.stem.startswith(f"overview-acc-{scenario}")]
    if overviews:
        return overviews
    stems = {f"table-{group.stem}" for group in content.comparison.groups if group.scenario == scenario}
    return [table for table in content.main if table.stem in stems]


__all__ = ["Contents", "Paper", "contents", "paper"]
