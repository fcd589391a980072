"""The phases of a method's training on the pretended device, so that a wait can be said to be in a step or outside."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from methods.base import Method
from methods.shared import stepping
from runners.cell.evaluation import Evaluator
from tests.pretended.device import Device

STEPS, CHECK, LOOK, FIT, LEARN, EVALUATION = "steps", "check", "look", "fit", "learn", "evaluation"
"""Steps, the check of their losses, what a method does at a check, the rest of `fit` and of `learn`, measuring."""


@dataclass
class Phases:
    """What the methods of a class went through."""

    entered: Counter[str] = field(default_factory=Counter)
    """How often each phase began."""
    stepped: list[str] = field(default_factory=list)
    """How the steps of each `fit` ran."""


def name_phases(device: Device, cls: type[Method], patch: pytest.MonkeyPatch) -> Phases:
    """Let the device name phases while methods of a class learn and are measured."""
    phases = Phases()

    def named(phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def in_phase(*args: Any, **kwargs: Any) -> Any:
            phases.entered[phase] += 1
            with device.during(phase):
                return function(*args, **kwargs)

        return in_phase

    fit = cls.fit

    def watched_fit(self: Method, *args: Any, on_check: Callable[[int], None] | None = None, **kwargs: Any) -> None:
        fit(self, *args, on_check=on_check and named(LOOK, on_check), **kwargs)
        phases.stepped.append(self.stepped)

    patch.setattr(cls, "fit", named(FIT, watched_fit))
    patch.setattr(cls, "learn", named(LEARN, cls.learn))
    patch.setattr(Method, "_check", named(CHECK, Method._check))
    patch.setattr(Evaluator, "measure", named(EVALUATION, Evaluator.measure))
    for kind in vars(stepping).values():
        if isinstance(kind, type) and hasattr(kind, "run"):
            patch.setattr(kind, "run", named(STEPS, kind.run))
    return phases
