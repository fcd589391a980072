"""Memory declaration of a method, from which a cell's footprint is estimated before it runs."""

from __future__ import annotations

from dataclasses import dataclass

BOUNDS = 6
"""Memory of a network's interval bounds in units of ordinary passes; twice as much in float64."""


@dataclass(frozen=True)
class Needs:
    """Memory beyond what `build` allocates. The defaults are those of a network trained by Adam."""

    per_trained: int = 3
    """Floats for each trained parameter: its gradient, Adam's two moments, a copy that model selection keeps."""
    per_task: int = 0
    """Copies of the target network's weights kept for each task: targets of regularisers, boxes, caches."""
    floats_per_task: int = 0
    """Further floats kept for each task, whatever the size of the target network: statistics of classes."""
    generated: int = 0
    """Copies of the target network's weights while a batch is under way: generated weights, gradients, bounds."""
    passes: int = 1
    """Forward passes through the target network held at once in training, in units of an ordinary one."""
    passes_evaluated: int = 1
    """Forward passes held at once in evaluation, certificates included."""
