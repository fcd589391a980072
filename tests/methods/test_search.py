"""The ranges that methods declare for their hyperparameters."""

import math
from dataclasses import dataclass, fields

import pytest

from benchmarks.types import UserError
from methods import registry
from methods.search import Even, Log, OneOf, ranges, space


@pytest.mark.parametrize("name", registry.available())
def test_every_range_can_hold_the_default(name):
    """A default outside its own range, or of another kind, means that one of the two is a mistake."""
    config_class = registry.load(name).Config
    defaults = {item.name: getattr(config_class(), item.name) for item in fields(config_class)}
    for key, wanted in space(name, config_class).items():
        if defaults[key] is None:
            continue
        if isinstance(wanted, OneOf):
            assert defaults[key] in wanted.values
        else:
            assert wanted.low <= defaults[key] <= wanted.high


def test_ewc_is_searched_over_eight_decades():
    strength = space("ewc", registry.load("ewc").Config)["strength"]
    assert isinstance(strength, Log) and math.log10(strength.high / strength.low) == pytest.approx(8)


def test_a_config_without_ranges_has_that_of_its_learning_rate():
    @dataclass(frozen=True)
    class Plain:
        lr: float = 0.1

    assert list(space("plain", Plain)) == ["lr"]


def test_mistakes_are_named():
    @dataclass(frozen=True)
    class Wrong:
        lr: float = 0.1
        search = ranges(rate=Log(1e-3, 1.0))

    @dataclass(frozen=True)
    class Bare:
        depth: int = 3

    with pytest.raises(UserError, match="wrong: search names 'rate'"):
        space("wrong", Wrong)
    with pytest.raises(UserError, match="nothing to search"):
        space("bare", Bare)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (Log, (0, 1)), (Log, (2, 1)), (Log, (1e-4, math.inf)), (Log, (math.nan, 1)), (Log, ("a", "b")),
        (Even, (1, 1)), (Even, (0, math.inf)), (Even, (-math.inf, 0)), (Even, (None, 1)), (Even, (0, 10**400)),
        (OneOf, ((1,),)), (OneOf, ((1, 1),)), (OneOf, (([1], [1]),)), (OneOf, ("ab",)), (OneOf, (2,)),
    ],
)  # fmt: skip
def test_ranges_of_no_two_values_are_refused(kind, wrong) -> None:
    with pytest.raises(UserError, match=rf"{kind.__name__}\(.*\): (write finite numbers|name at least two different)"):
        kind(*wrong)
