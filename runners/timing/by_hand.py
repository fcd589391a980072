"""Hand-written training loops without this suite: the baseline for the methods' steps."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

STEPS_AT_LEAST = 50
REPEATS = 3


def finetune(stream: Any, device: str, steps: int) -> float:
    """Seconds per step of finetuning on the first task (median of REPEATS)."""
    return _loop(stream, device, steps, 0)


def ewc(stream: Any, device: str, steps: int, old_tasks: int) -> float:
    """Seconds per step of EWC with so many old tasks (median of REPEATS): a term for each of them and each parameter.

    Importances are random numbers here; estimating them is no part of a step.
    """
    return _loop(stream, device, steps, old_tasks)


def _loop(stream: Any, device: str, steps: int, old_tasks: int) -> float:
    import torch
    from torch.nn.functional import cross_entropy

    from methods.networks import targets

    task = stream.task(0)
    x, y, size = task.x, task.y, task.budget.batch_size
    net = targets.build(stream.spec.network, stream.spec.input_shape, stream.spec.classes_per_task).to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    n = max(steps, STEPS_AT_LEAST)
    rows = torch.stack([torch.randperm(len(y), device=device)[:size] for _ in range(n)])
    old = [_anchor(net) for _ in range(old_tasks)]

    def loop() -> float:
        begun = now(torch.device(device))
        for i in range(n):
            optimizer.zero_grad()
            loss = cross_entropy(net(x[rows[i]]), y[rows[i]])
            for importances, centres in old:
                for parameter, importance, centre in zip(net.parameters(), importances, centres, strict=True):
                    loss = loss + 0.5 * (importance * (parameter - centre) ** 2).sum()
            loss.backward()
            optimizer.step()
        return (now(torch.device(device)) - begun) / n

    loop()
    return statistics.median(loop() for _ in range(REPEATS))


def _anchor(net: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Importances and centres of one old task."""
    import torch

    centres = [parameter.detach().clone() for parameter in net.parameters()]
    return [torch.rand_like(centre) for centre in centres], centres


def now(device: torch.device) -> float:
    """Seconds on a clock; on CUDA when all work until here is done."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
