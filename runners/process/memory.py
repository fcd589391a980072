"""Peak memory of one cell in a process that runs many."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

from runners.process import cpu
from runners.records.record import Measurements

_RESET_PEAK = "5"
"""Value that resets the peak when written to /proc/self/clear_refs (proc_pid_clear_refs(5))."""


class MemoryPeak:
    """Counter of peak memory, reset at construction where possible; call `devices.use` for a GPU first."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        cpu.give_back_freed_memory()  # an earlier cell's
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def peaks(self, before: Measurements) -> tuple[int, int]:
        """Peak bytes of the process and of the device, also counting what an earlier attempt measured."""
        on_device = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0
        return max(before.peak_rss, peak_rss()), max(before.peak_device, on_device)


def peak_rss() -> int:
    """Largest resident set of this process, bytes; since the last reset where Linux tells."""
    with suppress(OSError, ValueError, IndexError):
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
