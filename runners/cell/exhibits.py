"""Small tables that a method gives for the report after the last task, checked before they are kept."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from methods.base import Exhibit, Method
from reports.schema import ROWS_AT_MOST, misfit

NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")


def collect(method: Method) -> dict[str, dict[str, list[float]]]:
    """The method's exhibits, checked and cut to six digits. Raises ValueError for a table that cannot be kept."""
    found = {name: _table(name, columns) for name, columns in method.exhibits().items()}
    for name, columns in found.items():
        if reason := misfit(name, columns, method.spec.n_tasks):
            raise ValueError(reason)
    return found


def _table(name: str, columns: Exhibit) -> dict[str, list[float]]:
    if not NAME.fullmatch(name):
        raise ValueError(f"the exhibit {name!r} must be named with lower-case letters, digits and hyphens")
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1:
        raise ValueError(f"the columns of the exhibit {name} have different lengths: {sorted(lengths)}")
    if max(lengths) > ROWS_AT_MOST:
        raise ValueError(f"the exhibit {name} has {max(lengths)} rows; at most {ROWS_AT_MOST} are kept")
    return {str(column): [_number(value) for value in values] for column, values in columns.items()}


def _number(value: Any) -> float:
    return int(value) if isinstance(value, int | np.integer) else float(f"{float(value):.6g}")
