"""All checks, and running them over a method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.types import Scenario
from runners.conformance import answers, conduct, costs, fields
from runners.conformance.check import Check, Finding
from runners.conformance.trial import Broken, Trial

CHECKS: tuple[Check, ...] = (*answers.CHECKS, *conduct.CHECKS, *costs.CHECKS)
"""Checks of a method in one scenario; they share one run."""
FIELDS: Check = fields.CHECK
"""The check that needs many short runs, in all scenarios at once."""


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
    wanted = scenarios_of(cls) if scenarios is None else tuple(scenarios)
    trials = [Trial(cls, scenario, device=device, settings=settings) for scenario in wanted]
    trials = [trial for trial in trials if trial.skipped() is None]
    found = [finding for trial in trials for finding in _findings(trial)]
    if with_fields and trials and not any(finding.check == "runs" for finding in found):
        found += [Finding(FIELDS.name, "all scenarios", text, FIELDS.why) for text in fields.unused(trials)]
    return found


def _findings(trial: Trial) -> Iterator[Finding]:
    try:
        _ = trial.run
    except Broken as error:
        why = "What does not run cannot be compared."
        yield Finding("runs", trial.scenario, str(error), why)
        return
    for check in CHECKS:
        try:
            for sentence in check.look(trial):
                yield Finding(check.name, trial.scenario, sentence, check.why)
        except Exception as error:
            yield Finding(check.name, trial.scenario, f"it raises {type(error).__name__}: {error}", check.why)
