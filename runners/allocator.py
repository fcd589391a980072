"""How this process gets memory from the system."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of glibc


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
