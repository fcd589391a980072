"""What a cell's training took and kept, as measured: steps, rows, and training images found in the state."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.stream import Stream
from benchmarks.tally import Tally
from benchmarks.types import Task
from methods.base import Method
from methods.networks import targets
from runners.cell.reach import tensors

ALIKE = 0.9
"""Cosine of two centred images from which one is a copy of the other, also one with noise, scaled or rounded."""
LOOKED_AT, COMPARED = 256, 4096
"""Candidates looked at in one tensor (evenly spread), and training images compared at once."""
DIMENSION_AT_LEAST = 16
"""Shorter rows resemble each other by chance."""


def of_task(tally: Tally, task: Task) -> dict[str, int]:
    """What one task took, and what its budget allows."""
    steps = task.budget.steps_for(len(task.train))
    batch = task.budget.batch_size
    return {
        "steps": tally.steps,
        "samples": tally.samples,
        "aside": tally.aside,
        "validation": tally.by_rows.get(id(task.validation.rows), 0),
        "steps_allowed": steps,
        "samples_allowed": steps * batch,
        "available": len(task.train) + sum(len(earlier.train) for earlier in task.previous),
    }


@cache
def network_parameters(name: str, input_shape: tuple[int, ...], n_outputs: int) -> int:
    """Parameters of a benchmark's network. Call it before a method is made, which may change how networks start."""
    with torch.random.fork_rng(devices=[]):
        network = targets.build(name, input_shape, n_outputs)
    return sum(p.numel() for p in network.parameters())


def of_method(method: Method, stream: Stream) -> dict[str, Any]:
    """What the trained method holds. Changes nothing of it."""
    spec = stream.spec
    return {
        "rehearses": bool(method.rehearses),
        "declared": int(method.memory_samples),
        "found": images_kept(method.state_dict(), stream),
        "network": spec.network,
        "network_parameters": network_parameters(spec.network, spec.input_shape, spec.n_outputs),
        "module_parameters": _module_parameters(method),
    }


def _module_parameters(method: Method) -> int:
    """Parameters of all modules that the method holds, each once."""
    modules = [value for value in vars(method).values() if isinstance(value, torch.nn.Module)]
    return sum(p.numel() for p in {id(p): p for module in modules for p in module.parameters()}.values())


@torch.no_grad()
def images_kept(root: object, stream: Stream) -> int:
    """Training images of the stream in tensors below `root`, estimated from a sample of every tensor of their size.

    Rows are compared with the inputs, their transposes and their differences from the mean, centred and normalised:
    noise, a shift, a factor, another dtype hide nothing. Features of images, and other orders of pixels, are not found.
    """
    size = math.prod(stream.spec.input_shape)
    if size < DIMENSION_AT_LEAST:
        return 0
    candidates = [rows for _, value in tensors(root) for rows in _rows(value, size)]
    if not candidates:
        return 0
    picked = [rows[torch.linspace(0, len(rows) - 1, min(LOOKED_AT, len(rows))).long()] for rows in candidates]
    looked = _centred(torch.cat([rows.float().cpu() for rows in picked]))
    best = torch.zeros(len(looked))
    for j in range(len(stream)):
        for batch in stream.task(j).train.batches(COMPARED):
            flat = batch.x.flatten(1).cpu()
            turned = batch.x.transpose(-1, -2).flatten(1).cpu() if batch.x.dim() > 2 else _turned(flat)
            for images in (flat, turned, flat - flat.mean(0)):
                best = torch.maximum(best, (looked @ _centred(images).T).amax(1))
    found, start = 0, 0
    for rows, part in zip(candidates, picked, strict=True):
        hits = int((best[start : start + len(part)] > ALIKE).sum())
        start += len(part)
        if 2 * hits >= int(part.any(1).sum()):  # single rows of weights resemble an image by chance
            found += round(hits * len(rows) / len(part))
    return found


def _rows(value: Tensor, size: int) -> list[Tensor]:
    """The tensor's rows (n, size) where its last, or its first, dimensions may be those of one input."""
    if value.is_meta or value.is_complex() or value.dtype is torch.bool or value.numel() < size:
        return []
    for lead in range(value.dim()):
        if math.prod(value.shape[lead:]) == size:
            return [value.reshape(-1, size)]
    return [value.T] if value.dim() == 2 and len(value) == size else []


def _turned(flat: Tensor) -> Tensor:
    side = math.isqrt(flat.shape[1])
    return flat.unflatten(1, (side, side)).transpose(1, 2).flatten(1) if side * side == flat.shape[1] else flat


def _centred(rows: Tensor) -> Tensor:
    return normalize(rows - rows.mean(1, keepdim=True), dim=1)
