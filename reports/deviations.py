"""Deviations from a fair comparison in a record: training data kept, and use beyond the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reports.record import Record


def keeps(record: Record) -> bool:
    """Check whether the method kept earlier training data: declared, or found in its state."""
    held = record.fairness.get("held") or {}
    return bool(held.get("rehearses") or held.get("declared") or held.get("found"))


def deviations(record: Record) -> list[str]:
    """Clauses on use beyond the budget and on undeclared training data; none for older records."""
    held = record.fairness.get("held") or {}
    found = beyond(of_tasks(record))
    if held.get("found", 0) > held.get("declared", 0) and not held.get("rehearses"):
        found.append("keeps training images that it does not declare")
    return found


def beyond(tasks: Sequence[Mapping[str, int]]) -> list[str]:
    """Clauses on tasks that exceeded their budget; see runners.cell.usage.of_task for the fields."""
    found = []
    if any(task["steps"] > task["steps_allowed"] for task in tasks):
        found.append("took more optimiser steps than the budget allows")
    if any(task["samples"] > task["samples_allowed"] for task in tasks):
        found.append("trained on more samples than the budget allows")
    if any(task["aside"] > task["available"] for task in tasks):
        found.append("went through the training data more than once after its last counted step")
    if any(not task["steps"] and task["steps_allowed"] for task in tasks):
        found.append("took no optimiser step that could be counted")
    if any(task.get("validation") for task in tasks):
        found.append("drew validation samples with gradients on")
    return found


def of_tasks(record: Record) -> list[dict[str, int]]:
    """Measured use of each task."""
    return list(record.fairness.get("tasks") or ())
