"""Appendix of the report: everything that its claims rest on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reports.blocks import Blocks
from reports.contents import CELLS_PRINTED_AT_MOST, Contents
from reports.prose import CURVE_WORDS, PUBLISHED_WORDS, VARIANT_WORDS, how_to_read, setting_words
from reports.provenance import commands
from reports.published_curves import TITLE as CURVES
from reports.study import METRICS
from reports.tables import Table


def appendix(content: Contents, figures: Sequence[dict[str, Any]], before: Sequence[Table]) -> Blocks:
    """Arrange the appendix. figures: those that belong to it; before: tables of the body, which it does not repeat."""
    study, blocks = content.study, Blocks(single=True)
    blocks.heading("Findings")
    blocks.paragraph(" ".join(content.findings))
    _in_full(content, blocks, before)
    _apart(content, blocks, [f for f in figures if f["stem"].startswith("authors")])
    _reproduction(content, blocks)
    _sources(content, blocks)
    blocks.heading("Environment")
    blocks.table(content.environment)
    many = len(study.entries) > CELLS_PRINTED_AT_MOST
    if many or content.seeds:
        blocks.heading("Single seeds")
    if many:
        blocks.paragraph(
            f"The values of all {len(study.entries)} cells would fill many pages: cells.csv has one line per cell."
        )
    for table in content.seeds:
        blocks.table(table)
    for title, table in (("Cells without results", content.unfinished), ("Left out", content.left_out)):
        if table:
            blocks.heading(title)
            blocks.table(table)
    _figures(blocks, [f for f in figures if not f["stem"].startswith("authors")])
    return blocks


def _in_full(content: Contents, blocks: Blocks, before: Sequence[Table]) -> None:
    """Add the tables of results that the body has no room for."""
    blocks.heading("Results in full")
    blocks.paragraph(how_to_read(content.comparison))
    blocks.paragraph(setting_words(content)[1])
    blocks.table(content.setting)
    if content.conformance:
        blocks.table(content.conformance)
    shown = {table.stem for table in before}
    for table in content.main:
        if table.stem not in shown:
            blocks.table(table)
    for title, table in (("Guarantees in full", content.guarantee), ("Cost", content.cost)):
        if table:
            blocks.heading(title)
            blocks.table(table)
        if table is content.guarantee and content.certificates:
            blocks.table(content.certificates)


def _apart(content: Contents, blocks: Blocks, figures: Sequence[dict[str, Any]]) -> None:
    """Add what stands apart from the comparison of methods: variants of one method, and published curves."""
    if content.variants:
        blocks.heading("Variants of one method")
        blocks.paragraph(VARIANT_WORDS)
        for table in content.variants:
            blocks.table(table)
    if content.curves:
        blocks.heading(CURVES)
        blocks.paragraph(CURVE_WORDS)
        blocks.table(content.curves)
        blocks.figures(figures)


def _figures(blocks: Blocks, figures: Sequence[dict[str, Any]]) -> None:
    if figures:
        blocks.heading("More figures", gallery=True)
        blocks.figures(figures)


def _reproduction(content: Contents, blocks: Blocks) -> None:
    """Add the commands that made the records, and the definitions of the metrics."""
    blocks.heading("How to reproduce every number")
    blocks.paragraph(
        "Each table is also written as CSV, Markdown and LaTeX next to this file; cells.csv has one line per cell with "
        "the folder of its record, the command and the commit; summary.csv has every mean with its standard deviation, "
        "n and 95 % t interval (from 3 seeds). These command lines produced the records:"
    )
    lines, further = commands(content.study)
    for command, note in lines:
        blocks.items.append({"kind": "code", "text": command, "note": note})
    if further:
        blocks.paragraph(further)
    blocks.paragraph("This one produced the report from the records:")
    blocks.items.append({"kind": "code", "text": "continual-intervals report RESULTS", "note": ""})
    blocks.heading("Metrics")
    for metric in METRICS:
        blocks.items.append(
            {
                "kind": "formula",
                "name": metric.short,
                "title": metric.title,
                "formula": metric.formula,
                "source": metric.source,
            }
        )
    blocks.paragraph(
        "R (row i, column j) is the test accuracy on task j after learning task i, row 0 that of the network before "
        "any training; C is the same for certified accuracy, I for the share of samples given to the right task; h_j "
        "is 1 if the claim about task j still holds after the last task, else 0; joint is the run of the method joint "
        "with the same seed. Undefined values are left out with a reason, never set to 0. Libraries differ on "
        "forgetting; this report uses the definition of Chaudhry et al. with the maximum over the rows before the last."
    )


def _sources(content: Contents, blocks: Blocks) -> None:
    """Add published values, comparisons, hyperparameters and what was measured."""
    theirs = [table for table in (*content.whole, content.published, content.orientation) if table]
    if theirs:
        blocks.heading("Published against ours")
        blocks.paragraph(PUBLISHED_WORDS)
        for table in theirs:
            blocks.table(table)
    if content.compared:
        blocks.heading("Best method against every other")
        blocks.table(content.compared)
    blocks.heading("Hyperparameters")
    blocks.table(content.hyperparameters)
    if content.effort:
        blocks.table(content.effort)
    if content.conduct:
        blocks.heading("What was measured")
        blocks.table(content.conduct)
