"""Conformance checks for every method; each finding is a plain sentence: what is wrong and why it matters.

    findings = conform(MyMethod)                 # all scenarios that it supports, on two tasks of the digits

Used by `runners/check_method.py`, by `pytest --method path.py:Class`, and by the test suite over all methods.
"""

from runners.conformance.check import Check, Finding
from runners.conformance.suite import CHECKS, FIELDS, conform, examine, scenarios_of
from runners.conformance.trial import Trial

__all__ = ["CHECKS", "FIELDS", "Check", "Finding", "Trial", "conform", "examine", "scenarios_of"]
