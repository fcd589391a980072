"""Rows of one method with other hyperparameters: a report shows them apart from the comparison of methods."""

from __future__ import annotations

from reports.study import Group, Study
from reports.tables import Table, detail


def apart(study: Study) -> list[Group]:
    """Groups that hold variants of one method and no other method; none if all groups do.

    Every variant would be one more row of each table over benchmarks, without a value on any other benchmark.
    """
    found = [group for group in study.groups if _of_one_method(study, group)]
    return found if len(found) < len(study.groups) else []


def _of_one_method(study: Study, group: Group) -> bool:
    records = [entry.record for label in study.rows(group) for entry in study.at(group, label)]
    return len({record.method for record in records}) == 1 and any(record.label != record.method for record in records)


def compared(study: Study) -> Study:
    """Study of the comparison of methods: all groups that are not `apart`."""
    left_out = set(apart(study))
    if not left_out:
        return study
    return Study(study.source, tuple(entry for entry in study.entries if entry.group not in left_out))


def variant_tables(study: Study) -> list[Table]:
    """Table of all metrics of each group `apart`."""
    return [detail(study, group) for group in apart(study)]
