"""List of all checks, and their run on a method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from benchmarks.types import Scenario
from runners.conformance import answers, conduct, costs, fields, mistakes
from runners.conformance.check import Check, Finding, Looked
from runners.conformance.trial import Broken, Trial

CHECKS: tuple[Check, ...] = (*answers.CHECKS, *conduct.CHECKS, *costs.CHECKS)
"""Checks of a method in one scenario; they share one run."""
FIELDS: Check = fields.CHECK
"""The check that needs many short runs, in all scenarios at once."""
ALL = "all scenarios"


def scenarios_of(cls: type) -> tuple[Scenario, ...]:
    """The scenarios that a method supports, in their usual order."""
    return mistakes.supported(cls)


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
    supported = scenarios_of(cls)
    wanted = supported if scenarios is None else tuple(scenarios)
    trials, looked = [], []
    for trial in (Trial(cls, scenario, device=device, settings=settings) for scenario in wanted):
        reason = _reason(trial)
        trials += [] if reason else [trial]
        looked += [Looked(check.name, trial.scenario, skipped=reason) for check in CHECKS] if reason else _looked(trial)
    if with_fields:
        crashed = any(each.check == "runs" and each.found for each in looked)
        why = "" if trials and not crashed else "the method does not run"
        texts = _sentences(FIELDS.name, cls, lambda: fields.unused(trials)) if not why else []
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
        _ = trial.skipped(), trial.run
    except Broken as error:
        broken = Finding("runs", trial.scenario, str(error), "What does not run cannot be compared.")
        rest = (Looked(check.name, trial.scenario, skipped="the method does not run") for check in CHECKS)
        return [Looked("runs", trial.scenario, (broken,)), *rest]
    looked = [Looked("runs", trial.scenario)]
    for check in CHECKS:
        if why := check.skip(trial):
            looked.append(Looked(check.name, trial.scenario, skipped=why))
            continue
        texts = _sentences(check.name, trial.cls, partial(check.look, trial))
        found = tuple(Finding(check.name, trial.scenario, text, check.why) for text in texts)
        looked.append(Looked(check.name, trial.scenario, found, note="" if found else _note(check, trial)))
    return looked


def _sentences(check: str, cls: type, look: Callable[[], Iterable[str]]) -> list[str]:
    """Sentences of a check; what the method raises on the way is one more."""
    texts = []
    try:
        for text in look():
            texts.append(text)
    except Broken as error:
        texts.append(str(error))
    except (Exception, SystemExit) as error:
        texts.append(mistakes.told(f"the check {check!r}", error, cls))
    return texts


def _note(check: Check, trial: Trial) -> str:
    try:
        return check.note(trial)
    except Exception:  # what is wrong has been found by then
        return ""
