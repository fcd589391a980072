"""Deviations from a fair comparison in a record: training data kept, and use beyond the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reports.keeping import samples
from reports.record import Record

NETWORKS = 2.0
"""Ratio to the benchmark's network from which a method's network counts as another one."""
SHARE = 0.005
"""Admissible share of repeated test samples with different answers."""
ALL = "all scenarios"
"""Scenario entry of a check that covers all scenarios at once."""


def keeps(record: Record) -> bool:
    """Check whether the method kept earlier training data: declared, or found in its state."""
    held = record.fairness.get("held") or {}
    return bool(held.get("rehearses") or samples(record))


def deviations(record: Record) -> list[str]:
    """Clauses on everything that made the cell unlike the others; none for older records."""
    return excesses(record) + oddities(record)


def excesses(record: Record) -> list[str]:
    """Clauses on use beyond the budget and on undeclared training data."""
    held = record.fairness.get("held") or {}
    found = beyond(of_tasks(record))
    if held.get("found", 0) > held.get("declared", 0) and not held.get("rehearses"):
        found.append(_undeclared(held))
    return found


def _undeclared(held: Mapping[str, int]) -> str:
    found, declared = held["found"], held.get("declared", 0)
    which = f", {found - declared:,} of which it does not declare" if declared else " that it does not declare"
    return f"keeps {found:,} training images{which}"


def oddities(record: Record) -> list[str]:
    """Clauses on how the cell's answers came about, and on the conformance suite's findings in its method."""
    held, found = record.fairness.get("held") or {}, []
    if "found" in held and held["found"] < held.get("declared", 0):
        found.append(f"declares {held['declared']:,} training samples; its state holds {held['found']:,}")
    if any(not task["steps"] and task["steps_allowed"] for task in of_tasks(record)) and not in_closed_form(record):
        found.append("took no optimiser step that could be counted")
    if networks(record) > NETWORKS:
        found.append(f"answers with {networks(record):.1f} times the parameters of the benchmark's network")
    again = held.get("independence") or {}
    if again.get("error"):
        found.append(f"does not answer other batches of test samples ({again['error']})")
    if differs(record):
        share = f"{again['differ'] / again['asked']:.1%} of {again['asked']} test samples"
        found.append(f"answers {share} otherwise when they are asked alone or in other batches")
    if failed := failed_checks(record):
        found.append(f"fails checks of the conformance suite: {', '.join(failed)}")
    return found


def in_closed_form(record: Record) -> bool:
    """Check whether nothing is trained by gradients: no step was counted, and the method holds nothing that has any."""
    held = record.fairness.get("held") or {}
    return held.get("module_parameters") == 0 and not any(task["steps"] for task in of_tasks(record))


def networks(record: Record) -> float:
    """Parameters used for a test sample over those of the benchmark's network; each task may have one network."""
    held = record.fairness.get("held") or {}
    size = held.get("network_parameters", 0)
    if not size:
        return 0.0
    of_all = held.get("answers_with_all", 0) / (1 if record.scenario == "til" else record.n_tasks)
    return max(held.get("answers_with", 0), of_all) / size


def differs(record: Record) -> bool:
    """Check whether answers depend on more than their sample; the order of sums may change single ones."""
    again = (record.fairness.get("held") or {}).get("independence") or {}
    return again.get("differ", 0) > max(1, SHARE * again.get("asked", 0))


def verdict(record: Record) -> dict[str, Any]:
    """Findings of the conformance suite in a foreign method; empty without any."""
    return record.fairness.get("conformance") or {}


def failed_checks(record: Record) -> list[str]:
    """Checks that a foreign method fails in the scenario of the record, or in all scenarios."""
    rows = verdict(record).get("failed") or ()
    return list(dict.fromkeys(row["check"] for row in rows if row["scenario"] in (record.scenario, ALL)))


def beyond(tasks: Sequence[Mapping[str, int]]) -> list[str]:
    """Clauses on tasks that exceeded their budget; see runners.cell.usage.of_task for the fields."""
    found = []
    if any(task["steps"] > task["steps_allowed"] for task in tasks):
        found.append("took more optimiser steps than the budget allows")
    if any(task["samples"] > task["samples_allowed"] for task in tasks):
        found.append("trained on more samples than the budget allows")
    if any(task["aside"] > task["available"] for task in tasks):
        found.append("went through the training data more than once after its last counted step")
    if any(task.get("validation") for task in tasks):
        found.append("drew validation samples with gradients on")
    return found


def of_tasks(record: Record) -> list[dict[str, int]]:
    """Measured use of each task."""
    return list(record.fairness.get("tasks") or ())
