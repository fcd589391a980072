"""Networks in which one tensor has several names: tied weights, or a module that is used twice."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn


def first_names(network: nn.Module) -> dict[str, str]:
    """Map every name of a parameter or buffer to the tensor's first name, the one in `named_parameters`."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in _named(network)}


def to_meta(network: nn.Module) -> nn.Module:
    """Copy the network to the meta device; a shared tensor stays shared, unlike with `Module.to` alone."""
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
