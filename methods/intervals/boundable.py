"""Whether bounds of a target network are known, found out by its shapes alone, before anything is trained."""

from __future__ import annotations

from functools import lru_cache

import torch

from benchmarks.types import StreamSpec, UserError
from methods.intervals.bounding import propagate
from methods.networks import targets
from methods.networks.tied import to_meta


def unbounded(method: str, spec: StreamSpec) -> str | None:
    """For `skip`: why a method cannot have interval bounds of the stream's network, or None where it can.

    Raises UserError for a network that cannot be built.
    """
    reason = _refusal(spec.network, spec.input_shape)
    return reason and f"{method} cannot run with {spec.network}: {reason}"


@lru_cache(maxsize=64)
def _refusal(name: str, input_shape: tuple[int, ...]) -> str | None:
    with torch.random.fork_rng(devices=[]):
        network = to_meta(targets.build(name.replace("+pretrained", ""), input_shape, 2).eval())
    try:
        propagate(network, {}, torch.zeros(2, *input_shape, device="meta"), rounded=True)
    except UserError as error:
        return str(error)
    return None
