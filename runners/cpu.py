"""Settings of a process that trains on the CPU: threads, tiny numbers, memory."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of glibc


def prepare(threads: int) -> None:
    """Bound torch's threads, flush tiny numbers to zero, keep freed memory. Call before any torch work.

    Adam's moments of a weight that hardly gets a gradient shrink below 1e-38, and processors compute
    with such numbers many times slower: a hypernetwork's step took three times as long. Flushed,
    they are zero, which beside Adam's eps makes no difference. Threads inherit the setting, so all
    engines must call this to give the same numbers.
    """
    import torch

    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)
    keep_freed_memory()


def keep_freed_memory() -> bool:
    """Make glibc keep freed blocks for reuse instead of giving each back to the system at once.

    A training step frees and asks for the same tens of megabytes again and again; without this the
    system clears their pages every time, which costs a hypernetwork's step up to half its speed.
    Returns whether the C library took the settings (others than glibc have none).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    largest = 2**31 - 1
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, largest))


def give_back_freed_memory() -> bool:
    """Return all freed memory to the system, which `keep_freed_memory` does not; call it between tasks and cells.

    The largest blocks of an earlier task are split by small ones, so that others of their size no longer fit there:
    without this HyperInterval held 5.3 times its output layer's weights on Split MNIST in TIL, with it 3.8 times.
    Returns whether there was anything to give back.
    """
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (OSError, AttributeError):
        return False
