"""Settings of a process that trains on the CPU: threads, subnormal numbers, memory."""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of glibc
_THREAD_COUNTS: tuple[str, ...] = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
SPINS = 30_000
"""Turns that a thread of OpenMP without work waits awake."""


def variables(threads: int) -> dict[str, str]:
    """Environment of a process that is to train with so many threads; libraries read it when they are loaded.

    OpenMP's threads (libgomp) without work spin for some 20 ms before they sleep, on cores that the output layer's
    own threads need meanwhile: with two threads a step of HyperMask on Split MNIST took 30 ms instead of 19. SPINS
    last for a millisecond or two, which is longer than the pauses of a small network, so that these stay awake.
    Variables that the user has set are kept.
    """
    found = dict.fromkeys(_THREAD_COUNTS, str(threads))
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        found["GOMP_SPINCOUNT"] = str(SPINS)
    return found


def prepare(threads: int) -> None:
    """Limit torch's threads, flush subnormal numbers to zero, keep freed memory. Call before any torch work.

    Adam's moments of a weight that hardly gets a gradient shrink below 1e-38, and processors compute
    with such numbers many times slower: a hypernetwork's step took three times as long. Flushed,
    they are zero, which is negligible next to Adam's eps. Threads inherit the setting, so all
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
    Returns True if the C library accepted the settings (only glibc has them).
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
    Returns True if any memory was returned.
    """
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (OSError, AttributeError):
        return False
