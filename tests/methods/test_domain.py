"""Values of a Config outside the method's domain end in a sentence, not in a traceback or a run without meaning."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.types import UserError
from methods import registry

OUTSIDE = [
    *(("intercontinet", name, value) for name, value in (
        ("contraction_share", 1.5), ("contraction_share", -0.5), ("contraction_share", float("nan")), ("lookback", 0),
        ("max_radius", -1.0), ("threshold", 5.0), ("threshold", -1.0), ("fit_samples", 0), ("momentum", -1.0),
        ("expansion", -1.0), ("robust_weight", -1.0), ("milestones", (-0.5, 2.0)), ("milestone_factor", -1.0),
        ("search_lr", -1.0),
    )),
    ("intercontinet-released", "contraction_share", 1.5), ("intercontinet-released", "scale_init", -1000.0),
    *(("hypermask", name, value) for name, value in (
        ("check_every", 0), ("embedding", 0), ("hidden", (0,)), ("chunk", -1),
    )),
    *(("hyperinterval", name, value) for name, value in (
        ("select_every", 0), ("embedding", -1), ("hidden", (10, 0)), ("chunk", -5), ("eps", -1.0),
        ("kappa", float("nan")),
    )),
    *(("hnet", name, value) for name, value in (
        ("embedding", 0), ("hidden", (-1,)), ("chunk", -5), ("chunk_embedding", 0),
    )),
    ("hnet-lstm", "hidden", 0),
]  # fmt: skip


@pytest.mark.parametrize(("method", "name", "value"), OUTSIDE)
def test_a_value_outside_the_domain_is_refused_by_its_name(method: str, name: str, value: object) -> None:
    cls: Any = registry.load(method)
    with pytest.raises(UserError, match=f"{method.removesuffix('-released')}: {name} = "):
        cls.Config(**{name: value})


@pytest.mark.parametrize("method", ["hyperinterval", "hypermask"])
def test_a_chunk_needs_an_embedding_where_there_are_chunks(method: str) -> None:
    cls: Any = registry.load(method)
    cls.Config(chunk=0, chunk_embedding=0)
    with pytest.raises(UserError, match=f"{method}: chunk_embedding = 0 must be at least 1"):
        cls.Config(chunk=10, chunk_embedding=0)


def test_the_ends_of_a_domain_are_in_it() -> None:
    cls: Any = registry.load("intercontinet")
    cls.Config(contraction_share=0.0, threshold=1.0, milestones=(0.0, 1.0), max_radius=0.0)


def test_classes_are_not_described_by_features_of_the_batch_at_hand() -> None:
    cls: Any = registry.load("hyperinterval")
    with pytest.raises(UserError, match='inference = "fecam" describes classes once'):
        cls.Config(batch_norm="official", bounds="endpoints", inference="fecam")
