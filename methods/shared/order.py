"""Order of a task's training samples, the same for every method and on any device."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def batch_order(n_samples: int, batch_size: int, seed: int, device: torch.device) -> Iterator[Tensor]:
    """Yield endless index batches (batch_size,) on the device: epochs in random order, reshuffled each time.

    A batch may span two epochs. Drawn on the CPU, so that the order is the same on any device; copied
    in blocks without waiting for the device.
    """
    generator = torch.Generator().manual_seed(seed)
    left = torch.empty(0, dtype=torch.int64)
    while True:
        # At least 65,536 indices per block, so that copies to the device are few.
        parts, have = [left], left.shape[0]
        while have < max(batch_size, 1 << 16):
            parts.append(torch.randperm(n_samples, generator=generator))
            have += n_samples
        indices = torch.cat(parts)
        whole = have - have % batch_size
        block, left = indices[:whole], indices[whole:]
        if device.type == "cuda":
            block = block.pin_memory().to(device, non_blocking=True)
        yield from block.view(-1, batch_size).unbind(0)
