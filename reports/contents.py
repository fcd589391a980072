"""Tables and sentences of the report, made of a study."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.untrusted import printable
from reports.abstract import abstract
from reports.before_after import change_table
from reports.certificates import certificate_table
from reports.comparisons import comparison_table
from reports.conduct import conduct_table
from reports.conformance import conformance_table
from reports.costs import cost_table
from reports.deviations import of_tasks
from reports.effort import effort_table
from reports.findings import findings
from reports.front import limitations, methods_table, protocol_table
from reports.guarantees import guarantee_table
from reports.headline import headline_table
from reports.hyperparameters import hyperparameters
from reports.missing import left_out, unfinished_table
from reports.provenance import environment
from reports.published import orientation_table, published_table
from reports.published_curves import curve_table
from reports.published_whole import whole_tables
from reports.ranks import not_drawn
from reports.seeds import seed_tables
from reports.setting import setting_table
from reports.study import Study
from reports.tables import Table, main_tables
from reports.variants import compared, variant_tables
from reports.words import count, join

CELLS_PRINTED_AT_MOST = 3_000
"""Largest number of cells whose single seeds are printed, about ten pages."""


@dataclass(frozen=True)
class Contents:
    """Tables and sentences of the report; its figures take longer and are drawn in parallel."""

    study: Study
    comparison: Study
    """Study without the rows that are shown apart."""
    abstract: list[str]
    methods: Table
    protocol: Table
    headline: Table
    limitations: list[str]
    setting: Table
    before: Table | None
    main: list[Table]
    variants: list[Table]
    curves: Table | None
    untested: list[str]
    guarantee: Table | None
    certificates: Table | None
    cost: Table | None
    conduct: Table | None
    conformance: Table | None
    published: Table | None
    orientation: Table | None
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
        abstract=abstract(main),
        methods=methods_table(study),
        protocol=protocol_table(study),
        headline=headline_table(main),
        limitations=limitations(main),
        setting=setting_table(study),
        before=change_table(before, study, printable(before.source.root.name)) if before else None,
        main=main_tables(main),
        variants=variant_tables(study),
        curves=curve_table(study),
        untested=_untested_ranks(main),
        guarantee=guarantee_table(main),
        certificates=certificate_table(main),
        cost=cost_table(main),
        conduct=conduct_table(study) if any(of_tasks(e.record) for e in study.entries) else None,
        conformance=conformance_table(study),
        published=published_table(study),
        orientation=orientation_table(study),
        whole=whole_tables(study),
        compared=comparison_table(main),
        hyperparameters=hyperparameters(study),
        effort=effort_table(main),
        environment=environment(study),
        seeds=[table for name in study.benchmarks for table in seed_tables(study, name)] if printed else [],
        unfinished=unfinished_table(study),
        left_out=left_out(study),
        findings=_findings(study, main),
    )


def _findings(study: Study, main: Study) -> list[str]:
    """Findings of the comparison; the second says how many cells of the study have no part in it."""
    first, *others = findings(main)
    apart = len(study.entries) - len(main.entries)
    words = f"Variants of one method stand apart and are not counted here: {count(apart, 'cell')}."
    return [first, *([words] if apart else []), *others]


def _untested_ranks(study: Study) -> list[str]:
    """Sentences that explain a missing critical-difference diagram."""
    if len(study.benchmarks) < 2:
        return []
    reasons: dict[str, list[str]] = {}
    for scenario in study.scenarios:
        if reason := not_drawn(study, scenario):
            reasons.setdefault(reason, []).append(scenario.upper())
    return [f"Average ranks in {join(where)} {reason}." for reason, where in reasons.items()]
