"""Floor of a hypernetwork's step: the time of its output layer's memory traffic at the bandwidth of a copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

STEP = 4 * (1 + 6)
"""Bytes of a step per weight of the output layer: it is read forward; it and Adam's moments are read and written."""
LOOK_AHEAD = 4 * (2 + 3 + 1)
"""Further bytes per weight for the step ahead of a regulariser: the task's gradient is written and read, because the
layers before need all of it for their step; the weight and the moments are read again, and the earlier weight."""
OUTPUT = 4 * 2
"""Bytes per output of a chunked hypernetwork, which writes and reads the weights of the current task's network.

No step needs the outputs for old tasks: their drift is a product of the output layer's inputs and weights.
"""


@dataclass(frozen=True)
class Layer:
    """Output layer of a hypernetwork, or none if it has no weights."""

    weights: int = 0
    outputs: int = 0
    """Target weights that a chunked hypernetwork generates for a task, padding included. A full one has 0 here: its
    outputs are negligible next to its weights."""
    look_ahead: bool = False
    """A chunked one whose regulariser looks ahead."""

    def bytes(self, old_tasks: int) -> int:
        """Traffic of one step after so many tasks."""
        ahead = LOOK_AHEAD if self.look_ahead and old_tasks else 0
        return self.weights * (STEP + ahead) + self.outputs * OUTPUT


def of_method(method: Any) -> Layer:
    """Output layer of a method's hypernetwork."""
    from methods.hypernetworks.network import ChunkedHypernetwork
    from methods.hypernetworks.output_layer import OutputLayer

    network = getattr(method, "hypernetwork", None)
    found = [m.weight for m in network.modules() if isinstance(m, OutputLayer)] if network is not None else []
    if not found:
        return Layer()
    if not isinstance(network, ChunkedHypernetwork):
        return Layer(found[0].numel())
    outputs = len(network.chunks) * network.chunk_size
    return Layer(found[0].numel(), outputs, getattr(method.config, "look_ahead", False))
