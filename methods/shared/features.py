"""Features of a network: the inputs of its output layer."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from benchmarks.types import StreamSpec
from methods.networks import targets


def inputs_of(layer: nn.Module, run: Callable[[], object]) -> Tensor:
    """Capture the inputs of `layer` while `run` runs, flattened (b, d)."""
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        run()
    finally:
        hook.remove()
    return seen[0].flatten(1)


def width(spec: StreamSpec) -> int:
    """Number of features d of the benchmark's target network: the inputs of its last linear layer."""
    network = targets.on_meta(spec.network, spec.input_shape, spec.classes_per_task)
    return [module for module in network.modules() if isinstance(module, nn.Linear)][-1].in_features
