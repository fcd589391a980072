"""Resources that a cell takes of a node, and the number of cells that fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

GIB = 1 << 30


@dataclass(frozen=True)
class Need:
    """Resources declared for one cell."""

    cpus: int = 1
    gpus: float = 0.0
    """A fraction shares a GPU among cells."""
    memory: int = 0
    """Bytes of the node's main memory; 0 declares nothing."""

    def __str__(self) -> str:
        parts = [f"{self.cpus} CPU"]
        if self.gpus:
            parts.append(f"{self.gpus:g} GPU")
        if self.memory:
            parts.append(f"{self.memory / GIB:.3g} GiB of memory")
        return ", ".join(parts)

    def for_ray(self) -> dict[str, Any]:
        """The options of a Ray task."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, "memory": self.memory or None}


def fitting(need: Need, nodes: Sequence[dict[str, float]]) -> int:
    """Number of cells that fit on the nodes together; resources as Ray names them (CPU, GPU, memory)."""
    return sum(_on_one(need, node) for node in nodes)


def _on_one(need: Need, node: dict[str, float]) -> int:
    counts = [node.get("CPU", 0.0) / need.cpus]
    if need.gpus >= 1:
        counts.append(node.get("GPU", 0.0) / need.gpus)
    elif need.gpus:
        counts.append(node.get("GPU", 0.0) * math.floor(1 / need.gpus + 1e-9))  # a cell's fraction is of one GPU
    if need.memory:
        counts.append(node.get("memory", 0.0) / need.memory)
    return math.floor(min(counts))


def largest(nodes: Sequence[dict[str, float]]) -> str:
    """The largest node in words."""
    if not nodes:
        return "nothing: no node is alive"
    node = max(nodes, key=lambda node: (node.get("GPU", 0.0), node.get("CPU", 0.0), node.get("memory", 0.0)))
    memory = node.get("memory", 0.0) / GIB
    return f"{node.get('CPU', 0.0):g} CPU, {node.get('GPU', 0.0):g} GPU, {memory:.3g} GiB of memory"
