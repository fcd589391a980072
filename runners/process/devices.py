"""Assignment of devices to workers, and initialisation of a device in a process."""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from benchmarks.types import UserError

if TYPE_CHECKING:
    import torch

WORKERS_PER_GPU = 4
_ASK = "import json, sys, torch; print(json.dumps({name: torch.cuda.mem_get_info(name)[0] for name in sys.argv[1:]}))"


def for_workers(device: str, workers: int | None) -> list[str]:
    """One device for each worker: `auto`, `cpu`, `cuda` (all of them, in turn) or `cuda:I`.

    workers: their number, default one per processor core; up to four per GPU, because the local engine
    packs them with cells. Raises UserError for a device that is not there.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise UserError(f"--device {device}: write auto, cpu, cuda or cuda:N")
    gpus = _count_gpus() if device != "cpu" else 0
    if device.startswith("cuda") and gpus == 0:
        raise UserError(f"--device {device}: this machine has no CUDA device that torch can use; take --device cpu")
    if device.startswith("cuda:"):
        if int(device[5:]) >= gpus:
            raise UserError(f"--device {device}: there are {gpus} CUDA devices, numbered from 0")
        return [device] * (workers or _at_most(1))
    if gpus:
        return [f"cuda:{n % gpus}" for n in range(workers or _at_most(gpus))]
    return ["cpu"] * (workers or cores())


def single(device: str) -> str:
    """The device of a command that uses one; `auto` and `cuda` mean the first GPU. Raises UserError as above."""
    return for_workers(device, 1)[0]


def use(device: torch.device) -> None:
    """Make the device the current one of this process; call before anything else is done there.

    This initialises a GPU, without which torch refuses to count its memory. Kernels that name no device,
    as Triton's, are launched on the current one.
    """
    if device.type == "cuda":
        import torch

        torch.cuda.set_device(device)


def give_back(device: str) -> None:
    """Return memory that this process keeps for later tensors to the GPU: cells of other processes need it."""
    if device != "cpu":
        import torch

        gc.collect()  # a method and its optimiser may refer to each other
        with suppress(RuntimeError):  # in an error state the GPU answers nothing
            torch.cuda.empty_cache()


def answers(device: str) -> bool:
    """Check whether the device still computes: after some errors a GPU refuses everything in this process."""
    import torch

    try:
        return float(torch.ones(2, device=device).sum()) == 2.0
    except RuntimeError:
        return False


def _at_most(gpus: int) -> int:
    """Workers that keep `gpus` busy and find a processor core each."""
    return max(gpus, min(WORKERS_PER_GPU * gpus, cores()))


def free_memory(devices: Sequence[str]) -> dict[str, int]:
    """Free bytes of each GPU named; queried in a separate process, because the query allocates memory on each GPU."""
    found = subprocess.run([sys.executable, "-P", "-c", _ASK, *dict.fromkeys(devices)], capture_output=True, text=True)
    if found.returncode != 0:
        raise UserError(f"the GPUs do not answer: {(found.stderr.strip().splitlines() or ['no message'])[-1]}")
    return json.loads(found.stdout)


def cores() -> int:
    """Processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _count_gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
