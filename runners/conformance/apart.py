"""Run of the conformance suite on one method in a separate process, with a time limit.

The process is started as `python -P -m runners.conformance.apart`: what it is to check comes as JSON by its standard
input, the verdict goes as JSON to its standard output. What the method prints goes to standard error.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import untrusted
from runners.process import cpu

ROOT = Path(__file__).resolve().parents[2]
FOUND_AT_MOST, CHARACTERS = 40, 400
"""Of the findings, and of a sentence, that a verdict holds."""

Verdict = dict[str, Any]
"""`scenarios`; of the checks, lists `passed` and `skipped` (check, scenario, sentence) and `failed` (the same);
`not_checked`, a reason, empty where there is a result."""


def unchecked(why: str, scenarios: Sequence[str]) -> Verdict:
    """Verdict without a result."""
    return {"scenarios": list(scenarios), "passed": [], "failed": [], "skipped": [], "not_checked": why}


def examined(reference: str, source: str, scenarios: Sequence[str], limit: float) -> Verdict:
    """The verdict on a method whose code has the hash `source`, after `limit` seconds at most. Raises nothing of it."""
    asked = json.dumps({"reference": reference, "source": source, "scenarios": list(scenarios)})
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, **cpu.variables(1), "PYTHONPATH": os.pathsep.join(paths)}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "runners.conformance.apart"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            env=environment,
            start_new_session=True,  # so that what the method starts ends with it
        )
        with process:
            try:
                answer, _ = process.communicate(asked.encode(), timeout=limit)
            except subprocess.TimeoutExpired:
                return unchecked(f"took longer than {limit:g} s", scenarios)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        try:
            return untrusted.parse(answer.decode())
        except ValueError:
            said.seek(0)
            last = said.read().decode(errors="replace").strip().rpartition("\n")[2]
            return unchecked(f"the suite ended early: {_text(last) or f'exit code {process.returncode}'}", scenarios)


def main() -> None:
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    asked = json.load(sys.stdin)
    cpu.prepare(1)
    try:
        verdict = _verdict(asked)
    except Exception as error:
        verdict = unchecked(_text(f"{type(error).__name__}: {error}"), asked["scenarios"])
    pipe.write(json.dumps(verdict))
    pipe.flush()
    os._exit(0)  # without waiting for threads that the method has left


def _verdict(asked: dict[str, Any]) -> Verdict:
    from benchmarks.types import Scenario
    from runners.conformance.suite import examine
    from runners.grid.loading import load_method

    loaded = load_method(asked["reference"])
    if loaded.source != asked["source"]:
        return unchecked("the code changed while the run was under way", asked["scenarios"])
    looked = examine(loaded.cls, [Scenario(name) for name in asked["scenarios"]])
    failed = [_row(each.check, each.scenario, finding.sentence) for each in looked for finding in each.found]
    return {
        "scenarios": asked["scenarios"],
        "passed": [_row(each.check, each.scenario) for each in looked if not each.found and not each.skipped],
        "failed": failed[:FOUND_AT_MOST],
        "skipped": [_row(each.check, each.scenario, each.skipped) for each in looked if each.skipped],
        "not_checked": "",
    }


def _row(check: str, scenario: str, sentence: str = "") -> dict[str, str]:
    return {"check": check, "scenario": str(scenario), "sentence": _text(sentence)}


def _text(text: str) -> str:
    return untrusted.printable(" ".join(text.split()))[:CHARACTERS]


if __name__ == "__main__":
    main()
