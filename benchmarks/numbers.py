"""Checks of numbers that users write: whole ones, and those of a budget.

Not in benchmarks/types.py: every cell's key holds the hash of that module.
"""

from __future__ import annotations

import math

from benchmarks.types import Budget, UserError, ValidatedBudget


def is_whole(value: object, least: int) -> bool:
    """Check that a value is an int from `least`; True, False and numbers of numpy are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def check_budget(budget: Budget) -> None:
    """Raise UserError for numbers that are no ints, or not finite."""
    whole = {"batch_size": budget.batch_size, "steps": budget.steps, "epochs": budget.epochs}
    if isinstance(budget, ValidatedBudget):
        whole["patience"] = budget.patience
    for name, value in whole.items():
        absent = value is None and name in ("steps", "epochs")
        if not absent and not is_whole(value, 1):
            raise UserError(f"budget: {name} = {value!r} must be an int, at least 1")
    if isinstance(budget, ValidatedBudget):
        for name, least in (("divisor", 1), ("lowest_rate", 0)):
            value = getattr(budget, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not least < value < math.inf:
                raise UserError(f"budget: {name} = {value!r} must be a finite number above {least}")
