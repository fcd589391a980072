"""Values that this repository's suites ship: each choice follows from the accuracies that are recorded with it."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean
from typing import Any

import pytest

from benchmarks import catalogue
from runners.grid import suite
from runners.tuning import chosen, search, trials

FILES = sorted((suite.SUITES / "tuned").glob("*.toml"))
STREAMS = {
    "accuracy": "by_stream",
    "accuracy_best": "by_stream_best",
    "accuracy_before": "by_stream_before",
    "accuracy_published": "by_stream_published",
}


@dataclass(frozen=True)
class Asked:
    """What the rule reads of a study."""

    answers: int
    known: tuple[dict[str, Any], ...]


def entries() -> Iterator[Any]:
    for file in FILES:
        for entry in chosen.read(file):
            name = f"{file.stem} {entry['benchmark']} {entry['scenario']} {entry['method']}"
            if "earlier_trials" not in entry["provenance"]:  # else what was known before is of the first search
                yield pytest.param(entry["benchmark"], entry["provenance"], id=name)


@pytest.mark.parametrize(("benchmark", "why"), list(entries()))
def test_a_shipped_choice_follows_from_the_accuracies_recorded_with_it(benchmark: str, why: dict[str, Any]) -> None:
    def trial(number: int, name: str) -> search.Trial:
        same = name == "accuracy_best" and why[name] == why["accuracy"]
        streams = why.get(STREAMS[name], why.get("by_stream", ()) if same else ())
        return search.Trial(number, "complete", why[name], {}, 1.0, None, None, tuple(streams))

    for name, streams in STREAMS.items():
        if streams in why:
            assert len(why[streams]) == len(why["seeds"]), streams
            assert mean(why[streams]) == pytest.approx(why[name], abs=1e-12), streams
    known = [name for name in ("accuracy_before", "accuracy_published") if name in why]
    found, ended = catalogue.find(benchmark), [trial(number, name) for number, name in enumerate(known)]
    asked: Any = Asked(found.validation * found.n_tasks * len(why["seeds"]), ({},) * len(known))
    best, kept = trial(len(ended), "accuracy_best"), trial(len(ended), "accuracy")
    if why.get("prefer") == "certified":
        assert (best.accuracy or 0) - (kept.accuracy or 0) <= trials.error_of_answers(asked, best)
        return
    nearest = max(ended, key=lambda each: each.accuracy or 0)
    gain = (best.accuracy or 0) - (nearest.accuracy or 0)
    if len(why["seeds"]) > 1 and gain > trials.error_of_answers(asked, best):
        assert best.by_stream and nearest.by_stream, "which streams gain?"
    assert search.choice(asked, [*ended, best]).accuracy == kept.accuracy


def test_every_shipped_suite_that_names_tuned_values_is_judged() -> None:
    named = {each.tuned for each in map(suite.read, sorted(suite.SUITES.glob("*.toml"))) if each.tuned}
    assert {f"tuned/{file.name}" for file in FILES} == named
