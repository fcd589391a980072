"""Networks in which one tensor goes by several names: tied weights, a module that is used twice."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn


def first_names(network: nn.Module) -> dict[str, str]:
    """Every name of a parameter or buffer -> the first name of the same tensor, as `named_parameters` has it."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in _named(network)}


def to_meta(network: nn.Module) -> nn.Module:
    """The network without its numbers; what was one tensor stays one, which `Module.to` alone does not see to."""
    names = first_names(network)
    network.to("meta")
    tensors = dict(_named(network))
    for name, first in names.items():
        if name != first:
            path, _, last = name.rpartition(".")
            module = network.get_submodule(path)
            (module._parameters if last in module._parameters else module._buffers)[last] = tensors[first]  # type: ignore[assignment]
    return network


def _named(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from network.named_parameters(remove_duplicate=False)
    yield from network.named_buffers(remove_duplicate=False)
