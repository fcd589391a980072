"""Check from shapes alone, before any training, whether a target network has known bounds."""

from __future__ import annotations

from functools import lru_cache

import torch

from benchmarks.types import StreamSpec, UserError
from methods.intervals.bounding import propagate
from methods.networks import targets
from methods.networks.tied import to_meta


def unbounded(method: str, spec: StreamSpec) -> str | None:
    """Reason for `skip` why a method has no interval bounds of the stream's network, or None if it has.

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
