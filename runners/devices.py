"""Which device each worker uses."""

from __future__ import annotations

import os
import re

from benchmarks.types import UserError


def for_workers(device: str, workers: int | None) -> list[str]:
    """One device for each worker: `auto`, `cpu`, `cuda` (all of them, in turn) or `cuda:I`.

    workers: how many, default one for each processor core, or for each GPU. Raises UserError for a
    device that is not there.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise UserError(f"--device {device}: write auto, cpu, cuda or cuda:N")
    gpus = _count_gpus() if device != "cpu" else 0
    if device.startswith("cuda") and gpus == 0:
        raise UserError(f"--device {device}: this machine has no CUDA device that torch can use; take --device cpu")
    if device.startswith("cuda:"):
        if int(device[5:]) >= gpus:
            raise UserError(f"--device {device}: there are {gpus} CUDA devices, numbered from 0")
        return [device] * (workers or 1)
    if gpus:
        return [f"cuda:{n % gpus}" for n in range(workers or gpus)]
    return ["cpu"] * (workers or cores())


def cores() -> int:
    """Processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _count_gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
