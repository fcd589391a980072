"""Every registered method, in every scenario it supports, holds to what runners/conformance asks.

`pytest --method path/to/file.py:Class` asks the same of a method of your own, and runs nothing else.
"""

import math
from typing import Any

import pytest

from benchmarks.types import Scenario
from methods import registry
from runners.conformance import FIELDS, Trial, conform, scenarios_of
from runners.conformance.fields import unused

SMALL = {"chunk": 500, "select_every": 4, "width": 100}
"""Settings that suit a network of 1,500 weights, where a method has them."""
NO_EFFECT_IN_SHORT_RUNS = {"packnet": ["ties"], "hnet": ["online_targets"], "hnet-lstm": ["online_targets"]}
"""Fields whose effect other tests show.

ties acts on exactly equal weights (test_packnet_golden.py). online_targets changes what is kept in memory and no number
beyond rounding, which depends on the processor (test_hnet.py).
"""
AVALANCHE = ("avalanche:EWC", "avalanche:GEM", "avalanche:Replay", "avalanche:AGEM")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    given: list[str] = metafunc.config.getoption("--method") or []
    if "scenario" in metafunc.fixturenames:
        cases = [(name, scenario) for name in given for scenario in scenarios_of(registry.load(name))]
        known = [(name, scenario) for name, info in registry.available().items() for scenario in info.scenarios]
        known += [(name, Scenario.CIL) for name in AVALANCHE]
        metafunc.parametrize(("name", "scenario"), cases or known)
    elif "name" in metafunc.fixturenames:
        every = [pytest.param(name, marks=pytest.mark.slow) for name in registry.available()]
        metafunc.parametrize("name", given or every)


def test_conformance(name: str, scenario: Scenario, request: pytest.FixtureRequest) -> None:
    found = conform(registry.load(name), [scenario], settings=_settings(request), with_fields=False)
    assert not found, "\n" + "\n".join(map(str, found))


def test_every_field_does_something(name: str, request: pytest.FixtureRequest) -> None:
    """Needs many short runs for methods with many fields, so that it waits to be asked for (`-m slow`)."""
    cls = registry.load(name)
    trials = [Trial(cls, scenario, settings=_settings(request)) for scenario in scenarios_of(cls)]
    elsewhere = tuple(f"changing {field} " for field in NO_EFFECT_IN_SHORT_RUNS.get(name, ()))
    idle = [finding for finding in unused(trials, seconds=math.inf) if not finding.startswith(elsewhere)]
    assert not idle, f"{'; '.join(idle)}. {FIELDS.why}"


def _settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {} if request.config.getoption("--method") else SMALL
