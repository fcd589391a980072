"""Check of a method, and its findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from runners.conformance.trial import Trial


@dataclass(frozen=True)
class Check:
    """Requirement on every method. `look` yields a sentence for each violation."""

    name: str
    holds: str
    """Requirement, as a statement that a sound method makes true."""
    why: str
    """Consequence of a violation in a comparison."""
    look: Callable[[Trial], Iterator[str]]
    skip: Callable[[Trial], str] = lambda _: ""
    """Reason to skip the check in a trial whose run exists; empty where there is none."""
    note: Callable[[Trial], str] = lambda _: ""
    """Remark on a method that passes the check; empty where there is none."""


@dataclass(frozen=True)
class Looked:
    """Outcome of a check in a scenario: its findings, or why it was skipped; else it passed, perhaps with a note."""

    check: str
    scenario: str
    found: tuple[Finding, ...] = ()
    skipped: str = ""
    note: str = ""


@dataclass(frozen=True)
class Finding:
    """Finding of a check in a scenario."""

    check: str
    scenario: str
    sentence: str
    why: str

    def __str__(self) -> str:
        return f"{self.check} ({self.scenario}): {self.sentence}. {self.why}"
