"""Contents of the report in order: headings, paragraphs, tables and figures for the typst template."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reports import statistics
from reports.before_after import change_table
from reports.blocks import Blocks
from reports.certificates import certificate_table
from reports.comparisons import comparison_table
from reports.conduct import conduct_table
from reports.conformance import conformance_table
from reports.costs import cost_table
from reports.deviations import excesses, oddities, of_tasks
from reports.effort import effort_table
from reports.findings import findings, methods
from reports.guarantees import guarantee_table
from reports.hyperparameters import hyperparameters
from reports.metrics import AIA, FORGETTING, FWT, LA
from reports.missing import left_out, unfinished_table
from reports.provenance import commands, environment
from reports.published import published_table
from reports.published_curves import TITLE as CURVES
from reports.published_curves import curve_table
from reports.published_whole import whole_tables
from reports.ranks import not_drawn
from reports.seeds import seed_tables
from reports.setting import setting_table
from reports.study import METRICS, SCENARIOS, Study, pretty
from reports.tables import Table, main_tables
from reports.variants import compared, variant_tables
from reports.words import count, join

CELLS_PRINTED_AT_MOST = 3_000
"""Largest number of cells whose single seeds are printed, about ten pages."""
LEARNT_AT_MOST = 4
"""Largest number of embedding and mask figures in the body; more go to the appendix."""
NAMES_AT_MOST = 10
"""Largest number of methods that the setting names; more are only counted."""
TITLE = "Continual learning, compared"


@dataclass(frozen=True)
class Paper:
    """Data for the template, and its tables (each is also written as CSV, Markdown and LaTeX)."""

    data: dict[str, Any]
    tables: tuple[Table, ...]


@dataclass(frozen=True)
class Contents:
    """Tables and sentences of the report; its figures take longer and are drawn in parallel."""

    study: Study
    comparison: Study
    """Study without the rows that are shown apart."""
    setting: Table
    before: Table | None
    main: list[Table]
    variants: list[Table]
    curves: Table | None
    untested: list[str]
    guarantee: Table | None
    cost: Table | None
    conduct: Table | None
    conformance: Table | None
    published: Table | None
    whole: list[Table]
    """Published tables as a whole."""
    compared: Table | None
    hyperparameters: Table
    effort: Table | None
    environment: Table
    seeds: list[Table]
    unfinished: Table | None
    left_out: Table | None
    findings: list[str]


def contents(study: Study, before: Study | None = None) -> Contents:
    """Make every table and sentence of the report. before: another study to compare with this one."""
    main = compared(study)
    printed = len(study.entries) <= CELLS_PRINTED_AT_MOST
    return Contents(
        study=study,
        comparison=main,
        setting=setting_table(study),
        before=change_table(before, study, before.source.root.name) if before else None,
        main=main_tables(main),
        variants=variant_tables(study),
        curves=curve_table(study),
        untested=_untested_ranks(main),
        guarantee=guarantee_table(main),
        cost=cost_table(main),
        conduct=conduct_table(study) if any(of_tasks(e.record) for e in study.entries) else None,
        conformance=conformance_table(study),
        published=published_table(study),
        whole=whole_tables(study),
        compared=comparison_table(main),
        hyperparameters=hyperparameters(study),
        effort=effort_table(main),
        environment=environment(study),
        seeds=[table for name in study.benchmarks for table in seed_tables(study, name)] if printed else [],
        unfinished=unfinished_table(study),
        left_out=left_out(study),
        findings=findings(main),
    )


def paper(content: Contents, figures: Sequence[dict[str, Any]]) -> Paper:
    """Arrange the report. figures: data of each figure (stem, path, caption, width, appendix)."""
    study, body = content.study, Blocks()
    drawn = [figure["stem"] for figure in figures]

    def figure(prefix: str) -> str:
        return _range("fig", [stem for stem in drawn if stem.startswith(prefix)])

    body.heading("Setting")
    for sentence in _setting(content):
        body.paragraph(sentence)
    body.table(content.setting)
    if content.conformance:
        body.table(content.conformance)
    body.figures(f for f in figures if _section(f) == "setting")
    if content.before:
        body.heading("Before and after")
        body.paragraph(f"{_range('tab', [content.before.stem])} compares these results with those of another folder.")
        body.table(content.before)
    body.heading("Results")
    stems = [table.stem for table in content.main]
    body.paragraph(f"{_how_to_read(content.comparison)} The numbers are in {_range('tab', stems)}.")
    for table in content.main:
        body.table(table)
    body.figures(f for f in figures if _section(f) == "results")
    curves = [f"{words} ({figure(prefix)})" for prefix, words in FIGURE_WORDS.items() if figure(prefix)]
    body.paragraph(
        f"The figures show {join(curves)}." if curves else "There are no figures, because no cell has finished."
    )
    for sentence in content.untested:
        body.paragraph(sentence)
    _apart(content, body, [f for f in figures if _section(f) == "authors"])
    guarantee = content.guarantee
    if guarantee:
        body.heading("Guarantees")
        shown = [name for name in (_range("tab", [guarantee.stem]), figure("certified"), figure("widths")) if name]
        body.paragraph(f"{GUARANTEE_WORDS} See {join(shown)}.")
        body.table(guarantee)
        if certificates := certificate_table(content.comparison):
            body.table(certificates)
        body.figures(f for f in figures if _section(f) == "guarantees")
    learnt = [f for f in figures if _section(f) == "learnt"]
    in_body = len(learnt) <= LEARNT_AT_MOST
    if learnt:
        words = {"embeddings": "the embeddings of tasks with their intervals", "masks": "the overlap of tasks' masks"}
        parts = [f"{text} ({figure(prefix)})" for prefix, text in words.items() if figure(prefix)]
        body.heading("Learnt structure")
        body.paragraph(f"The records also hold {join(parts)}{'' if in_body else ', drawn in the appendix'}.")
        body.figures(learnt if in_body else ())
    if content.cost:
        body.heading("Cost")
        words = _range("tab", [content.cost.stem])
        body.paragraph(f"Training and evaluation run on separate clocks; {words} has both.")
        body.table(content.cost)
    appendix = _appendix(content, [f for f in figures if f["appendix"] or (f in learnt and not in_body)])
    if any(table.stem == "published" for table in appendix.tables):
        body.paragraph(f"{_range('tab', ['published'])} in the appendix compares values from the literature with ours.")
    data = {
        "title": TITLE,
        "subtitle": _subtitle(study),
        "summary": content.findings,
        "body": body.items,
        "appendix": appendix.items,
    }
    _settle(body.items + appendix.items)
    return Paper(data, (*body.tables, *appendix.tables))


def _apart(content: Contents, body: Blocks, figures: Sequence[dict[str, Any]]) -> None:
    """Add what stands apart from the comparison of methods: variants of one method, and published curves."""
    if content.variants:
        body.heading("Variants of one method")
        where = _range("tab", [table.stem for table in content.variants])
        body.paragraph(f"{VARIANT_WORDS} The numbers are in {where}.")
        for table in content.variants:
            body.table(table)
    if content.curves:
        body.heading(CURVES)
        drawn = [_range("fig", [figure["stem"] for figure in figures])] if figures else []
        body.paragraph(f"{CURVE_WORDS} See {join([_range('tab', [content.curves.stem]), *drawn])}.")
        body.table(content.curves)
        body.figures(figures)


def _settle(items: Sequence[dict[str, Any]]) -> None:
    """Escape text that looks like a reference but names no table or figure here, such as a label `@[x]`."""
    known = {item["label"] for item in items if "label" in item}
    for item in items:
        if item["kind"] == "paragraph":
            plain = REFERENCE.sub(lambda found: found[0] if found[1] in known else f"@ [{found[1]}]", item["text"])
            item["text"] = plain


REFERENCE = re.compile(r"@\[([^\]]+)\]")
"""Pattern of references in paragraphs; see paper.typ."""
PUBLISHED_WORDS = (
    "Values from the literature for the same method, benchmark and scenario. They come from other code, networks, "
    "budgets and tuning procedures, so a difference is no verdict on either side; only values read in the source are "
    "unmarked."
)

VARIANT_WORDS = (
    "Here one method was run with several hyperparameters, and no other method. These rows have no part in the other "
    "tables of results, in ranks, tests and figures; cells.csv, summary.csv and the tables of the appendix on "
    "settings and single seeds include them."
)
CURVE_WORDS = (
    "The repository of HINT (HyperInterval) has figures of its accuracy on every task after the last one. They stand "
    "next to the rows of this report with the same network, benchmark, scenario and value."
)

FIGURE_WORDS = {
    "accuracy": "accuracy while tasks are learnt",
    "bwt": "backward transfer",
    "per-task": "accuracy on every task at the end",
    "forgetting": "forgetting while tasks are learnt",
    "acc-bwt": "accuracy against backward transfer",
    "cost": "accuracy against training time",
    "critical-difference": "average ranks",
    "heat": "the accuracy matrices",
}

GUARANTEE_WORDS = (
    "Interval methods guarantee that old tasks are not forgotten. This section tests the guarantee: certified accuracy "
    "is the share of test samples whose true logit's lower bound exceeds every other upper bound over the whole "
    "parameter region kept for the task. A claim whose premise fails (parameters outside the region, a region that has "
    "drifted) is void. What a guarantee was worth is therefore the accuracy that was certified when an old task was "
    "learnt and by a claim that still stands; the last task is left out, since nothing was learnt after it."
)


def _section(figure: dict[str, Any]) -> str:
    """Section of a figure, by the first word of its stem."""
    sections = {"samples": "setting", "certified": "guarantees", "widths": "guarantees", "authors": "authors"}
    sections |= {"embeddings": "learnt", "masks": "learnt"}
    return "appendix" if figure["appendix"] else sections.get(figure["stem"].split("-")[0], "results")


def _appendix(content: Contents, figures: Sequence[dict[str, Any]]) -> Blocks:
    """Arrange the appendix. figures: those that belong to it."""
    study, blocks = content.study, Blocks(single=True)
    blocks.heading("How to reproduce every number")
    blocks.paragraph(
        "Each table is also written as CSV, Markdown and LaTeX next to this file; cells.csv has one line per cell with "
        "the folder of its record, the command and the commit; summary.csv has every mean with its standard deviation, "
        "n and 95 % t interval (from 3 seeds). These command lines produced the records:"
    )
    for command, note in commands(study)[:40]:
        blocks.items.append({"kind": "code", "text": command, "note": note})
    blocks.paragraph("This one produced the report from the records:")
    blocks.items.append({"kind": "code", "text": "python runners/report.py RESULTS", "note": ""})
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
    if content.published:
        blocks.heading("Published against ours")
        blocks.paragraph(PUBLISHED_WORDS)
        for table in content.whole:
            blocks.table(table)
        blocks.table(content.published)
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
    blocks.heading("Environment")
    blocks.table(content.environment)
    blocks.heading("Single seeds")
    if len(study.entries) > CELLS_PRINTED_AT_MOST:
        blocks.paragraph(
            f"The values of all {len(study.entries)} cells would fill many pages: cells.csv has one line per cell."
        )
    for table in content.seeds:
        blocks.table(table)
    for title, table in (("Cells without results", content.unfinished), ("Left out", content.left_out)):
        if table:
            blocks.heading(title)
            blocks.table(table)
    if figures:
        blocks.heading("More figures")
        blocks.figures(figures)
    return blocks


def _untested_ranks(study: Study) -> list[str]:
    """Sentences that explain a missing critical-difference diagram."""
    if len(study.benchmarks) < 2:
        return []
    reasons: dict[str, list[str]] = {}
    for scenario in study.scenarios:
        if reason := not_drawn(study, scenario):
            reasons.setdefault(reason, []).append(scenario.upper())
    return [f"Average ranks in {join(where)} {reason}." for reason, where in reasons.items()]


def _range(kind: str, stems: Sequence[str]) -> str:
    """Reference to tables or figures: the only one, or first to last."""
    return " to ".join(f"@[{kind}:{stem}]" for stem in dict.fromkeys([*stems[:1], *stems[-1:]]))


def _subtitle(study: Study) -> str:
    suites = sorted({entry.record.suite for entry in study.entries if entry.record.suite})
    ends = sorted(entry.record.finished[:10] for entry in study.entries if entry.record.finished)
    parts = [count(len(study.entries), "cell"), count(len(study.methods), "method")]
    if suites:
        parts.append(("suite " if len(suites) == 1 else "suites ") + join(suites))
    if ends:
        parts.append(ends[0] if ends[0] == ends[-1] else f"{ends[0]} to {ends[-1]}")
    return " · ".join(parts)


def _setting(content: Contents) -> list[str]:
    study = content.comparison
    words = {
        "til": "in TIL (task-incremental) the task is given in training and at test and a method answers over the "
        "task's own classes",
        "dil": "in DIL (domain-incremental) the task is not given and labels are within-task labels",
        "cil": "in CIL (class-incremental) the task is not given and answers range over all classes seen so far",
    }
    scenarios = "; ".join(words.get(scenario, scenario) for scenario in study.scenarios)
    names = join([pretty(benchmark) for benchmark in study.benchmarks])
    learners = join(study.labels) if len(study.labels) <= NAMES_AT_MOST else methods(study)
    first = (
        f"{learners} learn the tasks of {names} sequentially. "
        f"{scenarios[:1].upper()}{scenarios[1:]} (van de Ven, Tuytelaars & Tolias 2022)."
    )
    second = (
        "The same seed gives every method the same stream of tasks and the same order of data, so comparisons are "
        f"paired. {_measured(content.study)} Test data are used "
        "for measurement only: a method selects models on validation samples held out of the training data. "
        "@[tab:hyperparameters] gives the source of each hyperparameter."
    )
    return [first, second]


def _measured(study: Study) -> str:
    """Sentence on the use of the budget, from measured values only."""
    done = [entry for entry in study.entries if entry.record.done]
    known = [entry for entry in done if of_tasks(entry.record)]
    if not known:
        return "Optimiser steps, training samples and networks were not measured in these records."
    beyond = sorted({entry.label for entry in known if excesses(entry.record)})
    odd = sorted({entry.label for entry in known if oddities(entry.record)})
    verdict = f"{join(beyond)} went beyond the budget or kept data unsaid" if beyond else "no method went beyond it"
    also = f" Of {join(odd)} notes under the tables say how the answers came about." if odd else ""
    rest = "" if len(known) == len(done) else f" ({len(known)} of {len(done)} finished cells were measured)"
    return f"What each took of the budget was counted{rest}: {verdict}; see @[tab:conduct].{also}"


def _how_to_read(study: Study) -> str:
    shown = (FORGETTING, FWT, LA, AIA)
    counts = [len(study.seeds(group)) for group in study.groups]
    fewest, most = min(counts), max(counts)
    text = (
        "ACC is the mean accuracy over all tasks after the last one, BWT the effect of later tasks on earlier ones; "
        + ", ".join(f"{m.short} {m.title}" for m in shown)
        + " (formulas in the appendix). Only ACC and AIA have a best value in bold, and only of several seeds: a "
        "method that learns nothing forgets nothing. "
    )
    if statistics.smallest_p(most) > statistics.ALPHA:
        text += (
            f"{'One seed gives' if most == 1 else f'{most} seeds give'} no significant difference in an exact "
            f"two-sided test (p is {statistics.smallest_p(most):.3g} at best), so nothing is underlined."
        )
    else:
        text += (
            "Underlined values are not shown to be worse than the best: all pairs of methods are compared by sign "
            "flips over the seeds, with at most 5 % chance of any false difference among them, so that the best may be "
            "chosen on the same seeds. With too few seeds for a difference to show, nothing is underlined."
        )
    if fewest != most:
        text += f" Seeds differ between benchmarks ({fewest} to {most})."
    return text


__all__ = ["SCENARIOS", "Paper", "paper"]
