"""List of all checks, and their run on a method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.types import Scenario
from runners.conformance import answers, conduct, costs, fields
from runners.conformance.check import Check, Finding, Looked
from runners.conformance.trial import Broken, Trial

CHECKS: tuple[Check, ...] = (*answers.CHECKS, *conduct.CHECKS, *costs.CHECKS)
"""Checks of a method in one scenario; they share one run."""
FIELDS: Check = fields.CHECK
"""The check that needs many short runs, in all scenarios at once."""
ALL = "all scenarios"


def scenarios_of(cls: type) -> tuple[Scenario, ...]:
    """The scenarios that a method supports, in their usual order."""
    supported: Any = cls
    return tuple(scenario for scenario in Scenario if scenario in supported.supports)


def conform(
    cls: type,
    scenarios: Sequence[Scenario] | None = None,
    *,
    device: str = "cpu",
    settings: dict[str, Any] | None = None,
    with_fields: bool = True,
) -> list[Finding]:
    """Every finding of every check. settings: values for the method's Config instead of its defaults."""
    looked = examine(cls, scenarios, device=device, settings=settings, with_fields=with_fields)
    return [finding for each in looked for finding in each.found]


def examine(
    cls: type,
    scenarios: Sequence[Scenario] | None = None,
    *,
    device: str = "cpu",
    settings: dict[str, Any] | None = None,
    with_fields: bool = True,
) -> list[Looked]:
    """Outcome of every check in every scenario. Takes the arguments of `conform`."""
    wanted = scenarios_of(cls) if scenarios is None else tuple(scenarios)
    trials, looked = [], []
    for trial in (Trial(cls, scenario, device=device, settings=settings) for scenario in wanted):
        reason = _reason(trial)
        trials += [] if reason else [trial]
        looked += [Looked(check.name, trial.scenario, skipped=reason) for check in CHECKS] if reason else _looked(trial)
    if with_fields:
        crashed = any(each.check == "runs" and each.found for each in looked)
        why = "" if trials and not crashed else "the method does not run"
        texts = fields.unused(trials) if not why else ()
        found = tuple(Finding(FIELDS.name, ALL, text, FIELDS.why) for text in texts)
        looked.append(Looked(FIELDS.name, ALL, found, why))
    return looked


def _reason(trial: Trial) -> str:
    """The method's own reason for not running here."""
    try:
        return trial.skipped() or ""
    except Broken:
        return ""  # `_looked` says so


def _looked(trial: Trial) -> list[Looked]:
    try:
        _ = trial.run
    except Broken as error:
        broken = Finding("runs", trial.scenario, str(error), "What does not run cannot be compared.")
        rest = (Looked(check.name, trial.scenario, skipped="the method does not run") for check in CHECKS)
        return [Looked("runs", trial.scenario, (broken,)), *rest]
    looked = [Looked("runs", trial.scenario)]
    for check in CHECKS:
        if why := check.skip(trial):
            looked.append(Looked(check.name, trial.scenario, skipped=why))
            continue
        texts = []
        try:
            texts += check.look(trial)
        except Exception as error:
            texts.append(f"it raises {type(error).__name__}: {error}")
        found = tuple(Finding(check.name, trial.scenario, text, check.why) for text in texts)
        looked.append(Looked(check.name, trial.scenario, found))
    return looked
