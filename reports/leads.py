"""Leads of the best method over the second in every benchmark and scenario, and their significance in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import NamedTuple

from reports import statistics
from reports.metrics import ACC
from reports.names import display
from reports.resolution import images_of, tie
from reports.study import Group, Study
from reports.words import count, join


def means(study: Study, group: Group) -> list[tuple[str, float]]:
    """Labels and their mean ACC, best first, without joint and methods that keep training data."""
    found = []
    for label in study.rows(group):
        values = study.values(group, label, ACC)
        if values and label not in study.unranked:
            found.append((label, fmean(values.values())))
    return sorted(found, key=lambda pair: -pair[1])


class _Test(NamedTuple):
    """Lead of the best over the second in one group."""

    group: Group
    best: str
    second: str
    p: float
    """Adjusted for all pairs of methods of the group; 1 if the best is not ahead on the seeds that both have."""
    n: int
    effect: float


class Lead(NamedTuple):
    """Lead of the best method of a group over the second, by mean ACC."""

    group: Group
    best: str
    gap: float
    shown: bool
    """True if the difference of the two is significant, by the rule of `significance`."""
    tied: bool
    """True if the two means are equal as printed or less than one test image apart."""
    few: str
    """Words on the seeds without a value of the best, or else of the second; empty if both have all."""


def leads(study: Study) -> list[Lead]:
    """Leads in every group with two methods."""
    found = []
    tested = [test for group in study.groups if (test := _lead(study, group))]
    clear = {test.group for test in _significant(tested)}
    for group in study.groups:
        ranked = means(study, group)
        if len(ranked) > 1:
            first, second = ranked[0][1], ranked[1][1]
            tied = tie(first, second, images_of(study, group))
            few = _few(study, group, ranked[0][0], ranked[1][0])
            found.append(Lead(group, ranked[0][0], first - second, group in clear, tied, few))
    return found


def _few(study: Study, group: Group, best: str, second: str) -> str:
    """`on 1 of 3 seeds`, `LwF on 1 of 3 seeds`, or an empty text."""
    lacking = {label: few for label in (best, second) if (few := seeds_with(study, group, label))}
    if not lacking:
        return ""
    return lacking[best] if best in lacking else f"{display(second)} {lacking[second]}"


def seeds_with(study: Study, group: Group, label: str) -> str:
    """`on 1 of 3 seeds` for a row without an ACC on some seeds of the group, else an empty text."""
    n, of = len(study.values(group, label, ACC)), len(study.seeds(group))
    return f"on {n} of {count(of, 'seed')}" if n < of else ""


def _significant(tested: Sequence[_Test]) -> list[_Test]:
    """Tests that Holm's adjustment over those with seeds enough leaves significant, with the adjusted p."""
    able = [test for test in tested if statistics.smallest_p(test.n) <= statistics.ALPHA]
    adjusted = statistics.holm([test.p for test in able])
    return [test._replace(p=p) for test, p in zip(able, adjusted, strict=True) if p <= statistics.ALPHA]


def significance(study: Study) -> Iterator[str]:
    """Sentence on the leads that are significant, or on why none can be; none without two methods."""
    tested = [test for group in study.groups if (test := _lead(study, group))]
    if not tested:
        return
    able = [test for test in tested if statistics.smallest_p(test.n) <= statistics.ALPHA]
    if not able:
        most = max(test.n for test in tested)
        yield (
            f"With {count(most, 'paired seed')} no difference can be significant: an exact two-sided sign-flip test "
            f"gives p = {statistics.smallest_p(most):.3g} at best, and 6 seeds are needed for p < 0.05."
        )
        return
    most, needed = max(test.n for test in able), statistics.ALPHA / len(able)
    if statistics.smallest_p(most) > needed:
        yield (
            f"No lead of the best over the second can be significant: {count(len(able), 'comparison')} need "
            f"p < {needed:.2g} (Holm), and {count(most, 'paired seed')} give {statistics.smallest_p(most):.2g} at best."
        )
        return
    clear = _significant(able)
    yield (
        f"The lead of the best over the second is significant in {len(clear)} of {count(len(able), 'comparison')} "
        "(sign flips over seeds; p adjusted for all pairs of methods of a benchmark and scenario, as the best is "
        "chosen on the same seeds, and by Holm over these comparisons; 5 %)"
        + (f": {join([_clear(test) for test in clear[:6]])}." if clear else ".")
    )


def _lead(study: Study, group: Group) -> _Test | None:
    ranked = means(study, group)
    if len(ranked) < 2:
        return None
    values = {label: study.values(group, label, ACC) for label, _ in ranked}
    best, second = ranked[0][0], ranked[1][0]
    seeds = sorted(values[best].keys() & values[second].keys())
    if not seeds:
        return None
    pair = statistics.sign_flip([values[best][s] for s in seeds], [values[second][s] for s in seeds])
    p = float(statistics.all_pairs(values).at[best, second]) if pair.difference > 0 else 1.0
    return _Test(group, best, second, p, len(seeds), pair.effect)


def _clear(test: _Test) -> str:
    where = f"{display(test.best)} over {display(test.second)} on {test.group.title}"
    return f"{where} (adjusted p = {test.p:.2g}, d = {effect_size(test.effect)})"


def effect_size(effect: float) -> str:
    """1.25 -> 1.2; inf, of differences that do not vary, -> ∞."""
    return f"{effect:.1f}".replace("inf", "∞").replace("-", "−")
