"""Groups of methods that are timed together: one name instead of their methods, benchmarks and suites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from benchmarks.types import UserError, suggestion


@dataclass(frozen=True)
class Group:
    """Methods, and the benchmarks that each of them is timed on."""

    methods: tuple[str, ...]
    suites: Mapping[str, str]
    """Benchmark -> suite whose hyperparameters are used there."""


SUITE = "mnist"
"""Suite of a benchmark that no group names."""
DEFAULT = Group(
    ("finetune", "ewc", "hnet", "hypermask", "intercontinet", "hyperinterval"),
    MappingProxyType({"split-digits": SUITE}),
)
"""Measured without `--group`."""
GROUPS: Mapping[str, Group] = MappingProxyType(
    {
        # A step of these finds thresholds of scores, or masks gradients. Their limits are ratios to a plain step, on a
        # small network, where every operation counts, and on one of 6.5 million weights, where the search does.
        "masks": Group(
            ("finetune", "packnet", "supsup", "wsn", "hat"),
            MappingProxyType({"permuted-mnist-10-wsn": "wsn-permuted", "split-cifar-100-wsn-shuffled": "wsn-cifar100"}),
        )
    }
)


def find(name: str | None) -> Group:
    """The group called `name`, or DEFAULT. Raises UserError with the nearest name."""
    if name is None:
        return DEFAULT
    if name not in GROUPS:
        raise UserError(
            f"--group {name}: there is no such group.{suggestion(name, GROUPS)} Groups: {', '.join(GROUPS)}"
        )
    return GROUPS[name]
