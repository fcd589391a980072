"""Forms of a regulariser's strength: factor of a sum over a network's weights, as in the papers, or of their mean.

The regularisers of HNET, HyperInterval and HyperMask sum over the weights of the target network, and the task's loss is
a mean over samples. On a network of n weights, a value found on one of N weights gives an equal drift of every weight
N/n times less weight against the task's loss. `strength_per` names the form, in all three:

    "network"  the strength multiplies the sum: the papers' form
    "weight"   the strength multiplies the mean over the held weights, so that a value carries over to other networks

A paper's value beta at its network of N held weights becomes beta N per weight (`per_weight`).

Held weights are those in the sum. A regulariser's divisor is its value when each of them has moved by one: N for
squares and for absolute values, the sum of sqrt(n_i) for norms of tensors of n_i weights. Factors of single weights
(Fisher information, soft masks) stay factors: they are shares of a network of any size, and a mean divided by them
would no longer have a gradient towards their origin.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, Protocol

from benchmarks.types import ALL_SCENARIOS, Scenario, StreamSpec, UserError

Per = Literal["network", "weight"]


def of_sum(strength: float, per: Per, held: float) -> float:
    """Factor of a regulariser's sum over `held` weights."""
    return strength if per == "network" else strength / held


def per_weight(strength: float, held: float) -> float:
    """Strength per weight equivalent to `strength` in a sum over `held` weights."""
    return strength * held


def check(method: str, config: Any, *options: str) -> None:
    """Raise UserError for negative strengths."""
    for option in options:
        if getattr(config, option) < 0:
            raise UserError(f"{method}: {option} = {getattr(config, option)} must not be negative")


@dataclass(frozen=True)
class Published:
    """Strengths as published by the authors, each with the network on which it was found."""

    benchmark: str
    network: str
    values: Mapping[str, float]
    """Option -> value, in the papers' form."""
    scenarios: Collection[Scenario] = ALL_SCENARIOS
    stream: Mapping[str, int] = field(default_factory=dict)
    """Fields of StreamSpec in which the published stream differs from the benchmark here."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options with which the values were found, where they differ from the defaults and count other weights."""

    def spec(self, spec: StreamSpec) -> StreamSpec:
        """Published stream, derived from the benchmark's own."""
        return replace(spec, network=self.network, **self.stream)

    def held(self, cls: type[Regularised], spec: StreamSpec, config: Any) -> dict[str, float]:
        """Option -> divisor of its regulariser where the value was found; spec: of the benchmark here."""
        return cls.held_weights(self.spec(spec), replace(config, **self.options))


class Regularised(Protocol):
    """Interface of methods whose strengths may be given per weight."""

    name: ClassVar[str]
    published: ClassVar[tuple[Published, ...]]

    @classmethod
    def held_weights(cls, spec: StreamSpec, config: Any) -> dict[str, float]:
        """Option -> divisor of its regulariser on this stream; see the head of this file."""
        ...


def remarks(cls: type[Regularised], spec: StreamSpec, config: Any, tuned: Collection[str]) -> list[str]:
    """Sentences on strengths in a form that does not fit the network, unless `tuned` there.

    Two cases: the papers' form on another network than the paper's (the sentence gives the equivalent value), and a
    strength per weight that is as small as a paper's value. Raises UserError for strengths per weight without a value.
    """
    known = [p for p in cls.published if p.benchmark == spec.benchmark and spec.scenario in p.scenarios]
    options = sorted({option for p in cls.published for option in p.values})
    if config.strength_per == "weight":
        _refuse_defaults(cls, config, options)
    sentences = []
    for option in options:
        value, here = getattr(config, option), [p for p in known if option in p.values]
        if option in tuned or not value:
            continue
        if config.strength_per == "weight":
            sentences += _unconverted(cls, option, value)
        elif here and all(p.network != spec.network for p in here):
            nearest = next((p for p in here if p.values[option] == value), here[0])
            sentences += _converted(cls, spec, config, option, nearest)
    return sentences


def _refuse_defaults(cls: type[Regularised], config: Any, options: Collection[str]) -> None:
    """Raise UserError if no strength has a value of its own.

    A Config cannot check this: a suite may give the form in one block and the values in others.
    """
    defaults = {item.name: item.default for item in fields(config)}
    if all(getattr(config, option) == defaults[option] for option in options):
        raise UserError(
            f'{cls.name}: strength_per = "weight" needs a value per weight of {" and ".join(options)}; the default is '
            "the paper's, for a sum over all weights (methods/README.md has the converted values)"
        )


def searched(cls: type[Regularised], spec: StreamSpec, config: Any, ranges: Mapping[str, Any]) -> Mapping[str, Any]:
    """Ranges (methods/search.py) per weight that are equivalent to those declared for the papers' form."""
    if config.strength_per == "network":
        return ranges
    held = cls.held_weights(spec, config)
    return {
        option: replace(wanted, low=per_weight(wanted.low, held[option]), high=per_weight(wanted.high, held[option]))
        if option in held and hasattr(wanted, "low")
        else wanted
        for option, wanted in ranges.items()
    }


def _converted(cls: type[Regularised], spec: StreamSpec, config: Any, option: str, paper: Published) -> list[str]:
    value = getattr(config, option)
    try:
        there = paper.held(cls, spec, config)[option]
        here = cls.held_weights(spec, config)[option]
    except UserError:  # a network that cannot be built here: its cell says so
        return []
    times = f"{there / here:.3g} times less" if there > here else f"{here / there:.3g} times more"
    return [
        f"{cls.name}.{option} = {value:g} multiplies a sum over {here:,.0f} weights, and the paper's {paper.network} "
        f"has {there:,.0f}: a drift of each weight counts {times} here against the task's loss; as much as there "
        f"counts {option} = {value * there / here:.4g}, or {option} = {per_weight(value, there):.6g} "
        'with strength_per = "weight"'
    ]


def _unconverted(cls: type[Regularised], option: str, value: float) -> list[str]:
    if all(value != p.values.get(option) for p in cls.published):
        return []
    return [
        f'{cls.name}.{option} = {value:g} with strength_per = "weight" is a paper\'s value for a sum over all weights '
        "and retains almost nothing as one per weight; methods/README.md has the converted values"
    ]
